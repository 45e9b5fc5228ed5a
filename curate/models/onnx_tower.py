"""Frozen image networks on a CPU: ONNX Runtime runs them about twice as fast as PyTorch (`benchmarks/encoders.py`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3

from curate.models.onnx_cache import cached, export_onnx
from curate.models.onnx_session import cpu_session
from curate.schema.errors import first_line
from curate.schema.ids import digest

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

TOLERANCE = 1e-4  # largest |a - b| / |b| that counts as the same network
LARGEST = 1_900_000_000  # bytes of weights; one ONNX file ends at 2 GiB


class _Other(RuntimeError):
    """The exported network gives something else."""


def on_cpu(name: str, net: Any, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """`net`, a `torch.nn.Module` in eval mode, as a function of fp32 tensors of one `shape`.

    It is exported once a machine and kept in the cache under the digest of its weights and layers. At each load it is
    compared with PyTorch on noise, and exported anew where it differs: layers do not tell all that a network computes.
    Where it cannot be exported, is too large for one file, or still differs by more than `TOLERANCE`, PyTorch runs it,
    and the log says why.

    Args:
        name: of the network and of what is taken from it; names the file.
    """
    import torch

    state = net.state_dict()
    large = sum(v.numel() * 4 for v in state.values())
    try:
        if large > LARGEST:
            raise _Other(f"its weights are {large / 1e9:.1f} GB, and one ONNX file holds 2")
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            true = net(noise)
        file = "".join(c if c.isalnum() or c in "-." else "-" for c in f"{name}-{'x'.join(map(str, shape))}")
        key = digest(f"{digest_of_state(state)}{net!r}".encode())
        path = cached(file, key, lambda beside: _export(net, noise, true, beside))
        if _apart(path, noise, true) > TOLERANCE:
            path.unlink(missing_ok=True)
            path = cached(file, key, lambda beside: _export(net, noise, true, beside))
        session = cpu_session(path)
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        log.warning("%s runs in PyTorch, which is slower than ONNX Runtime: %s", name, first_line(error))
        plain: Callable[[Tensor], Tensor] = net
        return plain
    return lambda x: torch.from_numpy(session.run(None, {"image": x.numpy()})[0])


def _export(net: Any, noise: Tensor, true: Tensor, path: Path) -> None:
    export_onnx(net, noise, path, "image", ["features"])
    if (apart := _apart(path, noise, true)) > TOLERANCE:
        raise _Other(f"exported, its features differ by {apart:.1e} from PyTorch's")


def _apart(path: Path, noise: Tensor, true: Tensor) -> float:
    """Relative difference of an exported network's features; infinite for another shape or what is not finite."""
    found = cpu_session(path).run(None, {"image": noise.numpy()})[0]
    if found.shape != tuple(true.shape):
        return float("inf")
    apart = float(np.linalg.norm(found - true.numpy()) / max(float(true.norm()), 1e-12))
    return apart if np.isfinite(apart) else float("inf")


def digest_of_state(state: Mapping[str, Tensor]) -> str:
    """BLAKE3 over names, shapes and fp32 bytes of tensors in order of name, however they are stored."""
    seen = blake3()
    for name in sorted(state):
        value = state[name].detach().cpu().float().contiguous()
        seen.update(f"{name}{list(value.shape)}".encode())
        seen.update(value.numpy().tobytes())
    return str(seen.hexdigest())

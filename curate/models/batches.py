"""How networks of PyTorch are run so that an item's ids do not depend on its neighbours: one batch shape, full fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.models.passes import NotFiniteError, Passes, raised
from curate.schema.errors import CurateError, first_line

BATCH = 8
"""Images at once on a GPU, where nothing else is said. On one CPU thread 8 at once take as long as one by one, and
padding a lone one to 8 would cost eightfold."""

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def usable(device: str) -> torch.device:
    """The device of that name.

    Raises:
        CurateError: PyTorch knows no such device, or sees none.
    """
    try:
        found = torch.device(device)
        torch.zeros(1, device=found)
    except (RuntimeError, AssertionError) as error:  # builds without CUDA assert
        raise CurateError(
            f"device {device} cannot be used: {first_line(error)}", "give cpu, or a device that is there"
        ) from error
    return found


@contextmanager
def exact(device: torch.device, dtype: str = "float32") -> Iterator[None]:
    """No gradient, and on CUDA full fp32: by default cuDNN may round to TF32 and time its kernels.

    Args:
        dtype: another than float32 is PyTorch's autocast to it; float32 is without, whatever the caller's.
    """
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    low = dtype != "float32"
    with torch.inference_mode(), torch.autocast(device.type, DTYPES[dtype] if low else None, enabled=low), flags:
        yield


@contextmanager
def in_fp32(like: Tensor) -> Iterator[None]:
    """No autocast on the device of a tensor: quantisers compute in fp32 whatever their network does (law 8)."""
    with torch.autocast(like.device.type, enabled=False):
        yield


def finite(latents: Tensor) -> Tensor:
    """What a network gave, as fp32.

    Raises:
        NotFiniteError: a value is NaN or infinite: a quantiser would give some id for it.
    """
    if not bool(latents.isfinite().all()):
        kind = latents.device.type
        low = torch.is_autocast_enabled(kind)
        raise NotFiniteError(str(torch.get_autocast_dtype(kind) if low else latents.dtype).removeprefix("torch."))
    return latents.float()


def in_batches(
    stacks: Sequence[NDArray[Any]],
    work: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    device: torch.device,
    passes: Passes,
    computed_in: str = "float32",
) -> NDArray[Any]:
    """`work` over the rows of all stacks, as `passes` groups them.

    Args:
        shape, dtype: of what `work` gives for one row.
        computed_in: the network's dtype, as `exact` takes it.

    Returns:
        `(rows of all stacks, *shape)`; `split` cuts it up again.

    Raises:
        Exception: `work` fails on a row, or the row does not fit the GPU.
    """

    def run(rows: list[NDArray[Any]]) -> Sequence[NDArray[Any]]:
        with exact(device, computed_in):
            return list(work(torch.from_numpy(np.stack(rows)).to(device)).cpu().numpy())

    out = np.empty((sum(map(len, stacks)), *shape), dtype)
    rows: list[NDArray[Any]] = [row for stack in stacks for row in stack]
    for i, found in enumerate(passes(rows, run)):
        out[i] = raised(found)
    return out


def split(every: NDArray[Any], like: Sequence[Any], ndim: int) -> list[Any]:
    """Cuts a concatenation up again; items of `ndim` dimensions were single ones and lose the first axis."""
    out, at = [], 0
    for item in like:
        count = 1 if item.ndim == ndim else len(item)
        out.append(every[at] if item.ndim == ndim else every[at : at + count])
        at += count
    return out

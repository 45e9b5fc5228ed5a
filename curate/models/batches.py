"""How networks are run so that an item's ids do not depend on its neighbours: one batch shape, full fp32."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.schema.errors import CurateError, first_line

# On one CPU thread 8 images at once take as long as one by one, and padding a lone one to 8 would cost eightfold.
MICRO_BATCH = {"cpu": 1, "cuda": 8}


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
def exact(device: torch.device, bf16: bool = False) -> Iterator[None]:
    """No gradient, no autocast, and on CUDA full fp32: by default cuDNN may round to TF32 and time its kernels.

    Args:
        bf16: True for autocast to bfloat16, which is what its effect is measured with.
    """
    flags = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16), flags:
        yield


def in_micro_batches(
    stacks: Sequence[NDArray[Any]],
    work: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    device: torch.device,
) -> NDArray[Any]:
    """`work` over the rows of all stacks, always in the same batch shape, the last one padded.

    Kernels choose their order of summation by shape.

    Args:
        shape, dtype: of what `work` gives for one row.

    Returns:
        `(rows of all stacks, *shape)`; `split` cuts it up again.
    """
    out = np.empty((sum(map(len, stacks)), *shape), dtype)
    every, size = np.concatenate(stacks) if stacks else out, MICRO_BATCH.get(device.type, 8)
    for i in range(0, len(every), size):
        part = every[i : i + size]
        padded = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])
        with exact(device):
            done = work(torch.from_numpy(padded).to(device))
        out[i : i + len(part)] = done.cpu().numpy()[: len(part)]
    return out


def split(every: NDArray[Any], like: Sequence[Any], ndim: int) -> list[Any]:
    """Cuts a concatenation up again; items of `ndim` dimensions were single ones and lose the first axis."""
    out, at = [], 0
    for item in like:
        count = 1 if item.ndim == ndim else len(item)
        out.append(every[at] if item.ndim == ndim else every[at : at + count])
        at += count
    return out

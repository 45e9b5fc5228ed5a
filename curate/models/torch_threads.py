"""PyTorch on one thread, so that the same input gives the same floats on every machine (law 6)."""

from __future__ import annotations

import sys


def one_torch_thread() -> None:
    """PyTorch computes on one thread from now on, where a model has imported it: those of text do without."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)

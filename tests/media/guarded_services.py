"""Media helpers that a file took over, or that die of some."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np

import curate.media.decode
import curate.media.examine
import curate.media.probe
from curate.media.service import MediaService


class TakenOver(MediaService):
    """It answers of a view and of a shot what the worker did not ask for."""

    def whole_spans(self, data: bytes, *args: Any) -> Any:
        return [np.array([[2, 1]]), [0, 0, 0.0, 0.0, 0]]

    def decode(self, data: bytes, *args: Any) -> Any:
        return [[[0, np.zeros((1, 9, 9, 3), np.uint8), np.zeros(1)]], [0, 0, 0.0, 0.0, 0]]


class Poisoned(MediaService):
    """It dies, or fails, of PNGs that are 13 to 16 pixels wide: when they are decoded, or (14) opened."""

    def __init__(self) -> None:
        super().__init__()
        deaths = {13: _die, 15: _no_memory, 16: _odd}
        for module in (curate.media.examine, curate.media.decode):
            module.decode_image = _with(module.decode_image, deaths)  # type: ignore[attr-defined]
        for module in (curate.media.examine, curate.media.probe):
            module.open_image = _with(module.open_image, {14: _die})  # type: ignore[attr-defined]


def _with(function: Callable[..., Any], deaths: dict[int, Callable[[], None]]) -> Callable[..., Any]:
    def called(data: bytes, *args: Any, **kwargs: Any) -> Any:
        if data.startswith(b"\x89PNG"):
            deaths.get(int.from_bytes(data[16:20], "big"), lambda: None)()
        return function(data, *args, **kwargs)

    return called


def _die() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _no_memory() -> None:
    raise MemoryError


def _odd() -> None:
    raise KeyError("odd")

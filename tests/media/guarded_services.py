"""A media helper that a file took over: its answers have the wrong form."""

from __future__ import annotations

from typing import Any

import numpy as np

from curate.media.service import MediaService


class TakenOver(MediaService):
    """It answers of a view and of a shot what the worker did not ask for."""

    def find_shots(self, file: int, data: bytes | None, *args: Any) -> Any:
        return [np.array([[2, 1]]), [0, 0, 0.0, 0.0, 0]]

    def decode(self, file: int, data: bytes | None, *args: Any) -> Any:
        return [[[0, np.zeros((1, 9, 9, 3), np.uint8), np.zeros(1)]], [0, 0, 0.0, 0.0, 0]]

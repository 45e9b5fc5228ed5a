"""A second reader of video: decord (FFmpeg 4), behind the same interface as PyAV's.

Use it where you know the media: constant frame rate, whole, upright. It is not trusted beyond that, and `decode` uses
PyAV unless asked:

* it takes a neighbouring frame for one that it cannot decode, and says nothing (dmlc/decord pull request 119);
* it picks wrong frames on variable frame rates and on VP8 (issues 54, 91);
* it reports neither damage nor where a truncated file ends.

Variable frame rates and rotation are therefore refused here with a MediaError; damage cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.clips import MICRO
from curate.media.container import Deadline
from curate.media.reader import Picture
from curate.media.video import TOLERANCE_US, PyAVReader, display_matrix
from curate.schema.errors import MediaError

_UPRIGHT = (1, 0, 0, 1)
_EVEN_US = 1500
"""How far frames may be off an even rate: Matroska rounds to 1 ms."""


class DecordReader:
    """See the module's docstring. PyAV looks at the file first, so that the same containers are let in.

    Args:
        data: the whole file.
        deadline: checked between frames.

    Raises:
        MediaError: data that PyAV or decord cannot open, a variable frame rate, or rotation.
    """

    def __init__(self, data: bytes, deadline: Deadline | None = None) -> None:
        import decord

        self._deadline = deadline or Deadline(float("inf"))
        with PyAVReader(data, self._deadline) as exact:
            self._display = exact.display_size()
            self._duration_us = exact.duration_us()
            a, b, c, d = display_matrix(exact.first)
        if (np.sign((a, b, c, d)) != _UPRIGHT).any():
            raise MediaError("decord is not used for rotated video.")
        try:
            self._reader: Any = decord.VideoReader(BytesIO(data), ctx=decord.cpu(0), num_threads=1)
            stamps = np.asarray(self._reader.get_frame_timestamp(range(len(self._reader))), np.float64)
        except (RuntimeError, decord.DECORDError) as error:
            raise MediaError("decord cannot open this video.") from error
        starts = stamps[:, 0] - stamps[0, 0]
        even = np.linspace(0, starts[-1], len(starts))
        if np.abs(starts - even).max() * MICRO > _EVEN_US:
            raise MediaError("decord is not used for variable frame rates.")
        self._start_us = np.rint(starts * MICRO).astype(np.int64)
        self._end_us = np.rint((stamps[:, 1] - stamps[0, 0]) * MICRO).astype(np.int64)

    def duration_us(self) -> int:
        """See `VideoReader.duration_us`; asked of PyAV."""
        return self._duration_us

    def pictures(self, start_us: int, end_us: int) -> Iterator[Picture]:
        """See `VideoReader.pictures`; damage is not noticed."""
        first = max(0, int(np.searchsorted(self._start_us, start_us + TOLERANCE_US, side="right")) - 1)
        for i in range(first, len(self._start_us)):
            if self._start_us[i] >= end_us:
                return
            self._deadline.check()
            rgb = partial(self._rgb, i)
            yield Picture(int(self._start_us[i]), int(self._end_us[i]), self._display, rgb)

    def close(self) -> None:
        """Free the reader."""
        self._reader = None

    def _rgb(self, index: int) -> NDArray[np.uint8]:
        import decord

        try:
            return np.asarray(self._reader[index].asnumpy(), np.uint8)
        except (RuntimeError, decord.DECORDError) as error:
            raise MediaError(f"The video is damaged at {self._start_us[index] / MICRO:.3f} s.") from error

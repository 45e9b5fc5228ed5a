"""A second reader of video: decord (FFmpeg 4) makes the pixels, PyAV says which frames there are.

decord alone is not to be trusted:

* it takes a neighbouring frame for one that it cannot decode, and says nothing (dmlc/decord pull request 119);
* it picks wrong frames on variable frame rates, on VP8 and in transport streams (issues 54, 91);
* it reports neither damage nor where a truncated file ends.

So PyAV decodes the same frames beside it, without converting their colours: times, shots and damage are PyAV's
whatever the reader. decord is asked for the pixels of upright H.264 (8 bit, 4:2:0) of a constant rate in MP4 and
Matroska; of all else, and of a frame that decord has not got, they are PyAV's. Where both decode, they differ by the
interpolation of chroma, so what is made of frames names its reader.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.clips import MICRO
from curate.media.container import Deadline
from curate.media.video import PyAVReader

_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_UPRIGHT = (1, 0, 0, 1)
_EVEN_US = 1500
"""How far frames may be off an even rate: Matroska rounds to 1 ms."""


class DecordReader(PyAVReader):
    """As `PyAVReader`, with the pixels of decord where the video suits it; see the module's docstring."""

    def __init__(self, data: bytes, deadline: Deadline | None = None, name: str = "") -> None:
        super().__init__(data, deadline, name)
        self._starts_us = np.zeros(0, np.int64)
        self._decord: Any = None
        if self._suits():
            self._open_decord(data)

    @property
    def is_used(self) -> bool:
        """True if decord makes the pixels."""
        return self._decord is not None

    def pixels_of(self, start_us: int, convert: Callable[[], NDArray[np.uint8]]) -> Callable[[], NDArray[np.uint8]]:
        """See `PyAVReader.pixels_of`."""
        index = int(np.searchsorted(self._starts_us, start_us - _EVEN_US))
        if index == len(self._starts_us) or self._starts_us[index] > start_us + _EVEN_US:
            return convert
        return partial(self._pixels, index, convert)

    def close(self) -> None:
        """See `PyAVReader.close`."""
        self._decord = None
        super().close()

    def _suits(self) -> bool:
        """True if decord shows frames of such a video as PyAV does."""
        stream = self.stream
        return (
            stream.codec_context.codec.canonical_name == "h264"
            and stream.container.format.name in _CONTAINERS
            and self.first.format.name == "yuv420p"
            and tuple(np.sign(self.matrix(self.first))) == _UPRIGHT
            and not self.cropped
            and not self.is_shifted
        )

    def _open_decord(self, data: bytes) -> None:
        import decord

        try:
            found = decord.VideoReader(BytesIO(data), ctx=decord.cpu(0), num_threads=1)
            stamps = np.asarray(found.get_frame_timestamp(range(len(found))), np.float64)[:, 0]
        except (RuntimeError, decord.DECORDError):
            return
        starts = stamps - stamps[0]
        if np.abs(starts - np.linspace(0, starts[-1], len(starts))).max() * MICRO <= _EVEN_US:
            self._decord, self._starts_us = found, np.rint(starts * MICRO).astype(np.int64)

    def _pixels(self, index: int, convert: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        import decord

        try:
            return np.asarray(self._decord[index].asnumpy(), np.uint8)
        except (RuntimeError, decord.DECORDError):
            return convert()

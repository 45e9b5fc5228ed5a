"""A second reader of video: decord (FFmpeg 4), behind the same interface as PyAV's.

`decode` uses PyAV unless asked, and the helper process that builds decode in knows only PyAV. decord alone is not to be
trusted:

* it takes a neighbouring frame for one that it cannot decode, and says nothing (dmlc/decord pull request 119);
* it picks wrong frames on variable frame rates, on VP8 and in transport streams (issues 54, 91);
* it reports neither damage nor where a truncated file ends.

So it is used for upright H.264 of a constant rate in MP4 and Matroska only, and PyAV decodes the same span beside it,
without making frames: damage that PyAV notices is a MediaError here too, and so is a frame that only one of the two
has. It is therefore no faster than PyAV alone; it is there to compare with.
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
from curate.media.reader import TimedFrame
from curate.media.video import TOLERANCE_US, PyAVReader, display_matrix
from curate.schema.errors import MediaError

_CODECS = ("h264",)
_CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
_UPRIGHT = (1, 0, 0, 1)
_EVEN_US = 1500
"""How far frames may be off an even rate: Matroska rounds to 1 ms."""


class DecordReader:
    """See the module's docstring. PyAV looks at the file first, so that the same containers are let in.

    Args:
        data: the whole file.
        deadline: checked between frames.

    Raises:
        MediaError: data that PyAV or decord cannot open; another codec or container, a variable frame rate, rotation, a
            crop.
    """

    def __init__(self, data: bytes, deadline: Deadline | None = None) -> None:
        import decord

        self._data = data
        self._deadline = deadline or Deadline(float("inf"))
        with PyAVReader(data, self._deadline) as exact:
            codec, kind = exact.stream.codec_context.codec.canonical_name, exact.stream.container.format.name
            if codec not in _CODECS or kind not in _CONTAINERS:
                raise MediaError(f"decord is not used for {codec} in {kind.partition(',')[0]}.")
            self._display = exact.display_size()
            self._duration_us = exact.duration_us()
            a, b, c, d = display_matrix(exact.first)
            cropped = exact.cropped
        if cropped:
            raise MediaError("decord is not used for cropped video.")
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

    def frames(self, start_us: int, end_us: int) -> Iterator[TimedFrame]:
        """See `VideoReader.frames`.

        Raises MediaError for damage that PyAV finds in the span, and where decord's frames are not those of the file.
        """
        first = max(0, int(np.searchsorted(self._start_us, start_us + TOLERANCE_US, side="right")) - 1)
        behind = int(np.searchsorted(self._start_us, end_us, side="left"))
        with PyAVReader(self._data, self._deadline) as exact:
            true_us = np.array([frame.start_us for frame in exact.frames(start_us, end_us)], np.int64)
        ours_us = self._start_us[first:behind]
        if len(true_us) != len(ours_us) or np.abs(true_us - ours_us).max(initial=0) > _EVEN_US:
            raise MediaError(f"decord does not find the frames of the video from {start_us / MICRO:.3f} s on.")
        for i in range(first, behind):
            self._deadline.check()
            rgb = partial(self._rgb, i)
            yield TimedFrame(int(self._start_us[i]), int(self._end_us[i]), self._display, rgb)

    def close(self) -> None:
        """Free the reader."""
        self._reader = None

    def _rgb(self, index: int) -> NDArray[np.uint8]:
        import decord

        try:
            return np.asarray(self._reader[index].asnumpy(), np.uint8)
        except (RuntimeError, decord.DECORDError) as error:
            raise MediaError(f"The video is damaged at {self._start_us[index] / MICRO:.3f} s.") from error

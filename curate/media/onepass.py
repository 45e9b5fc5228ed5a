"""Views of the clips of one video from one run over its frames (law 4).

Two ways. Where the clips are known (`Film`), their frames are read one after the other, without a seek between them.
Where they are not, because the same run finds the shots (`Gatherer`), frames are kept as they were decoded until their
shot closes: only then it is known where its clips begin, and so which of them are shown.

Both give what `decode` gives, for frames about which there is no doubt. Damage, and times that do not follow from the
frame itself, may look otherwise from another key frame: such clips are left to `decode`.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.media.clips import MICRO, Span, cut_spans
from curate.media.decode import frame_views
from curate.media.decodes import counted
from curate.media.requests import Decoded, Frames
from curate.media.spill import SpillBuffer, Spilled
from curate.media.video import LOOK_AHEAD, TOLERANCE_US, PyAVReader, Shown, TimedFrame, advance
from curate.schema.errors import MediaError

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

HELD_BYTES = 256 << 20
"""Frames of shots that are still open, in memory: 7 s of 720p at 25 Hz."""

FILE_BYTES = 2 << 30
"""What of them is put into a temporary file beyond that: 27 s of 1080p. Clips whose frames find no room are decoded a
second time."""

VIEW_BYTES, VIEW_FILE_BYTES = 64 << 20, 4 << 30
"""Views of clips until all shots are found, in memory and in a temporary file: two hours of them in the file. What
finds no room is decoded a second time."""

_NEAR_US = 2 * MICRO
"""A clip that begins so soon after the one before is reached by decoding on."""

_PLANAR = frozenset(
    {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv420p10le", "yuv422p10le", "gray"}
)
"""Formats of frames that are put into a file: planes of rows, and nothing beside."""


class Film:
    """Clips of one video, read in their order.

    Args:
        reader: opened; of one recording (not `joined`).
    """

    def __init__(self, reader: PyAVReader) -> None:
        self._reader = reader
        self._run: Iterator[Shown] | None = None
        self._last: deque[Shown] = deque(maxlen=LOOK_AHEAD + 3)  # as many as a clip reads beyond its end

    def views(self, span: Span, views: list[Frames]) -> Decoded | None:
        """The views of a clip; None where `decode` must say what becomes of it."""
        out = Decoded()
        try:
            frames = self._reader.frames_of(self._from(span.start_us), span.start_us, span.end_us)
            frame_views(out, frames, views, span)
        except MediaError:
            self._run = None
            return None
        return out

    def _from(self, start_us: int) -> Iterator[Shown]:
        last = self._last
        near = self._run is not None and last and last[0].start_us <= start_us + TOLERANCE_US
        if near and start_us <= last[-1].start_us + _NEAR_US:
            first, run = last[0], self._on(list(last)[1:])
        else:
            last.clear()
            self._run = self._reader.frames_from(start_us)
            run = self._on([])
            found = next(run, None)
            if found is None:
                return
            first = found
        first, run = advance(first, run, start_us)
        yield first
        yield from run

    def _on(self, again: list[Shown]) -> Iterator[Shown]:
        """Frames that were read before, then new ones."""
        yield from again
        assert self._run is not None
        for shown in self._run:
            if shown.doubtful:
                raise MediaError("There is doubt about a frame.")
            self._last.append(shown)
            yield shown


@dataclass(frozen=True)
class _Held:
    """A frame of an open shot: in memory, or its planes `spilled` in a file."""

    timed: TimedFrame
    doubtful: bool
    size: int
    frame: VideoFrame | None
    spilled: Spilled | None = None


class Gatherer:
    """Views of the clips of a video while its shots are found.

    Args:
        reader: whose frames they are.
        views: wanted of each clip.
        max_seconds: of a clip, as for `cut_spans`.
    """

    def __init__(self, reader: PyAVReader, views: list[Frames], max_seconds: float) -> None:
        self._reader, self._views, self._max_seconds = reader, views, max_seconds
        self._held: deque[_Held] = deque()
        self._open_us = 0
        self._closed: list[Span] = []
        self._made: dict[Span, tuple[Decoded, Spilled]] = {}
        self._in_memory = 0
        self._spilled = 0
        self._packers: dict[tuple[int, int, str, int, int], _Packer] = {}
        self._frames = SpillBuffer(0, FILE_BYTES)
        self._results = SpillBuffer(VIEW_BYTES, VIEW_FILE_BYTES)
        self._room = True

    def see(self, shown: Shown, timed: TimedFrame, cuts_us: Sequence[int]) -> None:
        """Take in the next frame, and the shots that were found to begin with it or before it."""
        if not self._room:
            return
        size = sum(plane.buffer_size for plane in shown.frame.planes)
        self._held.append(_Held(timed, shown.doubtful, size, shown.frame))
        self._in_memory += size
        for at in cuts_us:
            if at > self._open_us:
                self._closed += cut_spans([Span(self._open_us, at)], self._max_seconds)
                self._open_us = at
        while self._closed and self._made_of(self._closed[0], ended=False):
            del self._closed[0]
        self._forget(self._closed[0].start_us if self._closed else self._open_us)
        self._spill()

    def finish(self, clips: Sequence[Span]) -> None:
        """All frames were seen, and these are the clips: those at the end are made, and all else is let go."""
        for clip in clips:
            if clip not in self._made and self._room and not clip.missing and not self._reader.damaged:
                self._made_of(clip, ended=True)
        while self._held:
            self._drop()
        self._frames.close()

    def take(self, clip: Span) -> Decoded | None:
        """The views of a clip, once; None where they were not made, and it is decoded again."""
        found = self._made.pop(clip, None)
        if found is None:
            counted.again += 1
            return None
        out, spilled = found
        out.views = dict(zip(self._views, spilled.look(), strict=True))
        spilled.drop()
        return out

    def close(self) -> None:
        """Free all."""
        self._held.clear()
        self._made.clear()
        self._frames.close()
        self._results.close()

    def _made_of(self, clip: Span, *, ended: bool) -> bool:
        """Make the views of a clip, if that can be done; False while frames after it are awaited."""
        starts = [held.timed.start_us for held in self._held]
        first = bisect_right(starts, clip.start_us + TOLERANCE_US) - 1
        end = max(bisect_left(starts, clip.end_us), first + 1)
        if not ended and len(starts) <= end + LOOK_AHEAD:
            return False
        if first < 0 or any(held.doubtful for held in list(self._held)[first : end + LOOK_AHEAD + 1]):
            return True
        frames = [held.timed for held in list(self._held)[first : end + 1]]
        run = [replace(a, end_us=b.start_us) for a, b in pairwise(frames)]
        if end == len(starts):  # the last one ends as the stream does
            run.append(replace(frames[-1], end_us=self._reader.held_us(frames[-1].end_us)))
        out = Decoded()
        try:
            frame_views(out, run, self._views, clip)
        except MediaError:
            return True
        spilled = self._results.put([out.views[view] for view in self._views])
        if spilled is None:
            self._room = False
        else:
            out.views = {}
            self._made[clip] = out, spilled
        return True

    def _forget(self, before_us: int) -> None:
        """Drop the frames that no clip from `before_us` on shows."""
        while len(self._held) > 1 and self._held[1].timed.start_us <= before_us + TOLERANCE_US:
            self._drop()

    def _drop(self) -> None:
        held = self._held.popleft()
        if held.spilled is None:
            self._in_memory -= held.size
        else:
            self._spilled -= 1
            held.spilled.drop()

    def _spill(self) -> None:
        """Put the oldest frames in memory into the file, or drop the oldest of all, until those in memory are few."""
        while self._in_memory > HELD_BYTES and len(self._held) > self._spilled + 1:
            oldest = self._held[self._spilled]
            frame = oldest.frame
            if frame is None or frame.format.name not in _PLANAR:
                self._drop()
                continue
            form = frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range)
            packer = self._packers.get(form) or self._packers.setdefault(form, _Packer(frame))
            spilled = self._frames.put(packer.planes(frame))
            if spilled is None:
                self._drop()
                continue
            convert = partial(_unspilled, self._reader, packer, spilled, self._reader.matrix(frame))
            timed = replace(oldest.timed, rgb=self._reader.pixels_of(oldest.timed.start_us, convert))
            self._held[self._spilled] = replace(oldest, timed=timed, frame=None, spilled=spilled)
            self._in_memory -= oldest.size
            self._spilled += 1


class _Packer:
    """Takes the planes out of frames of one form, and puts them in again.

    PyAV can set some of what libswscale looks at (where chroma samples lie) only by copying a frame; and of a frame
    that its decoder cropped only a copy has planes that lie in its memory as a whole.
    """

    def __init__(self, like: VideoFrame) -> None:
        from av.filter import Graph

        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(width=like.width, height=like.height, format=like.format, time_base=Fraction(1, 25))
        graph.link_nodes(source, graph.add("copy"), graph.add("buffersink")).configure()
        self._graph = graph
        self._frame = self._copied(like)

    def planes(self, frame: VideoFrame) -> list[NDArray[np.uint8]]:
        """The bytes of each plane."""
        return [np.frombuffer(memoryview(plane), np.uint8) for plane in self._copied(frame).planes]

    def frame(self, planes: list[NDArray[np.uint8]]) -> VideoFrame:
        """The frame of these planes, until the next one is asked for."""
        for own, content in zip(self._frame.planes, planes, strict=True):
            own.update(content.tobytes())
        return self._frame

    def _copied(self, frame: VideoFrame) -> VideoFrame:
        from av import VideoFrame

        self._graph.push(frame)
        copy = self._graph.pull()
        assert isinstance(copy, VideoFrame)
        return copy


def _unspilled(
    reader: PyAVReader, packer: _Packer, spilled: Spilled, matrix: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """The pixels of a frame whose planes lie in a file."""
    return reader.rgb(packer.frame(spilled.look()), matrix)

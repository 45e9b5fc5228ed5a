"""Decode once: one pass over each elementary stream feeds all views that a pass wants (law 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.media.arrays import read_array
from curate.media.audio import audio_spans, read_audio
from curate.media.clips import MICRO, Span
from curate.media.container import Deadline
from curate.media.crops import crop_settings
from curate.media.energy import Meter
from curate.media.images import decode_image, render, render_crop, view_size
from curate.media.joined import joined, link_of
from curate.media.reader import TimedFrame, VideoReader
from curate.media.video import TOLERANCE_US, PyAVReader
from curate.media.views import Array, Audio, Decoded, Energy, Frames, View, clip_times, pick_times
from curate.schema.errors import MediaError
from curate.schema.fields import KINDS, TIMED

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SLACK_US", "Span", "decode"]

SLACK_US = 100_000
"""How much earlier than its span a video may end: headers round, and count a last frame that is not there."""


def decode(
    data: bytes,
    kind: str,
    views: Sequence[View],
    span: Span | None = None,
    *,
    limit_s: float = 60,
    reader: Callable[[bytes, Deadline], VideoReader] = PyAVReader,
    name: str = "",
    key: str = "",
) -> Decoded:
    """All views of one sample.

    Frames: at each time of `pick_times` (or `clip_times`) the frame on display then, the last that begins by it
    (+ 1 us). Sizes and crop as `Frames` says; pixels as `images.decode_image` and `video.PyAVReader` say. `times` are
    when the frames begin, in seconds from the start of the span; the first may be below 0. Frames of one view share
    the size of its first, also where the video changes its shape.

    Audio and its energy: as `audio.read_audio` says, on the same clock as the frames. Arrays: as `arrays.read_array`
    says.

    Args:
        data: the whole file.
        kind: `image`, `video`, `audio` or `array`, as `probe` says.
        views: those that the sample's kind has not are left out of the result.
        span: of video or audio; None: all of it, and of a file that breaks off what it lacks too.
            Images and arrays have none, and it is ignored.
        limit_s: wall time, checked between packets.
        reader: another `VideoReader`, e.g. `DecordReader` where the media is known to suit it.
        name: for messages only.
        key: the sample's id, from which crops of an image are drawn.

    Raises:
        MediaError: anything that keeps a view from being exact: damage inside the span, frames that end more than
            `SLACK_US` before it does, the time limit.
        ValueError: a kind that does not exist, an empty span of video or audio.
    """
    check_request(kind, span)
    deadline = Deadline(limit_s)
    frames, audio = sorted_views(views)
    out = Decoded()
    if kind == "image":
        if frames:
            image_views(out, decode_image(data, name), frames, key)
    elif kind == "array":
        if Array() in views:
            out.views[Array()] = read_array(data, name)
    elif kind == "video":
        _video(out, data, frames, audio, span, deadline, reader, name)
    elif audio:
        whole = span or Span(0, audio_spans(data, deadline, name)[-1].end_us)
        audio_views(out, data, audio, whole, None, deadline, name)
        if not out.views:
            raise MediaError(f"{name or 'The file'} has no audio stream.")
    return out


def sorted_views(views: Sequence[View]) -> tuple[list[Frames], list[Audio | Energy]]:
    """The views of images and frames, and those of audio, each once, in the order of the result."""
    audio: list[Audio | Energy] = [*sorted({view for view in views if isinstance(view, Audio)})]
    return sorted({view for view in views if isinstance(view, Frames)}), [*audio, *({Energy()} & set(views))]


def image_views(out: Decoded, image: Image, views: list[Frames], key: str) -> None:
    """The views of an image that `decode_image` gave."""
    for view in views:
        out.views[view] = _crops(image, view, key) if view.crops > 1 else render(image, view)[np.newaxis]
        out.times[view] = np.zeros(view.crops, np.float64)


def _crops(image: Image, view: Frames, key: str) -> NDArray[np.uint8]:
    rows = crop_settings(key, image.width, image.height, view.crops)
    return np.stack([render_crop(image, view.size, row) for row in rows])


def check_request(kind: str, span: Span | None) -> None:
    """Raise ValueError for a kind that does not exist, and for an empty span of video or audio."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind in TIMED and span is not None and span.end_us == span.start_us:
        raise ValueError(f"the span of {kind} is empty at {span.start_us} us")


def _video(
    out: Decoded,
    data: bytes,
    frames: list[Frames],
    audio: list[Audio | Energy],
    span: Span | None,
    deadline: Deadline,
    reader: Callable[[bytes, Deadline], VideoReader],
    name: str,
) -> None:
    chain = joined(data, deadline, name)
    if chain and span is not None:
        link, span = link_of(chain, span)
        data = link.data
    # the clock starts at the first frame that PyAV decodes, whichever reader makes the pixels
    with PyAVReader(data, deadline, name) as exact:
        whole = span or Span(0, max(exact.duration_us(), exact.claimed_us() or 0))
        if frames and reader is PyAVReader:
            frame_views(out, exact, frames, whole)
        zero = exact.zero
    if frames and reader is not PyAVReader:
        other = reader(data, deadline)
        try:
            frame_views(out, other, frames, whole)
        finally:
            other.close()
    if audio:
        audio_views(out, data, audio, whole, zero, deadline, name)


def audio_views(
    out: Decoded,
    data: bytes,
    views: list[Audio | Energy],
    span: Span,
    zero: Fraction | None,
    deadline: Deadline,
    name: str,
) -> None:
    """The views of the audio of a span, as `read_audio` says; none where there is no audio stream."""
    meter = Meter(span) if Energy() in views else None
    rates = [view.rate for view in views if isinstance(view, Audio)]
    audio = read_audio(data, span, rates, zero, deadline, name, meter)
    if audio is None:
        return
    for view in views:
        if isinstance(view, Audio):
            out.views[view] = audio[view.rate]
        elif meter is not None:
            out.views[view] = meter.energies()


def frame_views(out: Decoded, reader: VideoReader, views: list[Frames], span: Span) -> None:
    """The views of the frames of a span. Raises MediaError where the video ends before it."""
    picks = sorted((span.start_us + int(t * MICRO), view) for view in views for t in _picks(view, span))
    shown: dict[Frames, list[NDArray[np.uint8]]] = {view: [] for view in views}
    times: dict[Frames, list[float]] = {view: [] for view in views}
    canvas: dict[Frames, tuple[int, int]] = {}

    def take(timed: TimedFrame, wanted: list[Frames]) -> None:
        from PIL import Image

        pixels = Image.fromarray(timed.rgb())
        for view in wanted:
            size = canvas.setdefault(view, view_size(timed.display, view))
            shown[view].append(render(pixels, view, timed.display, size))
            times[view].append((timed.start_us - span.start_us) / MICRO)

    at = 0
    current: TimedFrame | None = None
    for timed in reader.frames(span.start_us, span.end_us):
        at = _serve(picks, at, current, timed.start_us, take)
        current = timed
    if current is None or current.end_us + SLACK_US < span.end_us:
        ended = 0 if current is None else current.end_us
        raise MediaError(
            f"The video ended at {ended / MICRO:.3f} s, before the end of its span at {span.end_us / MICRO:.3f} s."
        )
    _serve(picks, at, current, span.end_us + MICRO, take)
    for view in views:
        out.views[view] = np.stack(shown[view])
        out.times[view] = np.array(times[view], np.float64)


def _picks(view: Frames, span: Span) -> list[float]:
    if view.stride:
        times = clip_times(span.seconds, view.fps, view.max_frames, view.stride, view.pad)
    else:
        times = pick_times(span.seconds, view.fps, view.max_frames)
    return [float(t) for t in times]


def _serve(
    picks: list[tuple[int, Frames]],
    at: int,
    current: TimedFrame | None,
    until_us: int,
    take: Callable[[TimedFrame, list[Frames]], None],
) -> int:
    """Give `current` to the picks from number `at` on that come before the next frame; the number of the next
    pick."""
    if current is None:
        return at
    wanted: list[Frames] = []
    while at < len(picks) and picks[at][0] + TOLERANCE_US < until_us:
        wanted.append(picks[at][1])
        at += 1
    if wanted:
        take(current, wanted)
    return at

"""Decode once: one pass over each elementary stream feeds all views that a pass wants (law 4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import chain, pairwise
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
from curate.media.reader import open_video
from curate.media.requests import Array, Audio, Decoded, DecodeRequest, Energy, Frames, clip_times, pick_times
from curate.media.video import TOLERANCE_US, TimedFrame
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
    views: Sequence[DecodeRequest],
    span: Span | None = None,
    *,
    limit_s: float = 60,
    reader: str = "pyav",
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
        reader: what makes the pixels of video, of `reader.READERS`.
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
        if recordings := joined(data, deadline, name) if span is not None else ():
            link, span = link_of(recordings, span or Span(0, 0))
            data = link.data
        with open_video(reader, data, deadline, name) as video:
            whole = span or Span(0, max(video.duration_us(), video.stated_us() or 0))
            if frames:
                frame_views(out, video.frames(whole.start_us, whole.end_us), frames, whole)
            if audio:
                audio_views(out, data, audio, whole, video.zero, deadline, name)
    elif audio:
        whole = span or Span(0, audio_spans(data, deadline, name)[-1].end_us)
        audio_views(out, data, audio, whole, None, deadline, name)
        if not out.views:
            raise MediaError(f"{name or 'The file'} has no audio stream.")
    return out


def check_request(kind: str, span: Span | None) -> None:
    """Raise ValueError for a kind that does not exist, and for an empty span of video or audio."""
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if kind in TIMED and span is not None and span.end_us == span.start_us:
        raise ValueError(f"the span of {kind} is empty at {span.start_us} us")


def sorted_views(views: Sequence[DecodeRequest]) -> tuple[list[Frames], list[Audio | Energy]]:
    """The views of images and frames, and those of audio, each once, in the order of the result."""
    audio: list[Audio | Energy] = [*sorted({view for view in views if isinstance(view, Audio)})]
    return sorted({view for view in views if isinstance(view, Frames)}), [*audio, *({Energy()} & set(views))]


def image_views(out: Decoded, image: Image, views: list[Frames], key: str) -> None:
    """Add the views of an image that `decode_image` gave."""
    for view in views:
        if view.crops > 1:
            rows = crop_settings(key, image.width, image.height, view.crops)
            out.views[view] = np.stack([render_crop(image, view.size, row) for row in rows])
        else:
            out.views[view] = render(image, view)[np.newaxis]
        out.times[view] = np.zeros(view.crops, np.float64)


def audio_views(
    out: Decoded,
    data: bytes,
    views: list[Audio | Energy],
    span: Span,
    zero: Fraction | None,
    deadline: Deadline,
    name: str,
) -> None:
    """Add the views of the audio of a span, as `read_audio` says; none where there is no audio stream."""
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


def frame_views(out: Decoded, frames: Iterable[TimedFrame], views: list[Frames], span: Span) -> None:
    """Add the views of the frames of a span, from the one on display at its start on.

    Raises MediaError where they end before it does, and what `frames` raises.
    """
    from PIL import Image

    picks = deque(sorted((span.start_us + int(t * MICRO), view) for view in views for t in _times(view, span)))
    pixels: dict[Frames, list[NDArray[np.uint8]]] = {view: [] for view in views}
    times: dict[Frames, list[float]] = {view: [] for view in views}
    canvas: dict[Frames, tuple[int, int]] = {}
    end_us = 0
    for frame, following in pairwise(chain(frames, [None])):
        assert frame is not None
        end_us = frame.end_us
        if following is None and end_us + SLACK_US < span.end_us:
            break
        until_us = span.end_us + MICRO if following is None else following.start_us
        rgb = None
        while picks and picks[0][0] + TOLERANCE_US < until_us:
            _, view = picks.popleft()
            rgb = rgb or Image.fromarray(frame.rgb())
            size = canvas.setdefault(view, view_size(frame.display, view))
            pixels[view].append(render(rgb, view, frame.display, size))
            times[view].append((frame.start_us - span.start_us) / MICRO)
    if picks or end_us + SLACK_US < span.end_us:
        raise MediaError(
            f"The video ended at {end_us / MICRO:.3f} s, before the end of its span at {span.end_us / MICRO:.3f} s."
        )
    for view in views:
        out.views[view] = np.stack(pixels[view])
        out.times[view] = np.array(times[view], np.float64)


def _times(view: Frames, span: Span) -> NDArray[np.float64]:
    """Seconds from the start of the span at which a view wants frames."""
    if view.stride:
        return clip_times(span.seconds, view.fps, view.max_frames, view.stride, view.pad)
    return pick_times(span.seconds, view.fps, view.max_frames)

"""Shots: where a video is cut, by PySceneDetect's detectors on PyAV's frames."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from curate import plugins
from curate.media.audio import audio_spans
from curate.media.clips import Span
from curate.media.container import Deadline
from curate.media.decode import SLACK_US
from curate.media.joined import joined
from curate.media.timeline import TAIL_US
from curate.media.video import PyAVReader, Shown, TimedFrame

if TYPE_CHECKING:
    from scenedetect.detector import SceneDetector

LONG_SIDE = 256
"""Frames are scaled to this before they are compared; PySceneDetect's own default for auto-downscaling."""

DETECTORS = {"content": "curate.media.shots:content_detector", "adaptive": "curate.media.shots:adaptive_detector"}
"""Shot detectors by the names that recipes call them (plugins of the kind `detector`): functions of `threshold` (None:
the detector's own) and `min_frames`, the shortest shot in frames, that give a detector of PySceneDetect."""


def find_shots(
    data: bytes,
    detector: str = "content",
    threshold: float | None = None,
    min_frames: int = 15,
    *,
    limit_s: float = 600,
    name: str = "",
) -> list[Span]:
    """The shots of a video in order, from 0 to its end without a gap.

    A shot begins exactly at the time of its first frame; the detector counts frames, so a variable frame rate moves
    no cut.

    Damaged frames are skipped, not fatal: a shot with damage fails when it is decoded, and takes no other along. The
    last shot lasts as long as audio goes on, and no shot spans two recordings (`joined`). Where packets after the last
    frame do not decode, or the file is cut short of what it says it holds (`truncation`), the rest is one more span,
    `missing`, to fail by name when it is decoded.

    Args:
        data: the whole file.
        detector, threshold, min_frames: as for `shot_detector`.
        limit_s: wall time.
        name: for messages only.

    Raises:
        MediaError: no video, no frame that decodes, or the time limit.
        CurateError: a detector that does not exist.
    """
    deadline = Deadline(limit_s)
    chain = joined(data, deadline, name)
    if not chain:
        detect = shot_detector(detector, threshold, min_frames)
        with PyAVReader(data, deadline, name) as reader:
            return shots_of(reader, detect)
    out: list[Span] = []
    for link in chain:
        length = link.end_us - link.begin_us
        if not link.opens:
            some = [Span(0, length, missing=True)]
        elif link.has_video:
            detect = shot_detector(detector, threshold, min_frames)
            with PyAVReader(link.data, deadline, name) as reader:
                some = shots_of(reader, detect)
        else:
            some = audio_spans(link.data, deadline, name)
        out += [Span(link.begin_us + s.start_us, link.begin_us + s.end_us, s.missing) for s in _fitted(some, length)]
    return out


def _fitted(spans: list[Span], length: int) -> list[Span]:
    """The spans of a recording, so that they end where it does: what its frames do not reach is missing."""
    out = [Span(s.start_us, min(s.end_us, length), s.missing) for s in spans if s.start_us < length]
    if out and length > out[-1].end_us + SLACK_US:
        out.append(Span(out[-1].end_us, length, missing=True))
    elif out:
        out[-1] = Span(out[-1].start_us, length, out[-1].missing)
    return out


def shots_of(
    reader: PyAVReader, detect: SceneDetector, watch: Callable[[Shown, TimedFrame, list[int]], None] | None = None
) -> list[Span]:
    """The shots of one recording, as `find_shots` says.

    Args:
        reader: opened, nothing of it read yet.
        detect: of `shot_detector`.
        watch: is given each frame, and when the shots begin that were found with it; others may be found at the end.
    """
    from scenedetect.common import FrameTimecode

    rate = Fraction(25)  # of no effect: frames are counted, their times are looked up below
    starts: list[int] = []
    cuts: list[int] = []
    end = 0
    for decoded, timed, pixels in reader.small_frames(LONG_SIDE):
        at = FrameTimecode(len(starts), rate)
        starts.append(timed.start_us)
        end = max(end, timed.end_us)
        found = [cut.frame_num for cut in detect.process_frame(at, pixels)]
        cuts += found
        if watch is not None:
            watch(decoded, timed, [starts[cut] for cut in found])
    shown = reader.held_us(end)
    there = max(reader.packets_end_us(), reader.stated_us() or 0)
    breaks_off = reader.audio_breaks_off_us()
    cuts += [cut.frame_num for cut in detect.post_process(FrameTimecode(len(starts), rate))]
    if breaks_off is not None and breaks_off + TAIL_US < shown:
        there, shown = max(there, shown), max(1, breaks_off)
    edges = sorted({0, *(at for at in (starts[cut] for cut in cuts) if at < shown), shown})
    spans = [Span(a, b) for a, b in pairwise(edges)]
    return [*spans, Span(shown, there, missing=True)] if there > shown + SLACK_US else spans


def shot_detector(name: str, threshold: float | None, min_frames: int) -> SceneDetector:
    """The detector of a name, for one video. Raises CurateError for one that does not exist."""
    detector: SceneDetector = plugins.make("detector", name, {"threshold": threshold, "min_frames": min_frames})
    return detector


def content_detector(threshold: float | None, min_frames: int) -> SceneDetector:
    """Mean difference of neighbouring frames in HSV, 0 to 255; by itself 27."""
    from scenedetect.detectors import ContentDetector

    return ContentDetector(threshold=27.0 if threshold is None else threshold, min_scene_len=min_frames)


def adaptive_detector(threshold: float | None, min_frames: int) -> SceneDetector:
    """Ratio of that difference to its mean over the two frames on each side, where it is at least 15; by itself 3."""
    from scenedetect.detectors import AdaptiveDetector

    return AdaptiveDetector(adaptive_threshold=3.0 if threshold is None else threshold, min_scene_len=min_frames)

"""Records examined in one run over each: what they are, how they are cut, and the views of their samples (law 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from curate.media.arrays import is_array, read_array
from curate.media.audio import audio_spans
from curate.media.clips import Span, cut_spans
from curate.media.container import Deadline
from curate.media.decode import audio_views, check_request, decode, image_views, sorted_views
from curate.media.decodes import counted
from curate.media.images import decode_image, open_image
from curate.media.joined import joined
from curate.media.onepass import Film, Gatherer
from curate.media.probe import ARRAY, Probe, probe_audio, probe_image, probe_video, streams_of
from curate.media.shots import find_shots, shot_detector, shots_of
from curate.media.video import PyAVReader
from curate.media.views import Array, Decoded, View
from curate.schema.errors import MediaError
from curate.schema.fields import TIMED
from curate.schema.ids import content_id, sample_id

if TYPE_CHECKING:
    from PIL.Image import Image

PROBING, CUTTING = "ingest:probe", "cut"
"""Where an error of a record arises, as the ledger calls it."""

LIMIT_S = 600.0
SAMPLE_LIMIT_S = 120.0

Views = Mapping[View, NDArray[Any]]


@dataclass(frozen=True)
class CutHow:
    """How a record is cut into samples.

    Attributes:
        detector, threshold, min_frames: of shots, as for `find_shots`.
        max_seconds: longer shots and audio are cut into equal parts no longer than this.
        max_samples: a record that would be cut into more fails.
    """

    detector: str = "content"
    threshold: float | None = None
    min_frames: int = 15
    max_seconds: float = 10.0
    max_samples: int = 10_000


@dataclass(frozen=True)
class Examined:
    """One record.

    Attributes:
        index: its place in the request.
        probe: what it is; None where that is not known.
        error: why it has no samples.
        stage: where the error arose, `ingest:probe` or `cut`; "" where there is none.
        spans: of its samples, in order; one Span(0, 0) for an image or an array.
    """

    index: int
    probe: Probe | None
    error: MediaError | None = None
    stage: str = ""
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True)
class Viewed:
    """One sample.

    Attributes:
        index: of its record, or of its request.
        span: its time; Span(0, 0) of an image or an array, and where the request has none.
        views: as `decode` gives them; none where it failed.
        error: why it failed.
    """

    index: int
    span: Span
    views: Views = field(default_factory=dict)
    error: MediaError | None = None


@dataclass(frozen=True)
class Request:
    """A sample to be decoded; the arguments are those of `decode`."""

    data: bytes
    kind: str
    span: Span | None = None
    name: str = ""
    key: str = ""


def examine(
    items: Sequence[tuple[bytes, str]],
    cut: CutHow,
    views: Sequence[View],
    *,
    limit_s: float = LIMIT_S,
    sample_s: float = SAMPLE_LIMIT_S,
) -> Iterator[Examined | Viewed]:
    """For each record in order what it is and how it is cut, then the views of its samples in order.

    The results are those of `probe`, of `find_shots` or `audio_spans` with `cut_spans`, and of `decode` for each sample
    with the id that it has in a build; errors too. Each video is decoded once for its shots and the frames of its
    clips, but for clips that must be decoded on their own: damaged ones, those of shots too long to be kept
    (`onepass`), and all of a file of several recordings (`joined`). Audio is read clip by clip.

    Args:
        items: whole files with the names that messages of probing call them.
        cut: how records become samples.
        views: none: nothing is decoded for samples, and they have no errors.
        limit_s: wall time for a record to be probed and cut.
        sample_s: wall time for what is decoded for one sample beyond that.

    Raises:
        CurateError: a shot detector that does not exist.
    """
    for event in examining(items, cut, views, limit_s, sample_s):
        if not isinstance(event, Slow):
            yield event


def decode_many(
    requests: Sequence[Request], views: Sequence[View], *, limit_s: float = SAMPLE_LIMIT_S
) -> Iterator[Viewed]:
    """The views of samples, in order, each as `decode` gives them. Clips of one file that follow each other in the
    requests are read in one run, if their times do, too.

    Args:
        requests: of one file the `data` must be the same object.
        limit_s: wall time for each.

    Raises:
        ValueError: a kind that does not exist, an empty span of video or audio.
    """
    for request in requests:
        check_request(request.kind, request.span)
    for event in decoding(requests, views, limit_s):
        if not isinstance(event, Slow):
            yield event


class Slow:
    """What is yielded before what may take long: probing and cutting of video or audio, clips of a video."""


def examining(
    items: Sequence[tuple[bytes, str]], cut: CutHow, views: Sequence[View], limit_s: float, sample_s: float
) -> Iterator[Examined | Viewed | Slow]:
    """As `examine`, with a `Slow` before each record of video or audio."""
    shot_detector(cut.detector, cut.threshold, cut.min_frames)
    for index, (data, name) in enumerate(items):
        yield from _examined(index, data, name, cut, views, limit_s, sample_s)


def decoding(requests: Sequence[Request], views: Sequence[View], limit_s: float) -> Iterator[Viewed | Slow]:
    """As `decode_many`, of requests that were checked, with a `Slow` before the clips of each file."""
    for _, group in groupby(enumerate(requests), lambda at: (id(at[1].data), at[1].kind)):
        some = list(group)
        first = some[0][1]
        if first.kind in TIMED:
            counted.files += 1
            yield Slow()
        if first.kind == "video" and len(some) > 1 and all(request.span is not None for _, request in some):
            yield from _clips(some, views, limit_s)
        else:
            for index, request in some:
                yield viewed_alone(index, request, views, limit_s)


def cut_up(whole: Sequence[Span], cut: CutHow) -> tuple[Span, ...]:
    """The samples of shots, or of audio. Raises MediaError where they are more than `max_samples`."""
    seconds = sum(span.seconds for span in whole)
    least = sum(1 for span in whole if not span.missing) + seconds / cut.max_seconds
    if least <= 2 * cut.max_samples:
        spans = cut_spans(whole, cut.max_seconds)
        if len(spans) <= cut.max_samples:
            return tuple(spans)
    raise MediaError(
        f"It would be cut into more than {cut.max_samples} samples (cut.max_samples): "
        f"{len(whole)} shots, {seconds:.0f} s."
    )


def _examined(
    index: int, data: bytes, name: str, cut: CutHow, views: Sequence[View], limit_s: float, sample_s: float
) -> Iterator[Examined | Viewed | Slow]:
    image = values = None
    try:
        if is_array(data):
            values, found = read_array(data, name), ARRAY
        elif (image := open_image(data, name)) is not None:
            found = probe_image(image, data, name)
    except MediaError as error:
        yield Examined(index, None, error, PROBING)
        return
    if values is None and image is None:
        yield Slow()
        yield from _timed(index, data, name, cut, views, limit_s, sample_s)
        return
    whole = Span(0, 0)
    yield Examined(index, found, spans=(whole,))
    if values is not None:
        yield Viewed(index, whole, {Array(): values} if Array() in views else {})
    elif image is not None:
        yield _image(index, data, image, views)


def _image(index: int, data: bytes, image: Image, views: Sequence[View]) -> Viewed:
    """The only sample of an image of which the header was read."""
    frames, _ = sorted_views(views)
    out = Decoded()
    if frames:
        key = ""
        if any(view.crops > 1 for view in frames):
            key = sample_id(content_id(data), 0, 0)
        try:
            image_views(out, decode_image(data, opened=image), frames, key)
        except MediaError as error:
            return Viewed(index, Span(0, 0), error=error)
    return Viewed(index, Span(0, 0), out.views)


def _timed(
    index: int, data: bytes, name: str, cut: CutHow, views: Sequence[View], limit_s: float, sample_s: float
) -> Iterator[Examined | Viewed]:
    """A record of video or audio."""
    counted.files += 1
    deadline = Deadline(limit_s)
    reader = None
    try:
        try:
            streams = streams_of(data, name, deadline)
            if streams.video:
                reader = PyAVReader(data, deadline, name)
                found = probe_video(reader, streams, data, name, deadline)
                recordings = len(joined(data, deadline, name))
            else:
                found = probe_audio(data, name, deadline)
        except MediaError as error:
            yield Examined(index, None, error, PROBING)
            return
        if reader is None or recordings:
            yield from _by_spans(index, data, found, cut, views, deadline, sample_s)
        else:
            yield from _film(index, data, reader, found, cut, views, deadline, sample_s)
    finally:
        if reader is not None:
            reader.close()


def _by_spans(
    index: int, data: bytes, found: Probe, cut: CutHow, views: Sequence[View], deadline: Deadline, sample_s: float
) -> Iterator[Examined | Viewed]:
    """Audio, or a file of several recordings: cut, then each sample is decoded by its span."""
    try:
        if found.kind == "audio":
            whole = audio_spans(data, deadline)
        else:
            whole = find_shots(data, cut.detector, cut.threshold, cut.min_frames, limit_s=deadline.limit_s)
        spans = cut_up(whole, cut)
    except MediaError as error:
        yield Examined(index, found, error, CUTTING)
        return
    yield Examined(index, found, spans=spans)
    for span in spans:
        counted.again += found.kind == "video" and bool(views)
        yield viewed_alone(index, Request(data, found.kind, span), views, sample_s)


def _film(
    index: int,
    data: bytes,
    reader: PyAVReader,
    found: Probe,
    cut: CutHow,
    views: Sequence[View],
    deadline: Deadline,
    sample_s: float,
) -> Iterator[Examined | Viewed]:
    """A video of one recording."""
    frames, _ = sorted_views(views)
    gathered = Gatherer(reader, frames, cut.max_seconds) if frames else None
    try:
        try:
            detect = shot_detector(cut.detector, cut.threshold, cut.min_frames)
            spans = cut_up(shots_of(reader, detect, gathered.see if gathered is not None else None), cut)
        except MediaError as error:
            yield Examined(index, found, error, CUTTING)
            return
        if gathered is not None:
            gathered.finish(spans)
        yield Examined(index, found, spans=spans)
        film = Film(reader)
        for span in spans:
            deadline.renew(sample_s)
            made = gathered.take(span) if gathered is not None else Decoded()
            request = Request(data, "video", span)
            if span.missing or not views:
                yield viewed_alone(index, request, views, sample_s)
                continue
            if made is None:
                counted.again += 1
                made = film.views(span, frames)
            yield _with_audio(index, request, made, views, reader, deadline)
    finally:
        if gathered is not None:
            gathered.close()


def _clips(some: Sequence[tuple[int, Request]], views: Sequence[View], limit_s: float) -> Iterator[Viewed]:
    """Clips of one video."""
    data = some[0][1].data
    deadline = Deadline(limit_s)
    frames, _ = sorted_views(views)
    reader = None
    try:
        if not joined(data, deadline):
            reader = PyAVReader(data, deadline)
    except MediaError:  # each says it for itself
        reader = None
    try:
        film = None if reader is None else Film(reader)
        for index, request in some:
            deadline.renew(limit_s)
            if reader is None or film is None or request.span is None:
                yield viewed_alone(index, request, views, limit_s)
            else:
                made = film.views(request.span, frames) if frames else Decoded()
                yield _with_audio(index, request, made, views, reader, deadline)
    finally:
        if reader is not None:
            reader.close()


def _with_audio(
    index: int, request: Request, made: Decoded | None, views: Sequence[View], reader: PyAVReader, deadline: Deadline
) -> Viewed:
    """A clip whose frames are there, with its audio; where they are not, `decode` decides."""
    _, audio = sorted_views(views)
    if made is None or request.span is None:
        return viewed_alone(index, request, views, deadline.limit_s)
    try:
        if audio and reader.has_audio:
            audio_views(made, request.data, audio, request.span, reader.zero, deadline, request.name)
    except MediaError as error:
        return Viewed(index, request.span, error=error)
    return Viewed(index, request.span, made.views)


def viewed_alone(
    index: int, request: Request, views: Sequence[View], limit_s: float, run: Callable[..., Decoded] = decode
) -> Viewed:
    """A sample by a run of its own.

    Args:
        run: `decode`, here or in the helper process.
    """
    span = request.span or Span(0, 0)
    if not views:
        return Viewed(index, span)
    try:
        made = run(request.data, request.kind, views, request.span, limit_s=limit_s, name=request.name, key=request.key)
    except MediaError as error:
        return Viewed(index, span, error=error)
    return Viewed(index, span, made.views)

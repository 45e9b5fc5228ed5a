"""Records examined in one run over each: what they are, how they are cut, and the views of their samples (law 4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

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
from curate.media.reader import open_video
from curate.media.requests import Array, Decoded, DecodeRequest
from curate.media.shots import find_shots, shot_detector, shots_of
from curate.media.video import PyAVReader
from curate.schema.errors import MediaError
from curate.schema.fields import TIMED
from curate.schema.ids import content_id, sample_id

PROBING, CUTTING = "ingest:probe", "cut"
"""Where an error of a record arises, as the ledger calls it."""

LIMIT_S = 600.0
SAMPLE_LIMIT_S = 120.0

Views = Mapping[DecodeRequest, NDArray[Any]]


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


class Slow:
    """What is yielded before what may take long: probing and cutting of video or audio, clips of a video."""


def examine(
    items: Sequence[tuple[bytes, str]],
    cut: CutHow,
    views: Sequence[DecodeRequest],
    *,
    limit_s: float = LIMIT_S,
    sample_s: float = SAMPLE_LIMIT_S,
    reader: str = "pyav",
) -> Iterator[Examined | Viewed | Slow]:
    """For each record in order what it is and how it is cut, then the views of its samples in order; a `Slow` before
    each record of video or audio.

    The results are those of `probe`, of `whole_spans` and `cut_up`, and of `decode` for each sample with the id that it
    has in a build; errors too. Each video is decoded once for its shots and the frames of its clips, but for clips that
    must be decoded on their own: damaged ones, those of shots too long to be kept (`onepass`), and all of a file of
    several recordings (`joined`). Audio is read clip by clip.

    Args:
        items: whole files with the names that messages of probing call them.
        cut: how records become samples.
        views: none: nothing is decoded for samples, and they have no errors.
        limit_s: wall time for a record to be probed and cut.
        sample_s: wall time for what is decoded for one sample beyond that.
        reader: as for `decode`.

    Raises:
        CurateError: a shot detector that does not exist.
    """
    shot_detector(cut.detector, cut.threshold, cut.min_frames)
    decoder = _Decoder(views, sample_s, reader)
    for index, (data, name) in enumerate(items):
        image = values = None
        try:
            if is_array(data):
                values, found = read_array(data, name), ARRAY
            elif (image := open_image(data, name)) is not None:
                found = probe_image(image, data, name)
        except MediaError as error:
            yield Examined(index, None, error, PROBING)
            continue
        if image is not None:
            yield Examined(index, found, spans=(Span(0, 0),))
            yield decoder.image(index, data, image)
        elif values is not None:
            yield Examined(index, found, spans=(Span(0, 0),))
            yield Viewed(index, Span(0, 0), {Array(): values} if Array() in views else {})
        else:
            counted.files += 1
            yield Slow()
            yield from decoder.examined(index, data, name, cut, Deadline(limit_s))


def decode_many(
    requests: Sequence[Request],
    views: Sequence[DecodeRequest],
    *,
    limit_s: float = SAMPLE_LIMIT_S,
    reader: str = "pyav",
) -> Iterator[Viewed | Slow]:
    """The views of samples, in order, each as `decode` gives them; a `Slow` before the clips of each file. Clips of one
    file that follow each other in the requests are read in one run, if their times do, too.

    Args:
        requests: of one file the `data` must be the same object.
        limit_s: wall time for each.
        reader: as for `decode`.

    Raises:
        ValueError: a kind that does not exist, an empty span of video or audio.
    """
    for request in requests:
        check_request(request.kind, request.span)
    decoder = _Decoder(views, limit_s, reader)
    for _, group in groupby(enumerate(requests), lambda at: (id(at[1].data), at[1].kind)):
        some = list(group)
        if some[0][1].kind in TIMED:
            counted.files += 1
            yield Slow()
        yield from decoder.decoded(some)


def whole_spans(data: bytes, kind: str, cut: CutHow, deadline: Deadline) -> list[Span]:
    """The shots of a video, the time line of audio, or Span(0, 0), before they are cut (`cut_up`)."""
    if kind == "video":
        return find_shots(data, cut.detector, cut.threshold, cut.min_frames, limit_s=deadline.limit_s)
    return audio_spans(data, deadline) if kind == "audio" else [Span(0, 0)]


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


class _Decoder:
    """Makes the views of samples.

    Args:
        limit_s: wall time for each sample.
    """

    def __init__(self, views: Sequence[DecodeRequest], limit_s: float, reader: str) -> None:
        self._views, self._limit_s, self._reader = views, limit_s, reader
        self._frames, self._audio = sorted_views(views)

    def image(self, index: int, data: bytes, opened: Any) -> Viewed:
        """The only sample of an image that `open_image` gave."""
        out = Decoded()
        if self._frames:
            key = sample_id(content_id(data), 0, 0) if any(view.crops > 1 for view in self._frames) else ""
            try:
                image_views(out, decode_image(data, opened=opened), self._frames, key)
            except MediaError as error:
                return Viewed(index, Span(0, 0), error=error)
        return Viewed(index, Span(0, 0), out.views)

    def examined(
        self, index: int, data: bytes, name: str, cut: CutHow, deadline: Deadline
    ) -> Iterator[Examined | Viewed]:
        """A record of video or audio."""
        found = video = gathered = None
        try:
            try:
                streams = streams_of(data, name, deadline)
                if streams.video:
                    video = open_video(self._reader, data, deadline, name)
                    found = probe_video(video, streams, data, name, deadline)
                else:
                    found = probe_audio(data, name, deadline)
                film = video if video is not None and not joined(data, deadline, name) else None
                if film is None:
                    spans = cut_up(whole_spans(data, found.kind, cut, deadline), cut)
                    counted.again += len(spans) if video is not None and self._views else 0
                else:
                    gathered = Gatherer(film, self._frames, cut.max_seconds) if self._frames else None
                    detect = shot_detector(cut.detector, cut.threshold, cut.min_frames)
                    spans = cut_up(shots_of(film, detect, None if gathered is None else gathered.see), cut)
                    if gathered is not None:
                        gathered.finish(spans)
            except MediaError as error:
                yield Examined(index, found, error, PROBING if found is None else CUTTING)
                return
            yield Examined(index, found, spans=spans)
            some = [(index, Request(data, found.kind, span)) for span in spans]
            yield from self._clips(some, film, deadline, gathered)
        finally:
            if gathered is not None:
                gathered.close()
            if video is not None:
                video.close()

    def decoded(self, some: Sequence[tuple[int, Request]]) -> Iterator[Viewed]:
        """Samples of one file: clips in one run, if they are several."""
        data = some[0][1].data
        clips = some[0][1].kind == "video" and len(some) > 1 and all(request.span is not None for _, request in some)
        deadline = Deadline(self._limit_s)
        video = None
        with suppress(MediaError):  # each clip says for itself why the file cannot be opened
            video = open_video(self._reader, data, deadline) if clips and not joined(data, deadline) else None
        try:
            yield from self._clips(some, video, deadline)
        finally:
            if video is not None:
                video.close()

    def _clips(
        self,
        some: Sequence[tuple[int, Request]],
        video: PyAVReader | None,
        deadline: Deadline,
        gathered: Gatherer | None = None,
    ) -> Iterator[Viewed]:
        """Samples of one file: clips in one run over a video that is opened, or made already; else each alone."""
        film = None if video is None else Film(video)
        for index, request in some:
            deadline.renew(self._limit_s)
            made = None
            if film is not None and request.span is not None and not request.span.missing and self._views:
                made = Decoded() if not self._frames else None if gathered is None else gathered.take(request.span)
                made = made or film.views(request.span, self._frames)
            if made is None or video is None or request.span is None:
                yield self._alone(index, request)
                continue
            try:
                if self._audio and video.has_audio:
                    audio_views(made, request.data, self._audio, request.span, video.zero, deadline, request.name)
            except MediaError as error:
                yield Viewed(index, request.span, error=error)
            else:
                yield Viewed(index, request.span, made.views)

    def _alone(self, index: int, request: Request) -> Viewed:
        """A sample by a run of its own."""
        span = request.span or Span(0, 0)
        if not self._views:
            return Viewed(index, span)
        try:
            made = decode(
                request.data,
                request.kind,
                self._views,
                request.span,
                limit_s=self._limit_s,
                reader=self._reader,
                name=request.name,
                key=request.key,
            )
        except MediaError as error:
            return Viewed(index, span, error=error)
        return Viewed(index, span, made.views)

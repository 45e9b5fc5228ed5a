"""`examine`, `decode_many` and the functions for one file in a helper process: media cannot take the worker along (law
10).

They are those of `examine.py`, `probe.py` and `decode.py`, with the same arguments and results. One helper serves this
process; it imports FFmpeg and Pillow once. Its answers are checked: a codec that a file took over speaks through it.

Beside the errors of those functions there is one more, `Quarantined`, a MediaError: the file killed the helper twice,
took more time or memory than it may, or made our code raise what it does not promise.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import astuple
from typing import Any, Generic, TypeVar

from curate.helper.errors import HelperDied, HelperError, HelperNotStarted, WireError
from curate.helper.limits import MIB
from curate.helper.process import Helper
from curate.helper.quarantine import attempt
from curate.media import answers
from curate.media.clips import Span
from curate.media.decode import check_request
from curate.media.decodes import Decodes
from curate.media.examine import (
    CUTTING,
    LIMIT_S,
    PROBING,
    SAMPLE_LIMIT_S,
    CutHow,
    Examined,
    Request,
    Viewed,
    cut_up,
)
from curate.media.probe import Probe
from curate.media.requests import Decoded, DecodeRequest
from curate.media.service import ANSWER_SECONDS, NotHeld
from curate.schema.errors import MediaError, Quarantined
from curate.schema.fields import TIMED
from curate.schema.ids import content_id, sample_id

__all__ = ["CutHow", "Decodes", "Examined", "Request", "Viewed"]

T = TypeVar("T")

BATCH, BATCH_BYTES = 32, 64 * MIB
"""Files that are sent together, and their bytes; one that is larger goes alone."""

_REMEMBERED = 64
"""Batches that were given up of late: the helper is told with each call, so that it lets go of them."""

MEMORY_BYTES = 3072 * MIB
"""What a call may take beside the file itself. Measured: the largest image that is let in 1.8 GiB (16-bit grey), 8K
video 1.5 GiB (H.264 with 16 reference frames) and 2.4 GiB (10-bit HEVC); only 10-bit 4:4:4 at 8K takes more."""

GRACE_SECONDS = 5
"""How much later than the limit that the decoder watches itself the helper is killed: it looks between packets only."""

_GRACE_BYTES = 64 * MIB
"""Bytes of a file that give one second more: they are copied to the helper first, on an idle machine 20 times as
fast."""


def prepare() -> None:
    """Start the helper process behind the caller's back, who has other work before it decodes: it takes most of a
    second."""

    def start() -> None:
        with suppress(HelperNotStarted):  # who decodes is told
            _media.helper.start()

    threading.Thread(target=start, name="curate-helper", daemon=True).start()


def probe(data: bytes, name: str = "", *, limit_s: float = 60) -> Probe:
    """As `probe.probe`, in the helper process.

    Raises:
        MediaError: as there; `Quarantined` for a file that is too much for the helper.
    """
    return _media.ask("probe", data, limit_s, answers.probed, name)


def whole_spans(data: bytes, kind: str, cut: CutHow, *, limit_s: float = LIMIT_S) -> list[Span]:
    """As `examine.whole_spans`, in the helper process.

    Raises:
        MediaError: as there; `Quarantined` for a file that is too much for the helper.
        CurateError: a shot detector that does not exist.
    """
    return _media.ask("whole_spans", data, limit_s, answers.spans_of, kind, astuple(cut))


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
    """As `decode.decode`, in the helper process.

    Raises:
        MediaError: as there; `Quarantined` for a file that is too much for the helper.
        ValueError: a kind that does not exist, an empty span of video or audio.
    """
    check_request(kind, span)  # here: a ValueError from the helper would be the file's doing
    wanted = [answers.view_row(view) for view in views]
    times = None if span is None else [span.start_us, span.end_us]

    def decoded(answer: object) -> Decoded:
        return answers.decoded(answer, views)

    options = {"reader": reader, "name": name, "key": key}
    return _media.ask("decode", data, limit_s, decoded, kind, wanted, times, options)


def examine(
    items: Sequence[tuple[bytes, str]],
    cut: CutHow,
    views: Sequence[DecodeRequest],
    *,
    limit_s: float = LIMIT_S,
    sample_s: float = SAMPLE_LIMIT_S,
    reader: str = "pyav",
) -> Iterator[Examined | Viewed]:
    """As `examine.examine`, in the helper process; what comes is made while it is asked for.

    Where a batch kills the helper, those of its records that are not done go one by one, as `probe`, `whole_spans`
    and `decode`; so a record or a sample that kills it costs itself, with the error that these give.

    Raises:
        CurateError: a shot detector that does not exist.
    """
    rows = [answers.view_row(view) for view in views]
    for first, some in _batches(items, [max(1, len(data)) for data, _ in items]):
        reading = _Records(first, len(some), cut.max_samples, views)
        files = [[data, name] for data, name in some]
        held, long_s = sum(len(data) for data, _ in some), max(limit_s, 2 * sample_s)
        asked = files, astuple(cut), rows, limit_s, sample_s, reader
        yield from _media.parts(reading, held, sample_s, long_s, "examine", *asked)
        known, done = reading.known, reading.done
        for at, (data, name) in enumerate(some[reading.place :], first + reading.place):
            if known is None:
                known, done = _examined(at, data, name, cut, limit_s), 0
                yield known
            for span in known.spans[done:]:
                assert known.probe is not None
                key = sample_id(content_id(data), span.start_us, span.end_us)
                timed = known.probe.kind in TIMED
                yield _viewed(
                    at, Request(data, known.probe.kind, span if timed else None, "", key), views, sample_s, reader
                )
            known = None


def decode_many(
    requests: Sequence[Request],
    views: Sequence[DecodeRequest],
    *,
    limit_s: float = SAMPLE_LIMIT_S,
    reader: str = "pyav",
) -> Iterator[Viewed]:
    """As `examine.decode_many`, in the helper process: a file that many clips are of is sent once. Where a batch kills
    the helper, those of its samples that are not done go one by one, as `decode`.

    Raises:
        ValueError: a kind that does not exist, an empty span of video or audio.
    """
    for request in requests:
        check_request(request.kind, request.span)
    rows = [answers.view_row(view) for view in views]
    new = [i == 0 or request.data is not requests[i - 1].data for i, request in enumerate(requests)]
    costs = [max(1, len(request.data)) if new[i] else 0 for i, request in enumerate(requests)]
    for first, some in _batches(requests, costs):
        reading = _Samples(first, some, views)
        files: list[bytes] = []
        asked: list[list[object]] = []
        for request in some:
            if not files or files[-1] is not request.data:
                files.append(request.data)
            span = (None, None) if request.span is None else (request.span.start_us, request.span.end_us)
            asked.append([len(files) - 1, request.kind, *span, request.name, request.key])
        held = sum(map(len, files))
        yield from _media.parts(reading, held, limit_s, 2 * limit_s, "decode_many", files, asked, rows, limit_s, reader)
        for at, request in enumerate(some[reading.place :], first + reading.place):
            yield _viewed(at, request, views, limit_s, reader)


def decodes() -> Decodes:
    """How much was decoded since this was asked last, by all functions here. What a helper did before it died, and was
    not told of, is left out."""
    return _media.decodes.take()


def helper_pid() -> int | None:
    """Process id of the helper of this process; None while none runs."""
    return _media.helper.pid


def close() -> None:
    """End the helper of this process. The next call starts a new one."""
    _media.close()


class _Answer(Generic[T]):
    """Reads the parts of a batch's answer in their order.

    Attributes:
        place: of the first record or sample that is not done, in the batch.
        known, done: what is known of a record that is begun, and how many of its samples are done.
    """

    def __init__(self, first: int, count: int, views: Sequence[DecodeRequest]) -> None:
        self._first, self._count, self._views = first, count, views
        self.place = self.done = 0
        self.known: Examined | None = None

    def part(self, answer: Any) -> tuple[list[T], str]:
        """The events of a part, and how it goes on. Raises LookupError, TypeError or ValueError for what cannot be;
        then nothing of the part is done."""
        before = self.place, self.done, self.known
        try:
            rows, state = answer
            found = [self._event(row) for row in rows]
            if state not in ("more", "slow", "done") or (state == "done") > (self.place == self._count):
                raise ValueError("an answer that does not go on")
        except BaseException:
            self.place, self.done, self.known = before
            raise
        return found, state

    def _event(self, row: Any) -> T:
        raise NotImplementedError


class _Records(_Answer[Examined | Viewed]):
    """The answer to `examine`: of each record what it is, then its samples; of each at most `most`."""

    def __init__(self, first: int, count: int, most: int, views: Sequence[DecodeRequest]) -> None:
        super().__init__(first, count, views)
        self._most = most

    def _event(self, row: Any) -> Examined | Viewed:
        if self.place >= self._count:
            raise ValueError("more records than were asked for")
        index = self._first + self.place
        event: Examined | Viewed
        if self.known is None:
            event = self.known = answers.examined(row, index, self._most)
            self.done = 0
        else:
            event = answers.viewed(row, index, self.known.spans[self.done], self._views)
            self.done += 1
        if self.done == len(self.known.spans):
            self.place, self.known = self.place + 1, None
        return event


class _Samples(_Answer[Viewed]):
    """The answer to `decode_many`."""

    def __init__(self, first: int, requests: Sequence[Request], views: Sequence[DecodeRequest]) -> None:
        super().__init__(first, len(requests), views)
        self._requests = requests

    def _event(self, row: Any) -> Viewed:
        span = self._requests[self.place].span or Span(0, 0)
        event = answers.viewed(row, self._first + self.place, span, self._views)
        self.place += 1
        return event


def _batches(items: Sequence[T], costs: Sequence[int]) -> Iterator[tuple[int, Sequence[T]]]:
    """Runs of items with the number of the first: few files each, and not many bytes."""
    first = files = held = 0
    for i, cost in enumerate(costs):
        if i > first and cost and (files == BATCH or held + cost > BATCH_BYTES):
            yield first, items[first:i]
            first, files, held = i, 0, 0
        files += bool(cost)
        held += cost
    if first < len(items):
        yield first, items[first:]


def _examined(index: int, data: bytes, name: str, cut: CutHow, limit_s: float) -> Examined:
    """A record by a call for each step, so that it is known which of them kills the helper."""
    found = None
    try:
        found = probe(data, name, limit_s=limit_s)
        whole = whole_spans(data, found.kind, cut, limit_s=limit_s) if found.kind in TIMED else [Span(0, 0)]
        return Examined(index, found, spans=cut_up(whole, cut))
    except MediaError as error:
        return Examined(index, found, error, PROBING if found is None else CUTTING)


def _viewed(index: int, request: Request, views: Sequence[DecodeRequest], limit_s: float, reader: str) -> Viewed:
    """A sample by a call of its own."""
    span = request.span or Span(0, 0)
    try:
        options = {"reader": reader, "name": request.name, "key": request.key}
        made = (
            decode(request.data, request.kind, views, request.span, limit_s=limit_s, **options) if views else Decoded()
        )
    except MediaError as error:
        return Viewed(index, span, error=error)
    return Viewed(index, span, made.views)


class _Media:
    """The helper of this process."""

    def __init__(self, service: str, memory_bytes: int) -> None:
        self.helper = Helper(service, memory_bytes=memory_bytes, name="media")
        self._lock = threading.Lock()
        self._stream = 0
        self._ended: list[int] = []
        self.decodes = Decodes()

    def ask(self, method: str, data: bytes, limit_s: float, read: Callable[[Any], T], *args: object) -> T:
        """What `read` makes of the answer. Raises as the public functions say."""
        hard = limit_s + GRACE_SECONDS + len(data) // _GRACE_BYTES

        def call() -> T:
            return self._read(read, self.helper.call(method, data, limit_s, *args, limit_s=hard))

        with self._lock:
            try:
                return attempt(call)
            except HelperError as failed:
                raise Quarantined(failed.error, failed.message or failed.error) from failed

    def parts(
        self, reading: _Answer[T], held: int, short_s: float, long_s: float, method: str, *args: object
    ) -> Iterator[T]:
        """What `reading` makes of the parts of a batch's answer. It ends early where the helper dies or fails: the rest
        is for the caller.

        Args:
            held: bytes of files in the batch.
            short_s, long_s: limits of a part; of one that the helper says is slow, and those after it.
        """
        self._stream += 1
        stream = self._stream
        grace = GRACE_SECONDS + ANSWER_SECONDS + held // _GRACE_BYTES
        call: tuple[Any, ...] = (method, stream, self._ended, *args)
        limit_s, state = short_s, ""
        try:
            while True:
                with self._lock:
                    answer = self.helper.call(*call, limit_s=limit_s + grace)
                    found, state = self._read(reading.part, answer)
                yield from found
                if state == "done":
                    return
                if state == "slow":
                    limit_s = long_s
                call = ("more", stream, self._ended)
        except (HelperDied, HelperError, NotHeld, MediaError, WireError):
            return
        finally:
            # not told to the helper now: this may run while a call does, wherever a generator is collected
            if state != "done":
                self._ended = [*self._ended[-_REMEMBERED:], stream]

    def _read(self, read: Callable[[Any], T], answer: Any) -> T:
        try:
            value, counts = answer
            found = read(value)
            self.decodes.add(answers.decodes(counts))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self.helper.reject() from error
        return found

    def close(self) -> None:
        with self._lock:
            self.helper.close()


_media = _Media("curate.media.service:MediaService", MEMORY_BYTES)

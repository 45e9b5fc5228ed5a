"""The media helper's side: what it does with the files that its worker sends (`guarded`)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from curate.media import last_file
from curate.media.answers import (
    decoded_rows,
    decodes_row,
    examined_row,
    span_rows,
    view_of,
    viewed_row,
)
from curate.media.clips import Span
from curate.media.container import Deadline
from curate.media.decode import decode
from curate.media.decodes import counted
from curate.media.examine import CutHow, Examined, Request, Slow, Viewed, decode_many, examine, whole_spans
from curate.media.probe import probe
from curate.media.requests import DecodeRequest
from curate.schema.errors import CurateError, MediaError
from curate.schema.fields import TIMED

ANSWER_BYTES = 32 << 20
"""Bytes of views after which an answer is sent; one sample may be more."""

ANSWER_SECONDS = 1.0
_ANSWER_EVENTS = 512


class NotHeld(Exception):
    """The helper has not got the stream: it was started anew since it began."""


class _Stream:
    """Results that are still to come, and the bytes of the files that they are of."""

    def __init__(self, events: Iterator[Examined | Viewed | Slow], views: list[DecodeRequest], held: int) -> None:
        self.events, self.held = events, held
        self.numbers = {view: i for i, view in enumerate(views)}


class MediaService:
    """Functions of this room with arguments and results as the wire between processes carries them. `stream` numbers
    the batches of a worker.

    Answers are [value, counts of what was decoded since the last answer].
    """

    RAISES = (MediaError, CurateError, NotHeld)

    def __init__(self) -> None:
        import av  # noqa: F401 - every call needs it, and what is mapped now is not counted against the limit
        from PIL import Image

        Image.init()
        self._streams: dict[int, _Stream] = {}

    @property
    def held_bytes(self) -> int:
        return sum(stream.held for stream in self._streams.values())

    def probe(self, data: bytes, limit_s: float, name: str) -> list[object]:
        return _counted(asdict(probe(data, name, limit_s=limit_s)))

    def whole_spans(self, data: bytes, limit_s: float, kind: str, cut: list[Any]) -> list[object]:
        _one_thread()
        counted.files += kind == "video"
        return _counted(span_rows(whole_spans(data, kind, CutHow(*cut), Deadline(limit_s))))

    def decode(
        self,
        data: bytes,
        limit_s: float,
        kind: str,
        wanted: list[dict[str, Any]],
        times: list[int] | None,
        options: dict[str, str],
    ) -> list[object]:
        views = [view_of(**view) for view in wanted]
        span = None if times is None else Span(times[0], times[1])
        counted.files += kind in TIMED
        return _counted(decoded_rows(decode(data, kind, views, span, limit_s=limit_s, **options), views))

    def examine(
        self,
        stream: int,
        ended: list[int],
        items: list[list[Any]],
        cut: list[Any],
        wanted: list[dict[str, Any]],
        limit_s: float,
        sample_s: float,
        reader: str,
    ) -> list[object]:
        """Begin a batch of records, [data, name]; the answer is its first part."""
        views = [view_of(**view) for view in wanted]
        events = examine(
            [(data, name) for data, name in items],
            CutHow(*cut),
            views,
            limit_s=limit_s,
            sample_s=sample_s,
            reader=reader,
        )
        return self._begin(stream, ended, _Stream(events, views, sum(len(data) for data, _ in items)))

    def decode_many(
        self,
        stream: int,
        ended: list[int],
        files: list[bytes],
        requests: list[list[Any]],
        wanted: list[dict[str, Any]],
        limit_s: float,
        reader: str,
    ) -> list[object]:
        """Begin a batch of samples, [number of the file, kind, start, end, name, key]."""
        views = [view_of(**view) for view in wanted]
        asked = [
            Request(files[number], kind, None if start is None else Span(start, end), name, key)
            for number, kind, start, end, name, key in requests
        ]
        events = decode_many(asked, views, limit_s=limit_s, reader=reader)
        return self._begin(stream, ended, _Stream(events, views, sum(map(len, files))))

    def more(self, stream: int, ended: list[int]) -> list[object]:
        """The next part of a batch: [its events, "more", "slow" or "done"]."""
        self._end(ended)
        if stream not in self._streams:
            raise NotHeld(f"stream {stream}")
        own = self._streams[stream]
        rows: list[list[object]] = []
        size = 0
        until = time.monotonic() + ANSWER_SECONDS
        for event in own.events:
            if isinstance(event, Slow):
                _one_thread()
                return _counted([rows, "slow"])
            if isinstance(event, Examined):
                rows.append(examined_row(event))
            else:
                rows.append(viewed_row(event, own.numbers))
                size += sum(array.nbytes for array in event.views.values())
            if size >= ANSWER_BYTES or len(rows) >= _ANSWER_EVENTS or time.monotonic() > until:
                return _counted([rows, "more"])
        self._end([stream])
        return _counted([rows, "done"])

    def _begin(self, stream: int, ended: list[int], own: _Stream) -> list[object]:
        self._end(ended)
        self._streams[stream] = own
        return self.more(stream, [])

    def _end(self, streams: Sequence[int]) -> None:
        gone = [self._streams.pop(stream) for stream in streams if stream in self._streams]
        if gone:
            last_file.forget()


def _counted(value: object) -> list[object]:
    return [value, decodes_row(counted.take())]


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)  # each of its threads reserves 70 MB of address space, one for each core

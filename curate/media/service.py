"""The media helper's side: what it does with the files that its worker sends (`guarded`)."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from curate.media import kept
from curate.media.answers import (
    decoded_rows,
    decodes_row,
    examined_row,
    span_rows,
    view_of,
    viewed_row,
)
from curate.media.audio import audio_spans
from curate.media.clips import Span
from curate.media.container import Deadline
from curate.media.decode import decode
from curate.media.decodes import counted
from curate.media.examine import CutHow, Examined, Request, Slow, Viewed, decoding, examining
from curate.media.probe import probe
from curate.media.requests import DecodeRequest
from curate.media.shots import find_shots
from curate.schema.errors import CurateError, MediaError

ANSWER_BYTES = 32 << 20
"""Bytes of views after which an answer is sent; one sample may be more."""

ANSWER_SECONDS = 1.0
_ANSWER_EVENTS = 512


class NotHeld(Exception):
    """The helper has not got the file, or the stream: it was started anew since it was sent."""


class _Stream:
    """Results that are still to come, and the bytes of the files that they are of."""

    def __init__(self, events: Iterator[Examined | Viewed | Slow], views: list[DecodeRequest], held: int) -> None:
        self.events, self.held = events, held
        self.numbers = {view: i for i, view in enumerate(views)}


class MediaService:
    """`file` numbers the files of one worker; `data` is None for the one that came last. `stream` numbers its batches.

    Answers are [value, counts of what was decoded since the last answer].
    """

    RAISES = (MediaError, CurateError, NotHeld)

    def __init__(self) -> None:
        import av  # noqa: F401 - every call needs it, and what is mapped now is not counted against the limit
        from PIL import Image

        Image.init()
        self._file = -1
        self._data = b""
        self._streams: dict[int, _Stream] = {}

    @property
    def held_bytes(self) -> int:
        return len(self._data) + sum(stream.held for stream in self._streams.values())

    def forget(self) -> None:
        """Free the last file before the next one comes."""
        self._file, self._data = -1, b""
        kept.forget()

    def probe(self, file: int, data: bytes | None, limit_s: float, name: str) -> list[object]:
        return _counted(asdict(probe(self._held(file, data), name, limit_s=limit_s)))

    def find_shots(
        self,
        file: int,
        data: bytes | None,
        limit_s: float,
        detector: str,
        threshold: float | None,
        min_frames: int,
        name: str,
    ) -> list[object]:
        _one_thread()
        counted.files += 1
        spans = find_shots(self._held(file, data), detector, threshold, min_frames, limit_s=limit_s, name=name)
        return _counted(span_rows(spans))

    def audio_spans(self, file: int, data: bytes | None, limit_s: float, name: str) -> list[object]:
        return _counted(span_rows(audio_spans(self._held(file, data), Deadline(limit_s), name)))

    def decode(
        self,
        file: int,
        data: bytes | None,
        limit_s: float,
        kind: str,
        wanted: list[dict[str, Any]],
        times: list[int] | None,
        name: str,
        key: str,
    ) -> list[object]:
        views = [view_of(**view) for view in wanted]
        span = None if times is None else Span(times[0], times[1])
        counted.files += kind in ("video", "audio")
        found = decode(self._held(file, data), kind, views, span, limit_s=limit_s, name=name, key=key)
        return _counted(decoded_rows(found, views))

    def examine(
        self,
        stream: int,
        ended: list[int],
        items: list[list[Any]],
        cut: list[Any],
        wanted: list[dict[str, Any]],
        limit_s: float,
        sample_s: float,
    ) -> list[object]:
        """Begin a batch of records, [data, name]; the answer is its first part."""
        views = [view_of(**view) for view in wanted]
        events = examining([(data, name) for data, name in items], CutHow(*cut), views, limit_s, sample_s)
        return self._begin(stream, ended, _Stream(events, views, sum(len(data) for data, _ in items)))

    def decode_many(
        self,
        stream: int,
        ended: list[int],
        files: list[bytes],
        requests: list[list[Any]],
        wanted: list[dict[str, Any]],
        limit_s: float,
    ) -> list[object]:
        """Begin a batch of samples, [number of the file, kind, start, end, name, key]."""
        views = [view_of(**view) for view in wanted]
        asked = [
            Request(files[number], kind, None if start is None else Span(start, end), name, key)
            for number, kind, start, end, name, key in requests
        ]
        return self._begin(stream, ended, _Stream(decoding(asked, views, limit_s), views, sum(map(len, files))))

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
            kept.forget()

    def _held(self, file: int, data: bytes | None) -> bytes:
        if data is not None:
            self._file, self._data = file, data
        elif file != self._file:
            raise NotHeld(f"file {file}")
        return self._data


def _counted(value: object) -> list[object]:
    return [value, decodes_row(counted.take())]


def _one_thread() -> None:
    import cv2

    cv2.setNumThreads(1)  # each of its threads reserves 70 MB of address space, one for each core

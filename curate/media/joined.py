"""Videos that follow each other in one file (`chain`): one media, one recording after the other."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from curate.media import container as boxes
from curate.media.audio import audio_spans
from curate.media.chain import links
from curate.media.clips import MICRO, Span
from curate.media.last_file import LastFile
from curate.media.video import PyAVReader
from curate.schema.errors import MediaError


@dataclass(frozen=True)
class Link:
    """One recording.

    Attributes:
        data: of the recording alone.
        has_video: False for one of audio alone.
        opens: False for one that cannot be opened; it lasts a second, to fail by name.
        begin_us, end_us: on the clock of the whole.
    """

    data: bytes
    has_video: bool
    begin_us: int
    end_us: int
    opens: bool = True


_KEPT: LastFile[tuple[Link, ...]] = LastFile()


def joined(data: bytes, deadline: boxes.Deadline, name: str = "") -> tuple[Link, ...]:
    """The recordings of a file in order; none for a file of one. The last file's are kept.

    Raises MediaError for more than `container.MAX_SECONDS` together, and for the deadline.
    """
    return _KEPT.of(data, lambda: _joined(data, deadline, name))


def _joined(data: bytes, deadline: boxes.Deadline, name: str) -> tuple[Link, ...]:
    found: list[Link] = []
    begin = 0
    parts = links(data)
    for part in parts if len(parts) > 1 else ():
        try:
            has_video, length = _measured(part, deadline, name)
            found.append(Link(part, has_video, begin, begin + length))
        except MediaError:
            deadline.check()
            length = MICRO
            found.append(Link(part, True, begin, begin + length, opens=False))
        begin += length
    boxes.sane_seconds(begin / MICRO, name)
    return tuple(found)


def _measured(data: bytes, deadline: boxes.Deadline, name: str) -> tuple[bool, int]:
    """True if a recording has video, and its length in microseconds with what it lacks."""
    with boxes.opened(data, name, deadline) as container:
        has_video = boxes.video_stream(container) is not None
    if not has_video:
        return False, audio_spans(data, deadline, name)[-1].end_us
    with PyAVReader(data, deadline, name) as reader:
        return True, max(reader.duration_us(), reader.stated_us() or 0)


def link_of(chain: tuple[Link, ...], span: Span) -> tuple[Link, Span]:
    """The recording that a span begins in, and the span on its own clock. Shots never span two recordings."""
    at = max(0, bisect_right([link.begin_us for link in chain], span.start_us) - 1)
    begin = chain[at].begin_us
    return chain[at], Span(span.start_us - begin, span.end_us - begin, span.missing)

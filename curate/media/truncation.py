"""What a file that breaks off says it would have gone on to hold.

A stated length is a claim, and makes no span by itself (law 14). It is believed only of files that also show that they
are cut short: then the rest is written down as missing.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from curate.media import container as boxes
from curate.media.boxes import elements
from curate.media.chunks import riff_chunks
from curate.media.clips import MICRO

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

_COUNTED = frozenset({"w64", "aiff", "caf", "tta", "ape"})
"""Formats whose header counts the samples that follow."""

_UNKNOWN_SIZE = 0x7FFFF000
"""Sizes of RIFF chunks from here on are what writers to a pipe leave behind; so is zero."""


def stated_end_us(data: bytes, container: InputContainer, stream: Stream, begin_us: int) -> int | None:
    """Where a stream of a file that is cut short would end on the container's clock; None for one that is not.

    Args:
        data: the whole file.
        begin_us: of the stream's first packet.
    """
    kind = container.format.name
    if kind.startswith("mov"):
        end = _of_index(data, stream)
    elif kind == "matroska,webm":
        end = _of_tag(container, stream, begin_us) if _matroska_ends_after(data) else None
    elif kind == "avi":
        end = _of_frames(stream) if int.from_bytes(data[4:8], "little") > len(data) - 8 else None
    elif kind == "wav":
        end = _of_data_chunk(data, stream)
    elif kind == "flac":
        audio = boxes.audio_stream(container)
        end = _of_stream(stream) if audio is not None and _ends_in_a_frame(container, audio) else None
    elif kind in _COUNTED:
        end = _of_stream(stream)
    else:
        end = None
    return end if end is not None and end - begin_us <= boxes.MAX_SECONDS * MICRO else None


def index_goes_beyond(data: bytes, stream: Stream) -> bool:
    """True if the last sample of an MP4's sample tables (ISO/IEC 14496-12, 8.7) lies beyond the data."""
    if not stream.container.format.name.startswith("mov") or not len(stream.index_entries):
        return False
    last = stream.index_entries[len(stream.index_entries) - 1]
    return bool(last.pos + last.size > len(data))


def _of_index(data: bytes, stream: Stream) -> int | None:
    if not index_goes_beyond(data, stream):
        return None
    entries = stream.index_entries
    return round((entries[len(entries) - 1].timestamp + 1) * boxes.time_base(stream) * MICRO)


def _of_stream(stream: Stream) -> int | None:
    return round(stream.duration * boxes.time_base(stream) * MICRO) if stream.duration else None


def _of_tag(container: InputContainer, stream: Stream, begin_us: int) -> int | None:
    """Matroska's tag DURATION of the stream, else the duration of its segment. Some writers mean the end by it."""
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        stated = round((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * MICRO)
    except (ValueError, OverflowError):
        stated = container.duration or 0
    if stated <= 0:
        return None
    return stated if stated > begin_us else begin_us + stated


def _matroska_ends_after(data: bytes) -> bool:
    """True if the Segment of a Matroska file (RFC 9559) has a known size that goes beyond the data; those of a live
    source are unknown (RFC 8794, 6.2)."""
    for kind, body, size in islice(elements(data), 2):
        if kind == 0x18538067:
            return size is not None and size > len(body)
    return False


def _of_frames(stream: Stream) -> int | None:
    """The frames that an AVI's header counts."""
    rate = stream.average_rate if stream.type == "video" else None
    return round(stream.frames / rate * MICRO) if rate and stream.frames else None


def _of_data_chunk(data: bytes, stream: Stream) -> int | None:
    """The data chunk of a WAV that goes beyond the file (RIFF: chunks of id, size, padded to even)."""
    for kind, at, size in riff_chunks(data):
        if kind == b"data":
            rate = stream.codec_context.bit_rate or 0
            cut = 0 < size < _UNKNOWN_SIZE and at + size > len(data)
            return round(size * 8 * MICRO / rate) if cut and rate else None
    return None


def _ends_in_a_frame(container: InputContainer, stream: AudioStream) -> bool:
    """True if the last frame of a FLAC is cut short: its checksum does not hold (RFC 9639, 9.3)."""
    import av

    final: Packet[AudioStream] | None = None
    for packet in boxes.packets(container, [stream], boxes.Deadline(float("inf"))):
        final = packet
    try:
        return final is not None and not stream.codec_context.decode(final)
    except (av.error.FFmpegError, ValueError):
        return True

"""Opening of untrusted containers with FFmpeg (PyAV), and what their streams say of themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, TypeVar

from curate.media.sniff import explain, named, refused
from curate.schema.errors import MediaError

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

    S = TypeVar("S", bound=Stream)

MAX_SECONDS = 24 * 3600
"""Media that claim to be longer are refused: the claim is nearly always a broken header."""

MAX_FRAME_PIXELS = 8192 * 8192
"""Videos with larger frames are refused. The highest levels of H.264, HEVC and VP9 end at 35.7 million pixels; at this
limit a frame takes 100 MB as 8-bit 4:2:0, and a decoder may keep 17 of them."""

DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,obu,ivf,flv,asf,ogg,rm,mxf,"
    "wav,w64,aiff,au,caf,flac,mp3,aac,ac3,eac3,dts,amr,wv,tta,ape"
)
"""The only demuxers that may look at the data. Playlists (HLS, DASH, concat, SDP) are kept out: one from the open web
would make FFmpeg read local files or fetch urls (law 11)."""


RAW_VIDEO = frozenset({"h264", "hevc", "mpegvideo", "m4v", "obu", "ivf"})
"""Streams without a container. Their length is a guess from the bit rate, and some have no time stamps to seek by."""

RAW_AUDIO = frozenset({"mp3", "aac", "ac3", "eac3", "dts", "amr"})
"""Likewise for sound."""

_NO_LENGTH = RAW_VIDEO | {"asf", "mpeg", "mpegts"}
"""Containers whose streams state no length that holds: ASF adds its buffering time, of MPEG streams it is a guess."""


class Deadline:
    """A limit of wall time, checked between packets."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._end = time.monotonic() + limit_s

    def left(self) -> float | None:
        """Seconds that are left, 0 or more; None without a limit."""
        return None if self._end == float("inf") else max(0.0, self._end - time.monotonic())

    def check(self) -> None:
        """Raise MediaError when the time is up."""
        if time.monotonic() > self._end:
            raise self.passed()

    def passed(self) -> MediaError:
        """What is raised when the time is up."""
        return MediaError(f"Decoding took longer than the limit of {self.limit_s:g} s.")


@contextmanager
def opened(data: bytes, name: str = "", deadline: Deadline | None = None) -> Iterator[InputContainer]:
    """The container in `data`, closed at the end.

    Args:
        data: the whole file.
        name: for messages only.
        deadline: looked at while FFmpeg reads the first packets, for a header of 2 kB may claim 100 million of them.

    Raises:
        MediaError: none can be opened, with the reason; the deadline.
    """
    container = open_container(data, name, deadline)
    try:
        yield container
    finally:
        container.close()


def open_container(data: bytes, name: str = "", deadline: Deadline | None = None) -> InputContainer:
    """As `opened`, for owners that close it themselves."""
    import av

    why = refused(data)
    if why is not None:
        raise MediaError(named(name, why))
    # FFmpeg decodes the first frames to learn what the streams are: the limit of their size holds there too
    options = {"format_whitelist": DEMUXERS, "max_pixels": str(MAX_FRAME_PIXELS)}
    left = None if deadline is None else deadline.left()
    try:
        return av.open(BytesIO(data), "r", options=options, metadata_errors="replace", timeout=(left, None))
    except av.error.ExitError as error:
        raise (deadline or Deadline(0)).passed() from error
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(named(name, explain(data))) from error


def video_stream(container: InputContainer) -> VideoStream | None:
    """FFmpeg's best video stream that is not an attached picture (cover art) or a thumbnail track, or None."""
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    streams = [s for s in container.streams.video if not s.disposition & covers]
    if not streams:
        return None
    best = container.streams.best("video")
    return next((s for s in streams if best is not None and s.index == best.index), streams[0])


def audio_stream(container: InputContainer) -> AudioStream | None:
    """FFmpeg's best audio stream, of the video's program where there are programs (transport streams); or None."""
    best = container.streams.best("audio", related=video_stream(container))
    return next((s for s in container.streams.audio if best is not None and s.index == best.index), None)


def prepare(container: InputContainer, stream: Stream) -> None:
    """Read only `stream`, on one thread: workers own their cores, and errors come in order."""
    from av.stream import Discard

    if stream.codec_context is None:
        raise MediaError(f"No decoder is available for its {stream.type} stream.")
    stream.codec_context.thread_count = 1
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all


def time_base(stream: Stream) -> Fraction:
    """Seconds of one tick of the stream's time stamps."""
    if not stream.time_base:
        raise MediaError(f"Its {stream.type} stream has no time base.")
    return Fraction(stream.time_base)


def header_seconds(stream: Stream) -> float | None:
    """The stream's own duration as its header states it, or None. Matroska writes it as a tag."""
    if stream.container.format.name in _NO_LENGTH:
        return None
    if stream.duration is not None and stream.duration > 0:
        return float(stream.duration * time_base(stream))
    hours, _, rest = stream.metadata.get("DURATION", "").partition(":")
    minutes, _, seconds = rest.partition(":")
    try:
        stated = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        return None
    return stated if stated > 0 else None


def demuxed_seconds(
    container: InputContainer, stream: Stream, deadline: Deadline, rate: float | None = None
) -> float | None:
    """From the first time stamp to the end of the last packet, by reading all of them without decoding.

    Where packets carry no time stamps (bare H.264), their number over `rate`, or None. The container is at its end
    afterwards.
    """
    first: int | None = None
    last = count = 0
    for packet in packets(container, stream, deadline):
        count += 1
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:
            continue
        first = stamp if first is None else min(first, stamp)
        last = max(last, stamp + (packet.duration or 0))
    if first is None:
        return count / rate if rate and count else None
    return None if last <= first else float((last - first) * time_base(stream))


def packets(container: InputContainer, stream: S, deadline: Deadline) -> Iterator[Packet[S]]:
    """Packets that hold data. Empty ones mean "the same again" (Theora, AVI) and decoders refuse them.

    Ends early where the file breaks off: what that means is for the caller to judge by the time reached.
    """
    import av

    demux: Iterator[Packet[S]] = container.demux(stream)  # type: ignore[assignment]  # its stubs know only subclasses
    while True:
        deadline.check()
        try:
            packet = next(demux, None)
        # at the end of a file in which more streams than at its start came up, PyAV looks for those it does not know
        except (av.error.FFmpegError, IndexError):
            return
        if packet is None:
            return
        if packet.size:
            yield packet


def sane_seconds(seconds: float | None, name: str = "") -> float | None:
    """The duration, or MediaError where it cannot be true."""
    if seconds is not None and seconds > MAX_SECONDS:
        raise MediaError(named(name, f"claims to last {seconds / 3600:.0f} hours; more than 24 are refused"))
    return seconds

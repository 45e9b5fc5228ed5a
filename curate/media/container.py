"""Opening of untrusted containers with FFmpeg (PyAV), and what their streams say of themselves."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from io import BytesIO
from typing import TYPE_CHECKING, TypeVar

from curate.media.mpegts import without_repeats
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
"""Likewise for audio."""

_REORDERED_S = 10
"""Seconds by which a program stream may present a frame later than it is decoded."""

_TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"fLaC")


class Deadline:
    """A limit of wall time, checked between packets."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        self._end = time.monotonic() + limit_s

    def renew(self, limit_s: float) -> None:
        """Begin anew, for what is decoded next with what is open."""
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
        return av.open(
            BytesIO(without_repeats(data)), "r", options=options, metadata_errors="replace", timeout=(left, None)
        )
    except av.error.ExitError as error:
        raise (deadline or Deadline(0)).passed() from error
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError(named(name, explain(data))) from error


def video_stream(container: InputContainer) -> VideoStream | None:
    """FFmpeg's best video stream that is not an attached image (cover art) or a thumbnail track, or None."""
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
    if stream.codec_context is None:
        raise MediaError(f"No decoder is available for its {stream.type} stream.")
    stream.codec_context.thread_count = 1
    discard_others(container, {stream.index})


def discard_others(container: InputContainer, wanted: Collection[int]) -> None:
    """Let the demuxer give packets of the streams with these indices only."""
    from av.stream import Discard

    for stream in container.streams:
        if stream.index not in wanted:
            stream.discard = Discard.all


def time_base(stream: Stream) -> Fraction:
    """Seconds of one tick of the stream's time stamps."""
    if not stream.time_base:
        raise MediaError(f"Its {stream.type} stream has no time base.")
    return Fraction(stream.time_base)


def packets(container: InputContainer, streams: Sequence[S], deadline: Deadline) -> Iterator[Packet[S]]:
    """Packets of the streams that hold data, in the file's order.

    Empty ones mean "the same again" (Theora, AVI) and decoders refuse them.

    Ends early where the file breaks off: what that means is for the caller to judge by the time reached.
    """
    import av

    mpeg = container.format.name == "mpeg"
    usual: dict[int, int] = {}
    demux: Iterator[Packet[S]] = container.demux(*streams)  # type: ignore[assignment]  # its stubs know only subclasses
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
            if mpeg and packet.pts is not None and packet.dts is not None and packet.time_base:
                late = packet.pts - packet.dts
                if abs(late) * packet.time_base > _REORDERED_S:
                    # where program streams were joined, a last frame gets the stamp of the next
                    late = usual.get(packet.stream.index, 0)
                    packet.pts = packet.dts + late
                usual[packet.stream.index] = late
            yield packet


def is_tag(packet: Packet[S]) -> bool:
    """True if a packet of a bare audio stream is a tag, or the header of a FLAC file that was joined to another.

    Parsers of such streams pass on what stands between the frames. Frames begin with a sync word, so none looks so.
    """
    return packet.stream.container.format.name in RAW_AUDIO | {"flac"} and bytes(packet).startswith(_TAGS)


def sane_seconds(seconds: float | None, name: str = "") -> float | None:
    """The duration, or MediaError where it cannot be true."""
    if seconds is not None and seconds > MAX_SECONDS:
        raise MediaError(named(name, f"claims to last {seconds / 3600:.0f} hours; more than 24 are refused"))
    return seconds

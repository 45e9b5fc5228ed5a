"""The time line of a file, measured from its packets: what containers state of lengths and times is a claim (law 14).

One pass over the packets of a file, without decoding, finds where each stream begins and ends, and where the clock
breaks. The parts are laid one after the other; packets get their place on the joined clock when they are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from fractions import Fraction
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from curate.media import container as boxes
from curate.media.clips import MICRO
from curate.media.clock import Clock, Reading
from curate.media.last_file import LastFile
from curate.media.mpegts import losses, without_repeats
from curate.media.truncation import index_goes_beyond, stated_end_us

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream
    from av.video.stream import VideoStream

    S = TypeVar("S", bound=Stream)

TAIL_US = 250_000
"""By how much a stream may go beyond the other, or end before its header says, without consequence: more than any
codec's frame of audio, less than a syllable."""

COUNTED = frozenset({"mpegts"})
"""Containers whose demuxer calls a packet corrupt because of a counter."""

LOST = "lost"
"""`Packet.opaque` of a packet near which others are lost."""

_DELAY = 3
"""Packets by which FFmpeg's parser may pass the mark "corrupt" on early."""

_AROUND = 12
"""Steps before and after a doubtful packet that say what is usual."""

_HOLE = 1.5
"""Usual steps of decoding times: a longer one tells of a packet that is lost."""


@dataclass(frozen=True)
class Track:
    """The time line of one stream.

    Attributes:
        begin_us, end_us: of its packets, on the container's clock with the breaks taken out; None where packets bear
            no time stamps.
        last_us: where the last packet begins.
        packets: how many of them hold data.
        shifts: (number of a packet, ticks of the stream) in order: from that packet on, so much is added to stamps.
            Empty for a clock without a break.
        lost: numbers of the packets of a video near which others are lost.
    """

    begin_us: int | None = None
    end_us: int | None = None
    last_us: int | None = None
    packets: int = 0
    shifts: tuple[tuple[int, int], ...] = ()
    lost: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Timeline:
    """The time lines of a file's video and audio stream, each None where there is none.

    Attributes:
        cut_short: True if the file is an MP4 whose sample tables go beyond its end.
    """

    video: Track | None
    audio: Track | None
    cut_short: bool = False

    @property
    def broken(self) -> bool:
        """True if the clock breaks, so that a seek by time would not find its place."""
        return any(track is not None and track.shifts for track in (self.video, self.audio))


_KEPT: LastFile[Timeline] = LastFile()


def measure(data: bytes, name: str = "", deadline: boxes.Deadline | None = None) -> Timeline:
    """The time line of a file. The last file's is kept.

    Args:
        data: the whole file.
        name: for messages only.
        deadline: checked between packets.

    Raises:
        MediaError: data that cannot be opened, the deadline.
    """
    limit = deadline or boxes.Deadline(float("inf"))

    def made() -> Timeline:
        found = _measured(data, name, limit, ("video", "audio"))
        if found.video is not None and found.audio is not None and found.cut_short:
            # reading stops at the first packet that is not whole; the other stream may go on behind it
            video, audio = (_measured(data, name, limit, (kind,)) for kind in ("video", "audio"))
            found = Timeline(video.video, audio.audio, True)
        return found

    return _KEPT.of(data, made)


def breaks_off(data: bytes, container: InputContainer, stream: Stream, track: Track) -> bool:
    """True if the file is cut short, by more than `TAIL_US` of a stream that the container says it holds."""
    if track.begin_us is None or track.end_us is None:
        return False
    claim = stated_end_us(data, container, stream, track.begin_us)
    return claim is not None and claim > track.end_us + TAIL_US


def on_clock(packets: Iterator[Packet[S]], track: Track | None) -> Iterator[Packet[S]]:
    """All packets of a stream from its start on, stamped on the joined clock."""
    shifts = list(track.shifts) if track is not None else []
    shift = 0
    for number, packet in enumerate(packets):
        while shifts and number >= shifts[0][0]:
            shift = shifts.pop(0)[1]
        if track is not None and number in track.lost:
            packet.opaque = LOST
        if shift:
            if packet.is_discard:
                packet = _kept(packet)
            if packet.pts is not None:
                packet.pts += shift
            if packet.dts is not None:
                packet.dts += shift
        yield packet


def _kept(packet: Packet[S]) -> Packet[S]:
    """A packet with the same content that is not marked to be dropped; the mark cannot be taken off."""
    from av import Packet

    out: Packet[S] = Packet(bytes(packet))  # type: ignore[assignment]  # of the stream that is set below
    out.pts, out.dts, out.duration, out.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    out.is_keyframe, out.opaque, out.stream = packet.is_keyframe, packet.opaque, packet.stream
    return out


def _measured(data: bytes, name: str, deadline: boxes.Deadline, kinds: Collection[str]) -> Timeline:
    """The time lines of the streams of `kinds`, read together."""
    with boxes.opened(data, name, deadline) as container:
        video = boxes.video_stream(container) if "video" in kinds else None
        audio = boxes.audio_stream(container) if "audio" in kinds else None
        readings = {s.index: _reading(s) for s in (video, audio) if s is not None}
        boxes.discard_others(container, readings)
        clock = Clock(container.format.name, list(readings.values()))
        doubts = _Doubts()
        for packet in boxes.packets(container, [r.stream for r in readings.values()], deadline):
            own = readings[packet.stream.index]
            clock.place(packet, own)
            if own.stream is video and container.format.name in COUNTED:
                doubts.add(packet, own.count)
            own.count += 1
        shifts = clock.shifts()
        return Timeline(
            None if video is None else _track(readings[video.index], shifts, doubts, data),
            None if audio is None else _track(readings[audio.index], shifts, _Doubts(), data),
            any(index_goes_beyond(data, r.stream) for r in readings.values()),
        )


def _reading(stream: VideoStream | AudioStream) -> Reading:
    base = boxes.time_base(stream)
    rate = (stream.average_rate or stream.guessed_rate) if stream.type == "video" else None
    return Reading(stream, base, round(1 / (rate * base)) if rate else 0)


def _track(own: Reading, shifts: list[int], doubts: _Doubts, data: bytes) -> Track:
    if not own.parts:
        return Track(packets=own.count)
    begin = min(part.begin + shifts[i] for i, part in own.parts.items())
    end = max(part.end + shifts[i] for i, part in own.parts.items())
    ticks = [
        (number, round(Fraction(shifts[i] + own.moved, MICRO) / own.base)) for i, number in own.begins if i or own.moved
    ]
    lost = doubts.confirmed(data, own.stream.id, {number for number, _ in ticks})
    last = max(part.latest + shifts[i] for i, part in own.parts.items())
    return Track(begin, end, last, own.count, tuple(ticks or own.cuts), lost)


class _Doubts:
    """Packets of a transport stream that its demuxer calls corrupt.

    It only sees that continuity counters do not go on, as they do not where segments were joined either.
    """

    def __init__(self) -> None:
        self._stamps: list[int] = []
        self._places: list[int] = []
        self._corrupt: list[int] = []

    def add(self, packet: Packet[Stream], number: int) -> None:
        self._stamps.append(packet.dts or 0)
        self._places.append(packet.pos or 0)
        if packet.is_corrupt:
            self._corrupt.append(number)

    def confirmed(self, data: bytes, pid: int, joins: Collection[int]) -> frozenset[int]:
        """Numbers of those near which bytes are missing (`mpegts`), or whole packets: then decoding times have a hole.

        Args:
            data: the whole file.
            pid: of the stream.
            joins: numbers of packets before which the clock breaks.
        """
        data = without_repeats(data)
        places = losses(data, pid) if self._corrupt else None
        if places is None:
            return frozenset(self._corrupt)
        steps = [b - a for a, b in zip(self._stamps, self._stamps[1:], strict=False)]
        found = set()
        for number in self._corrupt:
            first, last = max(0, number - _DELAY), min(len(steps) + 1, number + 1 + _DELAY)
            # of streams that were joined each has a frame rate of its own
            around = steps[max(0, first - _AROUND) : first], steps[last - 1 : last - 1 + _AROUND]
            usual = max((median(some) for some in around if some), default=0)
            hole = any(steps[i] > usual * _HOLE and i + 1 not in joins for i in range(first, last - 1))
            end = self._places[last] if last < len(self._places) else len(data)
            if hole or number == len(steps) or ((places >= self._places[first]) & (places <= end)).any():
                found.add(number)
        return frozenset(found)

"""The time line of a file, measured from its packets: what containers state of lengths and times is a claim (law 14).

One pass over the packets of a file, without decoding, finds where each stream begins and ends, and where the clock
breaks: joined recordings (`cat a.ts b.ts`, chained Ogg of RFC 3533, joined program streams) begin anew or leap. The
parts are laid one after the other; packets get their place on the joined clock when they are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from statistics import median
from typing import TYPE_CHECKING

from curate.media import container as boxes
from curate.media.clips import MICRO
from curate.media.mpegts import losses

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.stream import Stream

TAIL_US = 250_000
"""By how much a stream may go beyond the other, or end before its header says, without consequence: more than any
codec's frame of sound, less than a syllable."""

_LEAP_US = {"mpegts": 10 * MICRO, "mpeg": 10 * MICRO, "ogg": 10 * MICRO}
"""Forward steps that no packet of any stream fills are breaks of the clock from here on, by container. FFmpeg's own
programs take 10 s for those whose clocks are known to break (`-dts_delta_threshold`)."""

_LEAP_ELSEWHERE_US = 60 * MICRO
"""The same for containers that stamp every packet: a slide of a minute is believed, one of an hour is not."""

_BACK_US = MICRO
"""A step back by more is a break. Segments of HLS overlap by less, and so do frames that are reordered."""

_RESTART_US = MICRO // 4
"""A step back by more is a break where it returns to the beginning of its part: short recordings, joined."""

_TRUE_DTS = frozenset({"mpegts", "mpeg"})
"""Containers that store decoding times."""

_STILL_US = MICRO
"""The last frame is displayed no longer than it states, nor than this or the longest gap before it."""


@dataclass(frozen=True)
class Track:
    """The time line of one stream.

    Attributes:
        begin_us, end_us: of its packets, on the container's clock with the breaks taken out; None where packets bear
            no time stamps.
        packets: how many of them hold data.
        shifts: (number of a packet, ticks of the stream) in order: from that packet on, so much is added to stamps.
            Empty for a clock without a break.
        lost: numbers of the packets of a video near which others are lost.
    """

    begin_us: int | None = None
    end_us: int | None = None
    packets: int = 0
    shifts: tuple[tuple[int, int], ...] = ()
    lost: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Timeline:
    """The time lines of a file's video and audio stream, each None where there is none."""

    video: Track | None
    audio: Track | None

    @property
    def broken(self) -> bool:
        """True if the clock breaks, so that a seek by time would not find its place."""
        return any(track is not None and track.shifts for track in (self.video, self.audio))


@dataclass
class _Part:
    """A stretch of packets between two breaks, in microseconds of the container's clock."""

    first: int
    begin: int
    end: int
    void: bool = False  # a few false stamps, not a part

    def add(self, begin: int, end: int) -> None:
        self.begin, self.end = min(self.begin, begin), max(self.end, end)


@dataclass
class _Reading:
    """What is known of a stream while its packets pass."""

    stream: Stream
    base: Fraction
    steps: list[tuple[int, int]] = field(default_factory=list)  # decoding time in ticks, position in the file
    corrupt: list[int] = field(default_factory=list)
    count: int = 0
    part: int = 0
    last: int | None = None
    before: tuple[int, int, int] = (0, 0, 0)  # at the last break: (part, stamp, number of the packet)
    seen: int = 0
    longest: int = 0
    latest: int | None = None
    begins: list[tuple[int, int]] = field(default_factory=list)  # (part, number of its first packet)
    tags: int = 0
    cuts: list[tuple[int, int]] = field(default_factory=list)  # (number of a packet, ticks taken out before it)
    spans: dict[int, _Part] = field(default_factory=dict)

    def us(self, ticks: int) -> int:
        return round(ticks * self.base * MICRO)


def measure(data: bytes, name: str = "", deadline: boxes.Deadline | None = None) -> Timeline:
    """The time line of a file. The last file's is kept, for the clips of one file are read one after the other.

    Args:
        data: the whole file.
        name: for messages only.
        deadline: checked between packets.

    Raises:
        MediaError: data that cannot be opened, the deadline.
    """
    global _last
    if _last is None or _last[0] is not data:
        limit = deadline or boxes.Deadline(float("inf"))
        with boxes.opened(data, name, limit) as container:
            _last = data, _measured(data, container, limit)
    return _last[1]


_last: tuple[bytes, Timeline] | None = None

LOST = "lost"
"""`Packet.opaque` of a packet near which others are lost."""


def forget() -> None:
    """Free the file whose time line is kept."""
    global _last
    _last = None


def on_clock(packets: Iterator[Packet[Stream]], track: Track | None) -> Iterator[Packet[Stream]]:
    """All packets of a stream from its start on, stamped on the joined clock."""
    shifts = list(track.shifts) if track is not None else []
    shift = 0
    for number, packet in enumerate(packets):
        while shifts and number >= shifts[0][0]:
            shift = shifts.pop(0)[1]
        if track is not None and number in track.lost:
            packet.opaque = LOST
        if shift:
            if packet.pts is not None:
                packet.pts += shift
            if packet.dts is not None:
                packet.dts += shift
        yield packet


def _measured(data: bytes, container: InputContainer, deadline: boxes.Deadline) -> Timeline:
    video, audio = boxes.video_stream(container), boxes.audio_stream(container)
    readings = {s.index: _Reading(s, boxes.time_base(s)) for s in (video, audio) if s is not None}
    boxes.discard_others(container, readings)
    leap = _LEAP_US.get(container.format.name, _LEAP_ELSEWHERE_US)
    parts: list[_Part] = []
    order = 0
    for packet in boxes.packets(container, [r.stream for r in readings.values()], deadline):
        order += 1
        own = readings[packet.stream.index]
        _place(packet, own, [r for r in readings.values() if r is not own], parts, leap, order)
        if container.format.name in COUNTED and own.stream is video:
            own.steps.append((packet.dts or 0, packet.pos or 0))
            if packet.is_corrupt:
                own.corrupt.append(own.count)
        own.count += 1
    shifts = _shifts(parts)
    return Timeline(*(_track(readings.get(s.index) if s is not None else None, shifts, data) for s in (video, audio)))


def _place(
    packet: Packet[Stream], own: _Reading, others: list[_Reading], parts: list[_Part], leap: int, order: int
) -> None:
    """Put a packet into its part of the clock; begins a new one at a break."""
    stamp = packet.dts if packet.dts is not None else packet.pts
    if stamp is None or packet.is_discard:
        return
    if boxes.is_tag(packet):
        own.tags += packet.duration or 0  # such streams are stamped by counting: a tag takes no time
        own.cuts.append((own.count + 1, -own.tags))
        return
    at = own.us(stamp - own.tags)
    shown = at if packet.pts is None else own.us(packet.pts - own.tags)
    length = own.us(packet.duration or 0)
    if own.last is None:
        if not parts:
            parts.append(_Part(order, shown, shown))
        own.part = _part_of(at, len(parts) - 1, parts, leap)
        own.begins.append((own.part, own.count))
    else:
        part = own.part
        if _breaks(packet, at, own, others, parts[part], leap):
            if part + 1 < len(parts) and _fits(at, parts[part + 1], leap):
                part += 1  # the other stream came to the break first
            else:
                parts.append(_Part(order, shown, shown))
                part = len(parts) - 1
        elif part + 1 < len(parts) and order - parts[part + 1].first > _LATE and _fits(at, parts[part + 1], leap):
            part += 1  # its own clock happens to go on as if nothing were
        if part > own.part and own.count - own.before[2] <= _FALSE and own.begins[1:] and _resumes(at, own):
            _undo(own, parts)  # the clock goes on where it was before a few stamps: those are false
            if part + 1 == len(parts):
                parts.pop()
        elif part != own.part:
            own.before = own.part, own.last, own.count
            own.part, own.latest = part, None
            own.begins.append((part, own.count))
    if own.latest is not None:
        own.longest = max(own.longest, shown - own.latest)
    own.latest = shown if own.latest is None else max(own.latest, shown)
    own.last = at
    own.seen = order
    if own.stream.type == "video":
        length = min(length, max(_STILL_US, own.longest))
    else:
        length = min(length, _STILL_US * 10)
    for span in (parts[own.part], own.spans.setdefault(own.part, _Part(order, shown, shown))):
        span.add(shown, shown + length)


COUNTED = frozenset({"mpegts"})
"""Containers whose demuxer calls a packet corrupt because of a counter."""

_DELAY = 3
_HOLE = 1.5
"""Usual steps of decoding times: a longer one tells of a packet that is lost."""

_FALSE = 16
"""Stamps, one after the other, that may be false without the clock having a break."""

_LATE = 100
"""Packets of the other stream, in a part that it has begun, after which a stream that shows no break follows it."""


def _breaks(
    packet: Packet[Stream], at: int, own: _Reading, others: list[_Reading], part: _Part, leap: int
) -> bool:
    assert own.last is not None
    step = at - own.last
    if step < -_BACK_US or (step < -_RESTART_US and at <= part.begin + _RESTART_US):
        # where a container stores no decoding times, FFmpeg may take those of reordered frames for them
        return packet.is_keyframe or own.stream.container.format.name in _TRUE_DTS
    # a hole that another stream fills is no break: a slide is shown while a voice goes on
    filled = any(r.part == own.part and r.seen > own.seen and r.last is not None and r.last > own.last + leap for r in others)
    return step > leap and not filled


def _resumes(at: int, own: _Reading) -> bool:
    return -_BACK_US <= at - own.before[1] <= _BACK_US


def _undo(own: _Reading, parts: list[_Part]) -> None:
    parts[own.part].void = True
    own.spans.pop(own.part, None)
    own.begins.pop()
    own.part = own.before[0]


def _fits(at: int, part: _Part, leap: int) -> bool:
    return part.begin - leap <= at <= part.end + leap


def _part_of(at: int, newest: int, parts: list[_Part], leap: int) -> int:
    """The part that the first packet of a stream belongs to: the newest that it fits, else the newest."""
    return next((i for i in range(newest, -1, -1) if _fits(at, parts[i], leap)), newest)


def _shifts(parts: list[_Part]) -> list[int]:
    """Microseconds to add in each part, so that each begins where the one before it ends."""
    shifts: list[int] = []
    end: int | None = None
    for part in parts:
        shifts.append(0 if end is None or part.void else end - part.begin)
        if not part.void:
            end = part.end + shifts[-1]
    return shifts


def _track(own: _Reading | None, shifts: list[int], data: bytes) -> Track | None:
    if own is None:
        return None
    if not own.spans:
        return Track(packets=own.count)
    begin = min(span.begin + shifts[i] for i, span in own.spans.items())
    end = max(span.end + shifts[i] for i, span in own.spans.items())
    ticks = tuple((number, round(Fraction(shifts[i], MICRO) / own.base)) for i, number in own.begins if i)
    ticks = ticks or tuple(own.cuts)
    return Track(begin, end, own.count, ticks, _lost(own, {number for number, _ in ticks}, data))


def _lost(own: _Reading, joins: Collection[int], data: bytes) -> frozenset[int]:
    """Which of the packets that the demuxer calls corrupt are so: bytes are missing (`mpegts`), or whole packets, as a
    hole in decoding times shows. The parser may pass the mark on to a packet up to `_DELAY` before."""
    if not own.corrupt:
        return frozenset()
    steps = [b[0] - a[0] for a, b in zip(own.steps, own.steps[1:], strict=False)]
    usual = median(steps) if steps else 0
    places = losses(data, own.stream.id)
    if places is None:
        return frozenset(own.corrupt)
    found = set()
    for number in own.corrupt:
        first, last = max(0, number - _DELAY), min(len(own.steps), number + 1 + _DELAY)
        hole = any(steps[i] > usual * _HOLE and i + 1 not in joins for i in range(first, last - 1))
        end = own.steps[last][1] if last < len(own.steps) else len(data)
        bytes_lost = ((places >= own.steps[first][1]) & (places <= end)).any()
        if hole or bytes_lost or number + 1 == len(own.steps):
            found.add(number)
    return frozenset(found)

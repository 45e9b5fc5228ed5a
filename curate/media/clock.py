"""Where the clock of a file breaks: recordings that were joined begin anew or leap (`cat a.ts b.ts`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

from curate.media import container as boxes
from curate.media.clips import MICRO

if TYPE_CHECKING:
    from av.packet import Packet
    from av.stream import Stream

_LEAP_US = {"mpegts": 10 * MICRO, "mpeg": 10 * MICRO, "ogg": 10 * MICRO}
"""Forward steps from here on that no packet of any stream fills are breaks, by container. FFmpeg's own programs take
10 s for those whose clocks are known to break (`-dts_delta_threshold`)."""

_LEAP_ELSEWHERE_US = 60 * MICRO
"""The same for containers that stamp every packet: a slide of a minute is believed, one of an hour is not."""

_BACK_US = 3 * MICRO // 10
"""A step back by more is a break. Segments of HLS overlap by less."""

_RESTART_US = MICRO // 10
"""A step back by more is a break where it returns to the beginning of its part: short recordings, joined."""

_RESUMED_US = MICRO
"""How far a clock may have gone on during a few false stamps."""

_TRUE_DTS = frozenset({"mpegts", "mpeg"})
"""Containers that store decoding times."""

_FALSE = 16
"""Stamps, one after the other, that may be false without the clock having a break."""

_LATE = 100
"""Packets, in a part that one stream has begun, after which another that shows no break follows it."""

NO_PTS = frozenset({"avi"})
"""Containers that store no presentation times, for which FFmpeg's guess is wrong where frames are reordered."""

_STILL_US = MICRO
"""The last frame is displayed no longer than it states, nor than this or the frame before it."""

_LONGEST_US = 10 * MICRO
"""A packet of audio is no longer than this. FLAC has at most 65,535 samples a frame (RFC 9639), 8 s at 8 kHz."""


@dataclass
class Part:
    """A stretch of packets between two breaks, in microseconds of the container's clock.

    Attributes:
        first: number of its first packet, over all streams.
        void: True for a few false stamps, which are no part.
    """

    first: int
    begin: int
    end: int
    void: bool = False

    def add(self, begin: int, end: int) -> None:
        self.begin, self.end = min(self.begin, begin), max(self.end, end)


class Extent:
    """What one stream has of a part, in microseconds of the container's clock."""

    def __init__(self, begin: int) -> None:
        self.begin = self.end = self.latest = begin
        self._gap = 0

    def add(self, shown: int, length: int, is_video: bool) -> None:
        """Take in a packet that is presented at `shown` and states a length."""
        self.begin = min(self.begin, shown)
        if not is_video:
            self.latest = max(self.latest, shown)
            self.end = max(self.end, shown + min(length, _LONGEST_US))
        elif shown >= self.latest:
            # of MP4 a length is the step to the next decoding time: only that of the last frame tells where it ends
            self._gap, self.latest = shown - self.latest, shown
            self.end = shown + min(length, max(_STILL_US, self._gap))
        else:
            self._gap = min(self._gap, self.latest - shown)


@dataclass
class Reading:
    """A stream while its packets pass, in the order of the file.

    Attributes:
        count: packets that have passed.
        parts: what it has of each part of the clock, by the part's number.
        begins: (number of a part, number of the stream's first packet in it).
        moved: microseconds added to all stamps, of a stream that lies hours from the other.
        cuts: (number of a packet, ticks to add from there on) for tags that were taken out.
        usual: ticks of a packet that states no length: of a video those of a frame at its average rate.
    """

    stream: Stream
    base: Fraction
    usual: int = 0
    count: int = 0
    parts: dict[int, Extent] = field(default_factory=dict)
    begins: list[tuple[int, int]] = field(default_factory=list)
    cuts: list[tuple[int, int]] = field(default_factory=list)
    moved: int = 0
    part: int = 0
    last: int | None = None
    order: int = 0
    before: tuple[int, int, int] = (0, 0, -_FALSE - 1)  # at the last break: part, stamp, number of the packet
    followed: bool = False  # it showed no break, the other stream did

    def us(self, ticks: int) -> int:
        num, den = self.base.numerator * MICRO, self.base.denominator
        return (2 * ticks * num + den) // (2 * den)


class Clock:
    """Puts the packets of a file's streams into parts of its clock, as they pass.

    Args:
        kind: name of FFmpeg's demuxer.
        readings: of the streams that are read together.
    """

    def __init__(self, kind: str, readings: list[Reading]) -> None:
        self.parts: list[Part] = []
        self._readings = readings
        self._leap = _LEAP_US.get(kind, _LEAP_ELSEWHERE_US)
        self._true_dts = kind in _TRUE_DTS
        self._true_pts = kind not in NO_PTS
        self._order = 0

    def place(self, packet: Packet[Stream], own: Reading) -> None:
        """Put the next packet of the file, which is of the stream `own`, into its part."""
        self._order += 1
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is None:
            return
        if boxes.is_tag(packet):
            # such streams are stamped by counting, and a tag takes no time
            tags = (own.cuts[-1][1] if own.cuts else 0) - (packet.duration or 0)
            own.cuts.append((own.count + 1, tags))
            return
        cut = own.cuts[-1][1] if own.cuts else 0
        at = own.us(stamp + cut) + own.moved
        shown = at if packet.pts is None or not self._true_pts else own.us(packet.pts + cut) + own.moved
        if packet.is_discard and not own.part and (own.last is None or at >= own.last - _RESTART_US):
            return  # an edit list hides it; where the clock goes back, FFmpeg marks all that repeats a time
        self._choose_part(packet, own, at, shown)
        if own.moved and own.last is None:
            at, shown = at + own.moved, shown + own.moved
        own.last, own.order = at, self._order
        self.parts[own.part].add(shown, shown)
        length = own.us(packet.duration or own.usual)
        own.parts.setdefault(own.part, Extent(shown)).add(shown, length, own.stream.type == "video")

    def shifts(self) -> list[int]:
        """Microseconds to add in each part, so that each begins where the one before it ends."""
        for number, part in enumerate(self.parts):
            for reading in self._readings:
                if number in reading.parts:
                    part.end = max(part.end, reading.parts[number].end)
        shifts: list[int] = []
        end: int | None = None
        for part in self.parts:
            shifts.append(0 if end is None or part.void else end - part.begin)
            if not part.void:
                end = part.end + shifts[-1]
        return shifts

    def _choose_part(self, packet: Packet[Stream], own: Reading, at: int, shown: int) -> None:
        if own.last is None:
            if not self.parts:
                self.parts.append(Part(self._order, shown, shown))
            fitting = [i for i in range(len(self.parts)) if self._fits(at, i)]
            own.part = max(fitting, default=0)
            if not fitting:
                own.moved = self.parts[0].begin - shown  # hours from the other stream: both begin together
            own.begins.append((own.part, own.count))
        elif self._breaks(packet, own, at):
            self._begin_part(own, at, shown)
        elif (
            self._fits(at, own.part + 1) and self._order - self.parts[own.part + 1].first > _LATE
        ):  # its own clock happens to go on as if nothing were
            self._enter(own, own.part + 1)
            own.followed = True

    def _breaks(self, packet: Packet[Stream], own: Reading, at: int) -> bool:
        assert own.last is not None
        step = at - own.last
        if step < -_BACK_US or (step < -_RESTART_US and at <= self.parts[own.part].begin + _RESTART_US):
            # where a container stores no decoding times, FFmpeg may take those of reordered frames for them
            return packet.is_keyframe or self._true_dts
        return step > self._leap and not self._filled(own)

    def _filled(self, own: Reading) -> bool:
        """True if another stream has packets in the hole: a slide is shown while a voice goes on."""
        assert own.last is not None
        return any(
            other.part == own.part and other.order > own.order and (other.last or 0) > own.last + self._leap
            for other in self._readings
            if other is not own
        )

    def _begin_part(self, own: Reading, at: int, shown: int) -> None:
        if own.followed and self._fits(at, own.part):
            own.begins[-1] = own.part, own.count  # it had followed too early: its break is here
            own.followed = False
        elif own.count - own.before[2] <= _FALSE and 0 <= at - own.before[1] <= _RESUMED_US:
            # the clock goes on where it was before a few stamps: those are false
            self.parts[own.part].void = True
            del own.parts[own.part], own.begins[-1]
            own.part = own.before[0]
        elif self._fits(at, own.part + 1):
            self._enter(own, own.part + 1)  # the other stream came to the break first
        else:
            self.parts.append(Part(self._order, shown, shown))
            self._enter(own, len(self.parts) - 1)

    def _enter(self, own: Reading, part: int) -> None:
        assert own.last is not None
        own.before = own.part, own.last, own.count
        own.part = part
        own.begins.append((part, own.count))

    def _fits(self, at: int, number: int) -> bool:
        if number >= len(self.parts):
            return False
        part = self.parts[number]
        return not part.void and part.begin - self._leap <= at <= part.end + self._leap

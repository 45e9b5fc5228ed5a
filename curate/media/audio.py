"""Audio: one decode of the audio stream, laid on the media's clock, then resampled for each view."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import chain
from math import ceil, gcd
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.media import container as boxes
from curate.media.chain import links
from curate.media.channels import Polarity, mix, names_of, planar
from curate.media.clips import MICRO, Span
from curate.media.decodes import counted
from curate.media.energy import Meter
from curate.media.last_file import LastFile
from curate.media.sniff import named
from curate.media.timeline import TAIL_US, Timeline, Track, breaks_off, measure, on_clock
from curate.media.truncation import stated_end_us
from curate.schema.errors import MediaError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.resampler import AudioResampler
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet

MAX_SPAN_SECONDS = 3600
"""A longer span of audio in one decode is refused: cut it first."""

MAX_SAMPLES = 180_000_000
"""A span with more samples, at its own rate or a view's, is refused: an hour at 48 kHz fits (0.7 GB as float32), and a
small file may claim an hour at 1 MHz."""

_PREROLL = Fraction(1, 2)
"""Seconds decoded before the wanted start: codecs with memory (MP3 reservoir, AAC overlap, Opus 80 ms) need some."""

_JITTER = Fraction(1, 50)
"""Seconds by which time stamps may be off (Matroska rounds to 1 ms) before a hole or an overlap is believed."""

_EXACT_SEEK = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"})
"""Containers whose audio seeks give true times. In others all packets are read, and those before the span not
decoded."""

_DRIFTING = frozenset({"ac3", "eac3", "dts"})
"""Raw streams whose time stamps FFmpeg adds up from rounded durations: their samples are counted from the start
instead."""

_GAPLESS = boxes.RAW_AUDIO | {"flac", "wav", "w64", "aiff", "au", "caf", "wv", "tta", "ape"}
"""Files of nothing but audio, where time stamps count samples: a hole in them is damage that the parser skipped."""

_UNSTATED = boxes.RAW_AUDIO - {"mp3"} | {"mpegts", "mpeg"}
"""Containers that state no length; what FFmpeg gives is an estimate."""

_RATES = range(1000, 1_000_001)
"""Hz that audio may have; a broken header may say anything, and memory is taken by it."""

_AT_ONCE = 1 << 20
"""Samples that the resampler is given in one piece; the pieces make the same samples as the whole, in less memory."""


def read_audio(
    data: bytes,
    span: Span,
    rates: Sequence[int],
    zero: Fraction | None = None,
    deadline: boxes.Deadline | None = None,
    name: str = "",
    meter: Meter | None = None,
) -> dict[int, NDArray[np.int16]] | None:
    """The audio of a span, mixed down to mono, at each of `rates`; None where the media has no audio stream.

    Each result is int16 of exactly `round(seconds * rate)` samples, a stretch of what the whole media gives at that
    rate: sample k is heard at `round(start * rate) / rate` + k / rate seconds. Holes in the time line are silence,
    and so is what lies before the first and after the last sample of a video's audio.

    Mono is `channels.mix`: after ITU-R BS.775, without the LFE, of stereo the mean. A pair of channels that cancel each
    other over the span (`channels.Polarity`) is subtracted instead of added, for which the span is decoded twice; such
    a span need not agree with the whole media, which may cancel in this stretch only. Then libswresample, no dither,
    clipped to int16.

    Args:
        data: the whole file.
        span: on the media's clock.
        rates: Hz; may be none where only the meter is wanted.
        zero: time zero of the media on the container's clock, seconds; None: the first sample of the audio.
        deadline: checked between packets.
        name: for messages only.
        meter: hears all channels at their own rate.

    Raises:
        MediaError: a span above `MAX_SPAN_SECONDS` or `MAX_SAMPLES`; audio that cannot be decoded inside the span, NaN
            or infinite samples; for media without video (`zero` None) also audio that ends
            more than `TAIL_US` before the span does.
    """
    deadline = deadline or boxes.Deadline(float("inf"))
    chain = _chain(data, deadline, name) if zero is None else []
    if chain:
        return _read_chain(chain, span, rates, deadline, name, meter)
    return _read_one(data, span, rates, zero, deadline, name, meter)


def _read_one(
    data: bytes,
    span: Span,
    rates: Sequence[int],
    zero: Fraction | None,
    deadline: boxes.Deadline,
    name: str,
    meter: Meter | None,
) -> dict[int, NDArray[np.int16]] | None:
    """As `read_audio`, of one recording."""
    audio = _decoded(data, span, rates, zero, deadline, name, meter=meter)
    if audio is None:
        return None
    inverted = audio.polarity.inverted()
    if inverted and rates:
        audio = _decoded(data, span, rates, zero, deadline, name, inverted) or audio
    return {rate: audio.at_rate(rate) for rate in rates}


def _decoded(
    data: bytes,
    span: Span,
    rates: Sequence[int],
    zero: Fraction | None,
    deadline: boxes.Deadline,
    name: str,
    inverted: frozenset[str] = frozenset(),
    meter: Meter | None = None,
) -> _Window | None:
    """The audio of a span, as `read_audio` says; None where there is no audio stream."""
    with boxes.opened(data, name, deadline) as container:
        stream = boxes.audio_stream(container)
        if stream is None:
            return None
        if span.seconds > MAX_SPAN_SECONDS:
            raise MediaError(
                f"A span of {span.seconds:.0f} s of audio is more than the {MAX_SPAN_SECONDS} s decoded at once."
            )
        _check_count(span, max(rates, default=0))
        boxes.prepare(container, stream)
        timeline = measure(data, name, deadline)
        audio = _Window(container, stream, span, rates, zero, deadline, timeline, inverted, meter)
        audio.read()
        if zero is not None and timeline.audio is not None:
            _check_whole(data, container, stream, timeline.audio, span, zero)
    if zero is None and audio.end_us + TAIL_US < span.end_us:
        raise MediaError(_ended(audio.end_us, span))
    return audio


def _check_whole(
    data: bytes, container: InputContainer, stream: AudioStream, track: Track, span: Span, zero: Fraction
) -> None:
    """Raise MediaError for a span that holds audio of a video which the file, cut short, does not hold."""
    ends = (track.end_us or 0) - round(zero * MICRO)
    if ends + TAIL_US < span.end_us and breaks_off(data, container, stream, track):
        raise MediaError(f"The file is cut short: its audio breaks off at {max(0, ends) / MICRO:.3f} s.")


_KEPT: LastFile[list[tuple[bytes, int]]] = LastFile()


def _chain(data: bytes, deadline: boxes.Deadline, name: str) -> list[tuple[bytes, int]]:
    """The recordings of a file that holds several, each with its length in microseconds; none for a file of one."""

    def made() -> list[tuple[bytes, int]]:
        parts = links(data)
        return [(part, _spans_of_one(part, deadline, name)[0].end_us) for part in parts] if len(parts) > 1 else []

    return _KEPT.of(data, made)


def _read_chain(
    chain: Sequence[tuple[bytes, int]],
    span: Span,
    rates: Sequence[int],
    deadline: boxes.Deadline,
    name: str,
    meter: Meter | None,
) -> dict[int, NDArray[np.int16]]:
    """As `read_audio`, of recordings that follow each other, which may have different codecs and sample rates."""
    out = {rate: np.zeros(_index(span.end_us, rate) - _index(span.start_us, rate), np.int16) for rate in rates}
    begin = 0
    for link, length in chain:
        low, high = max(span.start_us, begin), min(span.end_us, begin + length)
        if low < high:
            if meter is not None:
                meter.rebase(begin)
            read = _read_one(link, Span(low - begin, high - begin), rates, None, deadline, name, meter)
            for rate, samples in (read or {}).items():
                at = _index(low, rate) - _index(span.start_us, rate)
                there = out[rate][at : at + len(samples)]
                there[:] = samples[: len(there)]
        begin += length
    if begin + TAIL_US < span.end_us:
        raise MediaError(_ended(begin, span))
    return out


def _index(at_us: int, rate: int) -> int:
    return round(Fraction(at_us, MICRO) * rate)


def _ended(end_us: int, span: Span) -> str:
    return f"The audio ended at {end_us / MICRO:.3f} s, before its span does at {span.end_us / MICRO:.3f} s."


def audio_spans(data: bytes, deadline: boxes.Deadline, name: str = "") -> list[Span]:
    """The time line of audio-only media: from its first sample to the end of its last packet, and what is missing.

    Returns one span that begins at 0, and where the file is cut short of what its header says (`truncation`) by more
    than `TAIL_US`, the rest as a second one that is `missing`.

    Raises:
        MediaError: no audio stream, no packet, more than `container.MAX_SECONDS`, the deadline.
    """
    if chain := _chain(data, deadline, name):
        end = sum(length for _, length in chain)
        boxes.sane_seconds(end / MICRO, name)
        return [Span(0, end)]
    return _spans_of_one(data, deadline, name)


def _spans_of_one(data: bytes, deadline: boxes.Deadline, name: str) -> list[Span]:
    """As `audio_spans`, of one recording."""
    track = measure(data, name, deadline).audio
    if track is None:
        raise MediaError(named(name, "has no audio stream"))
    with boxes.opened(data, name, deadline) as container:
        stream = boxes.audio_stream(container)
        assert stream is not None
        if track.begin_us is None or track.end_us is None:
            raise MediaError(named(name, "does not tell how long its audio is"))
        length = track.end_us - track.begin_us
        claim = stated_end_us(data, container, stream, track.begin_us)
        stated = _header_us(container, stream, track)
    if claim is not None and claim > track.end_us + TAIL_US and track.last_us is not None:
        length = max(1, track.last_us - track.begin_us)  # the last packet may be cut, too
    # a header that agrees with the packets knows the padding of the last one, which packets do not
    if stated is not None and abs(stated - length) <= TAIL_US:
        length = stated
    boxes.sane_seconds(length / MICRO, name)
    spans = [Span(0, max(1, length))]
    if claim is not None and claim - track.begin_us > length + TAIL_US:
        spans.append(Span(length, claim - track.begin_us, missing=True))
    return spans


def _header_us(container: InputContainer, stream: AudioStream, track: Track) -> int | None:
    """How long the header says the audio is, where the clock has no break and the header knows."""
    if track.shifts or container.format.name in _UNSTATED:
        return None
    if stream.duration:
        return round(stream.duration * boxes.time_base(stream) * MICRO)
    return container.duration or None


def first_frame(container: InputContainer, stream: AudioStream, deadline: boxes.Deadline) -> AudioFrame | None:
    """The first frame of audio that decodes, or None. Raises MediaError for a sample rate that cannot be true."""
    for packet in chain(boxes.packets(container, [stream], deadline), (None,)):
        for frame in _decode(stream, packet) or ():
            if frame.samples:
                _check_rate(frame)
                return frame
    return None


def resample(samples: NDArray[np.float32], rate: int, wanted: int) -> NDArray[np.int16]:
    """float32 mono at `rate` Hz to int16 at `wanted` Hz by libswresample; sample 0 stays at time 0."""
    from av import AudioFrame, AudioResampler

    resampler = AudioResampler(format="s16", layout="mono", rate=wanted)
    out: list[NDArray[np.int16]] = []
    for at in range(0, samples.size, _AT_ONCE):
        frame = AudioFrame.from_ndarray(samples[np.newaxis, at : at + _AT_ONCE], format="flt", layout="mono")
        frame.sample_rate = rate
        out += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    if samples.size:
        out += [part.to_ndarray()[0] for part in resampler.resample(None)]
    return np.concatenate(out).astype(np.int16, copy=False) if out else np.zeros(0, np.int16)


class _Run:
    """Frames of audio that follow each other without a hole."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.length = 0
        self.parts: list[NDArray[np.float32]] = []
        self._off: list[int] = []

    def misses(self, stamp: int) -> int:
        """Samples by which a frame stamped `stamp` is away from the end of the run."""
        return stamp - self.at - self.length

    def add(self, samples: NDArray[np.float32], stamp: int) -> None:
        self._off.append(self.misses(stamp))
        self.parts.append(samples)
        self.length += samples.size

    def begin(self) -> int:
        """Where the run begins by all its stamps: the mean of the middle half of them.

        Rounding cancels out (Matroska, ASF, FLV: 1 ms), and wrong stamps do not count (Ogg: the last packet of a page).
        """
        off = sorted(self._off)
        quarter = len(off) // 4
        middle = off[quarter : len(off) - quarter]
        return self.at + round(Fraction(sum(middle), len(middle)))


class _Window:
    """The samples of a window around a span, at the source's rate."""

    def __init__(
        self,
        container: InputContainer,
        stream: AudioStream,
        span: Span,
        rates: Sequence[int],
        zero: Fraction | None,
        deadline: boxes.Deadline,
        timeline: Timeline,
        inverted: frozenset[str],
        meter: Meter | None,
    ) -> None:
        self.polarity = Polarity()
        self._resamplers: dict[tuple[int, str, str], AudioResampler] = {}
        self._inverted, self._meter = inverted, meter
        self._container, self._stream, self._deadline = container, stream, deadline
        self._timeline = timeline
        self._from_start = Fraction(span.start_us, MICRO) <= _PREROLL and zero is not None
        self._base = boxes.time_base(stream)
        self._counted = container.format.name in _DRIFTING
        self._span, self._rates, self._zero = span, rates, zero
        self._rate = 0
        self._window = np.zeros(0, np.float32)
        self._begin = 0
        self._run: _Run | None = None
        self._end = 0
        self._bad_us: list[int] = []

    @property
    def end_us(self) -> int:
        """Where the decoded audio ended, on the media's clock."""
        return self._end * MICRO // self._rate if self._rate else 0

    def read(self) -> None:
        """Decode what the span needs. Raises MediaError as `read_audio` says."""
        for packet, frames in self._wanted():
            if frames is None:
                if packet is not None and (boxes.is_tag(packet) or (self._from_start and not self._rate)):
                    continue  # what does not decode before the first frame: the audio begins later
                stamp = None if packet is None else packet.pts if packet.pts is not None else packet.dts
                self._bad_us.append(self._end_of_run_us() if stamp is None else self._us(stamp * self._base))
                continue
            for frame in frames:
                if frame.samples:
                    self._add(frame)
                    counted.audio_s += frame.samples / frame.sample_rate
            if self._run is not None and self._run.at + self._run.length >= self._begin + self._window.size:
                break
        self._place()
        if not self._rate:
            # of a video: no packet of its audio is in the span
            if self._bad_us or self._zero is None:
                raise MediaError("No frame of its audio can be decoded.")
            return
        # the last packet of a file is often cut short; where the audio ended is judged apart
        end_us = min(self._span.end_us, self.end_us - round(_JITTER * MICRO))
        broken = [at for at in self._bad_us if self._span.start_us <= at < end_us]
        if broken:
            raise MediaError(f"The audio is damaged at {broken[0] / MICRO:.3f} s.")

    def at_rate(self, rate: int) -> NDArray[np.int16]:
        """The span at `rate`. The grid of samples is that of the whole media, so clips of it agree with the whole."""
        first = round(Fraction(self._span.start_us, MICRO) * rate)
        count = round(Fraction(self._span.end_us - self._span.start_us, MICRO) * rate)
        if not self._rate:
            return np.zeros(count, np.int16)
        step, wanted_step, lead = _steps(self._rate, rate)
        blocks = first // wanted_step - lead
        out = resample(self._window[blocks * step - self._begin :], self._rate, rate)
        skip = first - blocks * wanted_step
        return np.ascontiguousarray(out[skip : skip + count])

    def _us(self, seconds: Fraction) -> int:
        return round((seconds - (self._zero or 0)) * MICRO)

    def _end_of_run_us(self) -> int:
        return 0 if self._run is None else (self._run.at + self._run.length) * MICRO // self._rate

    def _add(self, frame: AudioFrame) -> None:
        if not self._rate:
            self._start(frame)
        assert self._zero is not None
        due = 0 if self._run is None else self._run.at + self._run.length
        stamp = due
        if frame.pts is not None and not self._counted:
            stamp = round((frame.pts * self._base - self._zero) * self._rate)
            if self._container.format.name in _GAPLESS:
                stamp = max(stamp, due)  # after a join stamps may say that two files overlap
        if self._run is None or abs(self._run.misses(stamp)) > _JITTER * self._rate:
            if self._run is not None and stamp > due and self._container.format.name in _GAPLESS:
                self._bad_us.append(due * MICRO // self._rate)
            self._place()
            self._run = _Run(stamp)
        for part in [frame] if frame.sample_rate == self._rate else self._resampled(frame):
            self._run.add(self._mixed(part, self._run.at + self._run.length), stamp)
            stamp += part.samples

    def _resampled(self, frame: AudioFrame) -> list[AudioFrame]:
        """A frame at the rate of the first one, where recordings of several rates were joined."""
        from av import AudioResampler

        _check_rate(frame)
        kind = frame.sample_rate, frame.layout.name, frame.format.name
        if kind not in self._resamplers:
            self._resamplers[kind] = AudioResampler(format="flt", layout=frame.layout, rate=self._rate)
        frame.pts = None  # it counts in another time base than the resampler's
        return list(self._resamplers[kind].resample(frame))

    def _mixed(self, frame: AudioFrame, at: int) -> NDArray[np.float32]:
        """The frame's mono mix; what its channels say beside that is noted. Its first sample is number `at`."""
        samples, names = planar(frame), names_of(frame)
        low, high = (round(Fraction(us * self._rate, MICRO)) for us in (self._span.start_us, self._span.end_us))
        self.polarity.hear(samples[:, max(0, low - at) : max(0, high - at)], names)
        if self._meter is not None:
            self._meter.hear(samples, names, self._rate, at)
        return mix(samples, names, self._inverted)

    def _place(self) -> None:
        """Lay the run into the window; a later one covers an earlier one where they overlap."""
        run, self._run = self._run, None
        if run is None:
            return
        at = run.begin()
        for samples in run.parts:
            low, high = max(at, self._begin), min(at + samples.size, self._begin + self._window.size)
            if low < high:
                self._window[low - self._begin : high - self._begin] = samples[low - at : high - at]
            at += samples.size
        self._end = max(self._end, at)

    def _start(self, frame: AudioFrame) -> None:
        _check_rate(frame)
        self._rate = frame.sample_rate
        _check_count(self._span, self._rate)
        if self._zero is None:
            self._zero = (frame.pts or 0) * self._base
        end = Fraction(self._span.end_us, MICRO)
        begins = [round(Fraction(self._span.start_us, MICRO) * self._rate)]
        ends = [ceil(end * self._rate)]
        for rate in self._rates:
            step, wanted_step, lead = _steps(self._rate, rate)
            first = round(Fraction(self._span.start_us, MICRO) * rate)
            begins.append((first // wanted_step - lead) * step)
            ends.append(ceil(end * self._rate) + lead * step)
        self._begin = min(begins)
        self._window = np.zeros(max(ends) - self._begin, np.float32)

    def _wanted(self) -> Iterator[tuple[Packet[AudioStream] | None, list[AudioFrame] | None]]:
        """Decoded packets from a little before the span on; where the clock starts with the audio, the first ones
        too."""
        start = Fraction(self._span.start_us, MICRO) - _PREROLL
        packets: Iterator[Packet[AudioStream]] = boxes.packets(self._container, [self._stream], self._deadline)
        if self._timeline.broken:
            packets = on_clock(packets, self._timeline.audio)
        elif self._zero is not None and start > 0 and self._container.format.name in _EXACT_SEEK:
            self._seek(self._zero + start)
        skipped = False
        for packet in chain(packets, (None,)):
            if packet is not None and packet.pts is not None and self._zero is not None and not self._counted:
                if packet.pts * self._base < self._zero + start:
                    skipped = True
                    continue
                if skipped:
                    self._stream.codec_context.flush_buffers()
                    self._place()
                    skipped = False
            yield packet, _decode(self._stream, packet)

    def _seek(self, seconds: Fraction) -> None:
        """Go to a packet at or before `seconds`, or to the start where the container cannot tell."""
        import av

        for target in (int(seconds / self._base), 0):
            try:
                self._container.seek(target, stream=self._stream)
            except av.error.FFmpegError:
                continue
            packet = next(boxes.packets(self._container, [self._stream], self._deadline), None)
            if packet is not None and packet.pts is not None and packet.pts <= target:
                self._container.seek(target, stream=self._stream)
                return
        self._container.seek(0)


def _decode(stream: AudioStream, packet: Packet[AudioStream] | None) -> list[AudioFrame] | None:
    """Frames of a packet (None: what the decoder still holds), or None where it cannot be decoded."""
    import av

    try:
        return list(stream.codec_context.decode(packet))
    except MemoryError:
        raise
    except (av.error.FFmpegError, ValueError):
        return None


def _check_rate(frame: AudioFrame) -> None:
    if frame.sample_rate not in _RATES:
        raise MediaError(f"A sample rate of {frame.sample_rate} Hz cannot be true.")


def _check_count(span: Span, rate: int) -> None:
    if span.seconds * rate > MAX_SAMPLES:
        raise MediaError(
            f"A span of {span.seconds:.0f} s of audio at {rate} Hz has more samples than the {MAX_SAMPLES} that are "
            "decoded at once."
        )


def _steps(rate: int, wanted: int) -> tuple[int, int, int]:
    """The shortest stretch that is whole in both rates, in samples of each, and how many of it make 50 ms.

    The resampler's filter settles within 50 ms.
    """
    common = gcd(rate, wanted)
    step = rate // common
    return step, wanted // common, ceil(Fraction(rate, 20 * step))

"""The default reader of video: PyAV, exact for variable frame rates, B-frames, edit lists and seeks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import chain, dropwhile, islice
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from curate.media import container as boxes
from curate.media.clips import MICRO
from curate.media.clock import NO_PTS
from curate.media.cropping import Cutter, crops_of
from curate.media.decodes import counted
from curate.media.sniff import named
from curate.media.timeline import COUNTED, LOST, TAIL_US, Timeline, breaks_off, measure, on_clock
from curate.media.truncation import stated_end_us
from curate.schema.errors import MediaError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

TOLERANCE_US = 1
"""A frame counts as shown at t when it begins by t + this: times are rounded to microseconds."""

_SHORT_US = MICRO
"""Spans that begin earlier are decoded from zero; it costs no more than a seek."""

_STEP_BACK_US = (0, 2 * MICRO, 10 * MICRO)
"""How far before the wanted start key frames are tried, one after the other, before decoding from zero."""

_EXACT_SEEK = frozenset({"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "asf", "flv"})
"""Containers that stamp each packet, so that times after a seek are true. In others (an MPEG program stream may hold
several frames and one stamp in a packet) all packets are read from the start, and few of them decoded."""

_BACKWARDS_US = MICRO
"""By how much the next frame must come earlier than one, for the one's time to be believed no more. What follows it
would stand still otherwise until that time has passed."""

LOOK_AHEAD = 16
"""The most B-frames in a row that H.264 and HEVC allow to depend on a later frame."""

_B = 3  # AV_PICTURE_TYPE_B
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_MATRICES = frozenset({1, _UNSPECIFIED, 4, 5, 6, 7, 9, 10})
"""Those of ITU-T H.273, Table 4, that libswscale converts; YCgCo, ICtCp and IPT-C2 are not among them."""
_BT709, _BT601 = 1, 5  # SWS_CS_ITU709, SWS_CS_ITU601


@dataclass(frozen=True)
class TimedFrame:
    """One frame of a video as it is shown.

    Attributes:
        start_us: presentation time on the media's clock (first frame: 0), microseconds, rounded to nearest.
        end_us: when the next frame begins; of the last one by its stated duration, else by the average rate.
        display: (width, height) that it is shown at: rotated, pixels made square.
        rgb: makes the pixels, uint8 `(h, w, 3)` sRGB, rotated; pixels may be non-square (`display` tells). Costs a
            colour conversion, so it is called only for frames that are wanted.
    """

    start_us: int
    end_us: int
    display: tuple[int, int]
    rgb: Callable[[], NDArray[np.uint8]]


@dataclass(frozen=True)
class Shown:
    """A decoded frame.

    Attributes:
        start_us, end_us: its time, the end by its own duration.
        damaged: True if damage may show in it.
        misplaced: True if its time cannot be true.
        moved: True if its time is not that of its own stamp, but follows from the frames before it.
    """

    frame: VideoFrame
    start_us: int
    end_us: int
    damaged: bool
    misplaced: bool
    moved: bool

    @property
    def doubtful(self) -> bool:
        """True if another way to it, from another key frame, may show it or its time otherwise."""
        return self.damaged or self.misplaced or self.moved


class PyAVReader:
    """Frames of a video in presentation order with exact times.

    Time zero is the presentation time of the first frame that decodes; where audio leads it by more than
    `timeline.TAIL_US`, that of the audio, and the first frame is on display from there. The last frame stays on display
    while audio goes on. Breaks of the clock are taken out (`timeline`). A stream without presentation time stamps goes
    by decoding ones (AVI), one without any by its frame rate. A frame whose time runs backwards is shown at once; by
    more than `_BACKWARDS_US`, the time of the frame before it was false, which fails the spans that reach it.

    Decoding starts at a key frame before the wanted start: by the container's index where times after a seek are true,
    else by reading packets from the start without decoding them. What it gives is checked: where the first frame comes
    late, or shows damage that could come from starting there, an earlier key frame is tried, at last the very start.

    Damage that the decoder notices (an error, a concealed frame) taints every frame up to the next key frame, and the
    B-frames before it. H.264, MPEG-1/2/4 and AV1 notice most of it; VP9 and HEVC carry too little redundancy, so
    flipped bits in them may pass unseen. That a transport stream's demuxer calls a packet corrupt is believed where
    packets are missing near it (`timeline`): joined segments look so too.

    Colours go through libswscale with the matrix and range that the stream states; without a statement BT.709 for HD
    (width >= 1280 or height > 576), else BT.601, limited range. HDR is not tone-mapped; interlaced frames are not
    split. What the container crops off is not shown (`cropping.crops_of`); then pixels are made square, then turned.

    Args:
        data: the whole file.
        deadline: checked between packets.
        name: for messages only.

    Raises:
        MediaError: no container, no video stream, no decoder, no frame, frames above `container.MAX_FRAME_PIXELS`.
        MemoryError: a decoder that gets no memory; it is not the file that is damaged.
    """

    def __init__(self, data: bytes, deadline: boxes.Deadline | None = None, name: str = "") -> None:
        from av.video.reformatter import VideoReformatter

        self._data = data
        self._name = name
        self._deadline = deadline or boxes.Deadline(float("inf"))
        self._colours = VideoReformatter()
        self._container: InputContainer | None = None
        self._damaged = False
        self._timeline: Timeline = measure(data, name, self._deadline)
        self.stream = self._open()
        self._base = boxes.time_base(self.stream)
        self._tick_s = float(self._base)
        self._crops, self._cutter = crops_of(data, self.stream), Cutter()
        rate = self.stream.average_rate or self.stream.guessed_rate
        self.fps: float | None = float(rate) if rate else None
        self._frame_ticks = max(1, round(1 / (Fraction(rate or 25) * self._base)))
        frames = self._frames(self._all_packets())
        try:
            first = next(frames, None)
        except MediaError:
            self.close()
            raise
        if first is None:
            self.close()
            raise MediaError(f"{name or 'The file'} has a video stream of which no frame can be decoded.")
        self.first: VideoFrame = first[0]
        # H.264 and HEVC may say it with the first frame only
        self._matrix = display_matrix(self.first)
        # the clock is one for the whole stream: presentation stamps, else decoding stamps (AVI), else a count of frames
        clocks = ("dts", "pts") if self.stream.container.format.name in NO_PTS else ("pts", "dts")
        self._clock = next((c for c in clocks if getattr(self.first, c) is not None), None)
        self._first = self._zero = self._stamp(self.first) or 0
        audio = self._timeline.audio
        if self._clock is not None and audio is not None and audio.begin_us is not None:
            begins = int(Fraction(audio.begin_us, MICRO) / self._base)
            if self._us(begins) < -TAIL_US:
                self._zero = begins
        self._unread: Iterator[tuple[VideoFrame, bool]] | None = chain([first], frames)

    @property
    def zero(self) -> Fraction:
        """Time zero of the media on the container's clock, seconds."""
        track = self._timeline.video
        if self._clock == "dts" and self._zero == self._first and track is not None and track.begin_us is not None:
            return Fraction(track.begin_us, MICRO)  # frames bear the decoding times of packets some frames later
        return self._zero * self._base

    @property
    def has_audio(self) -> bool:
        """True if there is an audio stream."""
        return self._timeline.audio is not None

    def packets_end_us(self) -> int:
        """Where the last packet of the video ends on the media's clock, whether or not it can be decoded."""
        track = self._timeline.video
        if track is None or track.end_us is None or self._clock is None:
            frames = track.packets if track is not None else 0
            return max(1, self._us(self._zero + frames * self._frame_ticks))
        return max(1, track.end_us - round(self.zero * MICRO))

    def audio_end_us(self) -> int:
        """Where the audio ends on the media's clock; 0 where there is none, or it has no time stamps."""
        track = self._timeline.audio
        if track is None or track.end_us is None or self._clock is None:
            return 0
        return max(0, track.end_us - round(self.zero * MICRO))

    def duration_us(self) -> int:
        """Where the media ends by its packets: those of the video, or of audio that goes on for longer.

        Raises MediaError for more than `container.MAX_SECONDS`.
        """
        end = self.packets_end_us()
        if self.audio_end_us() > end + TAIL_US:
            end = self.audio_end_us()
        boxes.sane_seconds(end / MICRO, self._name)
        return end

    def stated_us(self) -> int | None:
        """Where the video of a file that breaks off would end; None for a file that does not."""
        assert self._container is not None
        begin = round(self.zero * MICRO)
        end = stated_end_us(self._data, self._container, self.stream, begin)
        return None if end is None else end - begin

    def audio_breaks_off_us(self) -> int | None:
        """Where the audio ends of a file that is cut short of more of it; None otherwise."""
        assert self._container is not None
        stream, track = boxes.audio_stream(self._container), self._timeline.audio
        if stream is None or track is None or not breaks_off(self._data, self._container, stream, track):
            return None
        return self.audio_end_us()

    @property
    def damaged(self) -> bool:
        """True if damage may show in what was decoded last."""
        return self._damaged

    def frames(self, start_us: int, end_us: int) -> Iterator[TimedFrame]:
        """Frames on display in `[start_us, end_us)`, in order; the first is the last that begins by start_us (+ 1 us).

        Ends early where the video does. Raises MediaError where a frame of the span cannot be decoded.
        """
        return self.frames_of(self.frames_from(start_us), start_us, end_us)

    def frames_of(self, run: Iterator[Shown], start_us: int, end_us: int) -> Iterator[TimedFrame]:
        """As `frames`, of a run of frames that begins with the one on display at `start_us`."""
        last: Shown | None = None
        beyond = 0
        for shown in run:
            if last is not None and not beyond:
                yield self.timed(last, shown.start_us)
            inside = shown.start_us < end_us
            if shown.misplaced:
                at = start_us if last is None else last.end_us
                raise MediaError(f"The video's times are damaged after {at / MICRO:.3f} s.")
            # a B-frame at the end of the span may depend on a frame after it, so that one must be intact too
            if not inside and (last is None or last.frame.pict_type != _B or beyond == LOOK_AHEAD):
                return
            if shown.damaged:
                raise MediaError(f"The video is damaged at {shown.start_us / MICRO:.3f} s.")
            beyond += not inside
            last = shown
        if last is not None and not beyond:
            yield self.timed(last, self.held_us(self._end_us(last)))
        if self._damaged and (last is None or self._end_us(last) + TOLERANCE_US < end_us):
            at = start_us if last is None else self._end_us(last)
            raise MediaError(f"The video is damaged at {at / MICRO:.3f} s.")

    def held_us(self, end_us: int) -> int:
        """Until when the last frame is on display, which by its own stamp ends at `end_us`: while audio goes on, if no
        frame after it failed to decode."""
        if self._damaged or self.packets_end_us() > end_us + TAIL_US or self.audio_end_us() <= end_us + TAIL_US:
            return end_us
        return self.audio_end_us()

    def _end_us(self, last: Shown) -> int:
        """Where the display of a last frame ends; what it states of that is believed as `timeline` says."""
        return max(last.start_us + 1, min(last.end_us, self.packets_end_us()))

    def small_frames(self, long_side: int) -> Iterator[tuple[Shown, TimedFrame, NDArray[np.uint8]]]:
        """Every frame that decodes, damaged ones too, with its pixels scaled by libswscale: uint8 `(h, w, 3)` BGR.

        For shot detection, which must get through a damaged file. Cropped, not rotated; the long side of the first
        frame is at most `long_side`, and all have its size.
        """
        width, height = self._size(self.first)
        scale = min(1.0, long_side / max(width, height))
        size = max(2, round(width * scale)), max(2, round(height * scale))
        for shown in self._from_zero():
            red, green, blue = self._planes(shown.frame, size)
            yield shown, self.timed(shown, self._end_us(shown)), merged(blue, green, red)

    def display_size(self) -> tuple[int, int]:
        """(width, height) of the first frame as it is shown."""
        return self._display(self.first)

    def close(self) -> None:
        """Free the container, and the frames that its decoder keeps: PyAV's objects wait for the garbage collector."""
        self._unread = None
        if self._container is not None:
            for stream in self._container.streams.video:
                if stream.codec_context is not None and stream.codec_context.is_open:
                    stream.codec_context.flush_buffers()
            self._container.close()
            self._container = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> VideoStream:
        self.close()
        container = boxes.open_container(self._data, self._name, self._deadline)
        self._container = container
        try:
            stream = boxes.video_stream(container)
            if stream is None:
                raise MediaError(f"{self._name or 'The file'} has no video stream.")
            boxes.prepare(container, stream)
            width, height = stream.codec_context.width, stream.codec_context.height
            if width * height > boxes.MAX_FRAME_PIXELS:
                raise MediaError(
                    named(
                        self._name,
                        f"has frames of {width} x {height} pixels, more than the limit of {boxes.MAX_FRAME_PIXELS}",
                    )
                )
            stream.codec_context.options = {"max_pixels": str(boxes.MAX_FRAME_PIXELS)}
        except BaseException:
            self.close()
            raise
        return stream

    def _packets(self) -> Iterator[Packet[VideoStream]]:
        assert self._container is not None
        return boxes.packets(self._container, [self.stream], self._deadline)

    def _all_packets(self) -> Iterator[Packet[VideoStream]]:
        """All packets of a container just opened, on the joined clock."""
        return on_clock(self._packets(), self._timeline.video)

    def _frames(self, packets: Iterable[Packet[VideoStream]]) -> Iterator[tuple[VideoFrame, bool]]:
        """The frames of packets, and True for each in which damage may show. Sets `_damaged` as it goes."""
        import av

        context = self.stream.codec_context
        self._damaged = False
        bad: int | None = None
        for packet in chain(packets, (None,)):
            stamp = None if packet is None else packet.pts
            try:
                frames = context.decode(packet)
            except MemoryError:
                raise
            except (av.error.FFmpegError, ValueError):
                self._damaged, bad = True, stamp
                continue
            if packet is not None and self._is_damaged(packet):
                self._damaged, bad = True, stamp
            for frame in frames:
                # a key frame from before the damage may come out after it
                if frame.key_frame and (bad is None or frame.pts is None or frame.pts > bad):
                    self._damaged = False
                if frame.is_corrupt:
                    self._damaged, bad = True, frame.pts
                yield frame, self._damaged

    def _is_damaged(self, packet: Packet[VideoStream]) -> bool:
        """True if the container knows of damage that a decoder may not notice."""
        assert self._container is not None
        return packet.opaque == LOST if self._container.format.name in COUNTED else packet.is_corrupt

    def _timed(self, frames: Iterable[tuple[VideoFrame, bool]]) -> Iterator[Shown]:
        at: int | None = None
        due = self._zero
        far = int(Fraction(_BACKWARDS_US, MICRO) / self._base)
        waiting: Shown | None = None
        for frame, damaged in frames:
            stamp = self._stamp(frame)
            moved = self._clock is not None and (stamp is None or (at is not None and stamp < at))
            stamp = due if stamp is None else stamp
            if waiting is not None:
                yield replace(waiting, misplaced=at is not None and stamp + far < at)
            # times never run backwards: a frame whose time does is shown as soon as it is there
            at = stamp if at is None else max(at, stamp)
            due = at + (frame.duration or self._frame_ticks)
            counted.video_s += max(0, due - at) * self._tick_s
            # where audio leads, the first frame is on display from its beginning on
            start_us = 0 if stamp == self._first else self._us(at)
            waiting = Shown(frame, start_us, self._us(due), damaged, False, moved)
        if waiting is not None:
            yield waiting

    def _from_zero(self) -> Iterator[Shown]:
        if self._unread is None:
            self.stream = self._open()
            return self._timed(self._frames(self._all_packets()))
        frames, self._unread = self._unread, None
        return self._timed(frames)

    def frames_from(self, start_us: int) -> Iterator[Shown]:
        """Frames from the one on display at `start_us` on, to the end."""
        for packets in self._shortcuts(start_us):
            run = self._timed(self._frames(packets))
            shown = next(run, None)
            if shown is None or shown.start_us > start_us + TOLERANCE_US:
                continue
            found, rest = advance(shown, run, start_us)
            if not found.damaged:
                return chain([found], rest)
        run = self._from_zero()
        shown = next(run, None)
        if shown is None:
            return iter(())
        found, rest = advance(shown, run, start_us)
        return chain([found], rest)

    def _shortcuts(self, start_us: int) -> Iterator[Iterable[Packet[VideoStream]]]:
        """Packets from key frames before `start_us`, each further back; none where decoding from zero is as good."""
        assert self._container is not None
        kind = self._container.format.name
        if start_us <= _SHORT_US or self._clock is None or kind in boxes.RAW_VIDEO:
            return
        way = self._sought if kind in _EXACT_SEEK and not self._timeline.broken else self._skipped
        for back in _STEP_BACK_US:
            if start_us > back:
                yield way(self._zero + int(Fraction(start_us - back, MICRO) / self._base))

    def _sought(self, ticks: int) -> Iterable[Packet[VideoStream]]:
        """Packets from the key frame that the container's index gives."""
        import av

        self._unread = None
        assert self._container is not None
        try:
            self._container.seek(ticks, stream=self.stream)
        except av.error.FFmpegError:
            return ()
        return dropwhile(lambda packet: not packet.is_keyframe, self._packets())

    def _skipped(self, ticks: int) -> Iterable[Packet[VideoStream]]:
        """Packets from the last key frame at or before `ticks`, found by reading all packets before it."""
        self._unread = None
        self.stream = self._open()
        key = 0
        for i, packet in enumerate(self._all_packets()):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if packet.is_keyframe and stamp is not None and stamp <= ticks:
                key = i
            if packet.dts is not None and packet.dts > ticks:
                break
        if not key:
            return ()
        self.stream = self._open()
        return islice(self._all_packets(), key, None)

    def _stamp(self, frame: VideoFrame) -> int | None:
        if self._clock is None:
            return None
        return frame.pts if self._clock == "pts" else frame.dts

    def _us(self, ticks: int) -> int:
        """Ticks of the stream to microseconds on the media's clock, rounded half up, in integers."""
        num, den = self._base.numerator * MICRO, self._base.denominator
        return (2 * (ticks - self._zero) * num + den) // (2 * den)

    def timed(self, shown: Shown, end_us: int) -> TimedFrame:
        """A frame that is on display until `end_us`."""
        rgb = self.pixels_of(shown.start_us, partial(self._rgb, shown.frame))
        return TimedFrame(shown.start_us, end_us, self._display(shown.frame), rgb)

    def pixels_of(self, start_us: int, convert: Callable[[], NDArray[np.uint8]]) -> Callable[[], NDArray[np.uint8]]:
        """What makes the pixels of the frame that begins at `start_us`: `convert`, which takes them from FFmpeg's
        frame; other readers have their own."""
        return convert

    def _rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        return self.rgb(frame, self.matrix(frame))

    def rgb(self, frame: VideoFrame, matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
        """The pixels of a frame as its display matrix shows them."""
        return rotate(merged(*self._planes(frame, self._size(frame))), matrix)

    def matrix(self, frame: VideoFrame) -> tuple[int, int, int, int]:
        """The display matrix of a frame, else of the stream."""
        return display_matrix(frame, self._matrix)

    def _size(self, frame: VideoFrame) -> tuple[int, int]:
        """(width, height) of what is shown of a frame, in its own pixels."""
        crop = self._crops.get((frame.width, frame.height))
        return (frame.width, frame.height) if crop is None else crop.size

    def _ratio(self, frame: VideoFrame) -> Fraction | None:
        """Width of a pixel over its height. What a crop says holds too where the decoder cropped by itself."""
        size = frame.width, frame.height
        for crop in self._crops.values():
            if crop.ratio is not None and size in ((crop.width, crop.height), crop.size):
                return crop.ratio
        stated = self.stream.sample_aspect_ratio
        return None if stated is None else Fraction(stated)

    def _planes(self, frame: VideoFrame, size: tuple[int, int]) -> list[NDArray[np.uint8]]:
        """Red, green and blue of a frame, each uint8 `(h, w)`.

        libswscale gives the same values as planes in a third of the time that it takes for interleaved pixels, but for
        frames that are RGB before (those of 5 or 6 bits a colour would differ).
        """
        import av
        from av.video.reformatter import Interpolation

        matrix = frame.colorspace
        if matrix == _UNSPECIFIED:
            matrix = _BT709 if frame.width >= 1280 or frame.height > 576 else _BT601
        crop = self._crops.get((frame.width, frame.height))
        flags = Interpolation.AREA | Interpolation.ACCURATE_RND | Interpolation.BITEXACT | Interpolation.FULL_CHR_H_INT
        try:
            out = self._colours.reformat(
                frame if crop is None else self._cutter.cut(frame, crop),
                width=size[0],
                height=size[1],
                format="rgb24" if frame.format.is_rgb else "gbrp",
                src_colorspace=matrix,
                interpolation=flags,
                src_color_range=frame.color_range,
                threads=1,
            )
        except (av.error.FFmpegError, ValueError) as error:
            what = f"the pixel format {frame.format.name}"
            if matrix not in _MATRICES and not frame.format.is_rgb:
                what = f"colours coded with matrix {matrix} of H.273"
            raise MediaError(f"Frames of {what} cannot be converted to RGB.") from error
        if out.format.name == "rgb24":
            return list(np.moveaxis(np.asarray(out.to_ndarray(), np.uint8), -1, 0))
        green, blue, red = (
            np.frombuffer(memoryview(p), np.uint8).reshape(-1, p.line_size)[: p.height, : p.width] for p in out.planes
        )
        return [red, green, blue]

    def _display(self, frame: VideoFrame) -> tuple[int, int]:
        ratio = self._ratio(frame)
        width, height = self._size(frame)
        # absurd ratios are broken headers
        if ratio and Fraction(1, 4) <= ratio <= 4:
            width = max(1, round(width * ratio))
        a, b, _, _ = display_matrix(frame, self._matrix)
        return (height, width) if abs(b) > abs(a) else (width, height)

    @property
    def cropped(self) -> bool:
        """True if the container crops the first frame."""
        return (self.first.width, self.first.height) in self._crops

    @property
    def is_shifted(self) -> bool:
        """True if times are not those of the container's stamps, counted from the first frame."""
        return self._zero != self._first or self._clock is None or self._timeline.broken


def display_matrix(frame: VideoFrame, otherwise: tuple[int, int, int, int] = (1, 0, 0, 1)) -> tuple[int, int, int, int]:
    """(a, b, c, d) of the frame's display matrix (ISO/IEC 14496-12, 6.2.2): (x, y) is shown at (a x + c y, b x + d y).
    `otherwise` where it has none."""
    from av.sidedata.sidedata import SideData

    side = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(side, SideData):
        return otherwise
    a, b, _, c, d = np.frombuffer(bytes(side), np.int32)[:5].tolist()
    return a, b, c, d


def merged(*planes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pixels `(h, w, n)` of n planes `(h, w)`."""
    import cv2

    return np.asarray(cv2.merge(planes), np.uint8)


def rotate(pixels: NDArray[np.uint8], matrix: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Pixels `(h, w, 3)` as the display matrix shows them, to the nearest quarter turn, mirrored where it says so."""
    a, b, c, d = matrix
    if abs(b) > abs(a):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    if a < 0:
        pixels = pixels[:, ::-1]
    if d < 0:
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def advance(shown: Shown, run: Iterator[Shown], start_us: int) -> tuple[Shown, Iterator[Shown]]:
    """The frame on display at `start_us`, from `shown` on, and those after it."""
    following = next(run, None)
    while following is not None and following.start_us <= start_us + TOLERANCE_US:
        shown, following = following, next(run, None)
    return shown, run if following is None else chain([following], run)

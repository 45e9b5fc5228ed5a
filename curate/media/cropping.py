"""What containers say of the part of a frame that is shown: `clap` (MP4, MOV) and PixelCrop (Matroska, WebM).

FFmpeg reads both and leaves them to its caller, and PyAV does not pass them on; so they are read here from the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_MOST = 100_000
"""Boxes or elements that are looked at in one file; a hostile one may hold a hundred million empty ones."""


@dataclass(frozen=True)
class Crop:
    """The part of frames of `width` x `height` pixels that is shown.

    Attributes:
        left, top, right, bottom: its columns are `range(left, right)`, its rows `range(top, bottom)`.
        ratio: width of a pixel over its height, where FFmpeg's statement is of the whole frame and so not true; else
            None.
    """

    width: int
    height: int
    left: int
    top: int
    right: int
    bottom: int
    ratio: Fraction | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of what is shown."""
        return self.right - self.left, self.bottom - self.top


class Cutter:
    """Cuts frames by FFmpeg's `crop` filter, which copies nothing. Done before colours are converted, so that no chroma
    of what is hidden bleeds in."""

    def __init__(self) -> None:
        self._graph: Graph | None = None
        self._of: tuple[str, Crop] | None = None

    def cut(self, frame: VideoFrame, crop: Crop) -> VideoFrame:
        """What `crop` shows of a frame. Raises FFmpegError for pixel formats that cannot be cut."""
        of = frame.format.name, crop
        if self._graph is None or self._of != of:
            self._graph, self._of = _graph(frame, crop), of
        self._graph.vpush(frame)
        return self._graph.vpull()


def _graph(frame: VideoFrame, crop: Crop) -> Graph:
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(frame.time_base or 1)
    )
    width, height = crop.size
    cut = graph.add("crop", f"{width}:{height}:{crop.left}:{crop.top}:exact=1")
    graph.link_nodes(source, cut, graph.add("buffersink")).configure()
    return graph


def crops_of(data: bytes, stream: VideoStream) -> dict[tuple[int, int], Crop]:
    """The crops of one stream, by the frame size (width, height) that the container states with each.

    One that leaves nothing, reaches out of the frame or cuts nothing off is left out. A frame of another size than
    stated is not meant: an H.264 stream stated as 1088 rows high, of which the decoder shows 1080 by itself, would be
    cropped twice.

    Args:
        data: the whole file.
        stream: of that file.
    """
    kind = stream.container.format.name
    found: Iterator[Crop] = iter(())
    if kind.startswith("mov,"):
        found = _clean_apertures(data, stream.id)
    elif kind.startswith("matroska"):
        # FFmpeg tells no track numbers, but keeps the order; attachments (covers) come after the tracks
        found = _pixel_crops(data, [s.index for s in stream.container.streams.video].index(stream.index))
    out: dict[tuple[int, int], Crop] = {}
    for crop in found:
        if _is_part(crop):
            out.setdefault((crop.width, crop.height), crop)
    return out


def _is_part(crop: Crop) -> bool:
    inside = 0 <= crop.left < crop.right <= crop.width and 0 <= crop.top < crop.bottom <= crop.height
    return inside and crop.size != (crop.width, crop.height)


# ---- ISO base media file format (ISO/IEC 14496-12) ----

_ENTRY = 78
"""Bytes of a VisualSampleEntry before its boxes (12.1.3.2); width and height lie at 24."""


def _clean_apertures(data: bytes, track: int) -> Iterator[Crop]:
    """`clap` of each sample entry of a track (ISO/IEC 14496-12, 12.1.4)."""
    view = memoryview(data)
    budget = iter(range(_MOST))
    movie = next((body for kind, body in _boxes(view, budget) if kind == b"moov"), None)
    if movie is None:
        return
    for kind, trak in _boxes(movie, budget):
        header = _child(trak, budget, b"tkhd")
        if kind != b"trak" or _track_id(header) != track:
            continue
        entries = _child(trak, budget, b"mdia", b"minf", b"stbl", b"stsd")
        for _, entry in _boxes(entries[8:], budget):
            clap = _child(entry[_ENTRY:], budget, b"clap")
            crop = _aperture(_number(entry[24:26]), _number(entry[26:28]), clap)
            if crop is None:
                continue
            if not _child(entry[_ENTRY:], budget, b"pasp"):
                crop = replace(crop, ratio=_track_ratio(crop, header))
            yield crop


def _track_ratio(crop: Crop, header: memoryview) -> Fraction | None:
    """The shape of pixels that makes the crop as large as the track header says (8.3.2), in 16.16 fixed point.

    None where the header states the whole frame's size: then it says nothing of pixels."""
    wide, high = _number(header[-8:-4]), _number(header[-4:])
    if not wide or not high or (wide, high) == (crop.width << 16, crop.height << 16) or not _is_part(crop):
        return None
    return Fraction(wide * crop.size[1], high * crop.size[0])


def _aperture(width: int, height: int, clap: memoryview) -> Crop | None:
    """The crop of a `clap` box: size and offset of its centre from the frame's, each a fraction. Edges between pixels
    are rounded down, as FFmpeg does."""
    numbers = [_number(clap[at : at + 4], signed=True) for at in range(0, 32, 4)]
    if len(clap) < 32 or min(numbers[1::2]) <= 0:
        return None
    wide, high, right, down = (Fraction(a, b) for a, b in zip(numbers[::2], numbers[1::2], strict=True))
    left = (width - wide) / 2 + right
    top = (height - high) / 2 + down
    return Crop(width, height, left.__floor__(), top.__floor__(), (left + wide).__floor__(), (top + high).__floor__())


def _track_id(header: memoryview) -> int | None:
    """track_ID of a `tkhd` box (8.3.2), whose times are longer in version 1."""
    at = 20 if _number(header[:1]) == 1 else 12
    return _number(header[at : at + 4]) if len(header) >= at + 4 else None


def _child(body: memoryview, budget: Iterator[int], *path: bytes) -> memoryview:
    """The body of the first box at each step of `path`; empty where there is none."""
    for name in path:
        body = next((inner for kind, inner in _boxes(body, budget) if kind == name), body[:0])
    return body


def _boxes(body: memoryview, budget: Iterator[int]) -> Iterator[tuple[bytes, memoryview]]:
    """(type, body) of the boxes that follow each other in `body` (4.2); ends where a size cannot be true."""
    at = 0
    while at + 8 <= len(body) and next(budget, None) is not None:
        size, head = _number(body[at : at + 4]), 8
        if size == 1:
            size, head = _number(body[at + 8 : at + 16]), 16
        elif size == 0:
            size = len(body) - at
        if size < head:
            return
        yield bytes(body[at + 4 : at + 8]), body[at + head : at + size]
        at += size


# ---- Matroska (RFC 9559) on EBML (RFC 8794) ----

_SEGMENT, _TRACKS, _TRACK_ENTRY, _TRACK_TYPE, _VIDEO, _CODEC = 0x18538067, 0x1654AE6B, 0xAE, 0x83, 0xE0, 0x86
_WIDTH, _HEIGHT, _BOTTOM, _TOP, _LEFT, _RIGHT = 0xB0, 0xBA, 0x54AA, 0x54BB, 0x54CC, 0x54DD


def _pixel_crops(data: bytes, track: int) -> Iterator[Crop]:
    """PixelCropLeft, -Top, -Right, -Bottom of the video track number `track`, from 0 (RFC 9559, 5.1.4.1.28.8 to 11)."""
    budget = iter(range(_MOST))
    videos = -1
    for body in _nested(memoryview(data), budget, _SEGMENT, _TRACKS, _TRACK_ENTRY):
        fields = dict(_elements(body, budget))
        # FFmpeg makes no stream of a track without a codec
        if _number(fields.get(_TRACK_TYPE, body[:0])) != 1 or _CODEC not in fields:
            continue
        videos += 1
        if videos == track and _VIDEO in fields:
            video = {kind: _number(value) for kind, value in _elements(fields[_VIDEO], budget)}
            width, height = video.get(_WIDTH, 0), video.get(_HEIGHT, 0)
            right, bottom = width - video.get(_RIGHT, 0), height - video.get(_BOTTOM, 0)
            yield Crop(width, height, video.get(_LEFT, 0), video.get(_TOP, 0), right, bottom)


def _nested(body: memoryview, budget: Iterator[int], first: int, *rest: int) -> Iterator[memoryview]:
    for kind, inner in _elements(body, budget):
        if kind == first:
            yield from _nested(inner, budget, *rest) if rest else iter((inner,))


def _elements(body: memoryview, budget: Iterator[int]) -> Iterator[tuple[int, memoryview]]:
    """(id, body) of the elements that follow each other in `body`; one of unknown size reaches to the end."""
    at = 0
    while at < len(body) and next(budget, None) is not None:
        id_length, length_at = _vint_length(body[at]), at + _vint_length(body[at])
        if length_at >= len(body):
            return
        size_length = _vint_length(body[length_at])
        start = length_at + size_length
        if id_length > 4 or size_length > 8 or start > len(body):
            return
        bits = 7 * size_length
        size = _number(body[length_at:start]) & (1 << bits) - 1
        end = len(body) if size == (1 << bits) - 1 else start + size
        yield _number(body[at:length_at]), body[start:end]
        at = end


def _vint_length(first: int) -> int:
    """Bytes of a variable-size integer by its first one (RFC 8794, 4.1); 9 where that is zero."""
    return 9 - first.bit_length()


def _number(value: memoryview, signed: bool = False) -> int:
    return int.from_bytes(value, "big", signed=signed)

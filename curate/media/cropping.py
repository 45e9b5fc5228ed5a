"""What containers say of the part of a frame that is shown: `clap` (MP4, MOV) and PixelCrop (Matroska, WebM).

FFmpeg reads both and leaves them to its caller, and PyAV does not pass them on; so they are read here from the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from math import floor
from typing import TYPE_CHECKING

from curate.media.boxes import ENTRY, MOST, aperture, box, boxes, elements, number, sample_entries

if TYPE_CHECKING:
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


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


def _clean_apertures(data: bytes, track: int) -> Iterator[Crop]:
    """`clap` of each sample entry of a track of an MP4 or MOV (ISO/IEC 14496-12, 12.1.4)."""
    budget = iter(range(MOST))
    for kind, trak, _, _ in boxes(box(data, b"moov", budget=budget), budget):
        header = box(trak, b"tkhd", budget=budget)
        if kind != b"trak" or _track_id(header) != track:
            continue
        for _, entry, _, _ in sample_entries(trak, budget):
            width, height = number(entry[24:26]), number(entry[26:28])
            with suppress(ValueError):  # an aperture that is none crops nothing
                # edges between pixels are rounded down, as FFmpeg does
                left, top, right, bottom = map(
                    floor, aperture(box(entry[ENTRY:], b"clap", budget=budget), width, height)
                )
                crop = Crop(width, height, left, top, right, bottom)
                shaped = box(entry[ENTRY:], b"pasp", budget=budget)
                yield crop if shaped else replace(crop, ratio=_track_ratio(crop, header))


def _track_ratio(crop: Crop, header: memoryview) -> Fraction | None:
    """The shape of pixels that makes the crop as large as the track header says (8.3.2), in 16.16 fixed point.

    None where the header states the whole frame's size: then it says nothing of pixels."""
    wide, high = number(header[-8:-4]), number(header[-4:])
    if not wide or not high or (wide, high) == (crop.width << 16, crop.height << 16) or not _is_part(crop):
        return None
    return Fraction(wide * crop.size[1], high * crop.size[0])


def _track_id(header: memoryview) -> int | None:
    """track_ID of a `tkhd` box (8.3.2), whose times are longer in version 1."""
    at = 20 if number(header[:1]) == 1 else 12
    return number(header[at : at + 4]) if len(header) >= at + 4 else None


_SEGMENT, _TRACKS, _TRACK_ENTRY, _TRACK_TYPE, _VIDEO, _CODEC = 0x18538067, 0x1654AE6B, 0xAE, 0x83, 0xE0, 0x86
_WIDTH, _HEIGHT, _BOTTOM, _TOP, _LEFT, _RIGHT = 0xB0, 0xBA, 0x54AA, 0x54BB, 0x54CC, 0x54DD
"""Elements of Matroska (RFC 9559)."""


def _pixel_crops(data: bytes, track: int) -> Iterator[Crop]:
    """PixelCropLeft, -Top, -Right, -Bottom of the video track number `track`, from 0 (RFC 9559, 5.1.4.1.28.8 to 11)."""
    budget = iter(range(MOST))
    videos = -1
    for body in _nested(data, budget, _SEGMENT, _TRACKS, _TRACK_ENTRY):
        fields = {kind: value for kind, value, _ in elements(body, budget)}
        # FFmpeg makes no stream of a track without a codec
        if number(fields.get(_TRACK_TYPE, b"")) != 1 or _CODEC not in fields:
            continue
        videos += 1
        if videos == track and _VIDEO in fields:
            video = {kind: number(value) for kind, value, _ in elements(fields[_VIDEO], budget)}
            width, height = video.get(_WIDTH, 0), video.get(_HEIGHT, 0)
            right, bottom = width - video.get(_RIGHT, 0), height - video.get(_BOTTOM, 0)
            yield Crop(width, height, video.get(_LEFT, 0), video.get(_TOP, 0), right, bottom)


def _nested(data: bytes | memoryview, budget: Iterator[int], first: int, *rest: int) -> Iterator[memoryview]:
    for kind, inner, _ in elements(data, budget):
        if kind == first:
            yield from _nested(inner, budget, *rest) if rest else iter((inner,))

"""Media of the build as images and audio that stand inside the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.requests import Audio, Frames
from curate.schema.errors import CurateError, MediaError
from curate.shards.tables import Tables

THUMB = Frames(size=192, max_frames=1, crop=False)
WAVE_AUDIO = Audio(rate=8000)
QUALITY = 78
WAVE_COLUMNS, WAVE_HEIGHT = 96, 40
_AROUND_US = 100_000  # a thumbnail of a video decodes this much on each side of its middle, not the whole clip


@dataclass(frozen=True)
class Thumbnail:
    """How one record or sample looks: an image or a wave form, or why neither can be shown.

    Attributes:
        image: data URI of a JPEG, at most 192 px a side, or None.
        width, height: of the image in pixels.
        wave: SVG path of a wave form in a box of 96 x 40, or None.
        problem: set where the media cannot be decoded.
    """

    image: str | None = None
    width: int = 0
    height: int = 0
    wave: str | None = None
    problem: str | None = None


class Media:
    """Bytes of media, read in place. Only tars that the manifest lists are read; nothing is extracted."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def read(self, row: dict[str, Any]) -> bytes:
        """The media of a row of `samples` or `records`.

        Raises:
            MediaError: the tar ends before they do.
            CurateError: the tar is not part of the build.
        """
        tar = self._tables.checked(row["media"])
        data = self._tables.build.read_range(tar, row["offset"], row["bytes"])
        if len(data) != row["bytes"]:
            raise MediaError(f"{tar} ends before {row['member']!r} does")
        return data

    def thumb(self, row: dict[str, Any]) -> Thumbnail:
        """A small image of a row of `samples` or `records` (one frame of a video, the wave form of audio)."""
        from curate.media.guarded import decode

        if not row.get("media") or not row.get("member") or not row.get("kind"):
            return Thumbnail(problem="no media was stored")
        try:
            data = self.read(row)
            if row["kind"] == "audio":
                view = decode(data, "audio", [WAVE_AUDIO], span=span_of(row)).views.get(WAVE_AUDIO)
                return Thumbnail(problem="no audio") if view is None else Thumbnail(wave=wave(view))
            frames = decode(data, row["kind"], [THUMB], span=middle_of(row)).views.get(THUMB)
        except (MediaError, CurateError) as exc:
            return Thumbnail(problem=str(exc))
        if frames is None or not len(frames):
            return Thumbnail(problem="no image")
        height, width = frames.shape[1:3]
        return Thumbnail(image=jpeg(frames[0]), width=width, height=height)


def span_of(row: dict[str, Any]) -> Any:
    """The span of a row of `samples`; None for whole media."""
    from curate.media.decode import Span

    start, end = row.get("start_us") or 0, row.get("end_us") or 0
    return Span(start, end) if end > start else None


def middle_of(row: dict[str, Any]) -> Any:
    """A short span around the middle of a video."""
    from curate.media.decode import Span

    if row["kind"] != "video":
        return None
    start, end = row.get("start_us") or 0, row.get("end_us") or int(1e6 * (row.get("duration") or 0))
    if end <= start:
        return None
    middle = (start + end) // 2
    return Span(max(start, middle - _AROUND_US), min(end, middle + _AROUND_US))


def jpeg(image: NDArray[Any], side: int = 192) -> str:
    """A data URI of an RGB image uint8 `(H, W, 3)`, made smaller where its long side is above `side` pixels."""
    from curate.media.encode import encode_jpeg

    return data_uri(encode_jpeg(shrink(image, side), QUALITY), "image/jpeg")


def shrink(image: NDArray[Any], side: int) -> NDArray[np.uint8]:
    """The image with its long side at most `side`, antialiased."""
    from PIL import Image

    height, width = image.shape[:2]
    if max(height, width) <= side:
        return np.ascontiguousarray(image, dtype=np.uint8)
    scale = side / max(height, width)
    small = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(image).resize(small, Image.Resampling.LANCZOS))


def data_uri(data: bytes, mime: str) -> str:
    return f"data:{mime};base64,{base64.b64encode(data).decode('ascii')}"


def wave(audio: NDArray[Any], columns: int = WAVE_COLUMNS, height: int = WAVE_HEIGHT) -> str:
    """The envelope of int16 audio as an SVG path: for each column its least and greatest sample."""
    middle = height / 2
    if not len(audio):
        return f"M0 {middle:g}H{columns}"
    edges = np.linspace(0, len(audio), columns + 1).astype(np.int64)[:-1]
    edges = np.minimum(edges, len(audio) - 1)
    high = np.maximum.reduceat(audio, edges).astype(np.float64) / 32768
    low = np.minimum.reduceat(audio, edges).astype(np.float64) / 32768
    upper = np.minimum(middle - high * middle, middle - 0.4)
    lower = np.maximum(middle - low * middle, middle + 0.4)
    there = [f"{x} {y:.1f}" for x, y in enumerate(upper)]
    back = [f"{x} {y:.1f}" for x, y in reversed(list(enumerate(lower)))]
    return f"M{'L'.join(there)}L{'L'.join(back)}Z"


def spectrogram(audio: NDArray[Any], reference: float, width: int = 192, height: int = 80) -> NDArray[np.uint8]:
    """Power of float32 audio over time and frequency as an image, 80 dB below `reference` to `reference`.

    Args:
        audio: `(n,)` in [-1, 1].
        reference: amplitude of a spectral line that is drawn brightest; see `loudest_line`.

    Returns:
        uint8 `(height, width, 3)`: 0 Hz at the bottom, half the sample rate at the top, linear.
    """
    lines = _lines(audio, width)
    rows = np.linspace(0, lines.shape[0], height + 1).astype(np.int64)
    power = np.add.reduceat(lines**2, rows[:-1], axis=0) / np.diff(rows)[:, None]
    level = 20 * np.log10(np.maximum(np.sqrt(power) / max(reference, 1e-9), 1e-4))
    shade = np.clip(1 + level[::-1] / 80, 0, 1)
    stops = np.linspace(0, 1, len(_HEAT))
    colour = np.stack([np.interp(shade, stops, _HEAT[:, c]) for c in range(3)], axis=-1)
    return np.round(colour).astype(np.uint8)


def loudest_line(audio: NDArray[Any]) -> float:
    """The greatest amplitude of a spectral line, for `spectrogram`'s reference."""
    return float(_lines(audio, 192).max())


_WINDOW = 512
_HEAT = np.array(  # dark blue to pale yellow, rising evenly in lightness, after matplotlib's magma
    [[8, 6, 22], [45, 17, 96], [114, 31, 129], [183, 55, 121], [241, 96, 93], [254, 159, 109], [252, 253, 191]],
    dtype=np.float64,
)


def _lines(audio: NDArray[Any], columns: int) -> NDArray[np.float64]:
    """Amplitudes `(257, columns)` of Hann windows spread evenly over the audio."""
    padded = np.pad(audio.astype(np.float64), (_WINDOW // 2, _WINDOW // 2))
    starts = np.linspace(0, len(padded) - _WINDOW, columns).astype(np.int64)
    windows = padded[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    out: NDArray[np.float64] = np.abs(np.fft.rfft(windows, axis=1)).T
    return out

"""Media made for tests, with known truth: each frame says which it is."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

QUIET = {"libx265": {"x265-params": "log-level=none:pools=none:frame-threads=1"}}


def grey(index: int) -> int:
    """The level of frame `index`: 64 frames can be told apart."""
    return 24 + 3 * (index % 64)


def index_of(pixels: NDArray[Any]) -> int:
    """Which frame (modulo 64) the pixels are of; fails where the level is between two."""
    level = float(np.mean(pixels))
    index = round((level - 24) / 3)
    assert abs(level - grey(index)) < 1.2, f"level {level:.2f} is no frame's"
    return index


def indices(frames: NDArray[Any]) -> list[int]:
    return [index_of(frame) for frame in frames]


def flat(index: int, size: tuple[int, int]) -> NDArray[np.uint8]:
    return np.full((size[1], size[0], 3), grey(index), np.uint8)


def corners(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Red top left, green top right, blue bottom left, white bottom right."""
    width, height = size
    out = np.zeros((height, width, 3), np.uint8)
    out[: height // 2, : width // 2] = (220, 20, 20)
    out[: height // 2, width // 2 :] = (20, 200, 20)
    out[height // 2 :, : width // 2] = (20, 20, 220)
    out[height // 2 :, width // 2 :] = (230, 230, 230)
    return out


def stored(upright: Image.Image, orientation: int) -> Image.Image:
    """An image turned so that applying the EXIF orientation restores it."""
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    return upright if orientation == 1 else upright.transpose(undo[orientation])


def corner_names(pixels: NDArray[Any]) -> str:
    """The colours of the corners as r, g, b, w: top left, top right, bottom left, bottom right."""
    h, w = pixels.shape[:2]
    out = ""
    for y, x in ((h // 4, w // 4), (h // 4, 3 * w // 4), (3 * h // 4, w // 4), (3 * h // 4, 3 * w // 4)):
        r, g, b = (int(v) > 128 for v in pixels[y, x])
        out += {(True, False, False): "r", (False, True, False): "g", (False, False, True): "b"}.get((r, g, b), "w")
    return out


def video(
    stamps: Sequence[int],
    *,
    base: Fraction = Fraction(1, 1000),
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    container: str = "mp4",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    images: Sequence[NDArray[np.uint8]] | None = None,
    rotation: tuple[float, bool, bool] | None = None,
    ratio: Fraction | None = None,
    colour: tuple[int, int] | None = None,
    audio: NDArray[np.int16] | None = None,
    audio_at: Fraction = Fraction(0),
    audio_codec: str = "aac",
    rate: int = 48000,
) -> bytes:
    """A video whose frame i is shown at stamps[i] * base and is `flat(i)`, or images[i].

    Args:
        rotation: degrees counter-clockwise, horizontal flip, vertical flip, of the display matrix.
        colour: (colorspace, color_range) in FFmpeg's numbers, converted to and tagged.
        audio: mono, begins at `audio_at` seconds on the container's clock.
    """
    out = BytesIO()
    with av.open(out, "w", format=container, options=muxer or {}) as file:
        gaps = np.diff(stamps)
        nominal = int(np.median(gaps)) if len(gaps) else 40
        stream = file.add_stream(codec, rate=1 / (base * nominal), options={**QUIET.get(codec, {}), **(options or {})})
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], pix_fmt
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = base
        stream.time_base = base
        if ratio is not None:
            stream.codec_context.sample_aspect_ratio = ratio
        if colour is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = colour
        if rotation is not None:
            stream.set_display_rotation(rotation[0], hflip=rotation[1], vflip=rotation[2])
        voice = None
        if audio is not None:
            voice = file.add_stream(audio_codec, rate=rate, layout="mono")
        for i, stamp in enumerate(stamps):
            pixels = images[i] if images is not None else flat(i, size)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if colour is not None:
                frame = frame.reformat(format=pix_fmt, dst_colorspace=colour[0], dst_color_range=colour[1])
                frame.colorspace, frame.color_range = colour
            else:
                frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = stamp, base
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
        if voice is not None and audio is not None:
            _mux_audio(file, voice, audio, audio_at, rate)
    return out.getvalue()


def audio_file(
    samples: NDArray[np.int16],
    *,
    rate: int = 48000,
    codec: str = "pcm_s16le",
    container: str = "wav",
    bit_rate: int = 0,
) -> bytes:
    """Mono sound."""
    out = BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        if bit_rate:
            stream.codec_context.bit_rate = bit_rate
        _mux_audio(file, stream, samples, Fraction(0), rate)
    return out.getvalue()


def channels(
    samples: NDArray[np.int16],
    layout: str,
    *,
    rate: int = 48000,
    codec: str = "pcm_s16le",
    container: str = "wav",
    bit_rate: int = 0,
) -> bytes:
    """Sound of several channels: int16 `(channels, n)`."""
    out = BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout)
        if bit_rate:
            stream.codec_context.bit_rate = bit_rate
        for at in range(0, samples.shape[1], 1024):
            part = np.ascontiguousarray(samples[:, at : at + 1024].T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(part, format="s16", layout=layout)
            frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), at
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


def _mux_audio(file: Any, stream: Any, samples: NDArray[np.int16], begin: Fraction, rate: int) -> None:
    for at in range(0, len(samples), 1024):
        part = np.ascontiguousarray(samples[at : at + 1024])
        frame = av.AudioFrame.from_ndarray(part[np.newaxis], format="s16", layout="mono")
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = at + round(begin * rate)
        file.mux(stream.encode(frame))
    file.mux(stream.encode(None))


def tone(seconds: float, rate: int = 48000, hertz: float = 440, level: float = 8000) -> NDArray[np.int16]:
    return (level * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.int16)


def with_a_hole() -> bytes:
    """A second of a tone, a second without packets, a second of the tone."""
    out = BytesIO()
    with av.open(out, "w", format="matroska") as file:
        stream = file.add_stream("pcm_s16le", rate=48000, layout="mono")
        for begin in (0, 96000):
            frame = av.AudioFrame.from_ndarray(tone(1.0)[np.newaxis], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, begin, Fraction(1, 48000)
            file.mux(stream.encode(frame))
    return out.getvalue()


def noise(seconds: float, rate: int = 48000, seed: int = 0, smooth: int = 16) -> NDArray[np.int16]:
    """Low-passed noise: no stretch of it is like another."""
    raw = np.random.default_rng(seed).normal(0, 12000, int(seconds * rate) + smooth)
    return (
        np.convolve(raw, np.ones(smooth) / smooth**0.5, "valid")[: int(seconds * rate)]
        .clip(-32768, 32767)
        .astype(np.int16)
    )


@functools.cache
def shipped(package: str, path: str) -> bytes:
    """A file that a package ships, without importing the package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    found = [root / path] if (root / path).is_file() else sorted(root.rglob(path))
    return found[0].read_bytes()

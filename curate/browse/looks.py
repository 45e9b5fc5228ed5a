"""How a row looks: WebP of images and clips, SVG of wave forms, made when asked for and kept in a bounded cache."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from curate.browse.kept_files import KeptFiles
from curate.card.media import WAVE_AUDIO, Media, middle_of, shrink, span_of, wave
from curate.media.decode import Span
from curate.media.guarded import decode
from curate.media.requests import Frames
from curate.schema.errors import CurateError, MediaError

SIDES = {"small": 256, "large": 1280}
"""Longest side in pixels."""

MOVING = "moving"
"""A look of clips alone: their first seconds, without sound, as an animation."""

PLACE = ("n", "kind", "media", "member", "offset", "bytes", "start_us", "end_us", "duration")
"""Columns of a row that say where its medium lies."""

_QUALITY = 78
_LONGEST_US = 60_000_000  # of audio in a wave form
_MOVING_US, _MOVING_FPS = 5_000_000, 5


class Looks:
    """Thumbnails of a build's rows. Media are decoded in the helper process, as everywhere.

    Args:
        folder: takes them.
    """

    def __init__(self, media: Media, folder: Path) -> None:
        self._media, self._kept = media, KeptFiles(folder)

    def look(self, row: dict[str, Any], size: str) -> tuple[bytes, str]:
        """Its image and the image's type.

        Args:
            row: of the table, with the columns PLACE.
            size: a key of SIDES; or MOVING.

        Raises:
            CurateError: there is no medium, it is gone, or it cannot be decoded.
        """
        if not row["media"] or not row["member"] or not row["kind"]:
            raise CurateError("no medium of this was stored")
        if size not in SIDES and (size != MOVING or row["kind"] != "video"):
            raise CurateError(f"no thumbnail is called {size}")
        kind, mime = ("svg", "image/svg+xml") if row["kind"] == "audio" else ("webp", "image/webp")
        name = f"{row['n']}-{size}.{kind}"
        held = self._kept.read(name)
        if held is not None:
            return held, mime
        try:
            if size == MOVING:
                made = self._moving(row)
            else:
                made = self._wave(row) if row["kind"] == "audio" else self._image(row, SIDES[size])
        except MediaError as error:
            raise CurateError(str(error)) from error
        except OSError as error:
            raise CurateError(f"its medium is gone: {error}") from error
        self._kept.write(name, made)
        return made, mime

    def _image(self, row: dict[str, Any], side: int) -> bytes:
        from PIL import Image

        view = Frames(size=side, max_frames=1, crop=False)
        frames = decode(self._media.read(row), row["kind"], [view], span=middle_of(row)).views.get(view)
        if frames is None or not len(frames):
            raise CurateError("it has no frame")
        out = io.BytesIO()
        Image.fromarray(shrink(frames[0], side)).save(out, "WEBP", quality=_QUALITY)
        return out.getvalue()

    def _moving(self, row: dict[str, Any]) -> bytes:
        from PIL import Image

        view = Frames(
            size=SIDES["small"], fps=_MOVING_FPS, max_frames=_MOVING_US // 1_000_000 * _MOVING_FPS, crop=False
        )
        frames = decode(self._media.read(row), "video", [view], span=_beginning(row, _MOVING_US)).views.get(view)
        if frames is None or not len(frames):
            raise CurateError("it has no frame")
        first, *others = map(Image.fromarray, frames)
        out = io.BytesIO()
        how = {"quality": _QUALITY, "duration": 1000 // _MOVING_FPS, "loop": 0, "method": 1}
        first.save(out, "WEBP", save_all=True, append_images=others, **how)
        return out.getvalue()

    def _wave(self, row: dict[str, Any]) -> bytes:
        audio = decode(self._media.read(row), "audio", [WAVE_AUDIO], span=_beginning(row, _LONGEST_US)).views.get(
            WAVE_AUDIO
        )
        if audio is None:
            raise CurateError("it has no audio")
        path = wave(audio, columns=240, height=120)
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 240 120"><path d="{path}" fill="#7c8aa5"/></svg>'
        return svg.encode()


def _beginning(row: dict[str, Any], most_us: int) -> Any:
    """The span of a row, of a long one its beginning; None for whole media that are not longer."""
    span = span_of(row)
    start = 0 if span is None else span.start_us
    end = round(1e6 * (row["duration"] or 0)) if span is None else span.end_us
    return Span(start, start + most_us) if end - start > most_us else span

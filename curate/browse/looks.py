"""How a row looks: WebP of images and clips, SVG of wave forms, made when asked for and kept in a bounded cache."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from curate.browse.kept_files import KeptFiles
from curate.card.media import WAVE_AUDIO, Media, middle_of, shrink, span_of, wave
from curate.media.guarded import decode
from curate.media.requests import Frames
from curate.schema.errors import CurateError, MediaError

SIDES = {"small": 256, "large": 1280}
"""Longest side in pixels."""

PLACE = ("n", "kind", "media", "member", "offset", "bytes", "start_us", "end_us", "duration")
"""Columns of a row that say where its medium lies."""

_QUALITY = 78
_LONGEST_US = 60_000_000  # of audio in a wave form


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
            size: a key of SIDES.

        Raises:
            CurateError: there is no medium, it is gone, or it cannot be decoded.
        """
        if not row["media"] or not row["member"] or not row["kind"]:
            raise CurateError("no medium of this was stored")
        if size not in SIDES:
            raise CurateError(f"no thumbnail is called {size}")
        kind, mime = ("svg", "image/svg+xml") if row["kind"] == "audio" else ("webp", "image/webp")
        name = f"{row['n']}-{size}.{kind}"
        held = self._kept.read(name)
        if held is not None:
            return held, mime
        try:
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

    def _wave(self, row: dict[str, Any]) -> bytes:
        span = span_of(row)
        if span is not None and span.end_us - span.start_us > _LONGEST_US:
            span = type(span)(span.start_us, span.start_us + _LONGEST_US)
        audio = decode(self._media.read(row), "audio", [WAVE_AUDIO], span=span).views.get(WAVE_AUDIO)
        if audio is None:
            raise CurateError("it has no audio")
        path = wave(audio, columns=240, height=120)
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 240 120"><path d="{path}" fill="#7c8aa5"/></svg>'
        return svg.encode()

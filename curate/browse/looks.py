"""How a row looks: WebP of images and clips, SVG of wave forms, made when asked for and kept in a bounded cache."""

from __future__ import annotations

import io
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from curate.card.media import WAVE_AUDIO, Media, middle_of, shrink, span_of, wave
from curate.media.guarded import decode
from curate.media.requests import Frames
from curate.schema.errors import CurateError, MediaError

SIDES = {"small": 256, "large": 1280}
"""Longest side in pixels."""

CACHE_BYTES = 256 << 20
"""Of all kept thumbnails of a build; beyond it the oldest go."""

PLACE = ("n", "kind", "media", "member", "offset", "bytes", "start_us", "end_us", "duration")
"""Columns of a row that say where its medium lies."""

_QUALITY = 78
_SWEEP = 64  # so many are made between two looks at how much is kept
_LONGEST_US = 60_000_000  # of audio in a wave form


class Looks:
    """Thumbnails of a build's rows. Media are decoded in the helper process, as everywhere.

    Args:
        folder: takes them.
    """

    def __init__(self, media: Media, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._media, self._folder, self._made = media, folder, 0

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
        file = self._folder / f"{row['n']}-{size}.{kind}"
        try:
            return file.read_bytes(), mime
        except FileNotFoundError:
            pass  # not made yet, or pruned
        try:
            made = self._wave(row) if row["kind"] == "audio" else self._image(row, SIDES[size])
        except MediaError as error:
            raise CurateError(str(error)) from error
        except OSError as error:
            raise CurateError(f"its medium is gone: {error}") from error
        self._keep(file, made)
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

    def _keep(self, file: Path, data: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self._folder, prefix="new-")
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        Path(name).replace(file)
        self._made += 1
        if self._made % _SWEEP == 0:
            prune(self._folder, CACHE_BYTES)


def prune(folder: Path, most: int) -> None:
    """Remove the oldest files of a folder until the others have at most `most` bytes."""
    found = []
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # another thread gave it its name, or removed it
            told = file.stat()
            found.append((told.st_mtime_ns, told.st_size, file))
    held = 0
    for _, size, file in sorted(found, reverse=True):
        held += size
        if held > most:
            file.unlink(missing_ok=True)

"""WebDataset of media: what was kept, as it was before it became tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Literal, get_args

from curate.exports.base import Export, Sample, Selection
from curate.exports.cut import Clip, cut
from curate.exports.kept import Kept
from curate.exports.program import program
from curate.exports.webdataset import write_tar
from curate.schema.errors import CurateError, MediaError
from curate.schema.fields import TIMED

_SAID = (
    "record_id",
    "source",
    "uri",
    "licence",
    "width",
    "height",
    "duration",
    "fps",
    "has_audio",
    "codec",
    "audio_rate",
)
_SUFFIXES = {"jpeg": "jpg", "mpo": "jpg", "jpeg2000": "jp2", "tiff": "tif"}

Clips = Literal["transcode", "copy"]
"""What becomes of the video of clips; see `cut.cut`."""


class WebDatasetMedia(Export):
    """Of each sample its medium, `KEY.txt` (its text, where it has one), and `KEY.json`: what the tables say of it,
    `signals`, those that are no vectors, and `medium`: `whole`, `transcoded` or `copied`.

    Images, arrays, and samples that are all of their medium are bytes as they came; other clips and segments are cut
    exactly (`cut.cut`): `KEY.mp4`, `KEY.flac`.

    Args:
        clips: `copy` for video that is encoded again only where copying would not cut exactly.
    """

    name: ClassVar[str] = "webdataset-media"
    suffix: ClassVar[str] = ".tar"

    def __init__(self, clips: Clips = "transcode") -> None:
        if clips not in get_args(Clips):
            raise ValueError(f"clips is one of {', '.join(get_args(Clips))}")
        self._clips = clips

    def begin(self, selection: Selection) -> None:
        self._kept = Kept(selection)
        if self._kept.kinds & set(TIMED):
            program()

    def shard(self, samples: Iterator[Sample], *files: Path) -> int:
        return write_tar(files[0], (self._members(sample, row) for sample, row in self._kept.beside(samples)))

    def _members(self, sample: Sample, row: dict[str, Any]) -> dict[str, Any]:
        medium, made = self._medium(sample, row)
        about = {**sample.about, **{name: row[name] for name in _SAID}, "medium": made}
        about["signals"] = {name: row[name] for name in self._kept.signals}
        text = next(iter(sample.text.values()), row["text"])
        said = {} if text is None else {"txt": text}
        return {"__key__": sample.sample_id, **medium, **said, "json": about}

    def _medium(self, sample: Sample, row: dict[str, Any]) -> tuple[dict[str, bytes], str]:
        """The member of the medium, and how it was made."""
        data, suffix = self._kept.media(row), PurePosixPath(row["member"]).suffix[1:] or "bin"
        if sample.kind == "image" and row["codec"]:
            suffix = _SUFFIXES.get(row["codec"], row["codec"])
        if sample.kind not in TIMED or row["whole"]:
            return {suffix: data}, "whole"
        clip = self._cut(data, sample, row)
        return {clip.suffix: clip.data}, "copied" if clip.copied else "transcoded"

    def _cut(self, data: bytes, sample: Sample, row: dict[str, Any]) -> Clip:
        span = (sample.start_us, sample.end_us)
        try:
            return cut(data, sample.kind, *span, bool(row["has_audio"]), copy=self._clips == "copy")
        except MediaError as error:
            raise CurateError(f"sample {sample.sample_id} of {row['uri']} cannot be cut: {error}") from error

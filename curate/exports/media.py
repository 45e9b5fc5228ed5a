"""WebDataset of media: what was kept, as it was before it became tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from curate.exports.base import Export, Sample, Selection
from curate.exports.cut import cut, program
from curate.exports.kept import Kept
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


class WebDatasetMedia(Export):
    """Of each sample its medium, `KEY.txt` (its text, where it has one), and `KEY.json`: what the tables say of it, and
    `signals`, those that are no vectors.

    Images, arrays, and samples that are all of their medium are bytes as they came; other clips and segments are cut
    exactly and transcoded (`cut.cut`): `KEY.mp4`, `KEY.flac`.
    """

    name: ClassVar[str] = "webdataset-media"
    suffix: ClassVar[str] = ".tar"

    def begin(self, selection: Selection) -> None:
        self._kept = Kept(selection)
        if self._kept.kinds & set(TIMED):
            program()

    def shard(self, samples: Iterator[Sample], *files: Path) -> int:
        return write_tar(files[0], (self._members(sample, row) for sample, row in self._kept.beside(samples)))

    def _members(self, sample: Sample, row: dict[str, Any]) -> dict[str, Any]:
        suffix, data = self._medium(sample, row)
        about = {**sample.about, **{name: row[name] for name in _SAID}}
        about["signals"] = {name: row[name] for name in self._kept.signals}
        text = next(iter(sample.text.values()), row["text"])
        said = {} if text is None else {"txt": text}
        return {"__key__": sample.sample_id, suffix: data, **said, "json": about}

    def _medium(self, sample: Sample, row: dict[str, Any]) -> tuple[str, bytes]:
        data, suffix = self._kept.media(row), PurePosixPath(row["member"]).suffix[1:] or "bin"
        if sample.kind == "image" and row["codec"]:
            return _SUFFIXES.get(row["codec"], row["codec"]), data
        if sample.kind not in TIMED or row["whole"]:
            return suffix, data
        try:
            return cut(data, sample.kind, sample.start_us, sample.end_us, bool(row["has_audio"]))
        except MediaError as error:
            raise CurateError(f"sample {sample.sample_id} of {row['uri']} cannot be cut: {error}") from error

"""WebDataset: a tar a shard, as img2dataset and most trainers know it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from curate.exports.base import Export, Sample


class WebDataset(Export):
    """Of each sample `KEY.STREAM.npy` for each stream of ids, `KEY.txt` (the text of its first text stream), and
    `KEY.json` (content_id, kind, start_us, end_us); KEY is the sample's id.

    `webdataset.WebDataset(urls).decode()` gives the arrays by `STREAM.npy`.
    """

    name: ClassVar[str] = "webdataset"
    suffix: ClassVar[str] = ".tar"

    def shard(self, samples: Iterator[Sample], file: Path) -> int:
        from webdataset import TarWriter

        written = 0
        with file.open("wb") as out, TarWriter(out, user="", group="", mode=0o644, mtime=0) as tar:
            for sample in samples:
                about = {key: getattr(sample, key) for key in ("content_id", "kind", "start_us", "end_us")}
                ids = {f"{stream}.npy": array for stream, array in sample.ids.items()}
                words = {"txt": next(iter(sample.text.values()))} if sample.text else {}
                tar.write({"__key__": sample.sample_id, **ids, **words, "json": about})
                written += 1
        return written

"""WebDataset: a tar a shard, as img2dataset and most trainers know it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from curate.exports.base import Export, Sample


class WebDataset(Export):
    """Of each sample `KEY.STREAM.npy` for each stream of ids, `KEY.txt` (the text of its first text stream), and
    `KEY.json` (content_id, kind, start_us, end_us); KEY is the sample's id.

    `webdataset.WebDataset(urls).decode()` gives the arrays by `STREAM.npy`.
    """

    name: ClassVar[str] = "webdataset"
    suffix: ClassVar[str] = ".tar"

    def shard(self, samples: Iterator[Sample], *files: Path) -> int:
        return write_tar(files[0], (members(sample) for sample in samples))


def members(sample: Sample) -> dict[str, Any]:
    """A sample as WebDataset's writer takes it."""
    ids = {f"{stream}.npy": array for stream, array in sample.ids.items()}
    words = {"txt": next(iter(sample.text.values()))} if sample.text else {}
    return {"__key__": sample.sample_id, **ids, **words, "json": sample.about}


def write_tar(file: Path, samples: Iterable[dict[str, Any]]) -> int:
    """Write samples to a tar whose bytes are a function of theirs alone; how many there were."""
    from webdataset import TarWriter

    written = 0
    with file.open("wb") as out, TarWriter(out, user="", group="", mode=0o644, mtime=0) as tar:
        for sample in samples:
            tar.write(sample)
            written += 1
    return written

"""What an export is: a format that others read, written from a finished build, a file a shard.

A new one is one file in this folder, or of one's own anywhere (`examples/plugins/export.py`): a class that derives from
`Export`, with a `name`, a `suffix` and `shard`. Everything else is the same for all: names of files, what is there
already, counts.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate import plugins
from curate.schema.errors import CurateError
from curate.schema.manifest import MANIFEST, Manifest
from curate.shards.commit import file_digest, read_manifest
from curate.shards.ipc import BATCH_ROWS
from curate.shards.reader import VIEW_KEYS, Reader, find_split
from curate.storage import Store, open_store
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer

MARK = "export.json"
"""The file of an export that says of what it is one; once it has `rows`, the export is whole."""


@dataclass(frozen=True)
class Sample:
    """One sample of a build.

    Attributes:
        sample_id, content_id: 32 hex digits; samples cut from the same media share the second.
        kind: image, video, audio or array.
        start_us, end_us: the span in its medium, microseconds; 0 and 0 of an image.
        ids: by stream, in the stream's shape and type; a stream that the sample lacks is not there.
        text: by stream what the ids of its text streams say.
    """

    sample_id: str
    content_id: str
    kind: str
    start_us: int
    end_us: int
    ids: dict[str, NDArray[Any]]
    text: dict[str, str]


class Written(NamedTuple):
    """A file of an export: its path in it, how many samples it has, and whether it was there before."""

    path: str
    samples: int
    was_there: bool


class Export(ABC):
    """A format.

    Attributes:
        name: what `--format` calls it.
        suffix: of its files, with the dot.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def shard(self, samples: Iterator[Sample], file: Path) -> int:
        """Write the samples of a shard, in order, to a file. The same samples are to give the same bytes (law 6).

        Returns:
            How many it wrote.
        """

    def write(self, build: Store, manifest: Manifest, split: str, out: Store) -> Iterator[Written]:
        """Write a split, a file a shard; one that is there is whole, and stays.

        Raises:
            CurateError: a shard that cannot be read, a text's tokenizer that is not there, or a file with another
                number of samples than the shard.
        """
        texts = _text_tokenizers(manifest)
        there = {file.path for file in out.files(split)}
        reader, shards = Reader(build, manifest, split), find_split(manifest, split)
        firsts = np.cumsum([0, *shards.shard_rows]).tolist()
        for shard, first, rows in zip(shards.shards, firsts, shards.shard_rows, strict=False):
            path = f"{split}/{PurePosixPath(shard).stem}{self.suffix}"
            if path not in there:
                with out.atomic_write(path) as file:
                    written = self.shard(_samples(reader, texts, first, rows), file)
                    if written != rows:
                        raise CurateError(f"{path} has {written} samples, the manifest says {rows}", "see its `shard`")
            yield Written(path, rows, path in there)


def export(
    build: Store | Path | str, name: str, out: Store | Path | str, splits: Sequence[str] = ()
) -> Iterator[Written]:
    """Write a build in another format; broken off and begun again, it goes on at the next file.

    Args:
        build: folder of a finished build, or its `s3://` uri.
        name: of the format: built in, an entry point of `curate.exports`, or `package.module:Class`.
        out: a folder or an `s3://` prefix, empty or with this very export.
        splits: which; all by default.

    Raises:
        CurateError: no finished build, no such split or format, or `out` holds something else; or as `Export.write`.
    """
    made: Export = plugins.make("export", name, {})
    build, out = open_store(build), open_store(out)
    manifest = read_manifest(build)
    asked = [find_split(manifest, split) for split in splits] or manifest.splits
    mark: dict[str, Any] = {
        "format": name,
        "manifest": file_digest(build, MANIFEST)[0],
        "splits": [s.name for s in asked],
    }
    if out.stat(MARK) is not None:
        if {**json.loads(out.read(MARK)), "rows": 0} != {**mark, "rows": 0}:
            raise CurateError(f"{out} holds another export", "give another folder, or remove what is there")
    elif out.files():
        raise CurateError(f"{out} is not empty, and holds no export", "give another folder, or remove what is there")
    out.write(MARK, _json(mark))
    rows = 0
    for split in asked:
        for written in made.write(build, manifest, split.name, out):
            rows += written.samples
            yield written
    if rows != (wanted := sum(split.samples for split in asked)):
        raise CurateError(f"{out} has {rows} samples, the manifest says {wanted}", "check the build: curate verify")
    out.write(MARK, _json({**mark, "rows": rows}))


def _json(mark: dict[str, Any]) -> bytes:
    return (json.dumps(mark, indent=1, sort_keys=True) + "\n").encode()


def _text_tokenizers(manifest: Manifest) -> dict[str, Tokenizer]:
    """The tokenizers of text streams, by stream."""
    used = {use["name"]: use["tokenizer"] for use in manifest.recipe["tokenize"]["streams"]}
    cards = {stream.name: manifest.codecs[stream.tokenizer] for stream in manifest.streams}
    return {name: zoo.of_card(card, used[name]) for name, card in cards.items() if card.modality == "text"}


def _samples(reader: Reader, texts: dict[str, Tokenizer], first: int, count: int) -> Iterator[Sample]:
    for start in range(first, first + count, BATCH_ROWS):
        index = np.arange(start, min(start + BATCH_ROWS, first + count))
        rows = reader.take(index, (*VIEW_KEYS, "content_id"))
        for i in range(len(rows)):
            ids = {name: found for name, column in rows.streams.items() if (found := column[i]) is not None}
            said = {name: str(words.decode([ids[name]])[0]) for name, words in texts.items() if name in ids}
            sample_id, content, kind = (str(rows.keys[key][i]) for key in ("sample_id", "content_id", "kind"))
            start_us, end_us = (int(rows.keys[key][i]) for key in ("start_us", "end_us"))
            yield Sample(sample_id, content, kind, start_us, end_us, ids, said)

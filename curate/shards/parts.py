"""What a mixture is made of: rows of one split by number, of a build or of builds that are joined.

Builds differ in their streams. So that one view shows them all, it is bound to the streams of all of them together, and
a stream that a build lacks is one that all of its samples lack.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.ids import digest_of_rows
from curate.schema.manifest import Manifest
from curate.shards.commit import read_manifest
from curate.shards.ipc import open_ipc
from curate.shards.lists import files_below
from curate.shards.memory import Ints
from curate.shards.reader import Reader, find_split
from curate.shards.rows import Ragged, Rows
from curate.shards.schema import StreamSpec, streams_of
from curate.storage import Store, open_store


class Rowed(Protocol):
    """Rows by number.

    Attributes:
        damaged: what is wrong with shards that `readable` could not open, by path or uri.
    """

    @property
    def damaged(self) -> Mapping[str, str]: ...

    def take(self, index: Ints) -> Rows:
        """Rows of these numbers, in this order, with the key columns that a view sees."""
        ...

    def readable(self, index: Ints) -> NDArray[np.bool_]:
        """Which of these rows lie in shards that can be opened, bool `(n,)`."""
        ...

    def fetch(self, shards: Iterable[int]) -> None:
        """Begin to copy shards that lie in a bucket, ahead of their use."""
        ...


class Part(Protocol):
    """Samples of a mixture.

    Attributes:
        name: what it is called in reports.
        split: the split that its order is drawn for.
        manifest: says its streams and their codecs.
        samples: how many it has; rows are 0 to samples - 1.
        shard_rows: how many of them lie in each of its shards, one after the other.
        row_bytes: of a sample in its files, in the mean.
        digest: 32 hex digits that change with any of its shards.
    """

    name: str
    split: str
    manifest: Manifest
    samples: int
    shard_rows: list[int]
    row_bytes: int
    digest: str

    def open(self, streams: Sequence[str]) -> Rowed:
        """Its rows with those of these streams that it has."""
        ...


class BuildPart:
    """A split of one build, as a `Part`.

    Args:
        build: folder of a finished build, or its `s3://` uri.
        split: name of the split.
        verify: True to compare the digest of each shard when it is opened.

    Raises:
        CurateError: no finished build, no such split, or a build that does not list its shards.
    """

    def __init__(self, build: Store | Path | str, split: str = "train", *, verify: bool = False) -> None:
        self.build = open_store(build)
        self.manifest = read_manifest(self.build)
        self.split = split
        self.name = str(build) if split == "train" else f"{build} {split}"
        self.entry = find_split(self.manifest, split)
        self.samples, self.shard_rows = self.entry.samples, self.entry.shard_rows
        files = {f.path: f for f in files_below(self.build, self.manifest, f"tokens/{split}/")}
        if lost := [path for path in self.entry.shards if path not in files]:
            raise CurateError(f"{self.build}: the build lists no file {lost[0]}", "check it: curate verify")
        shards = [files[path] for path in self.entry.shards]
        self.row_bytes = sum(f.bytes for f in shards) // max(1, self.samples)
        self.digest = digest_of_rows(f.digest for f in shards)
        self._digests = {f.path: f.digest for f in shards} if verify else None

    def open(self, streams: Sequence[str]) -> Reader:
        return Reader(self.build, self.manifest, self.split, streams, self._digests)

    def column(self, key: str) -> Iterator[pa.Array]:
        """A key column of its samples in stored order, a record batch at a time."""
        for path in self.entry.shards:
            for batch in open_ipc(self.build.local(path))[1]:
                yield batch.column(key)


def union(manifests: Sequence[Manifest]) -> Manifest:
    """The first manifest, with the streams and codecs that the others have beside its own, in their order.

    Raises:
        CurateError: one stream is of two tokenizers, or two codecs have one name.
    """
    streams = {s.name: s for s in manifests[0].streams}
    codecs = dict(manifests[0].codecs)
    specs = _specs(manifests[0])
    for other in manifests[1:]:
        theirs = _specs(other)
        for entry in other.streams:
            card = other.codecs.get(entry.tokenizer)
            if specs.setdefault(entry.name, theirs[entry.name]) != theirs[entry.name]:
                raise CurateError(
                    f"stream {entry.name!r} of build {other.name!r} is of another tokenizer than that of others"
                )
            if card is not None and codecs.setdefault(entry.tokenizer, card) != card:
                raise CurateError(f"build {other.name!r} has another tokenizer {entry.tokenizer!r} than others")
            streams.setdefault(entry.name, entry)
    return manifests[0].model_copy(update={"streams": list(streams.values()), "codecs": codecs})


def absent(spec: StreamSpec, rows: int) -> Ragged:
    """A stream that none of some rows has."""
    values: Any = np.empty((0, *spec.fixed), spec.numpy_dtype)
    return Ragged(values, np.zeros(rows + 1, np.int64), np.zeros(rows, np.bool_), spec.shape[0] is None)


def _specs(manifest: Manifest) -> dict[str, StreamSpec]:
    """Its streams by name, without their clocks: ids of 8 and of 24 frames a second are of one tokenizer."""
    return {s.name: replace(s, clock=None) for s in streams_of(manifest)}

"""What an export is: a format that others read, written from a finished build, shard by shard.

A new one is one file in this folder, or of one's own anywhere (`examples/plugins/export.py`): a class that derives from
`Export`, with a `name`, a `suffix` and `shard`. Everything else is the same for all: names of files, what is there
already, digests of what is read, counts. A format with several files a shard says `paths`; one that needs to know what
is coming says `begin`; one with an index, or anything that an export has once, says `finish`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from curate import plugins
from curate.schema.errors import CurateError
from curate.schema.manifest import MANIFEST, Manifest, Split
from curate.schema.nearest import meant
from curate.shards.commit import file_digest, read_manifest
from curate.shards.ipc import BATCH_ROWS
from curate.shards.lists import files_below
from curate.shards.reader import VIEW_KEYS, Reader, find_split
from curate.shards.schema import StreamSpec, streams_of
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

    @property
    def about(self) -> dict[str, str | int]:
        """What is said of it beside ids and text."""
        return {key: getattr(self, key) for key in ("content_id", "kind", "start_us", "end_us")}


class Written(NamedTuple):
    """A shard of an export: paths of its files, how many samples it has, and whether all were there before."""

    paths: tuple[str, ...]
    samples: int
    was_there: bool


@dataclass(frozen=True)
class Selection:
    """What is exported.

    Attributes:
        build: where it lies.
        manifest: of all of it.
        splits: those that are asked for.
        streams: those that are asked for, in the manifest's order.
    """

    build: Store
    manifest: Manifest
    splits: list[Split]
    streams: list[StreamSpec]

    @property
    def texts(self) -> list[str]:
        """The streams that `Sample.text` holds, in order."""
        said = {stream.name: stream.modality for stream in self.manifest.streams}
        return [stream.name for stream in self.streams if said[stream.name] == "text"]


class Export(ABC):
    """A format.

    Attributes:
        name: what `--format` calls it.
        suffix: of a shard's file, with the dot.
    """

    name: ClassVar[str]
    suffix: ClassVar[str] = ""

    def begin(self, selection: Selection) -> None:  # noqa: B027 - optional to override
        """Look at what is to be exported, before anything is written.

        Raises:
            CurateError: the format cannot hold it.
        """

    def paths(self, split: str, shard: str) -> Sequence[str]:
        """Files of a shard, by the name of the split and of the shard; they are put in place in this order."""
        return [f"{split}/{shard}{self.suffix}"]

    @abstractmethod
    def shard(self, samples: Iterator[Sample], *files: Path) -> int:
        """Write the samples of a shard, in order. The same samples are to give the same bytes (law 6).

        Args:
            files: one for each of `paths`; not there yet.

        Returns:
            How many it wrote.
        """

    def finish(self, out: Store, written: Mapping[str, Sequence[Written]]) -> None:  # noqa: B027 - optional to override
        """Write what the export has once, such as an index; all shards are in place.

        Args:
            written: the shards of each split, in order.
        """

    def write(self, selection: Selection, split: Split, out: Store) -> Iterator[Written]:
        """Write a split, shard by shard; one whose files are there is whole, and stays.

        Raises:
            CurateError: a shard that cannot be read or was changed, a text's tokenizer that is not there, or a file
                with another number of samples than the shard.
        """
        build, manifest = selection.build, selection.manifest
        texts = _text_tokenizers(selection)
        digests = {file.path: file.digest for file in files_below(build, manifest, f"tokens/{split.name}/")}
        reader = Reader(build, manifest, split.name, [stream.name for stream in selection.streams])
        firsts = np.cumsum([0, *split.shard_rows]).tolist()
        for shard, first, rows in zip(split.shards, firsts, split.shard_rows, strict=False):
            paths = tuple(self.paths(split.name, PurePosixPath(shard).stem))
            was_there = out.existing(paths) == set(paths)
            if not was_there:
                if blake3().update_mmap(build.local(shard)).hexdigest() != digests.get(shard):
                    raise CurateError(f"{build.name(shard)}: the file was changed", "check it: curate verify")
                with ExitStack() as stack:  # which ends with the last: so they go in reversed
                    files = [stack.enter_context(out.atomic_write(path)) for path in reversed(paths)]
                    count = self.shard(_samples(reader, texts, first, rows), *reversed(files))
                    if count != rows:
                        raise CurateError(
                            f"{paths[0]} has {count} samples, the manifest says {rows}", "see its `shard`"
                        )
            yield Written(paths, rows, was_there)


def export(
    build: Store | Path | str,
    name: str,
    out: Store | Path | str,
    splits: Sequence[str] = (),
    streams: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Iterator[Written]:
    """Write a build in another format; broken off and begun again, it goes on at the next shard.

    Args:
        build: folder of a finished build, or its `s3://` uri.
        name: of the format: built in, an entry point of `curate.exports`, or `package.module:Class`.
        out: a folder or an `s3://` prefix, empty or with this very export.
        splits: which; all by default.
        streams: which; all by default.
        options: of the format, as its class takes them.

    Raises:
        CurateError: no finished build, no such split, stream, format or option, the format cannot hold it, or `out`
            holds something else; or as `Export.write`.
    """
    made: Export = plugins.make("export", name, options or {})
    build, out = open_store(build), open_store(out)
    manifest = read_manifest(build)
    asked = [find_split(manifest, split) for split in splits] or manifest.splits
    chosen = Selection(build, manifest, asked, _streams(manifest, streams))
    mark: dict[str, Any] = {
        "format": name,
        "manifest": file_digest(build, MANIFEST)[0],
        "splits": [split.name for split in asked],
        "streams": [stream.name for stream in chosen.streams],
        "options": dict(options or {}),
    }
    found = json.loads(out.read(MARK)) if out.stat(MARK) is not None else None
    if found is not None and {**found, "rows": 0} != {**mark, "rows": 0}:
        raise CurateError(f"{out} holds another export", "give another folder, or remove what is there")
    if found is None and out.files():
        raise CurateError(f"{out} is not empty, and holds no export", "give another folder, or remove what is there")
    made.begin(chosen)
    if found is None:
        out.write(MARK, _json(mark))
    with out.acquire(MARK) as lease:
        shards: dict[str, list[Written]] = {}
        for split in asked:
            shards[split.name] = []
            for written in made.write(chosen, split, out):
                shards[split.name].append(written)
                yield written
        every = [written for some in shards.values() for written in some]
        if "rows" in (found or {}) and all(written.was_there for written in every):
            return
        rows = sum(written.samples for written in every)
        if rows != (wanted := sum(split.samples for split in asked)):
            raise CurateError(f"{out} has {rows} samples, the manifest says {wanted}", "check the build: curate verify")
        made.finish(out, shards)
        lease.commit(_json({**mark, "rows": rows}))


def _json(mark: dict[str, Any]) -> bytes:
    return (json.dumps(mark, indent=1, sort_keys=True) + "\n").encode()


def _streams(manifest: Manifest, names: Sequence[str]) -> list[StreamSpec]:
    every = streams_of(manifest)
    have = [stream.name for stream in every]
    if unknown := [name for name in names if name not in have]:
        raise CurateError(
            f"build {manifest.name!r} has no stream {unknown[0]!r}{meant(unknown[0], have)}",
            f"it has: {', '.join(have)}",
        )
    return [stream for stream in every if not names or stream.name in names]


def _text_tokenizers(selection: Selection) -> dict[str, Tokenizer]:
    """The tokenizers of text streams, by stream."""
    manifest = selection.manifest
    used = {use["name"]: use["tokenizer"] for use in manifest.recipe["tokenize"]["streams"]}
    cards = {stream.name: manifest.codecs[stream.tokenizer] for stream in manifest.streams}
    return {name: zoo.of_card(cards[name], used[name]) for name in selection.texts}


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

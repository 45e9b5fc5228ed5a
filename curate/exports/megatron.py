"""Megatron's indexed data sets: one flat sequence of tokens a sample (`megatron.core.datasets.indexed_dataset`)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from curate.exports.base import Export, Sample, Selection, Written
from curate.schema.errors import CurateError
from curate.shards.sequence import BOS, EOS, PAD, FlatVocabulary
from curate.storage import Store

_MAGIC = b"MMIDIDX\x00\x00"
_UINT16_BELOW = 65_500
"""Vocabularies that Megatron stores in 16 bits; larger ones are int32."""


class Megatron(Export):
    """A `.bin` and an `.idx` a shard. A sample is one document of one sequence: what `curate.SequenceView` shows of it
    with all streams in the manifest's order.

    `vocabulary.json` says where each stream lies in the flat vocabulary, which is that of the manifest, whichever
    streams are exported. `SPLIT/data_args.txt` is for `--data-args-path`: tokens and prefix of each shard.
    """

    name: ClassVar[str] = "megatron"

    def begin(self, selection: Selection) -> None:
        if smooth := [stream.name for stream in selection.streams if not stream.vocabulary]:
            raise CurateError(
                f"stream {smooth[0]!r} holds features, not ids: it cannot be part of a sequence of tokens",
                "choose others with --stream",
            )
        self._vocabulary = FlatVocabulary.of(selection.manifest)
        self._order = [stream.name for stream in selection.streams]
        self._dtype = np.dtype("<u2" if self._vocabulary.size < _UINT16_BELOW else "<i4")

    def paths(self, split: str, shard: str) -> Sequence[str]:
        return [f"{split}/{shard}.bin", f"{split}/{shard}.idx"]

    def shard(self, samples: Iterator[Sample], *files: Path) -> int:
        lengths = []
        with files[0].open("wb") as tokens:
            for sample in samples:
                sequence = self._sequence(sample).astype(self._dtype)
                tokens.write(sequence.tobytes())
                lengths.append(len(sequence))
        files[1].write_bytes(_index(np.array(lengths, np.int64), self._dtype))
        return len(lengths)

    def finish(self, out: Store, written: Mapping[str, Sequence[Written]]) -> None:
        for split, shards in written.items():
            sizes = {file.path: file.bytes for file in out.files(split)}
            bins = [shard.paths[0] for shard in shards]
            lines = [f"{sizes[path] // self._dtype.itemsize} {path.removesuffix('.bin')}\n" for path in bins]
            out.write(f"{split}/data_args.txt", "".join(lines).encode())
        said: dict[str, Any] = {"order": self._order, "pad": PAD, "bos": BOS, "eos": EOS, **asdict(self._vocabulary)}
        out.write("vocabulary.json", (json.dumps(said, indent=1, sort_keys=True) + "\n").encode())

    def _sequence(self, sample: Sample) -> NDArray[np.int64]:
        words, parts = self._vocabulary, [np.array([BOS])]
        for name in self._order:
            if name in sample.ids:
                flat = words.flatten(name, sample.ids[name])
                parts += [np.array([words.begin[name]]), flat, np.array([words.end[name]])]
        return np.concatenate([*parts, np.array([EOS])]).astype(np.int64)


def _index(lengths: NDArray[np.int64], dtype: np.dtype[Any]) -> bytes:
    """Lengths int32 and places in bytes int64 of sequences, and where documents begin, int64 and one more."""
    code = {"uint16": 8, "int32": 4}[dtype.name]
    places = np.cumsum(lengths * dtype.itemsize) - lengths * dtype.itemsize
    head = _MAGIC + np.uint64(1).tobytes() + bytes([code]) + np.array([len(lengths), len(lengths) + 1], "<u8").tobytes()
    documents = np.arange(len(lengths) + 1, dtype="<i8")
    return head + lengths.astype("<i4").tobytes() + places.astype("<i8").tobytes() + documents.tobytes()

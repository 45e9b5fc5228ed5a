"""One flat vocabulary and one sequence a sample, for autoregressive models (VideoPoet, Kondratyuk et al. 2023, arXiv
2312.14125, section 3): offsets a stream, begin and end markers, loss on the outputs only, exact lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from curate.schema.errors import CurateError
from curate.schema.manifest import Manifest
from curate.shards.draw import Draw, FrameCap, caps, check_names, window
from curate.shards.reader import Reader
from curate.shards.rows import Ints, Rows
from curate.shards.schema import streams_of
from curate.storage import Store

PAD, BOS, EOS = 0, 1, 2
_FIRST_MARKER = 3


@dataclass(frozen=True)
class FlatVocabulary:
    """Where each stream's ids lie in one vocabulary; a function of the manifest alone.

    0 is padding, 1 and 2 begin and end a sequence, then a begin and an end marker for each stream in manifest order,
    then the blocks of ids in manifest order. An RVQ stream of L levels has L blocks of its vocabulary, level 0 first,
    so that a level's ids are never mistaken for another's; so have the groups of product quantisation. Continuous
    streams have no ids and no part in it.

    Attributes:
        size: of the whole vocabulary.
        begin, end: marker of each stream.
        offset: first id of each stream.
        levels: blocks of each stream.
        vocabulary: ids of one block.
    """

    size: int
    begin: dict[str, int]
    end: dict[str, int]
    offset: dict[str, int]
    levels: dict[str, int]
    vocabulary: dict[str, int]

    @classmethod
    def of(cls, manifest: Manifest) -> FlatVocabulary:
        entries = [s for s in manifest.streams if s.vocabulary]
        names = [s.name for s in entries]
        begin = {name: _FIRST_MARKER + 2 * i for i, name in enumerate(names)}
        offset, levels, at = {}, {}, _FIRST_MARKER + 2 * len(names)
        for entry in entries:
            card = manifest.codecs.get(entry.tokenizer)
            levels[entry.name] = card.n_codebooks if card else 1
            offset[entry.name] = at
            at += levels[entry.name] * entry.vocabulary
        end = {name: marker + 1 for name, marker in begin.items()}
        return cls(at, begin, end, offset, levels, {s.name: s.vocabulary for s in entries})

    def flatten(self, stream: str, ids: Any) -> Ints:
        """A stream's ids, in C order, as ids of the flat vocabulary."""
        flat = np.asarray(ids).reshape(-1).astype(np.int64)
        level = np.arange(len(flat)) % self.levels[stream]
        return flat + level * self.vocabulary[stream] + self.offset[stream]

    def restore(self, stream: str, tokens: Any) -> Ints:
        """The stream's own ids of a run of flat ids between its markers.

        Raises:
            ValueError: a token that is not of this stream, or not of the level that stands at its place.
        """
        tokens = np.asarray(tokens, np.int64)
        level = np.arange(len(tokens)) % self.levels[stream]
        ids: Ints = tokens - level * self.vocabulary[stream] - self.offset[stream]
        if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= self.vocabulary[stream]):
            raise ValueError(f"tokens that are not of stream {stream!r}, or not of its levels in turn")
        return ids


@dataclass(frozen=True)
class SequenceView:
    """Sequences `<bos> <begin a> a ... <end a> <begin b> b ... <end b> <eos>`; a missing modality leaves no markers.

    A sample is `{"sample_id", "tokens": int64 (n,), "loss": bool (n,)}`: `loss[i]` says that predicting `tokens[i]`
    from what precedes it counts. That holds for ids and end markers of outputs, and for `<eos>` after any output.
    A batch joins sequences without padding: `tokens` and `loss` `(sum of n,)`, `offsets` int64 `(samples + 1,)`.

    Attributes:
        order: streams in sequence order; those left out are not shown.
        outputs: streams of `order` that are to be predicted; the last one where None.
        frames: most steps shown of a sample (see `FrameCap`): a window drawn evenly.
    """

    order: Sequence[str]
    outputs: Sequence[str] | None = None
    frames: FrameCap = None

    def bind(self, manifest: Manifest) -> SequenceBound:
        order = tuple(self.order)
        check_names(manifest, list(order), "order")
        if smooth := [s.name for s in manifest.streams if not s.vocabulary and s.name in order]:
            raise CurateError(f"order: {smooth[0]!r} holds features, not ids", "RawView shows them")
        if not order or len(set(order)) != len(order):
            raise CurateError(f"order: must name at least one stream, each once: {', '.join(order) or 'nothing'}")
        outputs = order[-1:] if self.outputs is None else tuple(self.outputs)
        if lost := [name for name in outputs if name not in order]:
            raise CurateError(f"outputs: {lost[0]!r} is not in order", f"order is: {', '.join(order)}")
        return SequenceBound(order, frozenset(outputs), FlatVocabulary.of(manifest), caps(manifest, self.frames))

    def lengths(self, build: Store | Path | str, manifest: Manifest, split: str = "train") -> Ints:
        """Exact tokens of each sequence of a split, int64 `(rows,)` in stored order, without reading any ids."""
        bound = self.bind(manifest)
        reader = Reader(build, manifest, split, bound.order)
        units = {s.name: s.unit for s in streams_of(manifest)}
        total = np.full(len(reader), 2, np.int64)
        for name in bound.order:
            steps, cap = reader.lengths(name), bound.cap[name]
            total += (steps if cap is None else np.minimum(steps, cap)) * units[name] + 2 * reader.present(name)
        return total


@dataclass(frozen=True)
class SequenceBound:
    """`SequenceView` of one build."""

    order: tuple[str, ...]
    outputs: frozenset[str]
    vocabulary: FlatVocabulary
    cap: dict[str, int | None] = field(default_factory=dict)

    @property
    def streams(self) -> tuple[str, ...]:
        return self.order

    def sample(self, rows: Rows, i: int, draw: Draw) -> dict[str, Any]:
        sample_id = rows.keys["sample_id"][i]
        rng = draw.rng(sample_id)
        at = float(rng.random())
        words = self.vocabulary
        tokens, loss = [np.array([BOS])], [np.array([False])]
        any_output = False
        for name in self.order:
            ids = rows.streams[name][i]
            if ids is None:
                continue
            flat = words.flatten(name, window(ids, self.cap[name], at))
            counts = name in self.outputs
            any_output |= counts
            tokens += [np.array([words.begin[name]]), flat, np.array([words.end[name]])]
            loss += [np.array([False]), np.full(len(flat) + 1, counts)]
        tokens.append(np.array([EOS]))
        loss.append(np.array([any_output]))
        return {"sample_id": sample_id, "tokens": np.concatenate(tokens), "loss": np.concatenate(loss)}

    def batch(self, rows: Rows, draw: Draw) -> dict[str, Any]:
        samples = [self.sample(rows, i, draw) for i in range(len(rows))]
        return {
            "sample_id": rows.keys["sample_id"],
            "tokens": np.concatenate([s["tokens"] for s in samples]),
            "loss": np.concatenate([s["loss"] for s in samples]),
            "offsets": np.concatenate(([0], np.cumsum([len(s["tokens"]) for s in samples]))).astype(np.int64),
        }

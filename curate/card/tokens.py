"""Statistics of token streams, counted over all shards in one pass."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.card.axis import Axis
from curate.card.shard_rows import token_batches
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.manifest import StreamEntry
from curate.shards.tables import Tables

TOP = 12
LENGTH_BARS = 8
_RANK_POINTS = 48
AT_ONCE = 1 << 18
"""Ids of a codebook that are counted together: they are widened to 64 bits for it."""


@dataclass(frozen=True)
class Book:
    """How one codebook (a level of an RVQ, or a stream's only one) is used.

    Attributes:
        ids: how many ids were counted.
        distinct: how many different ones occur.
        entropy: of the empirical distribution, bits an id (Shannon 1948); at most log2 of the vocabulary.
    """

    ids: int
    distinct: int
    entropy: float


@dataclass(frozen=True)
class StreamStats:
    """What a stream's ids look like.

    Attributes:
        books: one a codebook.
        top: commonest ids with their counts; of the first level for an RVQ.
        lengths: length of a sample along its free axis (frames, token frames, tokens), and how many have it.
        unit: what a length counts.
        missing: samples without this stream.
        curve: SVG path of count by rank, both logarithmic, in a box of 200 x 60.
    """

    entry: StreamEntry
    codec: CodecCard | None
    books: list[Book]
    top: list[tuple[int, int]]
    lengths: list[tuple[int, int]]
    unit: str
    missing: int
    curve: str

    @property
    def ids(self) -> int:
        return sum(b.ids for b in self.books)

    @property
    def distinct(self) -> int:
        return sum(b.distinct for b in self.books)

    @property
    def entropy(self) -> float:
        """Mean over codebooks, bits an id."""
        return sum(b.entropy for b in self.books) / len(self.books) if self.books else 0.0

    @property
    def possible(self) -> int:
        """Ids that there are, over all codebooks."""
        return self.entry.vocabulary * max(1, len(self.books))

    @property
    def capacity(self) -> float:
        """Bits that an id could carry: log2 of the vocabulary."""
        return float(np.log2(self.entry.vocabulary)) if self.entry.vocabulary else 0.0

    @property
    def length_bars(self) -> list[tuple[str, int, float]]:
        """Lengths in at most LENGTH_BARS equal classes: label, samples, share of the largest class in percent."""
        if len(self.lengths) < 2:
            return []
        step = -(-(self.longest - self.shortest + 1) // LENGTH_BARS)
        classes: Counter[int] = Counter()
        for length, count in self.lengths:
            classes[(length - self.shortest) // step] += count
        most = max(classes.values())
        starts = [(i, self.shortest + i * step) for i in range(max(classes) + 1)]
        return [
            (_class_name(a, min(a + step - 1, self.longest)), classes[i], round(100 * classes[i] / most, 1))
            for i, a in starts
        ]

    @property
    def shortest(self) -> int:
        return min((n for n, _ in self.lengths), default=0)

    @property
    def longest(self) -> int:
        return max((n for n, _ in self.lengths), default=0)

    @property
    def mean(self) -> float:
        samples = sum(c for _, c in self.lengths)
        return sum(n * c for n, c in self.lengths) / samples if samples else 0.0


def stream_stats(tables: Tables) -> list[StreamStats]:
    """Statistics of each stream of the manifest."""
    counters = [_Counter(e, tables.manifest.codecs.get(e.tokenizer)) for e in tables.manifest.streams]
    for batch in token_batches(tables):
        for counter in counters:
            counter.add(batch)
    return [c.done() for c in counters]


class _Counter:
    def __init__(self, entry: StreamEntry, codec: CodecCard | None) -> None:
        self.entry = entry
        self.codec = codec
        self.books = codec.n_codebooks if codec is not None else 1
        self.fixed = int(np.prod([n for n in entry.shape if n is not None], dtype=np.int64))
        self.counts = np.zeros((self.books, entry.vocabulary), dtype=np.int64)
        self.lengths: Counter[int] = Counter()
        self.missing = 0

    def add(self, batch: pa.RecordBatch) -> None:
        column = batch.column(self.entry.name)
        self.missing += column.null_count
        lengths, counts = np.unique(pc.list_value_length(column).drop_null().to_numpy(), return_counts=True)
        self.lengths.update({int(n) // self.fixed: int(c) for n, c in zip(lengths, counts, strict=True)})
        if not self.entry.vocabulary:
            return
        ids: NDArray[Any] = column.flatten().to_numpy()
        for start in range(0, ids.size, AT_ONCE * self.books):
            self._count(ids[start : start + AT_ONCE * self.books])

    def _count(self, ids: NDArray[Any]) -> None:
        if int(ids.max()) >= self.entry.vocabulary:
            raise CurateError(
                f"{self.entry.name} holds id {ids.max()} of {self.entry.vocabulary}", "run: curate verify BUILD"
            )
        for book in range(self.books):
            self.counts[book] += np.bincount(ids[book :: self.books], minlength=self.entry.vocabulary)

    def done(self) -> StreamStats:
        books = [Book(int(c.sum()), int(np.count_nonzero(c)), entropy(c)) for c in self.counts]
        first = self.counts[0]
        order = np.argsort(-first, kind="stable")[:TOP]
        top = [(int(i), int(first[i])) for i in order if first[i]]
        modality = self.codec.modality if self.codec else self.entry.modality
        unit = {"image": "images", "video": "latent frames", "audio": "token frames", "text": "tokens"}.get(
            modality, "rows"
        )
        lengths = sorted(self.lengths.items())
        return StreamStats(self.entry, self.codec, books, top, lengths, unit, self.missing, rank_curve(first))


def _class_name(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,} to {last:,}"


def entropy(counts: NDArray[np.int64]) -> float:
    """Bits an id of the empirical distribution: -sum p log2 p; 0 where nothing was counted."""
    total = counts.sum()
    if not total:
        return 0.0
    p = counts[counts > 0] / total
    return float(-(p * np.log2(p)).sum()) + 0.0


def rank_curve(counts: NDArray[np.int64]) -> str:
    """Counts from the commonest id to the rarest that occurs, both axes logarithmic, as an SVG path in 200 x 60."""
    used = np.sort(counts[counts > 0])[::-1]
    if used.size < 2:
        return ""
    across = Axis(1, float(used.size), 0, 200, log=True)
    down = Axis(1, float(max(used[0], 2)), 60, 0, log=True)
    ranks = np.unique(np.geomspace(1, used.size, _RANK_POINTS).round().astype(np.int64))
    return "M" + "L".join(f"{across.at(float(r)):.1f} {down.at(float(used[r - 1])):.1f}" for r in ranks)

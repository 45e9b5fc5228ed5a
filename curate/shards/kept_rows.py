"""The rows that a partition gives to shards: its verdicts met with its fragments, by sample id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.verdict import Outcome
from curate.shards.fragments import open_fragment
from curate.shards.memory import Ints
from curate.shards.order import U64, id_words, keys_of_words, shard_of, splits_of_content
from curate.shards.pack_plan import PackTask
from curate.shards.rows import Ragged, gather
from curate.shards.schema import KEY_NAMES, KEYS, StreamSpec
from curate.storage import Store
from curate.storage.tables import read_table


@dataclass(frozen=True)
class Tokenized:
    """A partition, tokenized and judged.

    Attributes:
        name: the partition.
        verdicts: path of its verdict fragment.
        fragments: of each stream, paths of its fragments; where several hold a sample, the first one counts.
    """

    name: str
    verdicts: str
    fragments: Mapping[str, Sequence[str]]

    @property
    def paths(self) -> list[str]:
        """Paths of all its fragments."""
        return [path for paths in self.fragments.values() for path in paths]


@dataclass(frozen=True)
class KeptRows:
    """Rows that a task has gathered.

    Attributes:
        keys: the key columns of shards.
        key, second: H(seed, sample_id) and the id's second half, uint64 `(n,)`: rows sort by them.
        split, shard: the place of the split among the names, and the shard in it, int64 `(n,)`.
        streams: the ids.
    """

    keys: pa.Table
    key: U64
    second: U64
    split: Ints
    shard: Ints
    streams: Mapping[str, Ragged]

    def __len__(self) -> int:
        return len(self.key)

    @classmethod
    def concat(cls, parts: Sequence[KeptRows]) -> KeptRows:
        def joined(name: str) -> NDArray[Any]:
            return np.concatenate([getattr(p, name) for p in parts])

        return cls(
            pa.concat_tables([p.keys for p in parts]).combine_chunks(),
            joined("key"),
            joined("second"),
            joined("split"),
            joined("shard"),
            {name: Ragged.concat([p.streams[name] for p in parts]) for name in parts[0].streams},
        )


class Partition:
    """A partition's verdicts and fragments, opened.

    Args:
        places: local files of its fragments (`Tokenized.paths`), by path.
        streams: of the build; those of its fragments where None.
    """

    def __init__(
        self,
        build: Store,
        one: Tokenized,
        seed: int,
        places: Mapping[str, Path],
        streams: Sequence[StreamSpec] | None = None,
    ) -> None:
        self._build, self._one, self._seed, self._places = build, one, seed, places
        self._streams = streams
        self._names = [s.name for s in streams] if streams is not None else sorted(one.fragments)

    @cached_property
    def kept(self) -> pa.Array:
        """Ids of kept samples, in the ledger's order."""
        table = read_table(self._build, self._one.verdicts, ["level", "id", "outcome"])
        kept = pc.and_(pc.equal(table["level"], "sample"), pc.equal(table["outcome"], str(Outcome.KEPT)))
        return table["id"].filter(kept).combine_chunks()

    @cached_property
    def _opened(self) -> dict[str, list[pa.RecordBatch]]:
        specs = {s.name: s for s in self._streams or ()}
        return {
            name: [
                batch
                for path in self._one.fragments.get(name, ())
                for batch in open_fragment(self._places[path], self._build.name(path), specs.get(name))[1]
            ]
            for name in self._names
        }

    def packed(self, wanted: NDArray[np.bool_] | None = None) -> pa.Table:
        """Kept samples that failed in no stream: the key columns, and the row of each stream as `at:<stream>`.

        Args:
            wanted: of the kept ones, which to look up; all where None.
        """
        ids = self.kept if wanted is None else self.kept.filter(pa.array(wanted))
        whole = np.ones(len(ids), np.bool_)
        at: dict[str, NDArray[Any]] = {}
        columns: list[Any] = []
        for name in self._names if len(ids) else ():
            batches = self._opened[name]
            held = pa.chunked_array([b.column("sample_id") for b in batches], pa.string())
            found = pc.index_in(ids, held.combine_chunks())
            if found.null_count:
                lost = ids.filter(found.is_null())
                raise CurateError(
                    f"partition {self._one.name}: {len(lost)} kept samples have no row of stream {name!r}, "
                    f"{lost[0].as_py()} first",
                    "run the same command again",
                )
            at[name] = found.to_numpy().astype(np.int64)
            stage = pa.chunked_array([b.column("stage") for b in batches], pa.string())
            whole &= stage.take(found).is_null().to_numpy()
            if not columns:
                columns = [
                    pa.chunked_array([b.column(key) for b in batches]).take(found).combine_chunks() for key in KEY_NAMES
                ]
        if not len(ids):
            columns = [pa.array([], f.type) for f in KEYS]
        table = pa.table(dict(zip(KEY_NAMES, columns, strict=True)) | {f"at:{name}": rows for name, rows in at.items()})
        return table if whole.all() else table.filter(pa.array(whole)).combine_chunks()

    def rows_of(self, task: PackTask, before: dict[str, int]) -> KeptRows:
        """The rows of the task's shards, gathered.

        Args:
            before: where the order is that of partitions, rows of each split before this partition; moved on.
        """
        names = sorted(task.shares)
        wanted = None
        if task.order == "hash" and len(self.kept):
            keys = keys_of_words(self._seed, id_words(self.kept)[0])
            wanted = np.logical_or.reduce(
                [_within(shard_of(keys, task.shards[n]), r) for n, r in task.mine.items() if r]
            )
        table = self.packed(wanted)
        first, second = id_words(table["sample_id"])
        split = splits_of_content(self._seed, table["content_id"], task.shares)
        key = keys_of_words(self._seed, first)
        shard = np.empty(len(key), np.int64)
        mine = np.zeros(len(key), np.bool_)
        for place, name in enumerate(names):
            here = np.flatnonzero(split == place)
            if task.order == "partition":
                shard[here] = (before[name] + np.arange(len(here))) // task.shard_samples
                before[name] += len(here)
            elif len(here) and task.shards[name]:
                shard[here] = shard_of(key[here], task.shards[name])
            elif len(here):
                raise changed(f"partition {self._one.name} has samples of {name}, none were counted")
            mine[here] = _within(shard[here], task.mine[name])
        chosen = np.flatnonzero(mine)
        return KeptRows(
            table.select(list(KEY_NAMES)).take(pa.array(chosen)),
            key[chosen],
            second[chosen],
            split[chosen],
            shard[chosen],
            {s.name: self._gathered(s, table, chosen) for s in self._streams or ()} if len(chosen) else {},
        )

    def _gathered(self, spec: StreamSpec, table: pa.Table, chosen: Ints) -> Ragged:
        batches = self._opened[spec.name]
        firsts = np.cumsum([0, *(b.num_rows for b in batches)])
        row = table[f"at:{spec.name}"].to_numpy()[chosen]
        which = np.searchsorted(firsts, row, side="right") - 1
        ragged = gather(batches, which, row - firsts[which], [spec], ()).streams[spec.name]
        if spec.vocabulary and ragged.values.size and int(ragged.values.max()) >= spec.vocabulary:
            raise CurateError(
                f"partition {self._one.name}: stream {spec.name!r}: id {ragged.values.max()} is not below "
                f"{spec.vocabulary}",
                "remove its fragment and run the same command again",
            )
        return ragged


def _within(numbers: Ints, some: range) -> NDArray[np.bool_]:
    return (numbers >= some.start) & (numbers < some.stop)


def changed(what: str) -> CurateError:
    return CurateError(f"{what}: the verdicts changed while they were packed", "run the same command again")

"""Samples that verdicts keep, found among the samples and the tokens of their partition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from curate.decide.ledger import AHEAD
from curate.pipeline.partitions import Partition
from curate.pipeline.paths import Paths
from curate.schema.verdict import Outcome
from curate.shards.fragments import read_failed, read_ids
from curate.storage import Store
from curate.storage.tables import read_table


def kept_samples(build: Store, verdicts: str) -> pa.Table:
    """`id` and `record_id` of the samples that a verdict fragment keeps."""
    table = read_table(build, verdicts, ["level", "id", "record_id", "outcome"])
    kept = pc.and_(pc.equal(table.column("level"), "sample"), pc.equal(table.column("outcome"), str(Outcome.KEPT)))
    return table.filter(kept).select(["id", "record_id"])


def kept_ids(kept: pa.Table) -> pa.Array:
    """Ids of rows of `kept_samples`, "" where a row has none."""
    return pc.fill_null(kept.column("id"), "").combine_chunks()


def lacking(build: Store, ids: pa.Array, fragments: Iterable[str]) -> pa.Array:
    """Those of some ids that fragments of tokens do not hold."""
    there = pa.concat_arrays([pa.array([], pa.string()), *(read_ids(build, path) for path in fragments)])
    return ids.filter(pc.invert(pc.is_in(ids, value_set=there)))


def failed_in(build: Store, ids: pa.Array, fragments: Mapping[str, Sequence[str]]) -> set[str]:
    """Those of some ids that failed in fragments of tokens, given by stream."""
    bad = (read_failed(build, path).to_pylist() for paths in fragments.values() for path in paths)
    return set(ids.to_pylist()) & set(chain.from_iterable(bad))


def is_tokenized(build: Store, verdicts: str, fragments: Mapping[str, Sequence[str]]) -> bool:
    """True if fragments hold what a verdict fragment keeps, in each stream and without a failure.

    Args:
        fragments: by stream, paths of all that the partition has.
    """
    ids = kept_ids(kept_samples(build, verdicts))
    if any(len(lacking(build, ids, paths)) for paths in fragments.values()):
        return False
    return not failed_in(build, ids, fragments)


def sample_keys(table: pa.Table, column: str = "sample_id") -> pa.Array:
    """A text for each sample that tells it from all others: samples of records that are the same bytes have one id.

    Args:
        table: with `record_id`.
        column: of the samples' ids.
    """
    return pc.binary_join_element_wise(table.column("record_id"), table.column(column), " ").combine_chunks()


def rows_of(samples: pa.Table, wanted: pa.Table) -> pa.Array:
    """Rows of samples, ascending, int64: those of `wanted`.

    Args:
        samples: with `sample_id` and `record_id`.
        wanted: as of `kept_samples`.
    """
    found = pc.is_in(sample_keys(samples), value_set=sample_keys(wanted, "id"))
    return pc.indices_nonzero(found).cast(pa.int64())


def rows_chosen(build: Store, samples: pa.Table, verdicts: Iterable[str]) -> pa.Array:
    """Rows of samples, ascending, int64: those that any of some verdict fragments keeps, or files of `AHEAD` name."""
    found = [
        read_table(build, path, ["id", "record_id"]) if path.startswith(f"{AHEAD}/") else kept_samples(build, path)
        for path in verdicts
    ]
    return rows_of(samples, pa.concat_tables(found))


def field_values(
    build: Store,
    paths: Paths,
    partition: Partition,
    samples: pa.Table,
    rows: pa.Array,
    looked: Mapping[str, str],
    fields: Iterable[str],
) -> dict[str, pa.ChunkedArray]:
    """By field, what signals say of some samples of a partition.

    Args:
        samples, rows: the samples, and their rows in the partition.
        looked: by group of the second look, the partition's fragment.
    """
    by_group: dict[str, list[str]] = {}
    for field in sorted(fields):
        by_group.setdefault(paths.homes[field][1], []).append(field)
    found: dict[str, pa.ChunkedArray] = {}
    for group, names in by_group.items():
        if group in paths.second:
            table = read_table(build, looked[group], ["sample_id", *names])
            table = table.take(pc.index_in(samples.column("sample_id"), value_set=table.column("sample_id")))
        else:
            table = read_table(build, paths.signals(partition.name, partition.source, group), names).take(rows)
        found |= {name: table.column(name) for name in names}
    return found

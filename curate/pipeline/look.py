"""The second look: signals that are too dear for all samples, of those that rules and duplicates left.

A partition's fragment of a group holds the samples that any decision of this run has kept, and is named by them. So
what it says does not depend on what an earlier run looked at, whose rows are taken over where they were made alike: a
threshold that is lowered costs the newcomers alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.media.guarded import decodes
from curate.pipeline.annotate import Context, seen
from curate.pipeline.blocks import failed_rows, view_name
from curate.pipeline.cluster import Cluster
from curate.pipeline.decodes import DECODES, decodes_column, decodes_of
from curate.pipeline.error_location import with_location
from curate.pipeline.examined import decoded
from curate.pipeline.flow import handed
from curate.pipeline.groups import GroupFragment
from curate.pipeline.kept import field_values, rows_kept
from curate.pipeline.models import Models, leased
from curate.pipeline.partitions import KEY_HEX, Partition
from curate.pipeline.paths import Group
from curate.pipeline.placement import models_of, pools_of
from curate.pipeline.ray_data import execute, from_rows, stage_of
from curate.pipeline.rows import FILES, PARTITION, TALLY, files_column, partition_of, tally_column
from curate.schema.ids import digest_of_rows
from curate.schema.manifest import File
from curate.schema.recipe import Compute
from curate.schema.tables import SAMPLES
from curate.signals.probed import PROBED
from curate.storage.bucket import apply_endpoint_env
from curate.storage.retry import retries
from curate.storage.tables import read_table, write_table

VERDICTS = pa.field("verdicts", pa.list_(pa.string()), nullable=False)
"""Verdict fragments of all decisions of this run up to now that kept samples of the partition."""

RESULT = pa.schema(
    [
        *PARTITION,
        VERDICTS,
        pa.field("files", FILES, nullable=False),
        pa.field("fragments", pa.map_(pa.string(), pa.string()), nullable=False),  # by group
        pa.field("look", pa.struct(TALLY), nullable=False),  # a sample counts once for each group
        DECODES,
    ]
)
"""What goes through the plan: a row a partition."""


def look(
    context: Context,
    work: Mapping[str, tuple[Partition, Sequence[str]]],
    groups: Sequence[Group],
    cluster: Cluster,
    computes: Mapping[str, Compute],
) -> Iterator[dict[str, Any]]:
    """Look at what some verdicts keep; rows of RESULT as they come, in no fixed order.

    Args:
        work: by partition's name, it and its verdicts as VERDICTS has them.
        groups: of the second look, in order.
        computes: by signal what the recipe says of its pool.
    """
    rows = [
        {
            "partition": partition.name,
            "source": partition.source,
            "unit": "",
            "rows": partition.rows,
            "whole": 0,
            "verdicts": list(verdicts),
            "files": [],
            "fragments": [],
            "look": dict.fromkeys((f.name for f in TALLY), 0),
            DECODES.name: decodes_column()[0].as_py(),
        }
        for partition, verdicts in work.values()
    ]
    plan = from_rows(pa.Table.from_pylist(rows, schema=RESULT))
    by_name = {group.name: group for group in groups}
    for pool in pools_of("look", models_of(groups, computes), cluster.capacity):
        if pool.models:
            pool = replace(pool, workers=(min(pool.workers[0], len(rows)), pool.workers[1]))
            plan = stage_of(plan, pool, Look, context=context, groups=[by_name[name] for name in pool.names])
    yield from execute(plan)


class Look:
    """A worker that looks at the kept samples of a partition, and holds some models of the second look.

    Args:
        groups: those that are computed here, in order.
    """

    def __init__(self, context: Context, groups: Sequence[Group]) -> None:
        apply_endpoint_env(context.stores)
        self._context, self._groups = context, groups

    @with_location("look")
    def __call__(self, block: pa.Table) -> pa.Table:
        """Compute and commit what is missing of a partition; the answer is its row of RESULT."""
        partition = partition_of(block)
        self._context.board.add("look", queued=-1)
        stage = "look:" + ",".join(g.name for g in self._groups)
        with leased(self._context.board, stage, partition.name) as models:
            return self._looked(block, partition, models)

    def _looked(self, block: pa.Table, partition: Partition, models: Models) -> pa.Table:
        build, paths, board = self._context.build, self._context.paths, self._context.board
        whole = read_table(build, paths.samples(partition.name, partition.source))
        rows = rows_kept(build, whole, block.column("verdicts")[0].as_py())
        samples = whole.take(rows)
        ids = samples.column("sample_id").combine_chunks()
        chosen = _digest(samples)
        committed: dict[str, str] = dict(block.column("fragments")[0].as_py())
        todo: list[tuple[_Group, pa.Array]] = []
        total = reused = failed = again = 0
        for group in self._groups:
            path = paths.signals(partition.name, partition.source, group.name, chosen)
            committed[group.name] = path
            total += len(ids)
            if self._context.committed.holds(path):
                reused += len(ids)
                continue
            fragment = GroupFragment(group, paths, models)
            held = fragment.rows_held(build, self._context.committed, partition, _once(whole, ids))
            lacking = pc.indices_nonzero(pc.invert(pc.is_in(ids, value_set=held.column("sample_id").combine_chunks())))
            reused += held.num_rows
            todo.append((_Group(group, fragment, held, path), lacking))
        board.add("look", total=total, reused=reused)
        files = [one.commit(self._context, ids) for one, lacking in todo if not len(lacking)]
        # groups that lack the same samples see them together, decoded once
        for _, together in groupby([one for one in todo if len(one[1])], lambda one: one[1].to_pylist()):
            mine, lack = zip(*together, strict=True)
            told = self._computed(partition, mine, samples.take(lack[0]), rows.take(lack[0]), committed, models)
            failed, again = failed + told[0], again + told[1]
            files += [one.commit(self._context, ids) for one in mine]
        return self._result(block, files, committed, (total, reused, failed, again))

    def _computed(
        self,
        partition: Partition,
        groups: Sequence[_Group],
        samples: pa.Table,
        rows: pa.Array,
        committed: Mapping[str, str],
        models: Models,
    ) -> tuple[int, int]:
        """Compute groups of some samples; how often one failed, and how many further tries there were.

        Args:
            rows: of the samples, in the partition.
            committed: by group, fragments of the second look that are committed or will be.
        """
        build, paths, board = self._context.build, self._context.paths, self._context.board
        for signal in (s for one in groups for s in one.group.signals):
            models.load_signal(signal)
        views = sorted({view for one in groups for view in one.group.needs}, key=view_name)
        read = {field for one in groups for s in one.group.signals for field in s.after} - set(PROBED)
        wanted = {field for field in read if paths.homes[field][1] not in {one.group.name for one in groups}}
        given = pa.table(field_values(build, paths, partition, samples, rows, committed, wanted))

        def tables() -> Iterator[pa.Table]:
            done = 0
            for batch in decoded(build, samples.select(SAMPLES.names), views, "look", paths.reader):
                yield seen(batch, views, given, done)
                done += len(batch.views)

        failed = again = 0
        for table in handed(tables(), views, [s.on for one in groups for s in one.group.signals]):
            for one in groups:
                before = set(table.column_names)
                table = one.fragment.computed(table, 0)
                bad = failed_rows(table.select([n for n in table.column_names if n not in before]))
                failed += bad
                board.add("look", passed=table.num_rows - bad, failed=bad)
            tries = retries.take()
            again += tries
            board.add("look", retries=tries)
        return failed, again

    def _result(
        self, block: pa.Table, files: Sequence[File], fragments: Mapping[str, str], told: tuple[int, int, int, int]
    ) -> pa.Table:
        before = block.column("look")[0].as_py()
        sums = [before[field.name] + count for field, count in zip(TALLY, told, strict=True)]
        columns: dict[str, Any] = {name: block.column(name) for name in (*PARTITION.names, "verdicts")}
        columns["files"] = files_column(block.column("files"), files)
        columns["fragments"] = pa.array([list(fragments.items())], RESULT.field("fragments").type)
        columns["look"] = tally_column("look", *sums)[1]
        columns[DECODES.name] = decodes_column(decodes_of(block.column(DECODES.name)[0].as_py()), decodes())
        return pa.table(columns, schema=RESULT)


@dataclass(frozen=True)
class _Group:
    """A group of a partition while it is made: what is computed, what older fragments hold, where it goes."""

    group: Group
    fragment: GroupFragment
    held: pa.Table
    path: str

    def commit(self, context: Context, ids: pa.StringArray) -> File:
        """Write the fragment: the rows of all samples `ids`, in that order."""
        whole = pa.concat_tables([self.held, self.fragment.computed_rows()])
        return write_table(context.build, self.path, whole.take(pc.index_in(ids, value_set=whole.column("sample_id"))))


def _digest(samples: pa.Table) -> str:
    """Which samples they are; of records that are the same bytes, also of which."""
    keys = pc.binary_join_element_wise(samples.column("record_id"), samples.column("sample_id"), " ")
    return digest_of_rows(keys.to_pylist())[:KEY_HEX]


def _once(samples: pa.Table, ids: pa.StringArray) -> pa.StringArray:
    """Those ids that no two samples of a partition share: records that are the same bytes have texts of their own."""
    counted = pc.value_counts(samples.column("sample_id").combine_chunks())
    single: NDArray[np.bool_] = counted.field("counts").to_numpy() == 1
    return ids.filter(pc.is_in(ids, value_set=counted.field("values").filter(pa.array(single))))

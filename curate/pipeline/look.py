"""The second look: signals that are too dear for all samples, of those that rules and duplicates left.

A partition's fragment of a group holds the samples that any decision of this run has kept, and is named by them. So
what it says does not depend on what an earlier run looked at, whose rows are taken over where they were made alike: a
threshold that is lowered costs the newcomers alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.media.guarded import decodes
from curate.pipeline.annotate import Context, seen
from curate.pipeline.blocks import failed_rows, view_name
from curate.pipeline.cluster import Cluster
from curate.pipeline.decodes import DECODES, decodes_column, decodes_of
from curate.pipeline.error_location import with_location
from curate.pipeline.examined import decoded
from curate.pipeline.flow import handed
from curate.pipeline.groups import SIGNALS, GroupFragment
from curate.pipeline.kept import field_values, rows_chosen, sample_keys
from curate.pipeline.models import Models, leased
from curate.pipeline.partitions import KEY_HEX, Partition
from curate.pipeline.paths import Group
from curate.pipeline.placement import models_of, pools_of
from curate.pipeline.ray_data import execute, from_rows, stage_of
from curate.pipeline.rows import FILES, PARTITION, TALLY, files_column, partition_of, tally_column
from curate.pipeline.spent import over_records
from curate.schema.ids import digest_of_rows
from curate.schema.manifest import File
from curate.schema.recipe import Compute
from curate.schema.tables import SAMPLES
from curate.signals.probed import PROBED
from curate.storage import Store
from curate.storage.bucket import apply_endpoint_env
from curate.storage.retry import retries
from curate.storage.tables import read_table, write_named_table, write_table

RESTS = "looked"
"""Folder of rows of the second look that no fragment of this build has."""

VERDICTS = pa.field("verdicts", pa.list_(pa.string()), nullable=False)
"""Files that name what decisions of this run have chosen of the partition, as `kept.rows_chosen` takes them."""

RESULT = pa.schema(
    [
        *PARTITION,
        VERDICTS,
        pa.field("files", FILES, nullable=False),
        pa.field("fragments", pa.map_(pa.string(), pa.string()), nullable=False),  # by group
        pa.field("rests", pa.list_(pa.string()), nullable=False),  # files of RESTS that the next run may take up
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
            "rests": [],
            "look": dict.fromkeys((f.name for f in TALLY), 0),
            DECODES.name: decodes_column()[0].as_py(),
        }
        for partition, verdicts in work.values()
    ]
    plan = from_rows(pa.Table.from_pylist(rows, schema=RESULT))
    by_name = {group.name: group for group in groups}
    for pool in pools_of("look", models_of(groups, computes), cluster.capacity):
        if pool.models:
            here = [by_name[name] for name in pool.names]
            plan = stage_of(plan, pool.for_rows(len(rows)), Look, context=context, groups=here)
            context.board.add("look", parts=len(rows))
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
        with leased(self._context.board, stage, partition) as models:
            return self._looked(block, partition, models)

    def _looked(self, block: pa.Table, partition: Partition, models: Models) -> pa.Table:
        build, paths, board = self._context.build, self._context.paths, self._context.board
        whole = read_table(build, paths.samples(partition.name, partition.source))
        rows = rows_chosen(build, whole, block.column("verdicts")[0].as_py())
        samples = whole.take(rows)
        keys = sample_keys(samples)
        chosen = digest_of_rows(keys.to_pylist())[:KEY_HEX]
        committed: dict[str, str] = dict(block.column("fragments")[0].as_py())
        rests: list[str] = []
        todo: list[tuple[_Group, pa.Array]] = []
        total = reused = failed = again = 0
        for group in self._groups:
            path = paths.signals(partition.name, partition.source, group.name, chosen)
            committed[group.name] = path
            total += len(keys)
            older = [
                path
                for root in ("signals", RESTS)
                for path in self._context.committed.below(f"{root}/{group.name}/{partition.name}-")
            ]
            if self._context.committed.holds(path):
                reused += len(keys)
                rests += [path for path in older if path.startswith(RESTS)]
                continue
            fragment = GroupFragment(group, paths, models)
            held = fragment.rows_held(build, older)
            lacking = pc.indices_nonzero(pc.invert(pc.is_in(keys, value_set=sample_keys(held))))
            reused += len(keys) - len(lacking)
            todo.append((_Group(group, fragment, held, path), lacking))
        board.add("look", total=total, reused=reused, read=1)
        done = [one.commit(self._context, partition, keys) for one, lacking in todo if not len(lacking)]
        # groups that lack the same samples see them together, decoded once
        for _, together in groupby([one for one in todo if len(one[1])], lambda one: one[1].to_pylist()):
            mine, lack = zip(*together, strict=True)
            told = self._computed(partition, mine, samples.take(lack[0]), rows.take(lack[0]), committed, models)
            failed, again = failed + told[0], again + told[1]
            done += [one.commit(self._context, partition, keys) for one in mine]
        rests += [rest for _, rest in done if rest is not None]
        return self._result(block, [file for file, _ in done], committed, rests, (total, reused, failed, again))

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
                table = seen(batch, views, given, done)
                yield table.append_column("record_id", batch.samples.column("record_id"))
                done += len(batch.views)

        failed = again = 0
        for table in over_records(handed(tables(), views, [s.on for one in groups for s in one.group.signals])):
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
        self,
        block: pa.Table,
        files: Sequence[File],
        fragments: Mapping[str, str],
        rests: Sequence[str],
        told: tuple[int, int, int, int],
    ) -> pa.Table:
        before = block.column("look")[0].as_py()
        sums = [before[field.name] + count for field, count in zip(TALLY, told, strict=True)]
        columns: dict[str, Any] = {name: block.column(name) for name in (*PARTITION.names, "verdicts")}
        columns["files"] = files_column(block.column("files"), files)
        columns["fragments"] = pa.array([list(fragments.items())], RESULT.field("fragments").type)
        columns["rests"] = pa.array([[*block.column("rests")[0].as_py(), *rests]], RESULT.field("rests").type)
        columns["look"] = tally_column("look", *sums)[1]
        columns[DECODES.name] = decodes_column(decodes_of(block.column(DECODES.name)[0].as_py()), decodes())
        return pa.table(columns, schema=RESULT)


def kept_as_rest(build: Store, path: str, digests: Mapping[str, str]) -> str | None:
    """Keep a fragment of the second look, or a file of RESTS, for later runs: where it is then. None where its values
    were made otherwise than they would be now (`digests`, by signal)."""
    table = read_table(build, path)
    if json.loads((table.schema.metadata or {}).get(SIGNALS, b"{}")) != digests:
        return None
    if path.startswith(f"{RESTS}/"):
        return path
    group, name = path.split("/")[-2:]
    return write_named_table(build, f"{RESTS}/{group}/{name.rpartition('-')[0]}", table).path


@dataclass(frozen=True)
class _Group:
    """A group of a partition while it is made: what is computed, what older fragments hold, where it goes."""

    group: Group
    fragment: GroupFragment
    held: pa.Table
    path: str

    def commit(self, context: Context, partition: Partition, keys: pa.Array) -> tuple[File, str | None]:
        """Write the fragment: the rows of all samples `keys`, in that order; and, where older fragments hold others,
        a file of these: a threshold that comes back computes nothing."""
        whole = pa.concat_tables([self.held, self.fragment.computed_rows()])
        there = sample_keys(whole)
        file = write_table(context.build, self.path, whole.take(pc.index_in(keys, value_set=there)))
        others = whole.filter(pc.invert(pc.is_in(there, value_set=keys)))
        if not others.num_rows:
            return file, None
        folder = f"{RESTS}/{self.group.name}/{partition.name}"
        return file, write_named_table(context.build, folder, others.combine_chunks()).path

"""Annotate: probe, cut and decode a partition once, and compute every signal from that (law 4).

A partition commits `samples/*`, then `records/*`, then one fragment for each group of signals. A group's fragment
carries the digests of its signals' code, models and options, and of the signals that they read. So moving a threshold
computes nothing, and a signal that is added computes itself: values of the others are taken over (law 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.media.examine import CutHow
from curate.media.guarded import decodes
from curate.media.requests import DecodeRequest
from curate.pipeline.blocks import failed_rows, view_name
from curate.pipeline.board import Board, Ticks
from curate.pipeline.decodes import DECODES, decodes_column, decodes_of
from curate.pipeline.error_location import with_location
from curate.pipeline.examined import Batch, Records, decoded, examined
from curate.pipeline.failed_sources import check_leading
from curate.pipeline.flow import Flow, flowed, handed, passed_on
from curate.pipeline.groups import GroupFragment
from curate.pipeline.listing import Listing
from curate.pipeline.models import Models, leased
from curate.pipeline.partitions import Partition
from curate.pipeline.paths import Group, Paths
from curate.pipeline.rows import FILES, LEADS, PARTITION, TALLY, files_column, partition_of, tally_column
from curate.pipeline.spent import over_records
from curate.schema.manifest import File
from curate.schema.tables import SAMPLES
from curate.signals.probed import PROBED
from curate.storage import Store
from curate.storage.bucket import apply_endpoint_env
from curate.storage.retry import retries
from curate.storage.tables import read_table, table_rows, write_table

RESULT = pa.schema(
    [
        *PARTITION,
        pa.field("ingest", pa.struct(TALLY)),
        pa.field("files", FILES),
        pa.field("annotate", pa.struct(TALLY)),
        DECODES,
    ]
)
"""What comes out of the plan: a row a partition."""

MISSING = "missing"
"""A column beside those of `flow`: names of the later groups that are missing."""


@dataclass(frozen=True)
class Context:
    """What every worker of the plan is told.

    Attributes:
        paths: names of all fragments.
        committed: what earlier runs committed.
        stores: environment that stores are reached by (`storage.bucket.endpoint_env`).
    """

    build: Store
    paths: Paths
    committed: Listing
    board: Board
    stores: dict[str, str]

    def missing(self, partition: Partition, groups: Sequence[Group]) -> list[Group]:
        """Those of `groups` that are not committed."""
        held = self.committed.holds
        return [g for g in groups if not held(self.paths.signals(partition.name, partition.source, g.name))]


class Annotate:
    """A worker that decodes a partition, a batch at a time, and holds the groups that run beside the decoder.

    Args:
        here: groups to compute here, in order.
        later: groups that later workers compute; the views that they need flow on.
    """

    def __init__(self, context: Context, cut: CutHow, here: Sequence[Group], later: Sequence[Group]) -> None:
        apply_endpoint_env(context.stores)
        self._context, self._cut, self._here, self._later = context, cut, here, later

    @with_location("annotate")
    def __call__(self, block: pa.Table) -> pa.Table:
        """Make and commit what is missing of a partition.

        Returns:
            The row as RESULT; and where there are later groups, BATCH and MISSING.

        Raises:
            CurateError: the partition speaks for its source, and no record of it gives a sample.
        """
        partition = partition_of(block)
        with leased(self._context.board, "annotate", partition) as models:
            return self._annotated(block, partition, models)

    def _annotated(self, block: pa.Table, partition: Partition, models: Models) -> pa.Table:
        build, paths, board = self._context.build, self._context.paths, self._context.board
        board.add("annotate", queued=-1)
        name, source = partition.name, partition.source
        records_path, samples_path = paths.records(name, source), paths.samples(name, source)
        is_examined = all(map(self._context.committed.holds, (records_path, samples_path)))
        mine = [GroupFragment(g, paths, models) for g in self._context.missing(partition, self._here)]
        later = self._context.missing(partition, self._later)
        if is_examined and not mine and not later:
            rows = table_rows(build, samples_path)
            board.add("annotate", total=rows, reused=rows, read=partition.rows)
            return self._result(block, (rows, rows, 0, 0))
        samples = read_table(build, samples_path) if is_examined else None
        if samples is not None:
            for fragment in mine:
                fragment.take_over(build, self._context.committed, partition, samples)
        for signal in (s for fragment in mine for s in fragment.missing):
            models.load_signal(signal)
        needed = {view for f in mine for s in f.missing for view in s.needs} | {v for g in later for v in g.needs}
        views = sorted(needed, key=view_name)
        given = _given(self._context, partition, [*self._here, *self._later])
        records = Records(read_table(build, paths.fetched(name, source))) if samples is None else None
        parts: list[pa.Table] = []
        flow = Flow([v for g in later for v in g.needs])
        done = failed = again = read = 0
        ticks = Ticks(board, "annotate")
        for batch in over_records(
            examined(build, records, self._cut, views, paths.reader, ticks)
            if records is not None
            else decoded(build, samples, views, reader=paths.reader, tick=ticks)
        ):
            parts.append(batch.samples)
            table = seen(batch, views, given, done)
            of = len(set(batch.rows["record_id"]))
            board.add("annotate", total=table.num_rows, read=of)
            read += of
            for fragment in mine:
                table = fragment.computed(table, done)
            done += table.num_rows
            bad, tries = failed_rows(table), retries.take()
            failed, again = failed + bad, again + tries
            board.add("annotate", passed=table.num_rows - bad, failed=bad, retries=tries, decoded=-ticks.take())
            if later:
                flow.add(table)
        board.add("annotate", read=partition.rows - read)  # others gave no sample, or one of two batches
        files: list[File] = []
        if records is not None:
            table = records.table()
            if not done:
                check_leading(block.column(LEADS.name)[0].as_py(), source, table.to_pylist())
            whole = pa.concat_tables(parts) if parts else SAMPLES.empty_table()
            files = [write_table(build, samples_path, whole), write_table(build, records_path, table)]
        files += [fragment.commit(build, paths.signals(name, source, fragment.group.name)) for fragment in mine]
        return self._result(block, (done, 0, failed, again), files, flow, [g.name for g in later])

    def _result(
        self,
        block: pa.Table,
        told: tuple[int, int, int, int],
        files: Sequence[File] = (),
        flow: Flow | None = None,
        missing: Sequence[str] = (),
    ) -> pa.Table:
        """The row that goes on."""
        columns: dict[str, Any] = {name: block.column(name) for name in (*PARTITION.names, "ingest")}
        columns["files"] = files_column(block.column("files"), files)
        columns |= {"annotate": tally_column("annotate", *told)[1], DECODES.name: decodes_column(decodes())}
        table = pa.table(columns, schema=RESULT)
        if self._later:
            self._context.board.add("annotate", queued=1)
            table = (flow or Flow([])).onto(table, Batch().table([]))
            table = table.append_column(MISSING, pa.array([list(missing)], pa.list_(pa.string())))
        return table


class Compute:
    """A worker that holds one group's model, on a GPU where the group takes one.

    Args:
        before: groups that come before it, which are committed where it is its turn.
        group: the group.
        later: groups that come after it; the views that they need flow on.
    """

    def __init__(self, context: Context, before: Sequence[Group], group: Group, later: Sequence[Group]) -> None:
        apply_endpoint_env(context.stores)
        self._context, self._before, self._group, self._later = context, before, group, later

    @with_location("annotate")
    def __call__(self, block: pa.Table) -> pa.Table:
        """Compute and commit the group of a partition, where it is missing."""
        self._context.board.add("annotate", queued=-1)
        if self._group.name not in block.column(MISSING)[0].as_py():
            return self._passed(block, [])
        partition = partition_of(block)
        with leased(self._context.board, f"annotate:{self._group.name}", partition) as models:
            return self._computed(block, partition, models)

    def _computed(self, block: pa.Table, partition: Partition, models: Models) -> pa.Table:
        for signal in self._group.signals:
            models.load_signal(signal)
        fragment = GroupFragment(self._group, self._context.paths, models)
        path = self._context.paths.signals(partition.name, partition.source, self._group.name)
        came = flowed(block)
        done, parts = 0, []
        on = [signal.on for signal in self._group.signals]
        batches = handed(self._decoded(partition) if came is None else came, self._group.needs, on)
        for batch in over_records(batches):
            table = fragment.computed(batch, done)
            done += table.num_rows
            if came is not None:
                parts.append(table)
        files = [fragment.commit(self._context.build, path)]
        return self._passed(passed_on(block, parts, [v for g in self._later for v in g.needs]), files)

    def _decoded(self, partition: Partition) -> Iterator[pa.Table]:
        """The batches of a partition whose views did not flow."""
        build, paths = self._context.build, self._context.paths
        given = _fields(self._context, partition, self._before, [self._group])
        views, done = self._group.needs, 0
        samples = read_table(build, paths.samples(partition.name, partition.source))
        for batch in decoded(build, samples, views, reader=paths.reader):
            table = seen(batch, views, given, done)
            done += table.num_rows
            yield table

    def _passed(self, block: pa.Table, files: Sequence[File]) -> pa.Table:
        at = block.column_names.index(DECODES.name)
        before = decodes_of(block.column(at)[0].as_py())
        block = block.set_column(at, DECODES, decodes_column(before, decodes()))
        at = block.column_names.index("files")
        block = block.set_column(at, "files", files_column(block.column("files"), files))
        if not self._later:
            return block.select(RESULT.names)
        self._context.board.add("annotate", queued=1)
        return block


def seen(batch: Batch, views: Sequence[DecodeRequest], given: pa.Table, start: int) -> pa.Table:
    """What signals see of a batch whose first row is row `start` of the partition, with the fields of `given`."""
    table = batch.table(views)
    for name in given.column_names:
        table = table.append_column(name, given.column(name).slice(start, table.num_rows))
    return table


def _given(context: Context, partition: Partition, groups: Sequence[Group]) -> pa.Table:
    """Fields that missing groups read and committed ones hold, for all samples of the partition."""
    missing = context.missing(partition, groups)
    return _fields(context, partition, [g for g in groups if g not in missing], missing)


def _fields(context: Context, partition: Partition, held: Sequence[Group], readers: Sequence[Group]) -> pa.Table:
    """Fields that some groups read and others, which are committed, hold."""
    wanted = {field for g in readers for s in g.signals for field in s.after} - set(PROBED)
    columns: dict[str, Any] = {}
    for group in held:
        fields = sorted(wanted & {f.name for s in group.signals for f in s.gives})
        if fields:
            path = context.paths.signals(partition.name, partition.source, group.name)
            table = read_table(context.build, path, fields)
            columns |= {name: table.column(name) for name in fields}
    return pa.table(columns)

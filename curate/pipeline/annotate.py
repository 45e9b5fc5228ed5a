"""Annotate: one decode a sample, every signal from it, one file a signal and piece.

A signal's file carries the digest of the samples, of the signal's code, model and options, and of the signals that it
reads. So adding a signal computes that one, and moving a threshold computes none (law 3).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.media.views import View
from curate.pipeline.blocks import (
    FAIL,
    batches,
    drop_views,
    failure_columns,
    failure_of,
    failure_text,
    pack_views,
    view_name,
)
from curate.pipeline.cluster import Cluster
from curate.pipeline.decode_stage import decode_samples
from curate.pipeline.model_service import CARRIED, FAILURE
from curate.pipeline.models import models
from curate.pipeline.pieces import Piece
from curate.pipeline.pools import COMMIT_CPUS, pools
from curate.pipeline.progress import Stage
from curate.pipeline.stream import pieces_dataset, receipts, then
from curate.pipeline.whereabouts import tells
from curate.schema.fields import SignalField
from curate.schema.tables import SAMPLES
from curate.schema.verdict import Failure
from curate.signals.base import Result, Signal
from curate.storage import Store
from curate.storage.retry import retries
from curate.storage.tables import read_table, write_table

VERSION = 2
DECODE = f"{FAIL}decode"


class SignalFiles:
    """Which file holds a signal of a piece."""

    def __init__(self, signals: Sequence[Signal]) -> None:
        self.giver = {f.name: s for s in signals for f in s.gives}
        self._signals = {s.name: s for s in signals}

    def made_by(self, signal: Signal) -> Any:
        """All that a signal's values depend on beside the samples."""
        upstream = sorted({self.giver[field].name for field in signal.after if field in self.giver})
        return [
            "annotate",
            VERSION,
            signal.name,
            signal.version(),
            signal.options.model_dump(mode="json"),
            [view_name(v) for v in signal.needs],
            [self.made_by(self._signals[name]) for name in upstream],
        ]

    def file(self, piece: Piece, signal: Signal) -> str:
        return piece.file(f"signals/{signal.name}", self.made_by(signal))


@dataclass(frozen=True)
class _Group:
    """Signals that share a worker."""

    signals: list[Signal]
    gpus: float


def groups(signals: Sequence[Signal], gpus: int) -> list[_Group]:
    """Workers for the signals, in an order that respects what they read of each other.

    The first group holds what needs no model. All models on CPUs share one kind of worker; a model on GPUs has its
    own. The first group, and models on CPUs that come next, run where media is decoded: their views never cross.
    """
    first: list[Signal] = []
    rest: list[_Group] = []
    given = set(CARRIED)
    for signal in signals:
        share = signal.cost.gpus if gpus else 0.0
        if not signal.cost.model and given.issuperset(signal.after):
            first.append(signal)
            given |= {f.name for f in signal.gives}
        elif (rest and rest[-1].gpus == share == 0) or (not signal.cost.model and rest):
            rest[-1].signals.append(signal)
        else:
            rest.append(_Group([signal], share))
    return [_Group(first, 0.0), *rest]


def annotate(build: Store, pieces: Sequence[Piece], signals: Sequence[Signal], cluster: Cluster, stage: Stage) -> None:
    """Compute the signals that are not committed yet, piece by piece."""
    files = SignalFiles(signals)
    there = build.existing(files.file(p, s) for p in pieces for s in signals)
    rows = []
    for piece in pieces:
        paths = {s.name: files.file(piece, s) for s in signals}
        missing = [name for name, path in paths.items() if path not in there]
        if missing:
            rows.append(
                {
                    "samples": piece.path,
                    "start": piece.start,
                    "rows": piece.rows,
                    "item": json.dumps({"piece": f"part-{piece.number}", "missing": missing, "files": paths}),
                }
            )
    if not rows:
        return
    wanted = {name for row in rows for name in json.loads(str(row["item"]))["missing"]}
    size = pools(cluster, len(rows))
    first, *rest = groups([s for s in signals if s.name in wanted], cluster.gpus)
    with_decoder = first.signals
    if rest and not rest[0].gpus:
        with_decoder = with_decoder + rest.pop(0).signals
    dataset = then(
        pieces_dataset(rows),
        DecodeAndCompute,
        cpus=size.actor_cpus,
        actors=size.actors,
        build=build,
        signals=with_decoder,
        needs={s.name: s.needs for s in signals},
        givers={field: s.name for field, s in files.giver.items()},
        after={s.name: s.after for s in signals},
        later=_views(rest),
    )
    for i, group in enumerate(rest):
        dataset = then(
            dataset,
            Compute,
            cpus=size.actor_cpus,
            gpus=group.gpus,
            actors=size.gpu_actors(cluster, group.gpus) if group.gpus else size.actors,
            signals=group.signals,
            later=_views(rest[i + 1 :]),
        )
    dataset = then(dataset, commit, cpus=COMMIT_CPUS, build=build, gives={s.name: s.gives for s in signals})
    for receipt in receipts(dataset):
        stage.add(receipt["rows"], receipt["failed"])
        stage.count(retries=receipt["retries"])


def _views(later: Sequence[_Group]) -> list[View]:
    return [view for group in later for signal in group.signals for view in signal.needs]


class Compute:
    """A worker that holds some signals' models."""

    def __init__(self, signals: Sequence[Signal], later: Sequence[View]) -> None:
        self._signals = signals
        self._later = later
        for signal in signals:
            models().load_signal(signal)

    @tells("annotate")
    def __call__(self, block: pa.Table) -> pa.Table:
        return pa.concat_tables([self.batch(some) for some in batches(block)])

    def batch(self, block: pa.Table) -> pa.Table:
        """The same for one batch."""
        return drop_views(compute(block, self._signals), self._later)


class DecodeAndCompute:
    """A worker that decodes a piece, a batch at a time, and holds the signals that run beside the decoder.

    Args:
        signals: those to compute here.
        needs, after: of every signal, by name.
        givers: field to the name of the signal that gives it.
        later: views that later workers need.
    """

    def __init__(
        self,
        build: Store,
        signals: Sequence[Signal],
        needs: dict[str, tuple[View, ...]],
        givers: dict[str, str],
        after: dict[str, tuple[str, ...]],
        later: Sequence[View],
    ) -> None:
        self._build, self._needs, self._givers, self._after = build, needs, givers, after
        self._compute = Compute(signals, later)

    @tells("annotate")
    def __call__(self, work: pa.Table) -> pa.Table:
        row = work.to_pylist()[0]
        item = json.loads(row["item"])
        samples = read_table(self._build, row["samples"]).slice(row["start"], row["rows"])
        pixels = pc.multiply(samples.column("width").cast(pa.int64()), samples.column("height"))
        samples = samples.append_column("pixels", pixels)
        samples = samples.append_column("item", pa.array([row["item"]] * samples.num_rows, pa.string()))
        for field in sorted({f for name in item["missing"] for f in self._after[name]} - set(CARRIED)):
            giver = self._givers[field]
            if giver not in item["missing"]:
                given = read_table(self._build, item["files"][giver], [field]).column(field)
                samples = samples.append_column(field, given)
        views = sorted({view for name in item["missing"] for view in self._needs[name]}, key=view_name)
        return pa.concat_tables([self._compute.batch(self._decoded(some, views)) for some in batches(samples)])

    def _decoded(self, samples: pa.Table, views: Sequence[View]) -> pa.Table:
        """The samples with their views, and without what only decoding needs."""
        arrays, failures = decode_samples(self._build, samples.to_pylist(), views, "annotate")
        samples = samples.drop_columns([n for n in SAMPLES.names if n not in ("sample_id", "kind", "text", *CARRIED)])
        columns: dict[str, Any] = dict(zip(samples.column_names, samples.columns, strict=True))
        columns[DECODE] = pa.array([failure_text(f) for f in failures], pa.string())
        for view in views:
            columns |= pack_views(view, arrays[view])
        return pa.table(columns)


def compute(block: pa.Table, signals: Sequence[Signal]) -> pa.Table:
    """The block with the columns of those of `signals` that its piece is missing."""
    missing = set(json.loads(block.column("item")[0].as_py())["missing"])
    alive = [i for i, text in enumerate(block.column(DECODE).to_pylist()) if text is None]
    for signal in signals:
        if signal.name not in missing:
            continue
        some = block.take(pa.array(alive, pa.int64())) if len(alive) < block.num_rows else block
        found = _checked_all(signal, models().compute(signal, some)) if alive else []
        rows: list[Result | None] = [None] * block.num_rows
        for i, result in zip(alive, found, strict=True):
            rows[i] = result
        failures = [failure_text(r) if isinstance(r, Failure) else None for r in rows]
        block = block.append_column(FAIL + signal.name, pa.array(failures, pa.string()))
        for field in signal.gives:
            values = [r.get(field.name) if isinstance(r, dict) else None for r in rows]
            block = block.append_column(field.name, pa.array(values, field.type))
    return block


def _checked_all(signal: Signal, answer: pa.Table) -> list[Result]:
    columns = {field.name: answer.column(field.name).to_pylist() for field in signal.gives}
    failures = [failure_of(text) for text in answer.column(FAILURE).to_pylist()]
    return [
        _checked(signal, failure or {name: values[i] for name, values in columns.items()})
        for i, failure in enumerate(failures)
    ]


def _checked(signal: Signal, result: Result) -> Result:
    """A value that is not finite or lies outside its declared range is a failure, not a number to compare with."""
    if isinstance(result, Failure):
        stage = result.stage if result.stage.startswith("annotate:") else f"annotate:{signal.name}"
        return Failure(stage, result.error, result.message, result.attempt)
    for field in signal.gives:
        value = result.get(field.name)
        if value is not None and field.is_number and not _within(field, float(value)):
            message = f"{field.name} is {float(value):g}, outside {field.range_text()}"
            return Failure(f"annotate:{signal.name}", "RangeError", message)
    return result


def _within(field: SignalField, value: float) -> bool:
    return math.isfinite(value) and field.contains(value)


@tells("annotate")
def commit(block: pa.Table, build: Store, gives: dict[str, tuple[SignalField, ...]]) -> pa.Table:
    """Write the piece's signals, one file each; the answer is its receipt."""
    item = json.loads(block.column("item")[0].as_py())
    decode = [failure_of(t) for t in block.column(DECODE).to_pylist()]
    failed = [f is not None for f in decode]
    for name in item["missing"]:
        own = [failure_of(t) for t in block.column(FAIL + name).to_pylist()]
        failures = [d or o for d, o in zip(decode, own, strict=True)]
        failed = [f or o is not None for f, o in zip(failed, own, strict=True)]
        columns = {"sample_id": block.column("sample_id")}
        columns |= {field.name: block.column(field.name).cast(field.type) for field in gives[name]}
        columns |= failure_columns(failures)
        write_table(build, item["files"][name], pa.table(columns))
    return pa.table({"rows": [block.num_rows], "failed": [sum(failed)], "retries": [retries.take()]})

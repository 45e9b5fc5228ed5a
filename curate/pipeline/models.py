"""Models of a worker: in the worker itself, where nothing is copied on the way to them, or in a helper process that is
started again when a sample kills it (law 10).

A model may take its process along (a crash in native code), or hang. In the worker that ends the worker, within a lease
of the partition that it is at (`board.lease`): the task is done again by the worker that replaces it, which finds the
lease and lets that partition's models run in a helper. There it is found out which sample it is of, and only that one
is quarantined. So a billion good samples pay for no helper, and a poisonous one costs its partition twice.
"""

from __future__ import annotations

import faulthandler
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.helper.errors import HelperDied, HelperError
from curate.helper.limits import is_out_of_memory, no_core
from curate.helper.process import Helper
from curate.helper.quarantine import run_isolated
from curate.helper.startup import once
from curate.pipeline.blocks import FAIL, VIEW, view_name
from curate.pipeline.board import Board
from curate.pipeline.model_service import ModelService, NotLoaded, answer_schema
from curate.pipeline.partitions import Partition
from curate.pipeline.spent import spending
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError, Quarantined
from curate.schema.fields import RunsOn
from curate.schema.verdict import Failure
from curate.signals.base import Signal
from curate.signals.probed import PROBED

ON_CPU = RunsOn()

LOAD_SECONDS = 1800.0
"""Time limit for loading one model: large weights come over a network."""

BATCH_SECONDS, SAMPLE_SECONDS = 120.0, 20.0
"""Time limit of a batch: the first and, for each of its members, the second. A captioner on a CPU takes seconds."""


class Caller(Protocol):
    """Calls methods of a `ModelService`, wherever it is; errors are those of `Helper`."""

    def call(self, method: str, *args: Any, limit_s: float) -> Any:
        """What the method gives."""

    def reject(self) -> HelperDied:
        """The error to raise where an answer's value is wrong."""

    def close(self) -> None:
        """Give back what was loaded."""


class InProcess:
    """A `ModelService` in this process. A call that takes longer than its limit ends the process."""

    def __init__(self) -> None:
        no_core()
        self._service = ModelService()

    def call(self, method: str, *args: Any, limit_s: float) -> Any:
        """What the method gives. Raises HelperError for what the service does not promise; HelperDied where the model
        asks for the end of the process, or for more memory than there is."""
        # it watches from a thread that needs no lock of the interpreter, which a model may hold
        faulthandler.dump_traceback_later(limit_s, exit=True, file=2)
        try:
            return getattr(self._service, method)(*args)
        except ModelService.RAISES:
            raise
        except SystemExit as exc:
            raise HelperDied("Crashed", f"ended with exit code {exc.code}") from exc
        except Exception as exc:
            if is_out_of_memory(exc):
                raise HelperDied("MemoryLimit", "needed more memory than there is") from exc
            raise HelperError(type(exc).__name__, str(exc)) from exc
        finally:
            faulthandler.cancel_dump_traceback_later()

    def reject(self) -> HelperDied:
        """The error to raise where an answer's value is wrong."""
        return HelperDied("Crashed", "gave an answer of the wrong form")

    def close(self) -> None:
        """Give back what was loaded."""
        self._service.close()


class Models:
    """Signals and tokenizers that were asked for, loaded where `caller` runs them and again in a process that replaces
    it."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._loaded: set[tuple[str, ...]] = set()
        self._said: dict[tuple[str, ...], Any] = {}

    def close(self) -> None:
        """Give back what was loaded; it is loaded again when it is asked for."""
        self._caller.close()
        self._loaded.clear()

    def load_signal(self, signal: Signal) -> None:
        """Load a signal, unless it is.

        Raises:
            CurateError: it cannot be loaded.
        """
        try:
            self._load("load_signal", *_spec(signal))
        except (HelperDied, HelperError) as exc:
            raise CurateError(f"signal {signal.name} cannot be loaded: {exc}") from exc

    def compute(self, signals: Sequence[Signal], block: pa.Table) -> pa.Table:
        """The fields of signals for each row of a block, and of each signal its failures (`answer_schema`).

        All are asked for at once. A sample that kills the process is computed again alone, signal by signal; one that
        kills it twice has a failure of that signal, and its neighbours have their results.

        Raises:
            CurateError: a signal cannot be loaded, or is at fault.
        """
        if len(signals) > 1:
            try:
                return self._ask_signals(signals, block)
            except (HelperDied, HelperError):
                pass  # found out below, which signal and which sample it is
        columns: dict[str, pa.ChunkedArray] = {}
        for signal in signals:
            answer = self._alone(signal, block)
            columns |= {name: answer.column(name) for name in answer.column_names}
            for field in signal.gives:
                block = block.append_column(field.name, answer.column(field.name))
        return pa.table({name: columns[name] for name in answer_schema(signals).names})

    def _alone(self, signal: Signal, block: pa.Table) -> pa.Table:
        def ask(rows: pa.Table) -> list[pa.Table]:
            answer = self._ask_signals([signal], rows)
            return [answer.slice(i, 1) for i in range(answer.num_rows)]

        whole: list[pa.Table] = []

        def all_rows() -> list[pa.Table]:
            whole.append(self._ask_signals([signal], block))
            return [whole[0].slice(i, 1) for i in range(block.num_rows)]

        found = self._each(all_rows, lambda i: ask(block.slice(i, 1))[0], block.num_rows, signal.name)
        if whole:
            return whole[0]
        return pa.concat_tables([_failed(signal, t) if isinstance(t, Quarantined) else t for t in found])

    def _ask_signals(self, signals: Sequence[Signal], rows: pa.Table) -> pa.Table:
        needed = {"sample_id", "kind", "text", *PROBED, *(field for s in signals for field in s.after)}
        needed |= {VIEW + view_name(view) for s in signals for view in s.needs}
        rows = rows.select([n for n in rows.column_names if n in needed])
        specs = [list(_spec(s)) for s in signals]
        limit = _limit(rows.num_rows) * len(signals)
        try:
            answer = self._caller.call("compute", specs, rows, limit_s=limit)
        except NotLoaded:  # it died since, of a sample or from outside
            self._loaded.clear()
            for spec in specs:
                self._load("load_signal", *spec)
            try:
                answer = self._caller.call("compute", specs, rows, limit_s=limit)
            except NotLoaded as exc:  # of one of these samples, then
                raise HelperDied("Crashed", str(exc)) from exc
        schema = answer_schema(signals)
        if not isinstance(answer, pa.Table) or answer.schema != schema or answer.num_rows != rows.num_rows:
            raise self._caller.reject()
        return answer

    def load_tokenizer(self, name: str, card: CodecCard, on: RunsOn = ON_CPU) -> None:
        """Load a tokenizer onto a device, unless it is there.

        Raises:
            CurateError: it cannot be loaded, or is no longer the one of `card`.
        """
        try:
            said = self._load("load_tokenizer", name, _told(on))
        except (HelperDied, HelperError) as exc:
            raise CurateError(f"tokenizer {name} cannot be loaded: {exc}") from exc
        if said is not None and CodecCard.model_validate_json(said) != card:  # files are named by the plan's card
            raise CurateError(f"the tokenizer {name} changed while the run was at work", "run it again")

    def encode(
        self, name: str, stage: str, items: Sequence[Any], on: RunsOn = ON_CPU
    ) -> list[NDArray[np.generic] | Failure]:
        """Ids of each item, or why there are none; a poison item costs its own ids only."""
        spec = name, _told(on)

        def ask(some: list[Any]) -> list[Any]:
            answer = self._ask(("load_tokenizer", *spec), "encode", *spec, some, limit_s=_limit(len(some)))
            if not isinstance(answer, list) or len(answer) != len(some):
                raise self._caller.reject()
            return answer

        if not items:
            return []
        given = list(items)
        found = self._each(lambda: ask(given), lambda i: ask([given[i]])[0], len(given), name)
        return [_ids(stage, answer) for answer in found]

    def _load(self, method: str, *spec: str) -> Any:
        if (method, *spec) in self._loaded:
            return None
        with once():
            said = self._caller.call(method, *spec, limit_s=LOAD_SECONDS)
        if self._said.setdefault((method, *spec), said) != said:
            raise CurateError(f"{spec[0]} changed while the run was at work", "run it again")
        self._loaded.add((method, *spec))
        return said

    def _ask(self, load: tuple[str, ...], method: str, *args: Any, limit_s: float) -> Any:
        try:
            return self._caller.call(method, *args, limit_s=limit_s)
        except NotLoaded:  # it died since, of a sample or from outside
            self._loaded.clear()
            self._load(*load)
            return self._caller.call(method, *args, limit_s=limit_s)

    def _each(
        self, whole: Callable[[], list[Any]], one: Callable[[int], Any], count: int, name: str
    ) -> list[Any | Quarantined]:
        try:
            return run_isolated(whole, one, count)
        except HelperError as exc:
            raise CurateError(
                f"{name} is at fault: {exc}", "what was committed is kept; mend it and run again"
            ) from exc


@cache
def models() -> Models:
    """Those of this process."""
    return Models(InProcess())


def helper() -> Helper:
    """A process of its own for models."""
    return Helper("curate.pipeline.model_service:ModelService", memory_bytes=None, name="models")


@contextmanager
def leased(board: Board, stage: str, partition: Partition) -> Iterator[Models]:
    """The models for a partition while a worker is at it, whose time is told: in a helper where a worker died on it
    before, for as long as that takes, and with none in this process: a GPU may have no room for both."""
    with spending(board, stage, partition):
        if board.lease(stage, partition.name):
            models().close()
            apart = Models(helper())
            try:
                yield apart
            finally:
                apart.close()
        else:
            yield models()
    board.release(stage, partition.name)


def _spec(signal: Signal) -> tuple[str, str, str]:
    cls = type(signal)
    options = json.dumps(signal.options.model_dump(mode="json"), sort_keys=True)
    return f"{cls.__module__}:{cls.__qualname__}", options, _told(signal.on)


def _told(on: RunsOn) -> str:
    return json.dumps(asdict(on))


def _limit(count: int) -> float:
    return BATCH_SECONDS + SAMPLE_SECONDS * count


def _failed(signal: Signal, found: Quarantined) -> pa.Table:
    schema = answer_schema([signal])
    row: dict[str, Any] = dict.fromkeys(schema.names)
    row[FAIL + signal.name] = Failure.of(f"annotate:{signal.name}", found).__dict__
    return pa.Table.from_pylist([row], schema=schema)


def _ids(stage: str, answer: Any) -> NDArray[np.generic] | Failure:
    match answer:
        case Quarantined():
            return Failure.of(stage, answer)
        case np.ndarray():
            return answer
        case [str(error), str(message)]:
            return Failure(stage, error, " ".join(message.split())[:500] or error, 2)
    return Failure(stage, "IdError", "the tokenizer gave no ids")

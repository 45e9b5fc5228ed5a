"""Signals and tokenizers that a process holds, which may die of a sample: a worker, or a helper (`models`)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from curate import plugins
from curate.media.requests import DecodeRequest
from curate.pipeline.blocks import FAIL, FAILURE_TYPE, failure_array, unpack_views
from curate.schema.errors import CurateError
from curate.schema.fields import RunsOn
from curate.schema.verdict import Failure
from curate.signals.base import Batch, Result, Signal, Unloaded
from curate.signals.probed import PROBED
from curate.tokenizers.base import Tokenizer


def answer_schema(signals: Sequence[Signal]) -> pa.Schema:
    """What `compute` gives: a column a field, and of each signal its failures."""
    fields = [(field.name, field.type) for signal in signals for field in signal.gives]
    return pa.schema([*fields, *((FAIL + signal.name, FAILURE_TYPE) for signal in signals)])


class NotLoaded(Exception):
    """The process was started anew since a model was loaded, or the model was lost."""


class ModelService:
    """Holds what was loaded. One thread a model, set where it is loaded, is part of what makes results the same."""

    RAISES = (CurateError, NotLoaded)

    def __init__(self) -> None:
        self._signals: dict[str, Signal] = {}
        self._tokenizers: dict[str, Tokenizer] = {}

    def load_signal(self, path: str, options: str, on: str) -> None:
        """Load a signal: its class as `module:Class`, its options and what it runs on as JSON."""
        cls: type[Signal] = plugins.find("signal", path)
        signal = cls(cls.Options.model_validate(json.loads(options)))
        signal.on = RunsOn(**json.loads(on))
        signal.load()
        self._signals[path + options + on] = signal

    def compute(self, specs: list[list[str]], block: pa.Table) -> pa.Table:
        """The fields of loaded signals, each as `load_signal` takes it, for the rows of a block, in order."""
        signals = []
        for spec in specs:
            signal = self._signals.get("".join(spec))
            if signal is None:
                raise NotLoaded(spec[0])
            signals.append(signal)
        columns: dict[str, pa.Array] = {}
        for signal, spec in zip(signals, specs, strict=True):
            try:
                results = compute_batch(signal, batch_of(block, signal.needs, signal.after))
            except Unloaded as exc:
                self._signals.pop("".join(spec)).close()
                raise NotLoaded(str(exc)) from exc
            found = _columns(signal, results)
            columns |= found
            for field in signal.gives:
                block = block.append_column(field.name, found[field.name])
        return pa.table({name: columns[name] for name in answer_schema(signals).names}, schema=answer_schema(signals))

    def close(self) -> None:
        """Forget what was loaded, and give back what does not end with it."""
        for signal in self._signals.values():
            signal.close()
        self._signals.clear()
        self._tokenizers.clear()

    def load_tokenizer(self, name: str, on: str) -> str:
        """Load a tokenizer of the zoo, or of a folder, onto what is said as JSON; its card as JSON."""
        from curate.tokenizers import zoo

        told = RunsOn(**json.loads(on))
        batch = None if told.device == "cpu" else told.batch
        self._tokenizers[name + on] = zoo.load_on_one_thread(name, told.device, told.dtype, batch)
        return self._tokenizers[name + on].card.model_dump_json()

    def encode(self, name: str, on: str, items: list[Any]) -> list[Any]:
        """Ids of each item by a tokenizer, as `load_tokenizer` takes it, or [error class, message] where it refuses it;
        it takes no other along."""
        tokenizer = self._tokenizers.get(name + on)
        if tokenizer is None:
            raise NotLoaded(name)
        try:
            return [np.ascontiguousarray(ids) for ids in tokenizer.encode(items)]
        except Exception:
            return [_encode_one(tokenizer, item) for item in items]


def _encode_one(tokenizer: Tokenizer, item: Any) -> Any:
    try:
        return np.ascontiguousarray(tokenizer.encode([item])[0])
    except Exception as exc:  # recorded, with its class and message
        return [type(exc).__name__, str(exc)]


def batch_of(block: pa.Table, needs: Sequence[DecodeRequest], columns: Sequence[str]) -> Batch:
    """The batch that a signal sees: views and columns of a block's rows."""
    return Batch(
        sample_id=block.column("sample_id").to_pylist(),
        kind=block.column("kind").to_pylist(),
        text=block.column("text").to_pylist(),
        views={view: unpack_views(block, view) for view in needs},
        columns={n: block.column(n).to_pylist() for n in block.column_names if n in {*PROBED, *columns}},
    )


def compute_batch(signal: Signal, batch: Batch) -> list[Result]:
    """The signal's results; a batch that fails as a whole is tried again member by member (law 2).

    Raises:
        CurateError: a signal that does not give one result a sample, or says itself that no sample will have one.
        Unloaded: it lost what it had loaded.
    """
    try:
        results = signal(batch)
    except (CurateError, Unloaded):
        raise
    except Exception:
        results = [_alone(signal, batch, i) for i in range(len(batch))]
    if len(results) != len(batch):
        raise CurateError(
            f"signal {signal.name} gave {len(results)} results for {len(batch)} samples",
            "it must give one result or one Failure for each sample, in order",
        )
    return results


def _alone(signal: Signal, batch: Batch, i: int) -> Result:
    one = Batch(
        sample_id=batch.sample_id[i : i + 1],
        kind=batch.kind[i : i + 1],
        text=batch.text[i : i + 1],
        views={view: arrays[i : i + 1] for view, arrays in batch.views.items()},
        columns={name: values[i : i + 1] for name, values in batch.columns.items()},
    )
    try:
        return signal(one)[0]
    except (CurateError, Unloaded):
        raise
    except Exception as exc:  # recorded, with its class and message
        return Failure.of(f"annotate:{signal.name}", exc, attempt=2)


def _columns(signal: Signal, results: Sequence[Result]) -> dict[str, pa.Array]:
    """A signal's results as columns; a value that is not of its field's type is that sample's failure."""
    try:
        return _typed(signal, results)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return _typed(signal, [_checked(signal, result) for result in results])


def _typed(signal: Signal, results: Sequence[Result]) -> dict[str, pa.Array]:
    failed = [isinstance(r, Failure) for r in results]
    values = [{} if isinstance(r, Failure) else r for r in results]
    columns = {f.name: pa.array([v.get(f.name) for v in values], f.type) for f in signal.gives}
    failures = [r if isinstance(r, Failure) else None for r in results] if any(failed) else [None] * len(results)
    return columns | {FAIL + signal.name: failure_array(failures)}


def _checked(signal: Signal, result: Result) -> Result:
    """One result, or a failure where a value is of another type than its field."""
    if isinstance(result, Failure):
        return result
    try:
        for field in signal.gives:
            pa.array([result.get(field.name)], field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
        return Failure.of(f"annotate:{signal.name}", exc)
    return result

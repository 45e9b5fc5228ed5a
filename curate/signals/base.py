"""What a signal is. A new one is one file in this folder: declare, and compute one sample. Nothing else knows it.

For example:

    class Brightness(Signal):
        name = "brightness"
        needs = (Frames(size=224),)
        gives = (Float("brightness", "luma 0-255", 0, 255, kinds=VISUAL, about="Mean luma."),)

        def one(self, sample: Sample) -> float:
            return float(luma(sample.view).mean())

`examples/plugins/signal.py` is one outside of this package.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from curate.media.requests import DecodeRequest
from curate.models.passes import Passes, raised
from curate.schema.fields import KINDS, Resources, RunsOn, SignalField
from curate.schema.verdict import Failure

VISUAL = ("image", "video")
AUDIBLE = ("video", "audio")

Result = dict[str, Any] | Failure
"""For one sample: a value for each field of `gives` (None: not applicable to this sample), or a failure."""


def Float(
    name: str,
    unit: str,
    low: float | None = None,
    high: float | None = None,
    *,
    kinds: tuple[str, ...] = KINDS,
    about: str = "",
) -> SignalField:
    """A field of float32 numbers from `low` to `high`; see `SignalField`."""
    return SignalField(name, pa.float32(), unit, (low, high), kinds, about)


def Vector(name: str, size: int, *, kinds: tuple[str, ...] = KINDS, about: str = "") -> SignalField:
    """A field of float32 vectors of one length, such as an embedding; see `SignalField`."""
    return SignalField(name, pa.list_(pa.float32(), size), kinds=kinds, about=about)


def Text(name: str, *, kinds: tuple[str, ...] = KINDS, about: str = "") -> SignalField:
    """A field of strings; see `SignalField`."""
    return SignalField(name, pa.string(), kinds=kinds, about=about)


class Unloaded(Exception):
    """A signal lost what it had loaded, such as a server of its model: it must be loaded again, and asked again."""


class Options(BaseModel):
    """Options of a signal in the recipe; subclasses add fields. Unknown keys are refused with the allowed names."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass
class Batch:
    """Some samples of one partition, in order.

    Attributes:
        sample_id, kind, text: one entry each a sample; text is the source's own or None.
        views: view to one array a sample, or None where the sample has no such modality.
        columns: fields that earlier signals of this pass gave, one value a sample; and width, height, duration.
    """

    sample_id: list[str]
    kind: list[str]
    text: list[str | None]
    views: dict[DecodeRequest, list[NDArray[np.generic] | None]]
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample_id)


@dataclass(frozen=True)
class Sample:
    """One sample of a batch, as `Signal.one` sees it.

    Attributes:
        sample_id, kind, text: as in the batch.
        views: the arrays of the signal's `needs`, in that order; all are there.
        columns: as in the batch, a value each.
    """

    sample_id: str
    kind: str
    text: str | None
    views: tuple[NDArray[Any], ...]
    columns: Mapping[str, Any]

    @property
    def view(self) -> NDArray[Any]:
        """The first of `views`: of most signals the only one."""
        return self.views[0]


class Signal(ABC):
    """A typed column computed for samples. A signal never drops anything (law 3).

    Write `one`; or `__call__`, where a model computes several samples at once or a missing view is no reason for null.
    Constructing is cheap (the planner does it); `load` fetches models, once in each worker.

    Attributes:
        options: of the recipe.
        on: what its model runs on; known before `load`.

    Class attributes:
        name: how a recipe calls it; one of several of a sort in a build is given a name of its own.
        needs: views of media it looks at; set in `__init__` where options change them.
        after: fields of other signals that it reads from `columns`.
        gives: the fields it computes, with units and ranges.
        cost: what one worker takes, and what it can compute in; a model sees to it that `on` is what it loads on.
        Options: pydantic model of its options; annotate `options`, which it makes, with it.
    """

    name: str
    needs: tuple[DecodeRequest, ...] = ()
    after: tuple[str, ...] = ()
    gives: tuple[SignalField, ...] = ()
    cost: Resources = Resources()
    Options: ClassVar[type[Options]] = Options

    def __init__(self, options: BaseModel | None = None) -> None:
        self.options = options if options is not None else type(self).Options()
        self.on = RunsOn(dtype=self.cost.dtypes[0], batch=self.cost.batch)

    def load(self) -> None:  # noqa: B027 - optional to override
        """Load models onto `on.device`, in `on.dtype`; called once in each worker before the first batch."""

    def check_files(self) -> str | None:
        """Look for what `load` wants, before any work; loads nothing, and takes no longer than a question to a server.

        Returns:
            A sentence where something will be fetched first; None where all is here, or nothing is known of it.

        Raises:
            CurateError: something is not here, and cannot be fetched.
        """
        return None

    def close(self) -> None:  # noqa: B027 - optional to override
        """Give back what does not end with the object, such as a process; it may be loaded again."""

    def version(self) -> str:
        """What the result depends on beside media and options: code version and model digest. Cheap, no model load."""
        return "1"

    def made_by(self) -> Any:
        """Options that the values follow from, as JSON values; a change of others computes nothing again."""
        return self.options.model_dump(mode="json")

    def one(self, sample: Sample) -> Any:
        """The value of the field, or a tuple of them in the order of `gives`; None where none applies.

        Not asked of a sample that lacks a view of `needs`: it has null. What it raises becomes that sample's failure.
        """
        raise NotImplementedError(f"the signal {self.name} has neither `one` nor `__call__`")

    def __call__(self, batch: Batch) -> list[Result]:
        """One result or one Failure for each sample, in order."""
        columns = [batch.views[view] for view in self.needs]
        names = [given.name for given in self.gives]

        def fields(i: int) -> dict[str, Any]:
            views = tuple(column[i] for column in columns)
            said = None
            if all(view is not None for view in views):
                others = {name: values[i] for name, values in batch.columns.items()}
                said = self.one(Sample(batch.sample_id[i], batch.kind[i], batch.text[i], views, others))  # type: ignore[arg-type]
            values = (None,) * len(names) if said is None else said if isinstance(said, tuple) else (said,)
            return dict(zip(names, values, strict=True))

        return map_samples(f"annotate:{self.name}", batch, fields)


def map_samples(stage: str, batch: Batch, one: Callable[[int], dict[str, Any]]) -> list[Result]:
    """Apply `one` to each index of the batch; an exception becomes that sample's Failure and no one else's."""
    out: list[Result] = []
    for i in range(len(batch)):
        try:
            out.append(one(i))
        except Exception as exc:  # the failure is recorded, with its class and message
            out.append(failure_of(stage, exc))
    return out


def map_networks(
    stage: str,
    batch: Batch,
    passes: Passes,
    network: Callable[[list[NDArray[Any]]], Sequence[Any]],
    inputs: Callable[[int], Sequence[NDArray[Any]]],
    one: Callable[[int, list[Any]], dict[str, Any]],
) -> list[Result]:
    """As `map_samples`, with a network between that on a GPU sees arrays of several samples at once.

    Args:
        network: as `Passes` takes it: arrays of one shape to one result each.
        inputs: what the network is to see of a sample; nothing of one that lacks the view.
        one: the fields of a sample, of what the network gave for each of its inputs.
    """
    out: dict[int, Result] = {}
    every = list(range(len(batch)))
    # one by one where that is how the network sees them: then no more than a sample's results are held
    for some in [[i] for i in every] if passes.size == 1 else [every]:
        given: dict[int, Sequence[NDArray[Any]]] = {}
        for i in some:
            try:
                given[i] = list(inputs(i))
            except Exception as exc:
                out[i] = failure_of(stage, exc)
        found = iter(passes([array for arrays in given.values() for array in arrays], network))
        for i, arrays in given.items():
            mine = [next(found) for _ in arrays]
            try:
                out[i] = one(i, [raised(result) for result in mine])
            except Exception as exc:
                out[i] = failure_of(stage, exc)
    return [out[i] for i in every]


def failure_of(stage: str, exc: Exception) -> Failure:
    """The failure of a sample that an exception means; one that counts its attempts says how many."""
    return Failure.of(stage, exc, getattr(exc, "attempts", 1))

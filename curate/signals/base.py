"""What a signal is. A new one is one file in this folder: declare, load, compute; nothing else needs to know of it.

For example:

    class Brightness(Signal):
        name = "brightness"
        needs = (Frames(size=224),)
        gives = (SignalField("brightness", pa.float32(), "luma 0-255", (0, 255), ("image", "video"), "Mean luma."),)

        def __call__(self, batch: Batch) -> list[Result]:
            return [... for frames in batch.views[self.needs[0]]]
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from curate.media.requests import DecodeRequest
from curate.schema.fields import Resources, SignalField
from curate.schema.verdict import Failure

Result = dict[str, Any] | Failure
"""For one sample: a value for each field of `gives` (None: not applicable to this sample), or a failure."""


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


class Signal(ABC):
    """A typed column computed for samples. A signal never drops anything (law 3).

    Constructing is cheap (the planner does it); `load` fetches models, once in each worker.

    Class attributes:
        name: how a recipe calls it.
        needs: views of media it looks at; set in `__init__` where options change them.
        after: fields of other signals that it reads from `batch.columns`.
        gives: the fields it computes, with units and ranges.
        cost: what one worker takes.
        Options: pydantic model of its options.
    """

    name: ClassVar[str]
    needs: tuple[DecodeRequest, ...] = ()
    after: tuple[str, ...] = ()
    gives: tuple[SignalField, ...] = ()
    cost: Resources = Resources()
    Options: ClassVar[type[Options]] = Options

    def __init__(self, options: BaseModel | None = None) -> None:
        self.options = options if options is not None else type(self).Options()

    def load(self) -> None:  # noqa: B027 - optional to override
        """Load models; called once in each worker before the first batch."""

    def version(self) -> str:
        """What the result depends on beside media and options: code version and model digest. Cheap, no model load."""
        return "1"

    @abstractmethod
    def __call__(self, batch: Batch) -> list[Result]:
        """One result or one Failure for each sample, in order."""


def map_samples(stage: str, batch: Batch, one: Callable[[int], dict[str, Any]]) -> list[Result]:
    """Apply `one` to each index of the batch; an exception becomes that sample's Failure and no one else's."""
    out: list[Result] = []
    for i in range(len(batch)):
        try:
            out.append(one(i))
        except Exception as exc:  # the failure is recorded, with its class and message
            out.append(Failure.of(stage, exc))
    return out

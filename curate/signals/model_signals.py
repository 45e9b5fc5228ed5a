"""Labels by a model of one's own: an option names it, and its weights are part of the label's version."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from curate.models.named import LIBRARIES, bytes_of, check_source, weights_of
from curate.models.package_files import package_version
from curate.models.passes import Passes, raised
from curate.schema.fields import Resources
from curate.signals import base
from curate.signals.base import Batch, Result, map_networks
from curate.signals.labels import LabelSignal


class TransformersSignal(LabelSignal):
    """A label by a model of transformers, which the option `source` names.

    Class attributes:
        auto: the class of transformers that loads it, e.g. `AutoModelForDepthEstimation`; `load` sets it where that
            depends on the model.
    """

    auto: str
    cost = Resources(
        cpus=1, gpus=0.25, memory=LIBRARIES, batch=8, dtypes=("float32", "bfloat16", "float16"), model=True
    )
    options: Any

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        self.cost = replace(self.cost, memory=self.cost.memory + bytes_of(self.options.source))

    def load(self) -> None:
        from curate.models.image_model import ImageModel

        self._model = ImageModel(self.auto, self.options.source, self.on)

    def check_files(self) -> str | None:
        return check_source(self.options.source)

    def version(self) -> str:
        return f"1+transformers-{package_version('transformers')}+{weights_of(self.options.source)}"


class SeenSignal(TransformersSignal):
    """A label whose images pass the network in batches, those of several samples at once: write `seen` and `label`, and
    `looked_at` where the network does not look at every frame."""

    def looked_at(self, frames: NDArray[np.uint8]) -> Sequence[NDArray[np.uint8]]:
        """Images that the network sees of a sample's frames."""
        return [np.ascontiguousarray(frame) for frame in frames]

    @abstractmethod
    def seen(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[Any]:
        """What the network gives for each image, or an exception; all images are of one shape."""

    @abstractmethod
    def label(self, frames: NDArray[np.uint8], found: Sequence[Any]) -> dict[str, Any]:
        """The label and its numbers, as `of`, of what the network gave for each image that it looked at."""

    def load(self) -> None:
        super().load()
        self._passes = Passes(self.name, self.on, snug=not self.view.crop)

    def of(self, frames: NDArray[np.uint8], batch: Batch, i: int) -> dict[str, Any]:
        return self.label(frames, [raised(one) for one in self._passes(self.looked_at(frames), self.seen)])

    def __call__(self, batch: Batch) -> list[Result]:
        views = cast(list[NDArray[np.uint8] | None], batch.views[self.view])

        def inputs(i: int) -> Sequence[NDArray[np.uint8]]:
            frames = views[i]
            return () if frames is None else self.looked_at(frames)

        def one(i: int, found: list[Any]) -> dict[str, Any]:
            frames = views[i]
            return self.named(None if frames is None else self.label(frames, found))

        return map_networks(f"annotate:{self.name}", batch, self._passes, self.seen, inputs, one)


class WeightsSignal(LabelSignal):
    """A label by a model for CPUs in one file, which the option `weights` names; subclasses load it."""

    cost = Resources(cpus=1, model=True)
    options: Any

    def check_files(self) -> str | None:
        return check_source(self.options.weights)

    def version(self) -> str:
        return f"1+{weights_of(self.options.weights)}"

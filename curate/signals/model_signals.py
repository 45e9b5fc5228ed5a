"""Labels by a model of one's own: an option names it, and its weights are part of the label's version."""

from __future__ import annotations

from typing import Any

from curate.models.named import weights_of
from curate.models.package_files import package_version
from curate.schema.fields import Resources
from curate.signals.labels import LabelSignal


class TransformersSignal(LabelSignal):
    """A label by a model of transformers, which the option `source` names.

    Class attributes:
        auto: the class of transformers that loads it, e.g. `AutoModelForDepthEstimation`; `load` sets it where that
            depends on the model.
    """

    auto: str
    cost = Resources(cpus=1, gpus=0.25, model=True)
    options: Any

    def load(self) -> None:
        from curate.models.image_model import ImageModel

        self._model = ImageModel(self.auto, self.options.source)

    def version(self) -> str:
        return f"1+transformers-{package_version('transformers')}+{weights_of(self.options.source)}"


class WeightsSignal(LabelSignal):
    """A label by a model for CPUs in one file, which the option `weights` names; subclasses load it."""

    cost = Resources(cpus=1, model=True)
    options: Any

    def version(self) -> str:
        return f"1+{weights_of(self.options.weights)}"

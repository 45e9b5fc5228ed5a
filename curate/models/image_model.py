"""Models of images of the transformers library, from a local folder or a hub id; no code of a repository is run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.models.passes import NotFiniteError, fitting
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError, first_line
from curate.schema.fields import RunsOn


class ImageModel:
    """A model and its image processor. Weights are fp32; where `on.dtype` is another, PyTorch's autocast is to it.

    Args:
        auto: name of the class of transformers that loads it, e.g. `AutoModelForDepthEstimation`.
        source: local folder or hub id with safetensors weights.
        on: what it runs on.

    Attributes:
        net, processor: as transformers has them.

    Raises:
        CurateError: it cannot be loaded as such a model, or does not fit the device.
    """

    def __init__(self, auto: str, source: str, on: RunsOn) -> None:
        ensure_torchvision()
        import transformers

        from curate.models.weights import locate

        files = locate(source, ["*.safetensors"])
        folder = str(files[0].parent if Path(source).expanduser().is_dir() else source)
        self.on = on
        try:
            auto_processor: Any = transformers.AutoImageProcessor
            self.processor: Any = auto_processor.from_pretrained(folder)
            net: Any = getattr(transformers, auto).from_pretrained(folder, use_safetensors=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise CurateError(
                f"{source} cannot be loaded as {auto}: {first_line(error)}",
                "give a folder or hub id of such a model, with config.json, preprocessor_config.json and safetensors",
            ) from error
        with fitting(source, on):
            self.net = net.float().eval().requires_grad_(False).to(on.device)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the model's classes in order of id."""
        told = {int(i): str(name) for i, name in self.net.config.id2label.items()}
        return tuple(told.get(i, f"class {i}") for i in range(max(told) + 1))

    def __call__(self, images: Sequence[NDArray[np.uint8]], reads: Sequence[str]) -> tuple[Any, list[Exception | None]]:
        """What the model says of images, and of each whether that may be used.

        Args:
            images: sRGB uint8 `(H, W, 3)`, all of one shape. Each is processed by itself, so that a batch pads none.
            reads: names of the outputs that are made use of; they come as fp32.

        Returns:
            the model's output, n in its first axes; None for each image, or the error that its outputs are not finite.
        """
        import torch

        from curate.models.batches import exact

        each = [self.processor(images=i, return_tensors="pt", input_data_format="channels_last") for i in images]
        given = {name: torch.cat([one[name] for one in each]).to(self.on.device) for name in each[0]}
        with exact(torch.device(self.on.device), self.on.dtype):
            said = self.net(**given)
        good = torch.ones(len(images), dtype=torch.bool)
        for name in reads:
            said[name] = said[name].float()
            good &= said[name].isfinite().flatten(1).all(dim=1).cpu()
        return said, [None if fine else NotFiniteError(self.on.dtype) for fine in good.tolist()]


def model_type(source: str) -> str:
    """Which family of transformers a model is of, e.g. `segformer`.

    Raises:
        CurateError: transformers does not know it.
    """
    ensure_torchvision()
    import transformers

    try:
        return str(transformers.AutoConfig.from_pretrained(str(Path(source).expanduser())).model_type)
    except (OSError, ValueError) as error:
        raise CurateError(
            f"{source} holds no model that transformers knows: {first_line(error)}", "give a local folder or a hub id"
        ) from error

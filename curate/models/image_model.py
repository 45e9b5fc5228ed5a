"""Models of images of the transformers library, from a local folder or a hub id; no code of a repository is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError, first_line


class ImageModel:
    """A model and its image processor; images pass one by one, in fp32, on a GPU where there is one.

    Args:
        auto: name of the class of transformers that loads it, e.g. `AutoModelForDepthEstimation`.
        source: local folder or hub id with safetensors weights.

    Attributes:
        net, processor: as transformers has them.
        device: `cuda` or `cpu`.

    Raises:
        CurateError: it cannot be loaded as such a model.
    """

    def __init__(self, auto: str, source: str) -> None:
        ensure_torchvision()
        import torch
        import transformers

        from curate.models.weights import locate

        files = locate(source, ["*.safetensors"])
        folder = str(files[0].parent if Path(source).expanduser().is_dir() else source)
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            auto_processor: Any = transformers.AutoImageProcessor
            self.processor: Any = auto_processor.from_pretrained(folder)
            net: Any = getattr(transformers, auto).from_pretrained(folder, use_safetensors=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise CurateError(
                f"{source} cannot be loaded as {auto}: {first_line(error)}",
                "give a folder or hub id of such a model, with config.json, preprocessor_config.json and safetensors",
            ) from error
        self.net = net.float().eval().requires_grad_(False).to(self.device)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the model's classes in order of id."""
        told = {int(i): str(name) for i, name in self.net.config.id2label.items()}
        return tuple(told.get(i, f"class {i}") for i in range(max(told) + 1))

    def __call__(self, image: NDArray[np.uint8]) -> Any:
        """What the model says of sRGB uint8 `(H, W, 3)`."""
        import torch

        given = self.processor(images=image, return_tensors="pt", input_data_format="channels_last").to(self.device)
        with torch.inference_mode(), torch.autocast(torch.device(self.device).type, enabled=False):
            return self.net(**given)


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

"""Captions from an image-to-text model of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curate import plugins
from curate.models.named import weights_of
from curate.models.package_files import package_version
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError

PROMPT = "Describe this picture in one or two sentences."
MAX_NEW_TOKENS = 128
"""Of an answer, where the recipe says nothing."""


class Captioner(Protocol):
    """Says in words what an image shows. One of your own derives from it and writes `__call__`, and the other two where
    it has a model: `examples/plugins/captioner.py`."""

    def load(self) -> None:
        """Load the model, once in each worker. Raises CurateError where it cannot be had."""

    def version(self) -> str:
        """What the captions depend on beside the image; cheap. Another version captions anew."""
        return "1"

    def __call__(self, frame: NDArray[Any]) -> str:
        """The caption of an image, uint8 `(H, W, 3)` sRGB; may be empty."""
        raise NotImplementedError


BUILTIN = {"transformers": "curate.signals.captioner:TransformersCaptioner"}


def captioner_of(name: str, max_new_tokens: int = MAX_NEW_TOKENS) -> Captioner:
    """The captioner that a recipe names; nothing is loaded.

    Args:
        name: an entry point or `package.module:Class` of a class without arguments that is a `Captioner`; else a local
            folder or a hub id of a transformers model.
        max_new_tokens: most tokens of an answer of a transformers model.

    Raises:
        CurateError: another's class that cannot be had or made, or a path where no model lies.
    """
    if not plugins.is_foreign("captioner", name):
        return TransformersCaptioner(name, max_new_tokens)
    made: Captioner = plugins.make("captioner", name, {})
    return made


class TransformersCaptioner(Captioner):
    """Any model of `AutoModelForImageTextToText`: captioners (BLIP, GIT, ViT-GPT2) and chat models (SmolVLM, Qwen-VL).

    Greedy decoding, float32 on a CPU and bfloat16 on CUDA, one image at a time, so a caption does not depend on
    neighbours (law 6). Weights are safetensors only, and code from the hub is never run (law 11).
    A model whose processor has a chat template is asked the prompt; others just get the image.

    Args:
        model: a local folder or a hub id.
        max_new_tokens: most tokens of an answer.

    Raises (constructor):
        CurateError: the name is a path, and no model lies there.
    """

    def __init__(self, model: str, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.model, self._most = model, max_new_tokens
        folder = Path(model).expanduser()
        self._local = folder.is_dir()
        if not self._local and (folder.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1):
            raise CurateError(f"the captioner's folder {model} does not exist")
        if self._local and not (folder / "config.json").is_file():
            raise CurateError(f"no transformers model (config.json) in {model}")
        if self._local and not any(folder.glob("*.safetensors")):
            raise CurateError(
                f"the captioner in {model} has no .safetensors weights; pickled ones are refused",
                "load it where you trust it, then model.save_pretrained(FOLDER)",
            )

    def load(self) -> None:
        ensure_torchvision()
        import torch
        from transformers import AutoModelForImageTextToText
        from transformers.utils import logging

        hush: Any = logging.disable_progress_bar  # it would draw across the build's own
        hush()
        torch.set_num_threads(1)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        where = str(Path(self.model).expanduser()) if self._local else self.model
        try:
            self._processor, self._decode = _processor(where)
            auto: Any = AutoModelForImageTextToText
            model = auto.from_pretrained(
                where, use_safetensors=True, dtype=torch.bfloat16 if self._device == "cuda" else torch.float32
            )
        except (OSError, ValueError, KeyError) as exc:
            raise CurateError(
                f"the captioner {self.model} cannot be loaded: {' '.join(str(exc).split())[:300]}",
                "name a local folder or a hub id of a transformers image-to-text model with safetensors weights",
            ) from exc
        self._model = model.to(self._device).eval()

    def version(self) -> str:
        return f"transformers-{package_version('transformers')}+{weights_of(self.model)}"

    def __call__(self, frame: NDArray[Any], prompt: str = PROMPT) -> str:
        import torch
        from PIL import Image

        inputs = self._inputs(Image.fromarray(np.ascontiguousarray(frame)), prompt)
        inputs = {k: v.to(self._device) for k, v in inputs.items()}
        if self._device == "cuda":
            inputs = {k: v.to(self._model.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        with torch.inference_mode():
            ids = self._model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=self._most)[0]
        asked = inputs.get("input_ids")
        if asked is not None and ids[: asked.shape[1]].tolist() == asked[0].tolist():
            ids = ids[asked.shape[1] :]  # a decoder-only model repeats the question
        return str(self._decode(ids, skip_special_tokens=True)).strip()

    def _inputs(self, image: Any, prompt: str) -> dict[str, Any]:
        """The model's inputs for an image: tensors by name."""
        if getattr(self._processor, "chat_template", None):
            question = [{"type": "image"}, {"type": "text", "text": prompt}]
            asked = self._processor.apply_chat_template(
                [{"role": "user", "content": question}], add_generation_prompt=True
            )
            return dict(self._processor(images=[image], text=[asked], return_tensors="pt"))
        return dict(self._processor(images=[image], return_tensors="pt"))


def _processor(where: str) -> tuple[Any, Any]:
    """What turns an image into a model's inputs, and its ids into text.

    Encoder-decoder models have no processor of their own, but an image processor and a tokenizer side by side.
    """
    import transformers

    auto: Any = transformers  # its classes are found at run time; it has no types for them
    processor = auto.AutoProcessor.from_pretrained(where)
    if hasattr(processor, "image_processor") and hasattr(processor, "tokenizer"):
        return processor, processor.decode
    return auto.AutoImageProcessor.from_pretrained(where), auto.AutoTokenizer.from_pretrained(where).decode

"""Captions from an image-to-text model of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curate import plugins
from curate.models.named import LIBRARIES, bytes_of, check_source, weights_of
from curate.models.package_files import package_version
from curate.models.passes import NotFiniteError, Passes, fitting, raised
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.schema.fields import Resources, RunsOn

PROMPT = "Describe this picture in one or two sentences."
MAX_NEW_TOKENS = 128
"""Of an answer, where the recipe says nothing."""


class Captioner(Protocol):
    """Says in words what an image shows. One of your own derives from it and writes `__call__`, and `load` and
    `version` where it has a model: `examples/plugins/captioner.py`. One that can do several images at once may have a
    method `batch(frames)` too, which gives a caption for each, or an exception; on a GPU up to `on.batch` come at once.
    And one whose model lies in files may have `check_files()`, as `Signal.check_files`.

    Attributes:
        cost: what a worker takes, and what it can compute in.
        on: what it runs on; set before `load`.
    """

    cost: Resources = Resources(cpus=1, gpus=0.5, model=True)
    on: RunsOn = RunsOn()

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

    Greedy decoding. On a CPU one image at a time, so a caption does not depend on neighbours (law 6); on a GPU in
    batches of `on.batch`, prompts padded on the left, where a last bit may choose another word. Weights are of
    `on.dtype` and safetensors only, and code from the hub is never run (law 11). A model whose processor has a chat
    template is asked the prompt; others just get the image.

    Args:
        model: a local folder or a hub id.
        max_new_tokens: most tokens of an answer.

    Raises (constructor):
        CurateError: the name is a path, and no model lies there.
    """

    cost = Resources(cpus=1, gpus=0.5, batch=8, dtypes=("float32", "bfloat16", "float16"), model=True)

    def __init__(self, model: str, max_new_tokens: int = MAX_NEW_TOKENS) -> None:
        self.model, self._most = model, max_new_tokens
        self.cost = replace(type(self).cost, memory=LIBRARIES + bytes_of(model))
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

        from curate.models.batches import DTYPES

        hush: Any = logging.disable_progress_bar  # it would draw across the build's own
        hush()
        torch.set_num_threads(1)
        where = str(Path(self.model).expanduser()) if self._local else self.model
        try:
            self._processor, self._decode = _processor(where)
            auto: Any = AutoModelForImageTextToText
            model = auto.from_pretrained(where, use_safetensors=True, dtype=DTYPES[self.on.dtype])
        except (OSError, ValueError, KeyError) as exc:
            raise CurateError(
                f"the captioner {self.model} cannot be loaded: {' '.join(str(exc).split())[:300]}",
                "name a local folder or a hub id of a transformers image-to-text model with safetensors weights",
            ) from exc
        with fitting(f"the captioner {self.model}", self.on):
            self._model = model.to(self.on.device).eval()
        self._passes = Passes(self.model, self.on)

    def check_files(self) -> str | None:
        return check_source(self.model)

    def version(self) -> str:
        return f"transformers-{package_version('transformers')}+{weights_of(self.model)}"

    def __call__(self, frame: NDArray[Any], prompt: str = PROMPT) -> str:
        return raised(self.answers([(frame, prompt)])[0])

    def batch(self, frames: Sequence[NDArray[Any]]) -> Sequence[str | Exception]:
        """The caption of each image, or why it has none."""
        return self.answers([(frame, PROMPT) for frame in frames])

    def answers(self, asked: Sequence[tuple[NDArray[Any], str]]) -> list[str | Exception]:
        """What the model says of each image, asked the prompt beside it; an exception of one that it fails on."""
        return self._passes(asked, self._answered, None)

    def _answered(self, asked: Sequence[tuple[NDArray[Any], str]]) -> list[str | Exception]:
        """The answers to one batch."""
        import torch
        from PIL import Image
        from transformers import LogitsProcessorList

        from curate.models.batches import DTYPES

        images = [Image.fromarray(np.ascontiguousarray(frame)) for frame, _ in asked]
        inputs = {k: v.to(self.on.device) for k, v in self._inputs(images, [prompt for _, prompt in asked]).items()}
        dtype, watch = DTYPES[self.on.dtype], _Watch()
        inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        with torch.inference_mode():
            ids = self._model.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                max_new_tokens=self._most,
                logits_processor=LogitsProcessorList([watch]),
            )
        given = inputs.get("input_ids")
        if given is not None and ids[:, : given.shape[1]].tolist() == given.tolist():
            ids = ids[:, given.shape[1] :]  # a decoder-only model repeats the question
        said = [str(self._decode(row, skip_special_tokens=True)).strip() for row in ids]
        return [NotFiniteError(self.on.dtype) if bad else text for text, bad in zip(said, watch.bad(), strict=True)]

    def _inputs(self, images: Sequence[Any], prompts: Sequence[str]) -> dict[str, Any]:
        """The model's inputs for images: tensors by name."""
        if not getattr(self._processor, "chat_template", None):
            return dict(self._processor(images=list(images), return_tensors="pt"))
        asked = []
        for prompt in prompts:
            question = [{"type": "image"}, {"type": "text", "text": prompt}]
            asked.append(
                self._processor.apply_chat_template([{"role": "user", "content": question}], add_generation_prompt=True)
            )
        several = {"padding": True, "padding_side": "left"} if len(asked) > 1 else {}
        return dict(self._processor(images=list(images), text=asked, return_tensors="pt", **several))


class _Watch:
    """Sees a model's scores of each next word, changes none, and remembers where one was NaN: the likeliest of what is
    no number is some word."""

    def __init__(self) -> None:
        self._bad: Any = False

    def __call__(self, ids: Any, scores: Any) -> Any:
        self._bad = scores.isnan().any(dim=-1) | self._bad
        return scores

    def bad(self) -> list[bool]:
        """For each row of the batch whether one of its scores was NaN."""
        return [bool(one) for one in self._bad]


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

"""How surprised a language model is by a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curate.models.named import LIBRARIES, bytes_of, check_source, weights_of
from curate.models.package_files import package_version
from curate.models.passes import NotFiniteError, Passes, fitting
from curate.models.torch_threads import one_torch_thread
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError, first_line
from curate.schema.fields import Resources
from curate.signals import base
from curate.signals.base import Batch, Float, Result, map_networks
from curate.signals.texts import TextOptions, TextSignal

PAD = -100
"""Id of a place behind the end of a text."""

STEP = 32
"""Texts whose lengths differ by less may share a batch."""

MOST = math.log(np.finfo(np.float32).max)
"""Of a mean loss; what is above has a perplexity that its field cannot hold."""


class PerplexityOptions(TextOptions):
    """Options of `caption_perplexity`.

    Attributes:
        model: local folder or hub id of a causal language model of transformers, with safetensors weights.
        max_tokens: a longer text is cut to that many tokens, or to as many as the model was made for.
    """

    model: str = ""
    max_tokens: int = Field(512, ge=2)


class CaptionPerplexity(TextSignal):
    """exp(-1/N sum_i ln p(x_i | x_<i)) of the N tokens of a text, by a causal language model.

    A caption that spells a special token has the tokens of its letters (law 11). Before the first token stands the
    model's begin mark, or its end mark where it has no other; with neither, the first is not counted.

    Raises (constructor):
        CurateError: no model is named.
    """

    name = "caption_perplexity"
    gives = (
        Float(
            "caption_perplexity",
            "perplexity",
            1,
            None,
            about="Perplexity by the language model of the recipe; null where there is no text.",
        ),
    )
    cost = Resources(
        cpus=1, gpus=0.25, memory=LIBRARIES, batch=16, dtypes=("float32", "bfloat16", "float16"), model=True
    )
    Options = PerplexityOptions
    options: PerplexityOptions

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        if not self.options.model:
            raise CurateError(
                "caption_perplexity needs a language model, and none ships with curate",
                "model: a local folder or a hub id of a causal model, e.g. HuggingFaceTB/SmolLM2-135M",
            )
        self.cost = replace(self.cost, memory=LIBRARIES + bytes_of(self.options.model))

    def load(self) -> None:
        """Raises CurateError where the model cannot be had, or is none."""
        ensure_torchvision()
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        from curate.models.batches import DTYPES

        hush: Any = logging.disable_progress_bar  # it would draw across the build's own
        hush()
        one_torch_thread()
        model = self.options.model
        folder = Path(model).expanduser()
        where = str(folder) if folder.is_dir() else model
        causal: Any = AutoModelForCausalLM
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(where)
            net = causal.from_pretrained(where, use_safetensors=True, dtype=DTYPES[self.on.dtype])
        except (OSError, ValueError, KeyError) as exc:
            raise CurateError(
                f"the language model {model} cannot be loaded: {first_line(exc)}",
                "name a local folder or a hub id of a causal model of transformers with safetensors weights",
            ) from exc
        with fitting(f"the language model {model}", self.on):
            self._net: Any = net.eval().requires_grad_(False).to(self.on.device)
        self._passes = Passes(self.name, self.on, snug=True)
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        self._begin = [begin] if begin is not None else [end] if end is not None else []
        self._most = min(self.options.max_tokens, getattr(net.config, "max_position_embeddings", 1 << 30))

    def check_files(self) -> str | None:
        return check_source(self.options.model)

    def version(self) -> str:
        return f"1+transformers-{package_version('transformers')}+{weights_of(self.options.model)}"

    def __call__(self, batch: Batch) -> list[Result]:
        name = self.gives[0].name

        def inputs(i: int) -> Sequence[NDArray[np.int64]]:
            return self._tokens(self.text_of(batch, i))

        def one(i: int, found: list[float]) -> dict[str, Any]:
            return {name: math.exp(found[0]) if found else None}

        return map_networks(f"annotate:{self.name}", batch, self._passes, self._losses, inputs, one)

    def _tokens(self, text: str) -> list[NDArray[np.int64]]:
        """Ids of a text, int64 `(n,)`; nothing where there are not two. For batches they are filled up with `PAD`."""
        said = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"] if text else []
        ids = [*self._begin, *said][: self._most]
        if not said or len(ids) < 2:
            return []
        room = 0 if self._passes.size == 1 else min(-len(ids) % STEP, self._most - len(ids))
        return [np.array(ids + [PAD] * room, np.int64)]

    def _losses(self, texts: Sequence[NDArray[np.int64]]) -> list[float | Exception]:
        """-1/N sum_i ln p(x_i | x_<i) of each text; an exception of one that is not finite."""
        import torch

        ids = torch.from_numpy(np.stack(texts)).to(self.on.device)
        there = ids != PAD
        with torch.inference_mode():
            logits = self._net(input_ids=ids * there, attention_mask=there.long()).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits.mT, ids[:, 1:], ignore_index=PAD, reduction="none")
        means = (losses.double().sum(1) / there[:, 1:].sum(1)).tolist()
        return [mean if mean < MOST else NotFiniteError(self.on.dtype) for mean in means]

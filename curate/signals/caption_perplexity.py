"""How surprised a language model is by a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from curate.models.named import weights_of
from curate.models.package_files import package_version
from curate.models.passes import NotFiniteError, Passes, fitting, raised
from curate.models.torch_threads import one_torch_thread
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError, first_line
from curate.schema.fields import Resources
from curate.signals import base
from curate.signals.base import Batch, Float, Result, map_networks
from curate.signals.texts import TextOptions, TextSignal


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
    cost = Resources(cpus=1, gpus=0.25, batch=16, dtypes=("float32", "bfloat16"), model=True)
    Options = PerplexityOptions
    options: PerplexityOptions

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        if not self.options.model:
            raise CurateError(
                "caption_perplexity needs a language model, and none ships with curate",
                "model: a local folder or a hub id of a causal model, e.g. HuggingFaceTB/SmolLM2-135M",
            )

    def load(self) -> None:
        """Raises CurateError where the model cannot be had, or is none."""
        ensure_torchvision()
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        hush: Any = logging.disable_progress_bar  # it would draw across the build's own
        hush()
        one_torch_thread()
        model = self.options.model
        folder = Path(model).expanduser()
        where = str(folder) if folder.is_dir() else model
        causal: Any = AutoModelForCausalLM
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(where)
            net = causal.from_pretrained(where, use_safetensors=True, dtype=getattr(torch, self.on.dtype))
        except (OSError, ValueError, KeyError) as exc:
            raise CurateError(
                f"the language model {model} cannot be loaded: {first_line(exc)}",
                "name a local folder or a hub id of a causal model of transformers with safetensors weights",
            ) from exc
        with fitting(f"the language model {model}", self.on):
            self._net: Any = net.eval().requires_grad_(False).to(self.on.device)
        self._passes = Passes(self.name, self.on)
        begin, end = self._tokenizer.bos_token_id, self._tokenizer.eos_token_id
        self._begin = [begin] if begin is not None else [end] if end is not None else []
        self._most = min(self.options.max_tokens, getattr(net.config, "max_position_embeddings", 1 << 30))

    def version(self) -> str:
        return f"1+transformers-{package_version('transformers')}+{weights_of(self.options.model)}"

    def of_text(self, text: str, batch: Batch, i: int) -> tuple[float | None]:
        return (raised(self._perplexities([text])[0]),)

    def __call__(self, batch: Batch) -> list[Result]:
        """In batches of `on.batch` on a GPU, one by one on a CPU."""

        def texts(i: int) -> list[str]:
            text = self.text_of(batch, i)
            return [text] if text else []

        def one(i: int, found: list[float | None]) -> dict[str, Any]:
            return {self.gives[0].name: found[0] if found else None}

        return map_networks(f"annotate:{self.name}", batch, self._passes, self._perplexities, texts, one, kind=None)

    def _perplexities(self, texts: Sequence[str]) -> list[float | Exception | None]:
        """Of texts in one pass, padded on the right, where no token that counts sees it."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        ids = [torch.tensor(self._ids(text)) for text in texts]
        given = pad_sequence(ids, batch_first=True)
        seen = pad_sequence([torch.ones_like(one) for one in ids], batch_first=True)
        device = self.on.device
        with torch.inference_mode():
            logits = self._net(input_ids=given.to(device), attention_mask=seen.to(device)).logits[:, :-1].float()
            losses = torch.nn.functional.cross_entropy(logits.mT, given[:, 1:].to(device), reduction="none").cpu()
        found: list[float | Exception | None] = []
        for row, one in zip(losses.double(), ids, strict=True):
            mean = float(row[: len(one) - 1].mean()) if len(one) > 1 else None
            known = mean is None or math.isfinite(mean)
            found.append((None if mean is None else math.exp(mean)) if known else NotFiniteError(self.on.dtype))
        return found

    def _ids(self, text: str) -> list[int]:
        said = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [*self._begin, *said][: self._most]

"""CLIP score and CLIP image embedding through open_clip, with any model and weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curate.media.requests import Frames
from curate.models.clip_weights import check_weights, fetch_weights, look_for_weights, weights_name
from curate.models.hub import check_hub
from curate.models.named import LIBRARIES, bytes_of
from curate.models.onnx_tower import on_cpu
from curate.models.package_files import package_file, package_version
from curate.models.passes import Passes, finite_rows, fitting, raised
from curate.models.torchvision_shim import ensure_torchvision
from curate.models.vectors import unit_vector
from curate.schema.errors import CurateError
from curate.schema.fields import Resources, SignalField
from curate.schema.nearest import meant
from curate.signals import base
from curate.signals.base import VISUAL, Batch, Float, Result, Signal, Vector, map_networks

_SCORE = Float(
    "clip_score",
    "cosine",
    -1,
    1,
    kinds=VISUAL,
    about="Cosine of the CLIP embeddings of the image and the given text; null where the source gave no text.",
)
_PRECISION = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
"""What open_clip calls the numbers of weights; its norms stay in fp32."""


class ClipOptions(base.Options):
    """Options of `clip`.

    Attributes:
        model: an architecture of open_clip, e.g. `ViT-B-32`, `ViT-L-14`, `ViT-B-16-SigLIP`.
        pretrained: a tag of open_clip (`laion2b_s34b_b79k`), `hf-hub:ORG/NAME`, or a local .safetensors file or a
            folder with one. Pickled weights (.bin, .pt, .pth) are refused.
    """

    model: str = "ViT-B-32"
    pretrained: str = Field("laion2b_s34b_b79k", min_length=1)


class Clip(Signal):
    """CLIP (Radford et al., ICML 2021) by open_clip: cosine of image and text, and the image's embedding.

    Of a video, the mean of its frames' unit embeddings, brought to unit length. Pre-processing is the weights' own
    mean and deviation, on the centre square at the model's input size; weights trained on squashed images (SigLIP)
    see the centre square too. On a CPU frames and texts go one by one (in float32 ONNX Runtime runs the image tower),
    so a result does not depend on neighbours to the last bit; on a GPU in padded batches, in which a place may change
    last bits.

    Raises (constructor):
        CurateError: unknown model or tag (with the nearest), or local weights that are missing or pickled.
    """

    name = "clip"
    gives: tuple[SignalField, ...] = (_SCORE,)
    cost = Resources(cpus=1, gpus=0.25, memory=2 << 30, batch=32, dtypes=("float32", "bfloat16", "float16"), model=True)
    Options = ClipOptions
    options: ClipOptions

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        use = self.options
        config = _config(use.model)
        check_weights(use.model, use.pretrained)
        # weights are read beside the model, and exported to the session that a CPU runs
        self.cost = replace(self.cost, memory=max(self.cost.memory, LIBRARIES + 2 * bytes_of(use.pretrained)))
        self.embed_dim = int(config["embed_dim"])
        self._view = Frames(size=_image_size(use.model, config), fps=1, max_frames=8)
        self.needs = (self._view,)
        self.gives = (
            _SCORE,
            Vector(
                "clip_image",
                self.embed_dim,
                kinds=VISUAL,
                about=f"CLIP embedding of the image at unit length ({use.model}, {use.pretrained}), mean over frames.",
            ),
        )

    def load(self) -> None:
        """Build the model and load its weights; tags and hub ids are downloaded to the hub's own cache.

        Raises:
            CurateError: the weights cannot be had, do not fit the model, or not the device.
        """
        self._open()
        import torch

        visual, shape = self._model.visual, (1, 3, 1, 1)
        self._mean, self._std = (
            torch.tensor(visual.preprocess_cfg[name], device=self._device).view(shape) for name in ("mean", "std")
        )
        self._encode_image = self._model.encode_image
        if (self.on.device, self.on.dtype) == ("cpu", "float32"):
            shape = (1, 3, self._view.size, self._view.size)
            self._encode_image = on_cpu(f"open_clip-{self.options.model}-image", visual, shape)
            del self._model.visual  # its weights are in the session

    def load_texts(self) -> None:
        """Load what embeds texts and nothing else; raises as `load`."""
        self._open()
        del self._model.visual

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """Embedding of one text at unit length `(d,)`, on the scale of `clip_image`; after `load` or `load_texts`."""
        [found] = self._passes([self._tokenize([text])[0].numpy()], self._texts)
        return _unit(raised(found))

    def _open(self) -> None:
        """The model and its text tokenizer; raises as `load`."""
        weights = fetch_weights(self.options.model, self.options.pretrained)
        ensure_torchvision()
        import open_clip
        import torch

        device = self.on.device
        torch.set_num_threads(int(self.cost.cpus))
        try:
            with fitting(f"{self.options.model} ({self.options.pretrained})", self.on):
                model = open_clip.create_model(
                    self.options.model,
                    pretrained=str(weights.path),
                    precision=_PRECISION[self.on.dtype],
                    device=device,
                    force_preprocess_cfg=weights.preprocess,
                    force_quick_gelu=weights.quick_gelu,
                )
        except (RuntimeError, ValueError, KeyError, OSError) as exc:
            reason = " ".join(str(exc).split())[:300]
            raise CurateError(
                f"the weights {self.options.pretrained} do not load into {self.options.model}: {reason}",
                "state the model that they were trained as",
            ) from exc
        try:
            self._tokenize = open_clip.get_tokenizer(self.options.model)
        except OSError as exc:
            raise CurateError(
                f"the text tokenizer of {self.options.model} cannot be had: {' '.join(str(exc).split())[:300]}",
                "connect to the Hugging Face hub, or fill its cache (HF_HOME) beforehand",
            ) from exc
        self._model = model.eval()
        self._device = torch.device(device)
        self._passes = Passes(self.name, self.on)

    def check_files(self) -> str | None:
        use = self.options
        words = _config(use.model)["text_cfg"].get("hf_tokenizer_name")
        told = [
            look_for_weights(use.model, use.pretrained),
            check_hub(words, ["tokenizer*", "*.model", "vocab*"]) if words else None,
        ]
        return "; ".join(one for one in told if one) or None

    def version(self) -> str:
        source = weights_name(self.options.pretrained)
        return f"2+open_clip-{package_version('open_clip_torch')}+{self.options.model}+{source}"

    def __call__(self, batch: Batch) -> list[Result]:
        views = batch.views[self._view]
        shape = (self._view.size, self._view.size, 3)
        given = [i for i, text in enumerate(batch.text) if views[i] is not None and text is not None and text.strip()]
        tokens = [self._tokenize([batch.text[i]])[0].numpy() for i in given]
        texts = dict(zip(given, self._passes(tokens, self._texts), strict=True))

        def frames(i: int) -> Sequence[NDArray[Any]]:
            view = views[i]
            if view is not None and getattr(view, "shape", ())[1:] != shape:
                raise ValueError(f"frames that are not (N, {shape[0]}, {shape[1]}, 3)")
            return () if view is None else list(cast(NDArray[Any], view))

        def one(i: int, vectors: list[Any]) -> dict[str, Any]:
            if not vectors:
                return {"clip_score": None, "clip_image": None}
            image = _unit(np.stack([_unit(v) for v in vectors]).mean(axis=0, dtype=np.float64))
            score = None
            if i in texts:
                score = float(np.clip((image * _unit(raised(texts[i]))).sum(dtype=np.float64), -1, 1))
            return {"clip_score": score, "clip_image": image}

        return map_networks("annotate:clip", batch, self._passes, self._images, frames, one)

    def _images(self, frames: Sequence[NDArray[Any]]) -> Sequence[NDArray[np.float32] | Exception]:
        """Embeddings of frames, as the model gives them."""
        import torch

        from curate.models.batches import DTYPES, exact

        with exact(self._device):
            x = torch.from_numpy(np.stack(frames)).to(self._device).permute(0, 3, 1, 2).float() / 255
            x = ((x - self._mean) / self._std).contiguous().to(DTYPES[self.on.dtype])
            return finite_rows(self._encode_image(x).float().cpu().numpy(), self.on.dtype)

    def _texts(self, tokens: Sequence[NDArray[Any]]) -> Sequence[NDArray[np.float32] | Exception]:
        """Embeddings of texts, as the model gives them, of their tokens."""
        import torch

        from curate.models.batches import exact

        with exact(self._device):
            said = self._model.encode_text(torch.from_numpy(np.stack(tokens)).to(self._device))
            return finite_rows(said.float().cpu().numpy(), self.on.dtype)


def _unit(vector: NDArray[Any]) -> NDArray[np.float32]:
    found = unit_vector(vector)
    if found is None:
        raise ValueError("the model gave an embedding without a direction (zero or not finite)")
    return found


@cache
def _config(model: str) -> dict[str, Any]:
    """open_clip's configuration of a model, read from its file: importing open_clip takes seconds.

    Raises:
        CurateError: there is no such model; with the nearest name.
    """
    folder = package_file("open_clip", "model_configs", "open_clip_torch")
    names = sorted(path.stem for path in folder.glob("*.json"))
    if model not in names:
        raise CurateError(
            f"open_clip has no model `{model}`{meant(model, names)}",
            "all names: python -c 'import open_clip; print(open_clip.list_models())'",
        )
    config: dict[str, Any] = json.loads((folder / f"{model}.json").read_text("utf-8"))
    return config


def _image_size(model: str, config: dict[str, Any]) -> int:
    size = config["vision_cfg"].get("image_size", 224)
    if not isinstance(size, int):
        raise CurateError(f"{model} wants images of {size}, not squares; choose a model with a square input")
    return size

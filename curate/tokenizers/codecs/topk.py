"""Two streams of one codebook: the k nearest codes of each position, and how probable each is (Ovis).

Lu et al. 2024 (arXiv 2405.20797, section 3.1) make a visual token a mixture of embeddings. A trainer reads the ids
`(h, w, k)` of one stream and the float16 probabilities `(h, w, k)` of the other, which have the same keys and order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.codecs.quantised_features import QuantisedFeatures
from curate.tokenizers.folders import WEIGHTS, header, read_folder, words_of, write_folder
from curate.tokenizers.grid import probes
from curate.tokenizers.quantisers.difference import stack_difference


class _TopK:
    """What both streams share: the folder, whose weights say codebook, encoder, k and temperature."""

    def __init__(self, card: CodecCard, features: QuantisedFeatures, k: int, temperature: float) -> None:
        self.card, self.features, self.k, self.temperature = card, features, k, temperature

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", dtype: str = "float32", batch: int | None = None) -> Any:
        """Reads `card.json` and `weights.safetensors`; CurateError where they or the encoder are not the card's."""
        card, raw = read_folder(folder)
        try:
            said = words_of(raw)["topk"]
            own = CodecCard.model_validate(said["card"])
            features = QuantisedFeatures.of_bytes(own, raw, device, dtype, batch)
            return cls(card, features, int(said["k"]), float(said["temperature"]))
        except (KeyError, TypeError, ValueError) as error:
            raise CurateError(f"the weights of {folder.name} are not of top-k codes: {error}") from error

    def _both(self, items: Sequence[Any]) -> list[tuple[NDArray[Any], NDArray[np.float16]]]:
        return self.features.encode_topk(items, self.k, self.temperature)


class TopKIds(_TopK):
    """Images to ids `(h, w, k)`, the nearest code first (a `Tokenizer`); `decode` gives the first one's features."""

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Images or stacks, uint8 of the encoder's size, to ids of the card's dtype; a stack puts N before."""
        return [ids.astype(self.card.numpy_dtype) for ids, _ in self._both(items)]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids to float32 features `(h, w, d)` of the nearest code; what the others add is the trainer's to mix."""
        return self.features.decode([one[..., 0] for one in ids])


class TopKOdds(_TopK):
    """Images to float16 probabilities `(h, w, k)` of the codes that `TopKIds` gives (a `Tokenizer`)."""

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Images or stacks, uint8 of the encoder's size; probabilities fall along k and sum to 1 or less."""
        return [odds for _, odds in self._both(items)]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Probabilities as float32, exactly."""
        return [one.astype(np.float32) for one in ids]


def write_topk(folder: Path, k: int, temperature: float = 1.0) -> tuple[Path, Path]:
    """Beside a folder of dense quantised features, `NAME-topK` with the ids and `NAME-topK-odds` with probabilities.

    Args:
        k: codes a position, 1 to the size of the codebook.
        temperature: of softmax(-squared distance / temperature) over all codes, > 0.

    Raises:
        CurateError: the features are not dense, or k or temperature cannot be.
    """
    features = QuantisedFeatures.load(folder)
    card = features.card
    if len(card.grid or ()) != 2:
        raise CurateError(f"{card.name} has no map of positions", "top-k codes are of dense features: kind=dense")
    if not 1 <= k <= card.vocabulary or not temperature > 0:
        raise CurateError(
            f"k is {k} and temperature {temperature:g}", f"give k from 1 to {card.vocabulary} and temperature above 0"
        )
    old = (folder / WEIGHTS).read_bytes()
    said = {"k": k, "temperature": temperature, "card": card.model_dump(mode="json")}
    raw = save(load_tensors(old), metadata=header(words_of(old) | {"topk": said}))
    ids, odds = (folder.with_name(f"{folder.name}-top{k}{end}") for end in ("", "-odds"))
    each = f"; last axis: the {k} nearest codes, nearest first"
    common = {"version": 1, "weights_digest": digest(raw), "quality": []}
    of_ids = {
        "name": ids.name,
        "architecture": "features-topk",
        "stream": f"{card.stream}-top{k}",
        "grid": (*(card.grid or ()), k),
        "index_order": card.index_order + each,
    }
    of_odds = {
        "name": odds.name,
        "architecture": "features-topk-odds",
        "stream": f"{card.stream}-top{k}-odds",
        "quantiser": "none",
        "levels": [],
        "vocabulary": 0,
        "dtype": "float16",
        "features": k,
        "index_order": "cells in row-major order" + each,
    }
    images = np.concatenate(probes(4, card.input_size or 0))
    for out, cls, own in ((ids, TopKIds, of_ids), (odds, TopKOdds, of_odds)):
        made = cls(CodecCard.model_validate(card.model_dump() | common | own), features, k, temperature)
        measured = {"batch_invariance": stack_difference(made, images)}
        write_folder(out, made.card.model_copy(update=measured), {WEIGHTS: raw})
    return ids, odds

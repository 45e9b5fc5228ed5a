"""The card of a tokenizer of one's own, from what only its author knows."""

from __future__ import annotations

from typing import Any

from curate.schema.codec import CodecCard, Modality, smallest_unsigned
from curate.schema.ids import key_of
from curate.tokenizers.folders import code_version

INPUTS = {
    "image": "uint8 (N, size, size, 3) sRGB",
    "video": "uint8 (N, size, size, 3) sRGB, frames at the card's rate",
    "audio": "float32 mono in [-1, 1] at the card's sample rate",
    "text": "str",
}
"""What `encode` takes, by modality, where the author says nothing else. Of arrays there is no such word."""


def custom_card(
    name: str,
    *,
    vocabulary: int,
    made_of: Any,
    modality: Modality = "array",
    input: str = "",
    size: int | None = None,
    **more: Any,
) -> CodecCard:
    """The card of a tokenizer of your own; see `examples/plugins/tokenizer.py` and, for arrays,
    `examples/raster_tokenizer.py`.

    Args:
        name: of the tokenizer, and of its stream (`tok_NAME`, of images and video `tok_NAME@SIZE`) unless `stream` says
            another.
        vocabulary: ids are 0 <= id < vocabulary; they are stored in the smallest unsigned type that holds it.
        made_of: whatever decides the ids, as JSON can hold it; its digest tells builds of other ids apart (law 2).
        modality: what it takes.
        input: of arrays: dtype and shape that `encode` takes, in words, and what its values mean.
        size: height and width in pixels that images and frames must have.
        more: other fields of `CodecCard`, in place of the ones given here: `grid` (shape of an item's ids, or of each
            channel's where ids have one more axis before it), `sample_rate`, `temporal_stride`, `quantiser` and
            `levels` (one codebook), `index_order`, `licence`, `trained_on`, `batch_invariance` once it is measured.

    Raises:
        pydantic.ValidationError: a field that a card does not have, or that does not fit.
    """
    fields: dict[str, Any] = {
        "name": name,
        "modality": modality,
        "stream": f"tok_{name}@{size}" if size else f"tok_{name}",
        "quantiser": "vq",
        "levels": [vocabulary],
        "index_order": "as its code says; cells in row-major order",
        "vocabulary": vocabulary,
        "dtype": smallest_unsigned(vocabulary),
        "input": input or INPUTS.get(modality, ""),
        "input_size": size,
        "chunking": "an item at a time",
        "padding": "none",
        "valid_length": "all ids are valid",
        "weights_digest": key_of(made_of),
        "code_version": code_version("numpy"),
        "trained_on": "nothing",
        "licence": "that of its code",
    }
    return CodecCard.model_validate(fields | more)

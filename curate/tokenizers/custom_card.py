"""The card of a tokenizer of one's own, from the three things that only its author knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.schema.codec import CodecCard, smallest_unsigned
from curate.schema.ids import key_of
from curate.tokenizers.folders import code_version


def array_card(name: str, *, input: str, vocabulary: int, grid: Sequence[int], made_of: Any, **more: Any) -> CodecCard:
    """The card of a tokenizer of arrays; see `examples/raster_tokenizer.py`.

    Args:
        name: of the tokenizer, and of its stream (`tok_NAME`) unless `stream` says another.
        input: dtype and shape that `encode` takes, in words, and what its values mean.
        vocabulary: ids are 0 <= id < vocabulary; they are stored in the smallest unsigned type that holds it.
        grid: shape of an item's ids, or of each channel's where ids have one more axis before it.
        made_of: whatever decides the ids, as JSON can hold it; its digest tells builds of other ids apart (law 2).
        more: other fields of `CodecCard`, in place of the ones given here: `quantiser` and `levels` (one codebook),
            `index_order`, `licence`, `trained_on`, `batch_invariance` once it is measured.

    Raises:
        pydantic.ValidationError: a field that a card does not have, or that does not fit.
    """
    fields: dict[str, Any] = {
        "name": name,
        "modality": "array",
        "stream": f"tok_{name}",
        "quantiser": "vq",
        "levels": [vocabulary],
        "index_order": "as its code says; cells in row-major order",
        "vocabulary": vocabulary,
        "dtype": smallest_unsigned(vocabulary),
        "grid": tuple(grid),
        "input": input,
        "chunking": "an item at a time",
        "padding": "none",
        "valid_length": "all ids are valid",
        "weights_digest": key_of(made_of),
        "code_version": code_version("numpy"),
        "trained_on": "nothing",
        "licence": "that of its code",
    }
    return CodecCard.model_validate(fields | more)

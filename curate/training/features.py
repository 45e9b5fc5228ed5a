"""Fits the codebooks of quantised features (`curate.tokenizers.codecs.quantised_features`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from curate.models.encoders import encoder_of
from curate.schema.codec import CodecCard, Quality, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.codecs.features import encoder_fields
from curate.tokenizers.codecs.quantised_features import QuantisedFeatures, unit
from curate.tokenizers.folders import WEIGHTS, header, write_folder
from curate.tokenizers.measures.usage import CodebookUsage
from curate.tokenizers.quantisers.difference import stack_difference
from curate.tokenizers.quantisers.pq import fit_product


def train_features(
    encoder: Mapping[str, Any],
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    folder: Path,
    stream: str,
    codes: int,
    groups: int = 1,
    seed: int = 0,
    trained_on: str = "",
    held_out_name: str = "",
) -> CodecCard:
    """Fits codebooks on features of `images`, measures them on `held_out`, and writes a tokenizer's folder.

    Args:
        encoder: what `encoder_of` takes.
        images, held_out: uint8 `(N, size, size, 3)`; no image is to be in both.
        stream: e.g. `tok_dinov2@224`.
        codes: size of each codebook. groups: 1 for dense features; 4M-21 has 16 for a global one.
        trained_on, held_out_name: what the images are, for the card.

    Raises:
        CurateError: no held-out images, too few features for the codes, or more than one group for dense ones.
    """
    if not len(held_out):
        raise CurateError("no images are kept out", "quality is only worth something on images not trained on")
    net = encoder_of(encoder)
    dense = len(net.grid) == 2
    if dense and groups != 1:
        raise CurateError(f"{groups} groups for dense features", "dense features take one id a position: groups 1")
    features = unit(net(images)).reshape(-1, net.width)
    codebooks = fit_product(features, groups, codes, seed)
    if groups == 1:
        # Codes of full length are chosen by angle alone; means of many directions are short, and would take too much.
        codebooks = unit(codebooks)
    words = {"encoder": dict(encoder), "encoder_digest": net.digest}
    raw = save({"codebooks": codebooks}, metadata=header(words))
    each = "cells in row-major order" if dense else "group 0 holds the feature's first values"
    own = {
        "name": folder.name,
        "architecture": "features",
        "stream": stream,
        "quantiser": "vq" if groups == 1 else "pq",
        "levels": [codes] * groups,
        "index_order": f"id = index of the nearest code by squared distance, ties to the lowest; {each}",
        "vocabulary": codes,
        "dtype": smallest_unsigned(codes),
        "grid": net.grid if dense else (groups,),
        "weights_digest": digest(raw),
        "parameters": net.parameters + codebooks.size,
        "trained_on": f"codebooks: {trained_on or f'{len(images)} images'}; encoder: see {net.name}",
        "licence": "that of the encoder, as its publisher states",
    }
    card = CodecCard.model_validate(encoder_fields(net, "is brought to unit length") | own)
    tokenizer = QuantisedFeatures(card, net, codebooks)
    ids = tokenizer.encode(list(held_out))
    usage = CodebookUsage(codes)
    usage.add(np.stack(ids))
    truth, back = unit(net(held_out)), np.stack(tokenizer.decode(ids))
    quality = Quality(
        media=f"not trained on: {held_out_name or f'{len(held_out)} images'}",
        items=len(held_out),
        cosine=round(float((truth * unit(back)).sum(-1).mean()), 4),
        ids_per_item=ids[0].size,
        codebook_usage=usage.share,
    )
    sixteen = np.stack([held_out[i % len(held_out)] for i in range(16)])
    differing = stack_difference(tokenizer, sixteen)
    card = CodecCard.model_validate(card.model_dump() | {"quality": [quality], "batch_invariance": differing})
    write_folder(folder, card, {WEIGHTS: raw})
    return card

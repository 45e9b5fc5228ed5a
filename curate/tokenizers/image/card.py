"""Makes a trained image tokenizer into a folder of the zoo: weights, card with measured figures, picture strip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from curate.schema.codec import CodecCard, Quality, smallest_unsigned
from curate.schema.ids import digest
from curate.tokenizers.image.evaluate import evaluate_images, square
from curate.tokenizers.image.fsq import PATCH, ImageFSQ, net_from_bytes, words_of


def write_image_card(
    weights: Path,
    folder: Path,
    held_out: Sequence[Path],
    more_quality: Sequence[Quality] = (),
    size: int = 256,
) -> CodecCard:
    """Writes `weights.safetensors`, `card.json` and `strip.png` to `folder`, whose name becomes the tokenizer's.

    Args:
        weights: what `train_image` returned.
        folder: the tokenizer's folder; made when missing.
        held_out: pictures that were not trained on; quality, batch invariance and the strip come from them.
        more_quality: other measurements to put beside it.
        size: side of the pictures that `encode` will want.
    """
    raw = weights.read_bytes()
    net, words = net_from_bytes(raw), words_of(raw)
    levels = list(net.shape.levels)
    card = CodecCard(
        name=folder.name,
        architecture="image-fsq",
        modality="image",
        stream=f"tok_rgb@{size}",
        quantiser="fsq",
        levels=levels,
        index_order=(
            "little-endian mixed radix: id = sum of digit_i times the product of the levels before i; "
            "channel 0 is the least significant digit; cells in row-major order"
        ),
        vocabulary=int(np.prod(levels)),
        dtype=smallest_unsigned(int(np.prod(levels))),
        grid=(size // PATCH, size // PATCH),
        input_size=size,
        input=(
            f"uint8 sRGB (N, {size}, {size}, 3), nothing else. To get there: short side to {size} with an antialiased "
            f"or area filter, centre crop to {size}x{size}; alpha on an opaque ground"
        ),
        weights_digest=digest(raw),
        parameters=sum(p.numel() for p in net.parameters()),
        trained_on=words["trained_on"],
        licence=words["licence"],
    )
    tokenizer = ImageFSQ(card, net)
    quality = [evaluate_images(tokenizer, held_out), *more_quality]
    differing = batch_difference(tokenizer, held_out)
    card = CodecCard.model_validate(card.model_dump() | {"quality": quality, "batch_invariance": differing})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights.safetensors").write_bytes(raw)
    (folder / "card.json").write_text(card.model_dump_json(indent=2) + "\n")
    write_strip(ImageFSQ(card, net), held_out[:4], folder / "strip.png")
    return card


def batch_difference(tokenizer: ImageFSQ, paths: Sequence[Path]) -> float:
    """The share of ids that differ when 16 pictures are encoded one by one and all at once."""
    size = tokenizer.picture[0]
    pictures = np.stack([square(paths[i % len(paths)], size) for i in range(16)])
    together = np.stack(tokenizer.encode(list(pictures)))
    alone = np.stack([tokenizer.encode([picture])[0] for picture in pictures])
    return float(np.mean(together != alone))


def write_strip(tokenizer: ImageFSQ, paths: Sequence[Path], out: Path) -> None:
    """Originals above, what came back below."""
    pictures = [square(p, tokenizer.picture[0]) for p in paths]
    decoded = tokenizer.decode(tokenizer.encode(pictures))
    rows = [np.concatenate(row, axis=1) for row in (pictures, decoded)]
    Image.fromarray(np.concatenate(rows)).save(out, optimize=True)

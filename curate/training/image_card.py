"""Makes a trained image tokenizer into a folder of the zoo: weights, card with measured figures, picture strip."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from curate.schema.codec import CodecCard, Preprocessing, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.codecs.image_fsq import ImageFSQ, ImageFSQNet
from curate.tokenizers.folders import WEIGHTS, code_version, words_of, write_folder
from curate.tokenizers.inputs import PICTURES
from curate.tokenizers.measures.image import evaluate_clips, evaluate_images, square
from curate.tokenizers.quantisers import difference

_MEASURED_WITH = ("torch", "vector-quantize-pytorch", "pillow", "scikit-image")


def write_image_card(
    weights: Path,
    folder: Path,
    held_out: Sequence[Path],
    clips: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]] = (),
    size: int = 256,
) -> CodecCard:
    """Writes `weights.safetensors`, `card.json` and `strip.png` to `folder`, whose name becomes the tokenizer's.

    Args:
        weights: what `train_image` returned.
        folder: the tokenizer's folder; made when missing.
        held_out: pictures that were not trained on; quality, batch invariance and the strip come from them.
        clips: what clips are, in words, and the clips, uint8 `(T, size, size, 3)`; not trained on. One measurement
            each, frame by frame.
        size: side of the pictures that `encode` will want.

    Raises:
        CurateError: `size` is not a multiple of the side of the patch that an id covers.
    """
    raw = weights.read_bytes()
    net = ImageFSQ.net_from_bytes(raw)
    card = _unmeasured(net, raw, folder.name, size)
    tokenizer = ImageFSQ(card, net)
    quality = [evaluate_images(tokenizer, held_out)]
    quality += [evaluate_clips(tokenizer, some, media) for media, some in clips]
    measured = {
        "quality": quality,
        "batch_invariance": batch_difference(tokenizer, held_out),
        "bf16_difference": bf16_difference(tokenizer, held_out),
    }
    card = CodecCard.model_validate(card.model_dump() | measured)
    write_folder(folder, card, {WEIGHTS: raw})
    write_strip(ImageFSQ(card, net), held_out[:4], folder / "strip.png")
    return card


def _unmeasured(net: ImageFSQNet, raw: bytes, name: str, size: int) -> CodecCard:
    words, levels, patch = words_of(raw), list(net.shape.levels), net.shape.patch
    if size <= 0 or size % patch:
        raise CurateError(f"{name} takes pictures whose side is a multiple of {patch}, not {size}")
    vocabulary = int(np.prod(levels))
    return CodecCard(
        name=name,
        architecture="image-fsq",
        modality="image",
        stream=f"tok_rgb@{size}",
        quantiser="fsq",
        levels=levels,
        index_order=(
            "little-endian mixed radix: id = sum of digit_i times the product of the levels before i; "
            "channel 0 is the least significant digit; cells in row-major order"
        ),
        vocabulary=vocabulary,
        dtype=smallest_unsigned(vocabulary),
        grid=(size // patch, size // patch),
        input_size=size,
        channels=3,
        input=f"uint8 sRGB ({size}, {size}, 3) or (N, {size}, {size}, 3), nothing else{PICTURES}",
        preprocessing=Preprocessing(
            resize="short_side", resample="lanczos", crop="centre", mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]
        ),
        chunking="none: a picture is encoded whole, the frames of a video one by one",
        padding="none",
        valid_length="the whole grid",
        weights_digest=digest(raw),
        code_version=code_version(*_MEASURED_WITH),
        parameters=sum(p.numel() for p in net.parameters()),
        trained_on=words["trained_on"],
        licence=words["licence"],
    )


def batch_difference(tokenizer: ImageFSQ, paths: Sequence[Path]) -> float:
    """The share of ids that differ when 16 pictures are encoded one by one and all at once."""
    size = tokenizer.item_shape[0]
    pictures = np.stack([square(paths[i % len(paths)], size) for i in range(16)])
    together = np.stack(tokenizer.encode(list(pictures)))
    alone = np.stack([tokenizer.encode([picture])[0] for picture in pictures])
    return difference.difference_rate(together, alone)


def bf16_difference(tokenizer: ImageFSQ, paths: Sequence[Path]) -> float:
    """The share of ids that differ when the encoder computes in bfloat16; the quantiser is fp32 in both (law 8)."""
    size = tokenizer.item_shape[0]
    batches = (
        torch.from_numpy(np.array(square(path, size))[None]).permute(0, 3, 1, 2).to(tokenizer.device).float() / 127.5
        - 1
        for path in paths
    )
    return round(difference.bf16_difference(tokenizer.net.latent, tokenizer.net.quantise, batches), 5)


def write_strip(tokenizer: ImageFSQ, paths: Sequence[Path], out: Path) -> None:
    """Originals above, what came back below."""
    pictures = [square(p, tokenizer.item_shape[0]) for p in paths]
    decoded = tokenizer.decode(tokenizer.encode(pictures))
    rows = [np.concatenate(row, axis=1) for row in (pictures, decoded)]
    Image.fromarray(np.concatenate(rows)).save(out, optimize=True)

"""Makes a trained video tokenizer into a folder of the zoo: weights, and a card with measured figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import CodecCard, Preprocessing, Quality, smallest_unsigned
from curate.schema.errors import CurateError, MediaError
from curate.schema.ids import digest
from curate.tokenizers.codecs.image_fsq import PATCH
from curate.tokenizers.codecs.video_fsq import VideoFSQ
from curate.tokenizers.codecs.video_fsq_net import GROUP
from curate.tokenizers.folders import WEIGHTS, code_version, words_of, write_folder
from curate.tokenizers.inputs import PICTURES
from curate.tokenizers.measures.image import clip_of, evaluate_clips
from curate.tokenizers.quantisers.difference import difference_rate, rounded_difference

Clip = NDArray[np.uint8]


def read_clip(path: Path, frames: int, size: int = 256, stride: int = 1) -> Clip:
    """The beginning of a video, uint8 `(frames, size, size, 3)`: every `stride`-th frame, as the pipeline reads it.

    Raises:
        CurateError: it cannot be decoded or is too short.
    """
    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
        if not rate:
            raise CurateError(f"{path.name} states no frame rate")
        clip = clip_of(path, size, float(rate) / stride, frames)
    except (OSError, IndexError, MediaError, av.FFmpegError) as error:
        raise CurateError(f"{path.name} cannot be decoded: {error}") from error
    if len(clip) < frames:
        raise CurateError(f"{path.name} gives {len(clip)} frames, too few for {frames} at stride {stride}")
    return clip


def write_video_card(weights: Path, folder: Path, held_out: Sequence[tuple[str, Sequence[Clip]]]) -> CodecCard:
    """Writes `weights.safetensors` and `card.json` to `folder`, whose name becomes the tokenizer's.

    Args:
        weights: what `train_video` returned.
        folder: the tokenizer's folder; made when missing.
        held_out: what clips are, in words, and the clips, uint8 `(1 + 4k, size, size, 3)`, k at least 1, all of one
            size; not trained on. One measurement each.
    """
    raw = weights.read_bytes()
    net, words = VideoFSQ.net_from_bytes(raw), words_of(raw)
    every = [clip for _, clips in held_out for clip in clips]
    if not every:
        raise CurateError("a card needs figures, and they need clips that were not trained on")
    levels, size = list(net.shape.image.levels), every[0].shape[1]
    vocabulary = int(np.prod(levels))
    card = CodecCard(
        name=folder.name,
        architecture="video-fsq",
        modality="video",
        stream=f"tok_video@{size}",
        quantiser="fsq",
        levels=levels,
        index_order=(
            "little-endian mixed radix: id = sum of digit_i times the product of the levels before i; channel 0 is "
            "the least significant digit; steps in time order, the cells of each in row-major order"
        ),
        vocabulary=vocabulary,
        dtype=smallest_unsigned(vocabulary),
        grid=(size // PATCH, size // PATCH),
        temporal_stride=GROUP,
        input_size=size,
        channels=3,
        input=(
            f"uint8 sRGB (1 + 4k, {size}, {size}, 3) or a picture ({size}, {size}, 3), nothing else{PICTURES}. "
            "Trained on every 1st, 2nd and 3rd frame of videos of 24 to 30 frames a second"
        ),
        preprocessing=Preprocessing(
            resize="short_side", resample="lanczos", crop="centre", mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]
        ),
        chunking=(
            "none: a clip is encoded whole, step by step, in memory that does not grow with it; ids of step j depend "
            "on frames 0 to 4j, so a cut in the middle of a clip begins a new clip with other ids"
        ),
        padding="none: 1 + 4k frames, anything else is refused",
        valid_length="1 + 4 (steps - 1) frames",
        weights_digest=digest(raw),
        code_version=code_version("torch", "vector-quantize-pytorch"),
        parameters=sum(p.numel() for p in net.parameters()),
        trained_on=words["trained_on"],
        licence=words["licence"],
    )
    tokenizer = VideoFSQ(card, net)
    quality: list[Quality] = [evaluate_clips(tokenizer, clips, media) for media, clips in held_out]
    measured = {
        "quality": quality,
        "batch_invariance": batch_difference(tokenizer, every),
        "bf16_difference": rounded_difference(tokenizer.ids_of, every),
    }
    card = CodecCard.model_validate(card.model_dump() | measured)
    write_folder(folder, card, {WEIGHTS: raw})
    return card


def batch_difference(tokenizer: VideoFSQ, clips: Sequence[Clip]) -> float:
    """The share of ids that differ when 16 clips of 5 frames are encoded one by one and all at once."""
    short = [clips[i % len(clips)][:: 1 if i % 2 else -1][:5] for i in range(16)]
    together, alone = tokenizer.encode(short), [tokenizer.encode([clip])[0] for clip in short]
    return difference_rate(np.stack(together), np.stack(alone))


def held_out_clips(paths: Sequence[Path], frames: int = 17, size: int = 256) -> list[tuple[str, list[Clip]]]:
    """The first `frames` of each video as a measurement of its own, for `write_video_card`.

    Raises:
        CurateError: a video cannot be decoded or is too short.
    """
    return [(f"{path.name}, frames 0 to {frames - 1}", [read_clip(path, frames, size)]) for path in paths]

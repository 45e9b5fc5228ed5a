"""What of a sample a tokenizer is given, as its card says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.requests import Array, Audio, DecodeRequest, Frames
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.manifest import Clock

CLIP_FPS = 8.0
"""Frames per second of a clip where neither recipe nor card says (VideoPoet, Kondratyuk et al. 2023, uses 8)."""

PICTURES, CLIP_FRAMES = 8, 17


def clock_of(card: CodecCard, fps: float | None, pad: bool) -> Clock | None:
    """How steps of a stream of video stand in time; None for other streams."""
    if card.temporal_stride is None:
        return None
    return Clock(fps=fps or card.fps or CLIP_FPS, stride=card.temporal_stride, pad=pad)


def view_of(
    card: CodecCard, fps: float | None = None, max_frames: int | None = None, pad: bool = False, crops: int = 1
) -> DecodeRequest | None:
    """The view of the media that a tokenizer reads; None where it reads text alone.

    Args:
        fps, max_frames, pad: as in the recipe's stream.
        crops: as in the recipe; of streams of pictures. Words of the whole picture go with any crop, of the centre
            square (the card's `preprocessing` tells) with that one alone.

    Raises:
        CurateError: the card does not say what size or rate it needs, `max_frames` is not 1 + stride * k of video, or
            words of the centre square stand beside several crops.
    """
    if card.modality == "array":
        return Array()
    if card.modality == "audio":
        if card.sample_rate is None:
            raise CurateError(f"the codec card of {card.name} names no sample rate")
        return Audio(card.sample_rate)
    if card.modality not in ("image", "video") and "frames" not in card.needs:
        return None
    if card.input_size is None:
        raise CurateError(f"the codec card of {card.name} names no input size")
    if (clock := clock_of(card, fps, pad)) is not None:
        if max_frames and (over := (max_frames - 1) % clock.stride):
            raise CurateError(
                f"{card.name} takes clips of 1 + {clock.stride} k frames, and max_frames is {max_frames}",
                f"set max_frames to {max_frames - over} or {max_frames - over + clock.stride}",
            )
        return Frames(card.input_size, clock.fps, max_frames or CLIP_FRAMES, stride=clock.stride, pad=pad)
    whole = card.preprocessing is not None and card.preprocessing.resize == "long_side"
    if crops > 1 and card.modality != "image" and not whole:
        raise CurateError(
            f"{card.name} writes what lies in the centre square of a picture, and crops is {crops}: beside the ids of "
            "other crops its words would be of another place",
            "set crops to 1, or give this stream a recipe of its own",
        )
    several = crops if card.modality == "image" else 1
    return Frames(card.input_size, fps or 1.0, max_frames or PICTURES, crop=not whole, crops=several)


def items_of(
    card: CodecCard,
    arrays: Sequence[NDArray[np.generic] | None],
    texts: Sequence[str | None],
    sizes: Sequence[tuple[int | None, int | None]],
) -> list[Any]:
    """What `encode` takes, one a sample; None where the sample has no such modality.

    Args:
        arrays: the view of `view_of`, None where a sample has none.
        texts: captions.
        sizes: width and height of the original, pixels.
    """
    if card.needs:
        given = (
            zip(arrays, texts, sizes, strict=True) if arrays else zip([None] * len(texts), texts, sizes, strict=True)
        )
        return [_several(card, array, text, size) for array, text, size in given]
    if card.modality == "text":
        return list(texts)
    if card.modality == "audio":
        return [None if a is None or a.size == 0 else a.astype(np.float32) / np.float32(32768) for a in arrays]
    return list(arrays)


def _several(
    card: CodecCard, array: NDArray[np.generic] | None, text: str | None, size: tuple[int | None, int | None]
) -> dict[str, Any] | None:
    every: dict[str, Any] = {"frames": array, "text": text, "size": None if None in size else list(size)}
    item: dict[str, Any] = {name: every[name] for name in card.needs}
    return None if "frames" in item and array is None else item

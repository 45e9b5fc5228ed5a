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

IMAGE_FRAMES, CLIP_FRAMES = 8, 17


def clock_of(card: CodecCard, fps: float | None, pad: bool) -> Clock | None:
    """How steps of a stream of video stand in time; None for other streams."""
    if card.temporal_stride is None:
        return None
    return Clock(fps=fps or card.fps or CLIP_FPS, stride=card.temporal_stride, pad=pad)


def field_of(card: CodecCard) -> str | None:
    """The field of a signal whose values a tokenizer is given: a label or the caption; None where it is given media."""
    if card.needs:
        return card.needs[0]
    return "caption" if card.modality == "text" else None


def view_of(
    card: CodecCard, fps: float | None = None, max_frames: int | None = None, pad: bool = False, crops: int = 1
) -> DecodeRequest | None:
    """The view of the media that a tokenizer reads; None where it reads what a signal gives (`field_of`).

    Args:
        fps, max_frames, pad: as in the recipe's stream.
        crops: as in the recipe; of streams of images.

    Raises:
        CurateError: the card does not say what size or rate it needs, or `max_frames` is not 1 + stride * k of video.
    """
    if field_of(card) is not None:
        return None
    if card.modality == "array":
        return Array()
    if card.modality == "audio":
        if card.sample_rate is None:
            raise CurateError(f"the codec card of {card.name} names no sample rate")
        return Audio(card.sample_rate)
    if (clock := clock_of(card, fps, pad)) is not None:
        if max_frames and (over := (max_frames - 1) % clock.stride):
            raise CurateError(
                f"{card.name} takes clips of 1 + {clock.stride} k frames, and max_frames is {max_frames}",
                f"set max_frames to {max_frames - over} or {max_frames - over + clock.stride}",
            )
        return Frames(_size(card), clock.fps, max_frames or CLIP_FRAMES, stride=clock.stride, pad=pad)
    return frames_of(card, fps, max_frames, crops)


def frames_of(card: CodecCard, fps: float | None = None, max_frames: int | None = None, crops: int = 1) -> Frames:
    """The frames that a stream of images or of labels is of; a signal that gives its labels looks at these.

    Args:
        fps, max_frames: as in the recipe's stream.
        crops: as in the recipe. Words of the whole image go with any crop, of the centre square (the card's
            `preprocessing` tells) with that one alone.

    Raises:
        CurateError: the card does not say what size it needs, or words of the centre square stand beside several crops.
    """
    whole = card.preprocessing is not None and card.preprocessing.resize == "long_side"
    if crops > 1 and card.modality != "image" and not whole:
        raise CurateError(
            f"{card.name} writes what lies in the centre square of a picture, and crops is {crops}: beside the ids of "
            "other crops its words would be of another place",
            "set crops to 1, or give this stream a recipe of its own",
        )
    several = crops if card.modality == "image" else 1
    return Frames(_size(card), fps or 1.0, max_frames or IMAGE_FRAMES, crop=not whole, crops=several)


def _size(card: CodecCard) -> int:
    if card.input_size is None:
        raise CurateError(f"the codec card of {card.name} names no input size")
    return card.input_size


def items_of(card: CodecCard, arrays: Sequence[NDArray[np.generic] | None], values: Sequence[Any] = ()) -> list[Any]:
    """What `encode` takes, one a sample; None where the sample has no such modality.

    Args:
        arrays: the view of `view_of`, None where a sample has none.
        values: of the field of `field_of`, where the tokenizer reads one.
    """
    if field_of(card) is not None:
        return list(values)
    if card.modality == "audio":
        return [None if a is None or a.size == 0 else a.astype(np.float32) / np.float32(32768) for a in arrays]
    return list(arrays)

"""Labels of which a part is tokenized by a tokenizer of its own before it becomes words: masks, and poses of bodies."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.fourm import poses, sam
from curate.tokenizers.fourm.values import BINS
from curate.tokenizers.fourm.values import CODES as VOCABULARY
from curate.tokenizers.fourm.words import split
from curate.tokenizers.labels.base import Bodies, Body, Instances, Label

MASK_SIDE = 64
POSE_VALUES = 207
PARTS = {
    "Instances": ((4, 4), 1, f"masks, float32 ({MASK_SIDE}, {MASK_SIDE}, 1) of 0 and 1"),
    "Bodies": ((poses.CODES,), POSE_VALUES, f"poses, float32 ({POSE_VALUES},): 23 rotation matrices by rows"),
}
"""By kind of label: grid and channels of the tokenizer of its parts, and what it takes."""


def check_part(kind: str, card: CodecCard) -> None:
    """CurateError for a tokenizer that does not make the codes that 4M's words have room for."""
    grid, channels, what = PARTS[kind]
    fits = card.modality == "array" and card.grid == grid and card.channels == channels
    if not fits or card.vocabulary > VOCABULARY:
        raise CurateError(
            f"{card.name} cannot tokenize {what}: it is of {card.modality}s of {card.channels} channels, with a grid "
            f"{card.grid} of {card.vocabulary} codes",
            f"give one with a grid {grid} and at most {VOCABULARY} codes",
        )


@dataclass(frozen=True)
class InstanceWords:
    """The stream `sam_instance` (`fourm.sam`): each mask cut to its box, brought to 64 x 64, and tokenized.

    Back, a mask is what its codes say inside a box of whole pixels, in a picture of `side` pixels.
    """

    masks: Tokenizer
    side: int

    def write(self, label: Label) -> str:
        if not isinstance(label, Instances):
            raise ValueError(f"expected Instances, got {type(label).__name__}")
        points = [
            sam.Point(x, y, tuple(self._instance(mask) for mask in found))
            for (x, y), found in zip(label.points, label.masks, strict=True)
        ]
        return " ".join(sam.write(points))

    def read(self, words: str) -> Instances:
        points = sam.parse(split(words))
        masks = tuple(tuple(self._mask(instance) for instance in point.instances) for point in points)
        return Instances(tuple((point.x, point.y) for point in points), masks)

    def _instance(self, mask: NDArray[np.bool_]) -> sam.Instance:
        x0, y0, x1, y1 = box_of(mask)
        (codes,) = self.masks.encode([cut(mask, (x0, y0, x1, y1))])
        return sam.Instance(x0, y0, x1, y1, tuple(int(c) for c in codes.reshape(-1)))

    def _mask(self, instance: sam.Instance) -> NDArray[np.bool_]:
        x0, y0, x1, y1 = (int(v) for v in instance.bounds)
        (small,) = self.masks.decode([_ids(instance.codes, self.masks.card).reshape(4, 4)])
        whole = np.zeros((max(self.side, y1 + 1), max(self.side, x1 + 1)), np.bool_)
        whole[y0 : y1 + 1, x0 : x1 + 1] = _resized(small[..., 0], x1 + 1 - x0, y1 + 1 - y0)
        return whole


def _ids(codes: tuple[int, ...], card: CodecCard) -> NDArray[np.generic]:
    """Codes of words as the tokenizer's ids; ValueError for one that is another tokenizer's."""
    if max(codes) >= card.vocabulary:
        raise ValueError(f"code {max(codes)} is not of {card.name}, which has {card.vocabulary}")
    return np.array(codes, card.numpy_dtype)


def box_of(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is inside, in whole pixels, the last included.

    Raises:
        ValueError: it is no bool `(H, W)`, nothing is inside, or a side is longer than the words reach.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2 or not mask.any() or max(mask.shape) > BINS:
        raise ValueError(f"expected a mask, bool (H, W) of at most {BINS} pixels a side, not empty; got {mask.shape}")
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def cut(mask: NDArray[np.bool_], box: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """The box of a mask as float32 `(64, 64, 1)` of 0 and 1."""
    x0, y0, x1, y1 = box
    inside = mask[y0 : y1 + 1, x0 : x1 + 1].astype(np.float32)
    return _resized(inside, MASK_SIDE, MASK_SIDE).astype(np.float32)[..., None]


def _resized(mask: NDArray[np.float32], width: int, height: int) -> NDArray[np.bool_]:
    """A mask at another size: what is covered by half or more."""
    smaller = width * height < mask.size
    out = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.asarray(out >= 0.5, np.bool_)


@dataclass(frozen=True)
class BodyWords:
    """The stream `human_poses` (`fourm.poses`): the pose as 8 codes, the rest as bins."""

    codes: Tokenizer

    def write(self, label: Label) -> str:
        if not isinstance(label, Bodies):
            raise ValueError(f"expected Bodies, got {type(label).__name__}")
        return " ".join(poses.write([self._person(body) for body in label.people]))

    def read(self, words: str) -> Bodies:
        return Bodies(tuple(self._body(person) for person in poses.parse(split(words))))

    def _person(self, body: Body) -> poses.Person:
        if body.pose.shape != (23, 3, 3) or body.orientation.shape != (3, 3):
            raise ValueError(
                f"expected rotations (23, 3, 3) and (3, 3), got {body.pose.shape}, {body.orientation.shape}"
            )
        (ids,) = self.codes.encode([np.ascontiguousarray(body.pose, np.float32).reshape(-1)])
        orientation, betas, camera = (
            tuple(float(v) for v in x.reshape(-1)) for x in (body.orientation, body.betas, body.camera)
        )
        return poses.Person(body.bounds, tuple(int(i) for i in ids), orientation, betas, camera)

    def _body(self, person: poses.Person) -> Body:
        (pose,) = self.codes.decode([_ids(person.pose, self.codes.card)])
        orientation, betas, camera = (
            np.array(x, np.float32) for x in (person.orientation, person.betas, person.camera)
        )
        return Body(person.bounds, pose.reshape(23, 3, 3), orientation.reshape(3, 3), betas, camera)

"""The stream `human_poses`: people as SMPL bodies (Loper et al. 2015), as HMR 2.0 (Goel et al. 2023) gives them.

For each person `human`, four words of the box as in `det`, and four sections, each after its keyword: `pose`, 8 codes
of the body pose; `global`, 9 values of the rotation matrix of the whole body; `shape`, 10 betas; `camera`, 3 values.
39 words in all. No person: `none`. A value x becomes `v0=round(scale x + shift)`, half to even.

As in ml-4m, but for two faults of it. Values outside their range are clipped in every section (there only the
camera's are: a beta above 3 gives `v0=1166`, which is no word). A flipped crop mirrors the person (there only the
box's cut is followed). ml-4m shuffles the sections at training; the writer takes an order, the parser reads any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from curate.exports.fourm.crops import Bounds, bounds_in_crop
from curate.exports.fourm.det import bounds_words, check_bounds, read_bounds
from curate.exports.fourm.values import Reader, bin_word, code_word, to_bin

WORDS = 39
"""Words of one person."""


@dataclass(frozen=True)
class Section:
    """Values of a section: how many, the range that they are clipped to, and the bin of a value: scale x + shift."""

    count: int
    low: float
    high: float
    scale: float
    shift: float

    @property
    def precision(self) -> float:
        """Largest error of a value in range."""
        return 0.5 / self.scale


VALUES = {
    "global": Section(9, -1, 1, 499.5, 499.5),
    "shape": Section(10, -3, 3, 166.5, 499.5),
    "camera": Section(3, -1, 19, 49.95, 49.95),
}
CODES = 8
SECTIONS = ("pose", "global", "shape", "camera")

_MIRROR = np.diag([-1.0, 1.0, 1.0])
# left and right joint of each pair among SMPL's 24; the body pose begins at joint 1
_PAIRS = ((1, 2), (4, 5), (7, 8), (10, 11), (13, 14), (16, 17), (18, 19), (20, 21), (22, 23))


@dataclass(frozen=True)
class Person:
    """A body.

    Attributes:
        bounds: x0, y0, x1, y1 in [0, 1] of the image or crop.
        pose: 8 ids 0 .. 1023 of the body pose's tokenizer.
        orientation: rotation of the whole body, a matrix by rows: 9 values in [-1, 1].
        betas: 10 shape values; those beyond -3 and 3 are clipped when written.
        camera: scale and shift (s, tx, ty) of the weak-perspective camera in the frame of the person's box; values
            beyond -1 and 19 are clipped when written.

    Raises:
        ValueError: a count is wrong, or the box or a code is out of range.
    """

    bounds: Bounds
    pose: tuple[int, ...]
    orientation: tuple[float, ...]
    betas: tuple[float, ...]
    camera: tuple[float, ...]

    def __post_init__(self) -> None:
        check_bounds(self.bounds)
        for name, values, count in (
            ("pose", self.pose, CODES),
            ("orientation", self.orientation, VALUES["global"].count),
            ("betas", self.betas, VALUES["shape"].count),
            ("camera", self.camera, VALUES["camera"].count),
        ):
            if len(values) != count:
                raise ValueError(f"{name} has {len(values)} values, not {count}")


def write(people: Sequence[Person], order: Sequence[str] = SECTIONS) -> list[str]:
    """The words of people, 39 for each, or `none`.

    Args:
        order: of the sections.

    Raises:
        ValueError: a value is not finite or a code is out of range, or `order` is not of the four sections.
    """
    if sorted(order) != sorted(SECTIONS):
        raise ValueError(f"the order {list(order)} is not of {', '.join(SECTIONS)}")
    words: list[str] = []
    for person in people:
        words += ["human", *bounds_words(person.bounds)]
        for section in order:
            words += [section, *_section_words(section, person)]
    return words or ["none"]


def parse(words: Sequence[str]) -> list[Person]:
    """The people, each value within its `Section.precision`; ValueError for words that `write` cannot have made."""
    if list(words) == ["none"]:
        return []
    if not words:
        raise ValueError("there are no words; no people are written as 'none'")
    read = Reader(words)
    people = []
    while not read.done:
        read.keyword("human")
        bounds = read_bounds(read)
        pose: tuple[int, ...] = ()
        values: dict[str, tuple[float, ...]] = {}
        for _ in SECTIONS:
            section = read.word("a section")
            if section == "pose" and not pose:
                pose = tuple(read.code() for _ in range(CODES))
            elif section in VALUES and section not in values:
                kind = VALUES[section]
                values[section] = tuple((read.bin(0) - kind.shift) / kind.scale for _ in range(kind.count))
            else:
                raise ValueError(f"{section!r} is not a section of a person, or is there twice")
        people.append(Person(bounds, pose, values["global"], values["shape"], values["camera"]))
    return people


def crop(
    people: Sequence[Person],
    width: int,
    height: int,
    row: Sequence[int],
    mirrored: Sequence[Sequence[int]] | None = None,
) -> list[Person]:
    """People of an image of `width` x `height` pixels in the frame of a crop; those with no area left are not there.

    Where the crop is flipped the orientation becomes M R M with M = diag(-1, 1, 1), and the camera's tx changes sign.
    Betas stay: bodies of SMPL are near enough the same on both sides. What the codes mean only their tokenizer knows.

    Args:
        row: of `crops.crop_settings`.
        mirrored: for a flipped crop, the pose codes of `mirror_body` for each person.

    Raises:
        ValueError: the crop is flipped and `mirrored` is not given, or not for each.
    """
    flip = bool(row[4])
    if flip and (mirrored is None or len(mirrored) != len(people)):
        raise ValueError("a flipped crop needs the codes of each mirrored pose: codes cannot be mirrored themselves")
    found = []
    for i, person in enumerate(people):
        bounds = bounds_in_crop(person.bounds, width, height, row)
        if bounds is None:
            continue
        kept = replace(person, bounds=bounds)
        found.append(_mirrored(kept, mirrored[i]) if flip and mirrored is not None else kept)
    return found


def mirror_body(body: NDArray[np.floating]) -> NDArray[np.float64]:
    """The body pose seen in a mirror: left and right joints change places, each rotation R becomes M R M.

    Args:
        body: rotation matrices `(23, 3, 3)` of SMPL's joints 1 to 23, as before the tokenizer.
    """
    if body.shape != (23, 3, 3):
        raise ValueError(f"a body pose is (23, 3, 3), not {body.shape}")
    order = np.arange(23)
    for left, right in _PAIRS:
        order[[left - 1, right - 1]] = right - 1, left - 1
    return np.asarray(_MIRROR @ body[order].astype(np.float64) @ _MIRROR)


def _mirrored(person: Person, pose: Sequence[int]) -> Person:
    turned = _MIRROR @ np.array(person.orientation, np.float64).reshape(3, 3) @ _MIRROR
    scale, tx, ty = person.camera
    return replace(person, pose=tuple(pose), orientation=tuple(turned.ravel().tolist()), camera=(scale, -tx, ty))


def _section_words(section: str, person: Person) -> list[str]:
    if section == "pose":
        return [code_word(code) for code in person.pose]
    kind = VALUES[section]
    values = {"global": person.orientation, "shape": person.betas, "camera": person.camera}[section]
    return [bin_word(0, to_bin(min(max(x, kind.low), kind.high), kind.scale, kind.shift)) for x in values]

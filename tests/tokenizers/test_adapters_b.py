"""Published picture tokenizers: LlamaGen, taming VQGAN, IBQ, Open-MAGVIT2, TiTok and 4M's VQ.

No published weights are needed. Golden ids and pictures were made once by the publishers' own modules (LlamaGen
@ce98ec4, SEED-Voken @b9a17ea, 1d-tokenizer @942a96f, ml-4m @cda590f), built small, with the weights of `formula` under
their own names: so names, order of layers, normalisation and the rule for an id are the publishers'.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from curate.exports.fourm.labels import check_part
from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.ddim import Diffusion
from curate.tokenizers.codecs.fourm_vq import FourMVQ
from curate.tokenizers.codecs.llamagen import LlamaGenVQ
from curate.tokenizers.codecs.open_magvit2 import IBQ, OpenMagvit2
from curate.tokenizers.codecs.taming import TamingVQGAN
from curate.tokenizers.codecs.titok import TiTok
from curate.tokenizers.image_grids import PictureTokenizer
from curate.tokenizers.quantisers.lfq import lfq_codes, lfq_ids


def formula(name: str, shape: torch.Size) -> torch.Tensor:
    """Weights from the tensor's name alone, scaled so that signals neither vanish nor explode."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape)).astype(np.float32)
    if len(shape) > 1:
        x /= max(1, np.prod(shape[1:])) ** 0.5 if "embed" not in name else 1
    else:
        x = x * 0.1 + (1 if name.endswith("weight") else 0)
    return torch.from_numpy(x)


def picture(size: int = 64) -> NDArray[np.uint8]:
    """Two gradients and, in colour, a checkerboard of 8 pixels."""
    y, x = np.mgrid[:size, :size]
    board = 40 * ((x // 8 + y // 8) % 2)
    return np.stack([(x * (3 + c) + y * (5 - c) + board * c) % 256 for c in range(3)], -1).astype(np.uint8)


VQGAN = {"width": 32, "multipliers": (1, 1, 2, 2, 4), "blocks": 2, "latent": 64, "codes": 512}
PIXELS = {"width": 32, "multipliers": (1, 1, 2, 2, 4), "blocks": 2, "latent": 256, "codes": 1024}
TITOK = {"side": 4, "patch": 16, "tokens": 8, "codes": 256, "code_width": 12} | {
    f"{part}_{key}": value for part in ("encoder", "decoder") for key, value in (("width", 512), ("blocks", 2))
}
VIT = {"width": 128, "blocks": 2, "tanh": True}
FOURM = {"patch": 16, "codes": 256, "code_width": 32, "unit": True}
UNET = {"width": 32, "levels": [32, 64, 64, 64], "blocks": 1, "attends": [False, False, True, True]} | {
    "patch": 4,
    "channels": 3,
    "code_width": 32,
}


@dataclass(frozen=True)
class Case:
    adapter: type[PictureTokenizer]
    shape: dict[str, Any]
    grid: tuple[int, ...]
    dtype: str
    golden: list[int]
    config: dict[str, Any] | None = None

    def state(self) -> dict[str, torch.Tensor]:
        held = self.adapter.net_of(self.shape).state_dict()
        return {name: formula(name, value.shape) for name, value in held.items()}


CASES = {
    "llamagen": Case(
        LlamaGenVQ,
        VQGAN | {"code_width": 8},
        (4, 4),
        "uint16",
        [414, 276, 292, 357, 434, 147, 112, 244, 431, 112, 288, 79, 325, 472, 307, 152],
    ),
    "taming": Case(
        TamingVQGAN,
        VQGAN | {"code_width": 32},
        (4, 4),
        "uint16",
        [126, 321, 459, 10, 128, 20, 10, 459, 10, 10, 492, 20, 10, 128, 444, 20],
    ),
    "ibq": Case(
        IBQ,
        VQGAN | {"code_width": 32},
        (4, 4),
        "uint16",
        [355, 321, 271, 428, 56, 46, 428, 66, 321, 56, 83, 152, 92, 56, 21, 499],
    ),
    "open-magvit2": Case(
        OpenMagvit2,
        {"width": 32, "multipliers": (1, 1, 2, 2, 4), "blocks": 2, "bits": 18},
        (4, 4),
        "uint32",
        [
            *(8946, 13462, 212574, 168422, 176662, 155199, 89336, 147888),
            *(171202, 88118, 247920, 179377, 224999, 219578, 138438, 212759),
        ],
    ),
    "titok-legacy": Case(
        TiTok,
        TITOK | {"unit": True, "pixels": PIXELS},
        (8,),
        "uint8",
        [38, 233, 214, 212, 116, 171, 128, 149],
        {"model": {"vq_model": {"use_l2_norm": True}}},
    ),
    "titok": Case(
        TiTok,
        TITOK | {"unit": False, "pixels": None},
        (8,),
        "uint8",
        [63, 163, 86, 200, 213, 58, 17, 171],
        {"model": {"vq_model": {"use_l2_norm": False, "quantize_mode": "vq"}}},
    ),
    "4m-divae": Case(
        FourMVQ,
        FOURM
        | {"domain": "rgb", "channels": 3, "labels": 0, "out": 0, "decoder": None, "encoder": VIT | {"side": 8}}
        | {"unet": UNET, "diffusion": {}},
        (4, 4),
        "uint8",
        [196, 74, 74, 84, 74, 186, 155, 140, 222, 185, 196, 74, 251, 97, 74, 186],
    ),
    "4m-vqvae": Case(
        FourMVQ,
        FOURM
        | {"domain": "rgb", "channels": 3, "labels": 0, "out": 3}
        | {"encoder": VIT | {"side": 4}, "decoder": VIT | {"side": 4}},
        (4, 4),
        "uint8",
        [97, 74, 186, 84, 74, 186, 155, 140, 222, 185, 196, 74, 251, 97, 74, 186],
    ),
}


PIXELS_OF: dict[str, list[list[int]]] = {
    "llamagen": [[112, 222, 149], [0, 144, 32], [135, 173, 78], [157, 116, 135]],
    "taming": [[107, 208, 96], [14, 0, 196], [51, 179, 183], [54, 60, 115]],
    "ibq": [[8, 137, 101], [71, 5, 108], [116, 192, 50], [162, 255, 158]],
    "open-magvit2": [[118, 144, 154], [116, 246, 206], [0, 181, 255], [47, 152, 145]],
    "titok-legacy": [[137, 106, 25], [61, 0, 0], [255, 0, 72], [20, 107, 0]],
    "titok": [[184, 0, 0], [255, 0, 0], [43, 153, 0], [0, 0, 0]],
    "4m-divae": [[58, 60, 0], [101, 151, 87], [0, 151, 202], [128, 163, 188]],
    "4m-vqvae": [[0, 255, 59], [196, 222, 79], [0, 0, 72], [79, 0, 228]],
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=CASES)
def imported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Any]:
    """A tokenizer that was published as safetensors, imported, and loaded from its folder of the zoo."""
    case, root = CASES[request.param], tmp_path_factory.mktemp(request.param)
    publish(root / "hub", case.state(), case.config)
    case.adapter.import_checkpoint(str(root / "hub"), root / "zoo", size=64)
    return case, case.adapter.load(root / "zoo")


def publish(folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, str(folder / "model.safetensors"))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))


def test_ids_are_those_of_the_publishers_modules(imported: tuple[Case, Any]) -> None:
    case, tokenizer = imported
    ids = tokenizer.encode([picture()])[0]
    assert isinstance(tokenizer, Tokenizer)
    assert ids.dtype == case.dtype
    assert ids.shape == case.grid == tokenizer.card.grid
    assert ids.ravel().tolist() == case.golden
    assert ids.max() < tokenizer.card.vocabulary


def test_ids_do_not_depend_on_neighbours(imported: tuple[Case, Any]) -> None:
    _, tokenizer = imported
    pictures = [picture(), 255 - picture(), np.zeros((64, 64, 3), np.uint8)]
    alone = [tokenizer.encode([one])[0] for one in pictures]
    for together in (tokenizer.encode(pictures), list(tokenizer.encode([np.stack(pictures)])[0])):
        np.testing.assert_array_equal(together, alone)
    assert tokenizer.card.batch_invariance == 0


def test_ids_give_pictures_and_pictures_give_the_same_ids_each_time(imported: tuple[Case, Any]) -> None:
    _, tokenizer = imported
    ids = tokenizer.encode([picture()])
    first, again = tokenizer.decode(ids)[0], tokenizer.decode([np.stack([ids[0]] * 2)])[0][1]
    assert (first.shape, first.dtype) == ((64, 64, 3), np.uint8)
    np.testing.assert_array_equal(first, again)
    second = tokenizer.encode([first])
    others = tokenizer.encode([255 - picture(), first, picture()])
    np.testing.assert_array_equal(others[1], second[0])


@pytest.mark.parametrize("name", PIXELS_OF)
def test_pixels_are_those_that_these_weights_gave(name: str, tmp_path: Path) -> None:
    """Four pixels of a decoded picture, from the first run of these seeded weights: a decoder cannot change unseen."""
    case = CASES[name]
    publish(tmp_path / "hub", case.state(), case.config)
    case.adapter.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo", size=64)
    ids = np.array(case.golden, case.dtype).reshape(case.grid)
    [first, other] = case.adapter.load(tmp_path / "zoo").decode([ids, np.roll(ids, 1)])
    np.testing.assert_allclose(first[[5, 20, 40, 60], [7, 33, 50, 12]].astype(int), PIXELS_OF[name], atol=2)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("llamagen", "encoder.conv_in.weight"),
        ("taming", "quantize.embedding.weight"),
        ("ibq", "encoder.conv_out.weight"),
        ("open-magvit2", "encoder.conv_out.weight"),
        ("titok", "encoder.positional_embedding"),
        ("titok-legacy", "pixel_quantize.embedding.weight"),
        ("4m-vqvae", "encoder.pos_emb"),
        ("4m-divae", "decoder.time_embed.0.weight"),
    ],
)
def test_a_tensor_of_other_dimensions_is_told_by_key_and_shape(name: str, key: str, tmp_path: Path) -> None:
    case = CASES[name]
    state = case.state()
    assert key in state
    publish(tmp_path / "hub", state | {key: torch.zeros(3)}, case.config)
    with pytest.raises(CurateError, match=rf"{re.escape(key)} has shape \[3\], not"):
        case.adapter.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo", size=64)


def test_what_is_no_item_is_refused(imported: tuple[Case, Any]) -> None:
    _, tokenizer = imported
    for wrong in (picture(32), picture().astype(np.float32), picture()[..., 0], [[1]]):
        with pytest.raises(ValueError, match="expects uint8"):
            tokenizer.encode([wrong])
    with pytest.raises(ValueError, match="0 <= id <"):
        tokenizer.decode([np.full(tokenizer.grid, tokenizer.card.vocabulary, np.int64)])


def test_a_wrong_checkpoint_is_told_by_key_and_shape(tmp_path: Path) -> None:
    state = CASES["llamagen"].state()
    publish(tmp_path / "shape", state | {"quant_conv.weight": torch.zeros(9, 64, 1, 1)})
    with pytest.raises(CurateError, match=r"quant_conv\.weight has shape \[9, 64, 1, 1\], not \[8, 64, 1, 1\]"):
        LlamaGenVQ.import_checkpoint(str(tmp_path / "shape"), tmp_path / "zoo")
    publish(tmp_path / "less", {k: v for k, v in state.items() if k != "decoder.mid.1.k.bias"})
    with pytest.raises(CurateError, match=r"decoder\.mid\.1\.k\.bias is missing"):
        LlamaGenVQ.import_checkpoint(str(tmp_path / "less"), tmp_path / "zoo")
    for other in (IBQ, OpenMagvit2, TiTok, FourMVQ):
        with pytest.raises(CurateError, match="is missing"):
            other.import_checkpoint(str(tmp_path / "less"), tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_a_side_that_the_stride_does_not_divide_is_refused(tmp_path: Path) -> None:
    publish(tmp_path / "hub", CASES["open-magvit2"].state())
    with pytest.raises(CurateError, match="multiple of 16, not 100"):
        OpenMagvit2.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo", size=100)


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    publish(tmp_path / "hub", CASES["open-magvit2"].state())
    OpenMagvit2.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo", size=32)
    weights = tmp_path / "zoo" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CurateError, match="not those of its card"):
        OpenMagvit2.load(tmp_path / "zoo")


def test_a_lightning_checkpoint_gives_its_moving_averages(tmp_path: Path) -> None:
    """As SEED-Voken publishes: `state_dict` of the last weights, `model_ema.` + name without dots, and losses."""
    case = CASES["ibq"]
    state = case.state()
    held = {name: torch.zeros_like(value) for name, value in state.items()}
    held |= {"model_ema." + name.replace(".", ""): value for name, value in state.items()}
    held |= {"model_ema.decay": torch.tensor(0.999), "loss.discriminator.main.0.weight": torch.zeros(3)}
    torch.save({"state_dict": held, "epoch": 3}, tmp_path / "imagenet256.ckpt")
    IBQ.import_checkpoint(str(tmp_path / "imagenet256.ckpt"), tmp_path / "zoo", size=64)
    assert IBQ.load(tmp_path / "zoo").encode([picture()])[0].ravel().tolist() == case.golden


def test_lfq_bits_are_those_of_the_specification() -> None:
    net = OpenMagvit2.net_of(CASES["open-magvit2"].shape)
    z = torch.randn(2, 18, 4, 4, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    net.encoder.forward = lambda x: z  # type: ignore[method-assign]
    net.decoder.forward = lambda codes: seen.append(codes) or codes  # type: ignore[method-assign, func-returns-value]
    ids = net.ids(torch.zeros(2, 3, 64, 64))
    np.testing.assert_array_equal(ids.numpy(), lfq_ids(z.permute(0, 2, 3, 1).numpy(), "lsb"))
    net.pictures(ids)
    np.testing.assert_array_equal(seen[0].permute(0, 2, 3, 1).numpy(), lfq_codes(ids.numpy(), 18, "lsb"))


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
    (back,) = tokenizer.decode(tokenizer.encode([picture() if channels == 3 else ramp]))
    assert (back.shape, back.dtype) == ((64, 64, channels), np.uint8 if channels == 3 else np.float32)
    seen = back[::21, ::21, 1 if channels == 3 else 0].ravel().astype(np.float64)
    assert seen == pytest.approx(golden, abs=1 if channels == 3 else 1e-3)


@pytest.mark.parametrize("zero", [True, False])
def test_schedules_end_and_begin_as_published(zero: bool) -> None:
    """Linear: betas 1e-4 to 0.02 leave 4.04e-5 of the signal after 1,000 steps; with zero terminal SNR, nothing."""
    kept = Diffusion(zero_terminal_snr=zero).signal()
    assert kept[0] == pytest.approx(1 - 1e-4)
    assert kept[-1] == pytest.approx(0 if zero else 4.036e-5, rel=1e-3)
    assert (np.diff(kept) < 0).all()


def test_what_a_divae_cannot_decode_is_said(tmp_path: Path) -> None:
    case = CASES["4m-divae"]
    state = case.state()
    publish(tmp_path / "hub", state)
    FourMVQ.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo", size=48)
    tokenizer = FourMVQ.load(tmp_path / "zoo")
    (ids,) = tokenizer.encode([picture(48)])
    with pytest.raises(CurateError, match="multiples of 32, not 48 x 48"):
        tokenizer.decode([ids])
    # A decoder of another kind: ids as before, and words for `decode`.
    other = {k: v for k, v in state.items() if not k.startswith("decoder.")} | {"decoder.conv_in.weight": torch.ones(1)}
    publish(tmp_path / "uvit", other)
    FourMVQ.import_checkpoint(str(tmp_path / "uvit"), tmp_path / "zoo", size=64)
    tokenizer = FourMVQ.load(tmp_path / "zoo")
    (ids,) = tokenizer.encode([picture()])
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


def test_titok_needs_its_config_and_refuses_vae(tmp_path: Path) -> None:
    publish(tmp_path / "hub", CASES["titok"].state())
    with pytest.raises(CurateError, match=r"config\.json"):
        TiTok.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo")
    config = {"model": {"vq_model": {"use_l2_norm": False, "quantize_mode": "vae"}}}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CurateError, match="gives no ids"):
        TiTok.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo")


FULL = {"width": 128, "multipliers": (1, 1, 2, 2, 4), "latent": 256}
PUBLISHED: dict[str, tuple[type[PictureTokenizer], dict[str, Any], tuple[int, int], dict[str, list[int]]]] = {
    "vq_ds16_c2i.pt, 72M parameters (README)": (
        LlamaGenVQ,
        FULL | {"blocks": 2, "codes": 16384, "code_width": 8},
        (343, 71_883_403),
        {
            "encoder.conv_blocks.0.res.0.norm1.weight": [128],
            "encoder.conv_blocks.2.res.0.nin_shortcut.weight": [256, 128, 1, 1],
            "encoder.conv_blocks.3.downsample.conv.weight": [256, 256, 3, 3],
            "encoder.conv_blocks.4.attn.1.proj_out.weight": [512, 512, 1, 1],
            "encoder.mid.1.q.weight": [512, 512, 1, 1],
            "encoder.conv_out.weight": [256, 512, 3, 3],
            "quant_conv.weight": [8, 256, 1, 1],
            "quantize.embedding.weight": [16384, 8],
            "decoder.conv_blocks.0.attn.2.k.bias": [512],
            "decoder.conv_blocks.3.upsample.conv.weight": [128, 128, 3, 3],
            "decoder.conv_blocks.4.res.2.conv2.weight": [128, 128, 3, 3],
        },
    ),
    "vq_ds8_c2i.pt, 70M parameters (README)": (
        LlamaGenVQ,
        FULL | {"multipliers": (1, 2, 2, 4), "blocks": 2, "codes": 16384, "code_width": 8},
        (299, 70_109_835),
        {"encoder.conv_blocks.3.attn.0.v.weight": [512, 512, 1, 1]},
    ),
    "IBQ imagenet256_262144.ckpt": (
        IBQ,
        FULL | {"blocks": 4, "codes": 262144, "code_width": 256},
        (543, 173_896_579),
        {
            "encoder.down.4.block.3.conv2.weight": [512, 512, 3, 3],
            "encoder.down.4.attn.3.q.weight": [512, 512, 1, 1],
            "encoder.mid.block_1.norm1.weight": [512],
            "decoder.up.4.attn.4.proj_out.bias": [512],
            "decoder.up.1.upsample.conv.weight": [128, 128, 3, 3],
            "quantize.embedding.weight": [262144, 256],
            "post_quant_conv.weight": [256, 256, 1, 1],
        },
    ),
    "Open-MAGVIT2 imagenet_256_L.ckpt": (
        OpenMagvit2,
        {"width": 128, "multipliers": (1, 1, 2, 2, 4), "blocks": 4, "bits": 18},
        (339, 115_127_829),
        {
            "encoder.down.0.downsample.weight": [128, 128, 3, 3],
            "encoder.down.4.block.0.nin_shortcut.weight": [512, 256, 1, 1],
            "encoder.mid_block.3.conv1.weight": [512, 512, 3, 3],
            "encoder.conv_out.weight": [18, 512, 1, 1],
            "decoder.adaptive.3.gamma.weight": [512, 18],
            "decoder.up.4.upsample.conv1.weight": [2048, 512, 3, 3],
            "decoder.conv_out.bias": [3],
        },
    ),
    "tokenizer_titok_l32_imagenet": (
        TiTok,
        {"side": 16, "patch": 16, "tokens": 32, "codes": 4096, "code_width": 12, "unit": True}
        | {"encoder_width": 1024, "encoder_blocks": 24, "decoder_width": 1024, "decoder_blocks": 24}
        | {"pixels": PIXELS | {"width": 128}},
        (692, 641_054_735),
        {
            "latent_tokens": [32, 1024],
            "encoder.positional_embedding": [257, 1024],
            "encoder.transformer.23.attn.in_proj_weight": [3072, 1024],
            "encoder.transformer.0.mlp.c_fc.weight": [4096, 1024],
            "encoder.conv_out.weight": [12, 1024, 1, 1],
            "decoder.mask_token": [1, 1, 1024],
            "decoder.ffn.2.weight": [1024, 2048, 1, 1],
            "quantize.embedding.weight": [4096, 12],
            "pixel_quantize.embedding.weight": [1024, 256],
            "pixel_decoder.up.4.upsample_conv.weight": [512, 512, 3, 3],
            "pixel_decoder.up.3.block.0.nin_shortcut.weight": [256, 256, 1, 1],
        },
    ),
    "4M_tokenizers_rgb_16k_224-448": (
        FourMVQ,
        {"domain": "rgb", "channels": 3, "patch": 16, "labels": 0, "codes": 16384, "code_width": 32, "unit": True}
        | {"encoder": {"width": 768, "blocks": 12, "side": 28, "tanh": True}, "decoder": None, "out": 0}
        | {"unet": UNET | {"width": 256, "levels": [256, 512, 512, 512], "blocks": 3}, "diffusion": {}},
        (156 + 446, 91_520_032 + 196_350_256),
        {
            "decoder.time_embed.0.weight": [1024, 256],
            "decoder.input_blocks.0.0.weight": [256, 80, 3, 3],
            "decoder.input_blocks.9.1.qkv.weight": [1536, 512, 1],
            "decoder.input_blocks.12.0.op.weight": [512, 512, 3, 3],
            "decoder.middle_block.1.proj_out.weight": [512, 512, 1],
            "decoder.output_blocks.3.2.conv.weight": [512, 512, 3, 3],
            "decoder.output_blocks.15.0.skip_connection.weight": [256, 512, 1, 1],
            "decoder.out.2.weight": [48, 256, 3, 3],
            "encoder.pos_emb": [1, 768, 28, 28],
            "encoder.proj.weight": [768, 3, 16, 16],
            "encoder.blocks.11.attn.qkv.weight": [2304, 768],
            "encoder.blocks.0.mlp.fc1.bias": [3072],
            "encoder.post_mlp.fc2.weight": [768, 3072],
            "quant_proj.weight": [32, 768, 1, 1],
            "quantize._codebook.embed": [16384, 32],
        },
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_at_full_size_are_the_published_ones(name: str) -> None:
    """Counts of tensors and of numbers in them are those of the publishers' modules, buffers of training left out."""
    adapter, shape, counts, keys = PUBLISHED[name]
    with torch.device("meta"):
        net = adapter.net_of(shape)
    held = net.state_dict()
    assert {key: list(held[key].shape) for key in keys} == keys
    assert (len(held), sum(value.numel() for value in held.values())) == counts

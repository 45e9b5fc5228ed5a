"""Every published image codec: golden ids and pixels, neighbours, what is refused, names at full size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import CASES, PIXELS, UNET, Case
from published import publish, sample_image

from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.fourm_vq import FourMVQ
from curate.tokenizers.codecs.llamagen import LlamaGenVQ
from curate.tokenizers.codecs.open_magvit2 import OpenMagvit2
from curate.tokenizers.codecs.titok import TiTok
from curate.tokenizers.codecs.vqgan import IBQ
from curate.tokenizers.grid import Imported


@pytest.fixture(scope="module", params=CASES)
def imported_case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Any]:
    """A tokenizer that was published as safetensors, imported, and loaded from its folder of the zoo."""
    case, root = CASES[request.param], tmp_path_factory.mktemp(request.param)
    publish(root / "hub", case.state(), case.config)
    case.adapter.import_checkpoint(str(root / "hub"), root / "zoo", size=64)
    return case, case.adapter.load(root / "zoo")


def test_ids_are_those_of_the_publishers_modules(imported_case: tuple[Case, Any]) -> None:
    case, tokenizer = imported_case
    ids = tokenizer.encode([sample_image()])[0]
    assert isinstance(tokenizer, Tokenizer)
    assert ids.dtype == case.dtype
    assert ids.shape == case.grid == tokenizer.card.grid
    assert ids.ravel().tolist() == case.golden
    assert ids.max() < tokenizer.card.vocabulary


def test_ids_do_not_depend_on_neighbours(imported_case: tuple[Case, Any]) -> None:
    _, tokenizer = imported_case
    images = [sample_image(), 255 - sample_image(), np.zeros((64, 64, 3), np.uint8)]
    alone = [tokenizer.encode([one])[0] for one in images]
    for together in (tokenizer.encode(images), list(tokenizer.encode([np.stack(images)])[0])):
        np.testing.assert_array_equal(together, alone)
    assert tokenizer.card.batch_invariance == 0


def test_encoded_in_bfloat16_most_ids_stay_and_all_are_in_range(imported_case: tuple[Case, Any]) -> None:
    _, tokenizer = imported_case
    images = [sample_image(), 255 - sample_image()]
    whole = np.stack(tokenizer.encode(images))
    tokenizer.dtype = "bfloat16"
    half = np.stack(tokenizer.encode(images))
    tokenizer.dtype = "float32"
    assert half.dtype == whole.dtype
    assert (half == whole).mean() > 0
    np.testing.assert_array_equal(np.stack(tokenizer.encode(images)), whole)


def test_ids_give_images_and_images_give_the_same_ids_each_time(imported_case: tuple[Case, Any]) -> None:
    _, tokenizer = imported_case
    ids = tokenizer.encode([sample_image()])
    first, again = tokenizer.decode(ids)[0], tokenizer.decode([np.stack([ids[0]] * 2)])[0][1]
    assert (first.shape, first.dtype) == ((64, 64, 3), np.uint8)
    np.testing.assert_array_equal(first, again)
    second = tokenizer.encode([first])
    others = tokenizer.encode([255 - sample_image(), first, sample_image()])
    np.testing.assert_array_equal(others[1], second[0])


def test_pixels_are_those_that_these_weights_gave(imported_case: tuple[Case, Any]) -> None:
    """Four pixels of a decoded image, from the first run of these seeded weights: a decoder cannot change unseen."""
    case, tokenizer = imported_case
    ids = np.array(case.golden, case.dtype).reshape(case.grid)
    [first, other] = tokenizer.decode([ids, np.roll(ids, 1)])
    np.testing.assert_allclose(first[[5, 20, 40, 60], [7, 33, 50, 12]].astype(int), case.pixels, atol=2)
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


def test_what_is_no_item_is_refused(imported_case: tuple[Case, Any]) -> None:
    _, tokenizer = imported_case
    for wrong in (sample_image(32), sample_image().astype(np.float32), sample_image()[..., 0], [[1]]):
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


FULL = {"width": 128, "multipliers": (1, 1, 2, 2, 4), "latent": 256}


PUBLISHED: dict[str, tuple[type[Imported], dict[str, Any], tuple[int, int], dict[str, list[int]]]] = {
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

"""Emu3: `transformers`' own class with few channels and seeded weights, in folders as published."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from published import SIZE, holds_the_contract, is_golden, seeded
from safetensors.torch import save_file
from torch import Tensor

from curate.models.torchvision_shim import ensure_torchvision
from curate.tokenizers.codecs.emu3 import Emu3Clip, Emu3Image

ensure_torchvision()
from transformers import (  # noqa: E402
    Emu3VQVAE,
    Emu3VQVAEConfig,
)

EMU3 = Emu3VQVAEConfig(
    base_channels=32,
    channel_multiplier=[1, 1, 2, 2],
    num_res_blocks=1,
    attn_resolutions=[3],
    hidden_size=64,
    codebook_size=300,
)


@pytest.fixture(scope="module")
def emu3() -> Emu3VQVAE:
    return seeded(lambda: Emu3VQVAE(EMU3))


@pytest.fixture(scope="module")
def emu3_folder(emu3: Emu3VQVAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emu3")
    emu3.save_pretrained(folder / "hub")
    Emu3Image.import_checkpoint(str(folder / "hub"), folder / "picture", size=SIZE)
    Emu3Clip.import_checkpoint(str(folder / "hub"), folder / "clip", size=SIZE)
    return folder


def test_emu3_images(emu3: Emu3VQVAE, emu3_folder: Path, images: list[NDArray[np.uint8]]) -> None:
    tokenizer = Emu3Image.load(emu3_folder / "picture")
    card = tokenizer.card
    assert (card.grid, card.vocabulary, card.dtype, card.temporal_stride) == ((8, 8), 300, "uint16", None)
    assert card.batch_invariance == 0.0
    holds_the_contract(tokenizer, images, (8, 8))
    pixels = [[105, 191, 106], [119, 192, 153], [104, 179, 116], [122, 161, 164]]
    is_golden(tokenizer, images[0], [291, 291, 124, 175, 175, 166, 175, 175], pixels)
    x = (torch.from_numpy(images[0]).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        want = emu3.encode(x, torch.tensor([[SIZE, SIZE]])).image_tokens[0].numpy()
    np.testing.assert_array_equal(tokenizer.encode([images[0]])[0], want)


def test_emu3_clips(emu3_folder: Path, clips: list[NDArray[np.uint8]]) -> None:
    tokenizer = Emu3Clip.load(emu3_folder / "clip")
    assert tokenizer.card.temporal_stride == 4
    holds_the_contract(tokenizer, clips, (3, 8, 8))
    pixels = [[72, 249, 44], [222, 255, 178], [139, 118, 184], [108, 160, 125]]
    is_golden(tokenizer, clips[0], [291, 164, 164, 249, 262, 101, 101, 175], pixels)
    ids = tokenizer.encode(clips)
    first = Emu3Image.load(emu3_folder / "picture").encode([clip[0] for clip in clips])
    assert np.mean(np.stack(ids)[:, 0] == np.stack(first)) > 0.99  # the network looks back only, sums are by shape
    shorter = tokenizer.encode([clip[:5] for clip in clips])
    assert np.mean(np.stack(ids)[:, :2] == np.stack(shorter)) > 0.99
    with pytest.raises(ValueError, match="got 8; the nearest are 5 and 9"):
        tokenizer.encode([clips[0][:8]])


def test_a_pickle_beside_safetensors_is_left_alone(emu3: Emu3VQVAE, tmp_path: Path) -> None:
    emu3.save_pretrained(tmp_path / "hub")
    torch.save(Path("not tensors, and refused where it is read"), tmp_path / "hub" / "pytorch_model.bin")
    Emu3Image.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo", size=SIZE)
    assert Emu3Image.load(tmp_path / "zoo").card.vocabulary == 300


def test_emu3_reads_the_publishers_names(
    emu3: Emu3VQVAE, emu3_folder: Path, tmp_path: Path, images: list[NDArray[np.uint8]]
) -> None:
    """The same weights under the names of the publisher's code (baaivision/Emu3, modeling_emu3visionvq.py)."""
    state: dict[str, Tensor] = {}
    for key, value in emu3.state_dict().items():
        for old, new in (
            ("middle_block.attn_norm.", "mid.attn_1.norm."),
            ("middle_block.", "mid."),
            ("down_block.down.", "down."),
            ("up_block.up.", "up."),
            ("attn_norms.0.", "attn.0.norm."),
            ("attn_norms.1.", "attn.1.norm."),
            ("out_proj.", "proj_out."),
            ("q_proj.", "q."),
            ("k_proj.", "k."),
            ("v_proj.", "v."),
        ):
            key = key.replace(old, new)
        square = re.search(r"\.(q|k|v|proj_out)\.weight$", key)
        state[key] = (value[..., None, None] if square else value).contiguous()
    assert {
        "encoder.down.3.attn.0.norm.weight",
        "encoder.down.0.downsample.conv.weight",
        "encoder.mid.attn_1.q.weight",
        "encoder.time_conv.1.conv.conv.weight",
        "encoder.time_res_stack.0.norm1.running_mean",
        "decoder.up.3.attn.1.norm.conv_y.weight",
        "decoder.mid.attn_1.norm.norm_layer.weight",
        "decoder.mid.block_1.norm1.conv_b.bias",
        "decoder.up.1.upsample.conv.bias",
        "quant_conv.conv.weight",
    } <= set(state)
    assert set(Emu3Image.select(state)) == set(emu3.state_dict())
    save_file(state, tmp_path / "model.safetensors")
    # the words of the publisher's configuration
    told = '{"ch": 32, "ch_mult": [1, 1, 2, 2], "z_channels": 4, "double_z": false, "codebook_size": 300,'
    told += '"embed_dim": 4, "num_res_blocks": 1, "attn_resolutions": [3], "temporal_downsample_factor": 4}'
    (tmp_path / "config.json").write_text(told)
    Emu3Image.import_checkpoint(str(tmp_path), tmp_path / "imported", size=SIZE)
    mine, theirs = (Emu3Image.load(f).encode(images) for f in (emu3_folder / "picture", tmp_path / "imported"))
    np.testing.assert_array_equal(np.stack(mine), np.stack(theirs))

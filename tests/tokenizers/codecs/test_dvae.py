"""The dVAE: FLAVA's own class, OpenAI's names, few channels and seeded weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from published import SIZE, Marks, holds_the_contract, is_golden, seeded
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.dvae import DVAE, DVAEDecoder

ensure_torchvision()
from transformers import (  # noqa: E402
    FlavaImageCodebook,
    FlavaImageCodebookConfig,
)

DALLE = FlavaImageCodebookConfig(hidden_size=16, vocab_size=600, num_blocks_per_group=2)


@pytest.fixture(scope="module")
def codebook() -> FlavaImageCodebook:
    net = seeded(lambda: FlavaImageCodebook(DALLE))
    with torch.no_grad():  # blind to brightness, which would decide every id of a random network
        net.blocks.input.weight -= net.blocks.input.weight.mean((1, 2, 3), keepdim=True)
    return net


def openai(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of openai/DALL-E: `w` and `b`, and one level less in groups and paths."""
    out = {}
    for key, value in state.items():
        key = key.replace(".group.", ".").replace(".res_path.path.", ".res_path.")
        out[key.replace(".weight", ".w").replace(".bias", ".b")] = value.contiguous()
    return out


def test_dvae_encoder_of_flava(codebook: FlavaImageCodebook, tmp_path: Path, images: list[NDArray[np.uint8]]) -> None:
    codebook.save_pretrained(tmp_path / "hub")
    card = DVAE.import_checkpoint(str(tmp_path / "hub"), tmp_path / "imported", size=SIZE)
    assert (card.grid, card.vocabulary, card.dtype, card.batch_invariance) == ((8, 8), 600, "uint16", 0.0)
    tokenizer = DVAE.load(tmp_path / "imported")
    # DALL-E's map_pixels: [0, 1] to [0.1, 0.9]
    x = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255 * 0.8 + 0.1
    with torch.inference_mode():
        want = codebook.get_codebook_indices(x).numpy()
    assert np.mean(np.stack(tokenizer.encode(images)) == want) > 0.98
    with pytest.raises(CurateError, match="cannot decode: only the encoder was imported"):
        tokenizer.decode(tokenizer.encode(images))


def test_dvae_of_openai(codebook: FlavaImageCodebook, tmp_path: Path, images: list[NDArray[np.uint8]]) -> None:
    codebook.save_pretrained(tmp_path / "hub")
    DVAE.import_checkpoint(str(tmp_path / "hub"), tmp_path / "flava", size=SIZE)
    source = tmp_path / "openai"
    source.mkdir()
    decoder = seeded(lambda: DVAEDecoder(600, 32, 16, 2))
    save_file(openai(codebook.state_dict()), source / "encoder.safetensors")
    save_file(openai(decoder.state_dict()), source / "decoder.safetensors")
    DVAE.import_checkpoint(str(source), tmp_path / "both", size=SIZE)
    tokenizer = DVAE.load(tmp_path / "both")
    holds_the_contract(tokenizer, images, (8, 8))
    pixels = [[136, 110, 185], [145, 114, 167], [127, 101, 171], [103, 91, 180]]
    is_golden(tokenizer, images[0], [337, 168, 168, 99, 337, 220, 337, 168], pixels)
    same = DVAE.load(tmp_path / "flava").encode(images)
    np.testing.assert_array_equal(np.stack(tokenizer.encode(images)), np.stack(same))


def test_dvae_decoder_gives_what_the_published_formula_says(
    codebook: FlavaImageCodebook, tmp_path: Path, images: list[NDArray[np.uint8]]
) -> None:
    """sigmoid of the first three of six channels, then (y - 0.1) / 0.8 (openai/DALL-E, usage and unmap_pixels)."""
    decoder = seeded(lambda: DVAEDecoder(600, 32, 16, 2))
    save_file(openai(codebook.state_dict()), tmp_path / "encoder.safetensors")
    save_file(openai(decoder.state_dict()), tmp_path / "decoder.safetensors")
    DVAE.import_checkpoint(str(tmp_path), tmp_path / "imported", size=SIZE)
    tokenizer = DVAE.load(tmp_path / "imported")
    ids = tokenizer.encode(images[:1])
    codes = functional.one_hot(torch.from_numpy(ids[0].astype(np.int64)), 600).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        y = torch.sigmoid(decoder(codes)[0, :3]).permute(1, 2, 0).numpy()
    want = ((y - 0.1) / 0.8).clip(0, 1) * 255
    assert np.abs(tokenizer.decode(ids)[0] - want).max() < 0.51


def test_dvae_names_at_full_size() -> None:
    """As openai/DALL-E, encoder.py and decoder.py build them with their defaults."""
    with torch.device("meta"):
        decoder = openai(DVAEDecoder().state_dict())
        encoder = openai(FlavaImageCodebook(FlavaImageCodebookConfig()).state_dict())
    known = {
        "blocks.input.w": (128, 8192, 1, 1),
        "blocks.group_1.block_1.id_path.w": (2048, 128, 1, 1),
        "blocks.group_1.block_1.res_path.conv_1.w": (512, 128, 1, 1),
        "blocks.group_2.block_1.res_path.conv_2.w": (256, 256, 3, 3),
        "blocks.group_4.block_2.res_path.conv_4.w": (256, 64, 3, 3),
        "blocks.output.conv.b": (6,),
    }
    assert {k: tuple(decoder[k].shape) for k in known} == known
    assert tuple(encoder["blocks.group_2.block_1.id_path.w"].shape) == (512, 256, 1, 1)
    assert tuple(encoder["blocks.output.conv.w"].shape) == (8192, 2048, 1, 1)


def test_openais_pickles_are_refused_unopened(tmp_path: Path) -> None:
    torch.save(Marks(tmp_path / "mark"), tmp_path / "encoder.pkl")
    with pytest.raises(CurateError, match=r"encoder\.pkl is a pickle of a whole module"):
        DVAE.import_checkpoint(str(tmp_path), tmp_path / "imported", size=SIZE)
    assert not (tmp_path / "mark").exists()

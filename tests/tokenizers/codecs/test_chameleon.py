"""Chameleon: `transformers`' own class with few channels and seeded weights, in folders as published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from published import SIZE, holds_the_contract, is_golden, seeded
from safetensors.torch import save_file

from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.chameleon import ChameleonVQ, vqgan_decoder

ensure_torchvision()
from transformers import (  # noqa: E402
    ChameleonVQVAE,
    ChameleonVQVAEConfig,
)

CHAMELEON = ChameleonVQVAEConfig(
    base_channels=32,
    channel_multiplier=[1, 1, 2, 2],
    num_res_blocks=1,
    latent_channels=16,
    embed_dim=16,
    num_embeddings=300,
    resolution=SIZE,
)


@pytest.fixture(scope="module")
def chameleon() -> ChameleonVQVAE:
    return seeded(lambda: ChameleonVQVAE(CHAMELEON))


@pytest.fixture(scope="module")
def vqgan(chameleon: ChameleonVQVAE, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `vqgan.ckpt` as Meta's: names without prefix, the decoder, and a discriminator under `loss.`."""
    folder = tmp_path_factory.mktemp("vqgan")
    decoder = seeded(lambda: vqgan_decoder(CHAMELEON))
    state = dict(chameleon.state_dict()) | {f"decoder.{k}": v for k, v in decoder.state_dict().items()}
    torch.save({"state_dict": state | {"loss.logvar": torch.zeros(())}, "epoch": 3}, folder / "vqgan.ckpt")
    (folder / "config.json").write_text(CHAMELEON.to_json_string())
    return folder


def test_chameleon_with_its_decoder(vqgan: Path, tmp_path: Path, images: list[NDArray[np.uint8]]) -> None:
    card = ChameleonVQ.import_checkpoint(str(vqgan / "vqgan.ckpt"), tmp_path / "chameleon")
    assert (card.grid, card.input_size, card.vocabulary, card.dtype) == ((8, 8), SIZE, 300, "uint16")
    assert card.batch_invariance == 0.0
    assert card.preprocessing is not None
    assert (card.preprocessing.mean, card.preprocessing.std) == ([0.5] * 3, [0.5] * 3)
    tokenizer = ChameleonVQ.load(tmp_path / "chameleon")
    holds_the_contract(tokenizer, images, (8, 8))
    pixels = [[117, 196, 173], [100, 46, 137], [193, 32, 80], [57, 61, 216]]
    is_golden(tokenizer, images[0], [158, 166, 148, 86, 121, 201, 186, 158], pixels)


def test_a_network_in_bfloat16_has_its_codes_searched_in_fp32(
    vqgan: Path, tmp_path: Path, images: list[NDArray[np.uint8]]
) -> None:
    ChameleonVQ.import_checkpoint(str(vqgan / "vqgan.ckpt"), tmp_path / "chameleon")
    tokenizer = ChameleonVQ.load(tmp_path / "chameleon", dtype="bfloat16")
    quantize: Any = tokenizer.net.quantize
    latents: list[torch.Tensor] = []
    quantize.register_forward_pre_hook(lambda _, given: latents.append(given[0]))
    ids = tokenizer.encode(images)
    with torch.inference_mode():
        want = [quantize(one)[2].view(8, 8).numpy() for one in list(latents)]
    np.testing.assert_array_equal(np.stack(ids), np.stack(want))
    assert (np.stack(ids) != np.stack(ChameleonVQ.load(tmp_path / "chameleon").encode(images))).any()


def test_chameleon_ids_are_those_of_transformers(
    chameleon: ChameleonVQVAE, tmp_path: Path, images: list[NDArray[np.uint8]]
) -> None:
    chameleon.save_pretrained(tmp_path / "hub")
    ChameleonVQ.import_checkpoint(str(tmp_path / "hub"), tmp_path / "imported")
    tokenizer = ChameleonVQ.load(tmp_path / "imported")
    # As the processor of the whole checkpoints: bytes times 0.0078, minus 1.
    x = torch.from_numpy(images[0]).permute(2, 0, 1)[None].float() * 0.0078 - 1
    with torch.inference_mode():
        want = chameleon.encode(x).image_tokens.view(8, 8).numpy()
    assert np.mean(tokenizer.encode([images[0]])[0] == want) > 0.95  # (v - mean) / std rounds otherwise
    with pytest.raises(CurateError, match="cannot decode: checkpoints of the whole model leave the decoder out"):
        tokenizer.decode(tokenizer.encode(images))


def test_of_a_whole_checkpoint_only_the_wanted_files_are_opened(
    chameleon: ChameleonVQVAE, tmp_path: Path, images: list[NDArray[np.uint8]]
) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    whole.mkdir()
    state = {f"model.vqmodel.{k}": v for k, v in chameleon.state_dict().items()}
    names = sorted(state)
    shards = {"model-00002-of-00003.safetensors": names[::2], "model-00003-of-00003.safetensors": names[1::2]}
    for name, keys in shards.items():
        save_file({k: state[k].contiguous() for k in keys} | {f"model.layers.{name}": torch.zeros(2)}, whole / name)
    (whole / "model-00001-of-00003.safetensors").write_bytes(b"never opened")
    where = {k: name for name, keys in shards.items() for k in [*keys, f"model.layers.{name}"]}
    where["model.embed_tokens.weight"] = "model-00001-of-00003.safetensors"
    (whole / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    (whole / "config.json").write_text(json.dumps({"hidden_size": 4096, "vq_config": CHAMELEON.to_diff_dict()}))
    processor = {"rescale_factor": 0.0078, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}
    (whole / "preprocessor_config.json").write_text(json.dumps(processor))
    chameleon.save_pretrained(part)
    card = ChameleonVQ.import_checkpoint(str(whole), tmp_path / "a")
    ChameleonVQ.import_checkpoint(str(part), tmp_path / "b")
    assert card.preprocessing is not None
    assert card.preprocessing.mean == pytest.approx([1 / 1.989] * 3)  # 0.0078 times 255
    from_whole, from_part = (ChameleonVQ.load(tmp_path / n).encode(images) for n in "ab")
    np.testing.assert_array_equal(np.stack(from_whole), np.stack(from_part))


def test_a_checkpoint_that_does_not_fit_says_key_and_shape(chameleon: ChameleonVQVAE, tmp_path: Path) -> None:
    state = {k: v.contiguous() for k, v in chameleon.state_dict().items()}
    wrong = state | {"encoder.conv_in.weight": torch.zeros(16, 3, 3, 3)}
    for name, held in (("wrong", wrong), ("short", {k: v for k, v in state.items() if k != "quant_conv.bias"})):
        (tmp_path / name).mkdir()
        save_file(held, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text(CHAMELEON.to_json_string())
    with pytest.raises(CurateError, match=r"encoder\.conv_in\.weight has shape \[16, 3, 3, 3\], not \[32, 3, 3, 3\]"):
        ChameleonVQ.import_checkpoint(str(tmp_path / "wrong"), tmp_path / "imported")
    with pytest.raises(CurateError, match=r"quant_conv\.bias is missing"):
        ChameleonVQ.import_checkpoint(str(tmp_path / "short"), tmp_path / "imported")
    save_file({"some.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CurateError, match=r"lacks model\.vqmodel\.quantize\.embedding\.weight"):
        ChameleonVQ.import_checkpoint(str(tmp_path / "other.safetensors"), tmp_path / "imported")


def test_the_vqgan_decoder_has_the_published_names_at_full_size() -> None:
    """Names and shapes that the released code builds (facebookresearch/chameleon, vqgan.py and vqgan.yaml)."""
    with torch.device("meta"):
        state = vqgan_decoder(ChameleonVQVAEConfig()).state_dict()
    known = {
        "conv_in.weight": (512, 256, 3, 3),
        "mid.block_1.norm1.weight": (512,),
        "mid.attn_1.q.weight": (512, 512, 1, 1),
        "mid.attn_1.proj_out.bias": (512,),
        "up.4.block.2.conv2.weight": (512, 512, 3, 3),
        "up.4.upsample.conv.weight": (512, 512, 3, 3),
        "up.3.block.0.nin_shortcut.weight": (256, 512, 1, 1),
        "up.1.block.0.conv1.weight": (128, 256, 3, 3),
        "up.0.block.2.conv1.weight": (128, 128, 3, 3),
        "norm_out.weight": (128,),
        "conv_out.weight": (3, 128, 3, 3),
    }
    assert {k: tuple(state[k].shape) for k in known} == known
    assert not any(k.startswith("up.0.upsample") or ".attn." in k for k in state)

"""Cosmos, Chameleon, Emu3 and the dVAE: real classes with few channels and seeded weights, from folders as published.

No published weights of these are small enough to keep. What only they could show, the fit of names and shapes at full
size, is held against lists of their keys on the meta device, which allocates nothing.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import read_state
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.chameleon import ChameleonVQ, vqgan_decoder
from curate.tokenizers.codecs.cosmos import CosmosDI, CosmosDV
from curate.tokenizers.codecs.dvae import DVAE, DVAEDecoder
from curate.tokenizers.codecs.emu3 import Emu3Clip, Emu3Image
from curate.tokenizers.folders import write_weights
from curate.tokenizers.grid import probes
from curate.tokenizers.importer import import_checkpoint
from curate.tokenizers.quantisers.fsq import fsq_ids

ensure_torchvision()
from transformers import (  # noqa: E402
    ChameleonVQVAE,
    ChameleonVQVAEConfig,
    Emu3VQVAE,
    Emu3VQVAEConfig,
    FlavaImageCodebook,
    FlavaImageCodebookConfig,
)

LEVELS = [8, 8, 8, 5, 5, 5]
SIZE = 64


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pictures() -> list[NDArray[np.uint8]]:
    return [clip[0] for clip in probes(5, SIZE)]


@pytest.fixture(scope="module")
def clips() -> list[NDArray[np.uint8]]:
    return probes(3, SIZE, 9)


def holds_the_contract(tokenizer: Any, items: list[NDArray[np.uint8]], shape: tuple[int, ...]) -> None:
    """Grid, dtype, range, independence of neighbours, and a way back whose second round is a function of the ids."""
    assert isinstance(tokenizer, Tokenizer)
    ids = tokenizer.encode(items)
    assert [one.shape for one in ids] == [shape] * len(items)
    assert {one.dtype for one in ids} == {tokenizer.card.numpy_dtype}
    assert 0 <= min(int(one.min()) for one in ids) <= max(int(one.max()) for one in ids) < tokenizer.card.vocabulary
    assert len(np.unique(np.stack(ids))) > 3
    for i in (len(items) - 1, 0):
        np.testing.assert_array_equal(tokenizer.encode([items[i]])[0], ids[i])
    back = tokenizer.decode(ids)
    assert [(one.dtype, one.shape) for one in back] == [(np.dtype(np.uint8), one.shape) for one in items]
    np.testing.assert_array_equal(tokenizer.decode([ids[-1]])[0], back[-1])
    # what comes back is of the ids: other ids, other pixels, and no blank
    assert not np.array_equal(ids[0], ids[-1])
    assert not np.array_equal(back[0], back[-1])
    assert np.stack(back).std() > 1
    np.testing.assert_array_equal(np.stack(tokenizer.encode(back)), np.stack(tokenizer.encode(back[::-1])[::-1]))


# Cosmos: archives with its interface, made by the same call that makes the published ones. The encoder takes the mean
# of each colour over the upper and the lower half of an 8x8 patch, so that every id is known.


class Quantiser(nn.Module):
    """FSQ with the arithmetic of the published archives: constants of integers, so float32 whatever the module is."""

    levels: Tensor
    basis: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("levels", torch.tensor(LEVELS, dtype=torch.int32))
        self.register_buffer("basis", torch.tensor([1, 8, 64, 512, 2560, 12800], dtype=torch.int32))

    def constants(self) -> tuple[Tensor, Tensor, Tensor]:
        half = (self.levels - 1) * (1 + 1e-3) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        return half, offset, (offset / half).atanh()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half, offset, shift = self.constants()
        steps = ((z.movedim(1, -1) + shift).tanh() * half - offset).round()
        ids = ((steps + self.levels // 2) * self.basis).sum(-1).to(torch.int32)
        codes = (steps / (self.levels // 2)).movedim(-1, 1)
        return ids, codes, codes.mean()

    def latents(self, ids: Tensor) -> Tensor:
        half, offset, shift = self.constants()
        steps = ids[..., None] // self.basis % self.levels - self.levels // 2
        return (((steps + offset) / half).atanh() - shift).movedim(-1, 1)


def halves(frames: int) -> Tensor:
    """Kernel `(6, 3, frames, 8, 8)`: twice the mean of colour c over half k of a patch is channel 3k + c."""
    kernel = torch.zeros(6, 3, frames, 8, 8)
    for k in range(2):
        for c in range(3):
            kernel[3 * k + c, c, :, 4 * k : 4 * k + 4] = 2 / (frames * 32)
    return kernel


class Encoder(nn.Module):
    """`(n, 3, T, H, W)` or `(n, 3, H, W)`; of a clip the first frame stands for a whole step, as in the causal ones."""

    def __init__(self, stride: int, baked: torch.dtype | None = None) -> None:
        super().__init__()
        self.stride, self.baked = stride, baked
        self.kernel = nn.Parameter(halves(stride or 1))
        self.quantiser = Quantiser()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kernel = self.kernel if self.baked is None else self.kernel.to(self.baked)
        if not self.stride:
            ids, codes, loss = self.quantiser(functional.conv2d(x, kernel[:, :, 0], stride=8))
            return ids, codes, loss
        x = torch.cat([x[:, :, :1].expand(-1, -1, self.stride - 1, -1, -1), x], dim=2)
        ids, codes, loss = self.quantiser(functional.conv3d(x, kernel, stride=(self.stride, 8, 8)))
        return ids, codes, loss


class Decoder(nn.Module):
    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.kernel = nn.Parameter((halves(stride or 1) > 0).float() / 2)
        self.quantiser = Quantiser()

    def forward(self, ids: Tensor) -> Tensor:
        z = self.quantiser.latents(ids).to(self.kernel.dtype)
        if not self.stride:
            return functional.conv_transpose2d(z, self.kernel[:, :, 0], stride=8)
        return functional.conv_transpose3d(z, self.kernel, stride=(self.stride, 8, 8))[:, :, self.stride - 1 :]


def export(folder: Path, stride: int, baked: torch.dtype | None = None) -> Path:
    """`encoder.jit` and `decoder.jit`; `baked`: a number format that the trace keeps for its kernel."""
    folder.mkdir()
    media = torch.zeros(1, 3, 9, SIZE, SIZE) if stride else torch.zeros(1, 3, SIZE, SIZE)
    encoder, decoder = Encoder(stride, baked).to(baked or torch.float32), Decoder(stride)
    ids = encoder(media.to(baked or torch.float32))[0]
    torch.jit.trace(encoder, media.to(baked or torch.float32)).save(folder / "encoder.jit")
    torch.jit.trace(decoder, ids).save(folder / "decoder.jit")
    return folder


@pytest.fixture(scope="module")
def cosmos(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Adopted folders by temporal stride; 0 is the tokenizer of pictures."""
    root = tmp_path_factory.mktemp("cosmos")
    out = {}
    for stride, of in ((0, CosmosDI), (4, CosmosDV), (8, CosmosDV)):
        of.import_checkpoint(str(export(root / f"published{stride}", stride)), root / f"imported{stride}", size=SIZE)
        out[stride] = root / f"imported{stride}"
    return out


def test_cosmos_pictures(cosmos: dict[int, Path], pictures: list[NDArray[np.uint8]]) -> None:
    tokenizer = CosmosDI.load(cosmos[0])
    card = tokenizer.card
    assert (card.grid, card.vocabulary, card.dtype, card.levels) == ((8, 8), 64000, "uint16", LEVELS)
    assert card.batch_invariance == 0.0
    holds_the_contract(tokenizer, pictures, (8, 8))
    stack = np.stack(pictures)
    np.testing.assert_array_equal(tokenizer.encode([stack])[0], np.stack(tokenizer.encode(pictures)))


def test_cosmos_ids_are_those_of_the_specification(cosmos: dict[int, Path], pictures: list[NDArray[np.uint8]]) -> None:
    values = pictures[0].astype(np.float32) / 127.5 - 1
    means = values.reshape(8, 2, 4, 8, 8, 3).mean((2, 4))  # (row, half, column, colour)
    z = 2 * means.transpose(0, 2, 1, 3).reshape(8, 8, 6).astype(np.float32)
    ids = CosmosDI.load(cosmos[0]).encode([pictures[0]])[0]
    assert np.mean(ids == fsq_ids(z, LEVELS)) > 0.98  # a mean summed in another order can lie across a step


def test_cosmos_is_stable_from_the_first_round_on(cosmos: dict[int, Path], clips: list[NDArray[np.uint8]]) -> None:
    for tokenizer in (CosmosDI.load(cosmos[0]), CosmosDV.load(cosmos[4])):
        items = clips if isinstance(tokenizer, CosmosDV) else [clip[0] for clip in clips]
        ids = tokenizer.encode(items)
        again = tokenizer.encode(tokenizer.decode(ids))
        assert np.mean(np.stack(again) == np.stack(ids)) > 0.99


@pytest.mark.parametrize(("stride", "steps"), [(4, 3), (8, 2)])
def test_cosmos_clips(cosmos: dict[int, Path], clips: list[NDArray[np.uint8]], stride: int, steps: int) -> None:
    tokenizer = CosmosDV.load(cosmos[stride])
    assert (tokenizer.card.temporal_stride, tokenizer.card.modality) == (stride, "video")
    holds_the_contract(tokenizer, clips, (steps, 8, 8))
    alone = tokenizer.encode([clips[0][:1]])[0]
    np.testing.assert_array_equal(alone, tokenizer.encode([clips[0]])[0][:1])  # a picture is a clip of one frame
    assert [len(clip) for clip in tokenizer.decode(tokenizer.encode(clips[:1]), lengths=[6])] == [6]


def test_bfloat16_latents_flip_some_ids_and_few(cosmos: dict[int, Path]) -> None:
    shares = [of.load(cosmos[n]).card.bf16_difference for n, of in ((0, CosmosDI), (4, CosmosDV), (8, CosmosDV))]
    assert 0 < sum(share for share in shares if share is not None) / 3 < 0.1


def test_cosmos_refuses_frame_counts_between(cosmos: dict[int, Path], clips: list[NDArray[np.uint8]]) -> None:
    with pytest.raises(ValueError, match=r"1 \+ 4 k frames, got 8; the nearest are 5 and 9"):
        CosmosDV.load(cosmos[4]).encode([clips[0][:8]])
    with pytest.raises(ValueError, match=r"1 \+ 8 k frames, got 8; the nearest are 1 and 9"):
        CosmosDV.load(cosmos[8]).encode([clips[0][:8]])


def test_cosmos_digest_is_of_both_archives(cosmos: dict[int, Path], tmp_path: Path) -> None:
    names = ("encoder.jit", "decoder.jit")
    raw = {name: (cosmos[0] / name).read_bytes() for name in names}
    assert CosmosDI.load(cosmos[0]).card.weights_digest == digest(" ".join(digest(raw[n]) for n in names).encode())
    for file in cosmos[0].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "decoder.jit").write_bytes((cosmos[4] / "decoder.jit").read_bytes())
    with pytest.raises(CurateError, match="are not those of its card"):
        CosmosDI.load(tmp_path)


def test_an_archive_traced_in_bfloat16_is_run_so(tmp_path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    card = CosmosDI.import_checkpoint(
        str(export(tmp_path / "published", 0, torch.bfloat16)), tmp_path / "imported", size=SIZE
    )
    assert "The encoder computes in bfloat16, the decoder in float32" in card.input
    assert card.bf16_difference is None  # there is no float32 to compare with
    holds_the_contract(CosmosDI.load(tmp_path / "imported"), pictures, (8, 8))


def test_a_pictures_archive_is_no_clip_archive(cosmos: dict[int, Path], tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=r"encoder\.jit fails on"):
        CosmosDV.import_checkpoint(str(cosmos[0]), tmp_path / "imported", size=SIZE)


class Marks:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


class Saves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, "written.pt")
        return x


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_pickles_are_refused_unopened(cosmos: dict[int, Path], tmp_path: Path, form: str) -> None:
    mark, source = tmp_path / "mark", tmp_path / "published"
    source.mkdir()
    (source / "decoder.jit").write_bytes((cosmos[0] / "decoder.jit").read_bytes())
    if form == "bare":
        (source / "encoder.jit").write_bytes(pickle.dumps(Marks(mark)))
    else:
        torch.save(Marks(mark), source / "encoder.jit", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CurateError, match=r"encoder\.jit is a pickle .*not TorchScript|encoder\.jit is a pickle, not"):
        CosmosDI.import_checkpoint(str(source), tmp_path / "imported", size=SIZE)
    assert not mark.exists()


def test_archives_that_touch_files_or_are_damaged_are_refused(
    cosmos: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "published"
    source.mkdir()
    torch.jit.script(Saves()).save(source / "encoder.jit")
    whole = (cosmos[0] / "decoder.jit").read_bytes()
    (source / "decoder.jit").write_bytes(whole)
    with pytest.raises(CurateError, match=r"calls `save`, which touches files"):
        CosmosDI.import_checkpoint(str(source), tmp_path / "imported", size=SIZE)
    assert not (tmp_path / "written.pt").exists()
    (source / "encoder.jit").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CurateError, match=r"encoder\.jit is not a TorchScript archive"):
        CosmosDI.import_checkpoint(str(source), tmp_path / "imported", size=SIZE)
    (source / "encoder.jit").unlink()
    with pytest.raises(CurateError, match=r"lacks encoder\.jit"):
        CosmosDI.import_checkpoint(str(source), tmp_path / "imported", size=SIZE)


# Chameleon

CHAMELEON = ChameleonVQVAEConfig(
    base_channels=32,
    channel_multiplier=[1, 1, 2, 2],
    num_res_blocks=1,
    latent_channels=16,
    embed_dim=16,
    num_embeddings=300,
    resolution=SIZE,
)


def seeded(make: Callable[[], Any], embedding: float = 1.0) -> Any:
    """A network with the weights of PyTorch's own layers: those of `transformers` give nearly constant latents."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        net = make().eval()
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
                nn.init.normal_(module.weight, std=1.4 / float(module.weight[0].numel()) ** 0.5)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=embedding)
    return net


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


def test_chameleon_with_its_decoder(vqgan: Path, tmp_path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    card = ChameleonVQ.import_checkpoint(str(vqgan / "vqgan.ckpt"), tmp_path / "chameleon")
    assert (card.grid, card.input_size, card.vocabulary, card.dtype) == ((8, 8), SIZE, 300, "uint16")
    assert card.batch_invariance == 0.0
    assert card.preprocessing is not None
    assert (card.preprocessing.mean, card.preprocessing.std) == ([0.5] * 3, [0.5] * 3)
    holds_the_contract(ChameleonVQ.load(tmp_path / "chameleon"), pictures, (8, 8))


def test_chameleon_ids_are_those_of_transformers(
    chameleon: ChameleonVQVAE, tmp_path: Path, pictures: list[NDArray[np.uint8]]
) -> None:
    chameleon.save_pretrained(tmp_path / "hub")
    ChameleonVQ.import_checkpoint(str(tmp_path / "hub"), tmp_path / "imported")
    tokenizer = ChameleonVQ.load(tmp_path / "imported")
    # As the processor of the whole checkpoints: bytes times 0.0078, minus 1.
    x = torch.from_numpy(pictures[0]).permute(2, 0, 1)[None].float() * 0.0078 - 1
    with torch.inference_mode():
        want = chameleon.encode(x).image_tokens.view(8, 8).numpy()
    assert np.mean(tokenizer.encode([pictures[0]])[0] == want) > 0.95  # (v - mean) / std rounds otherwise
    with pytest.raises(CurateError, match="cannot decode: checkpoints of the whole model leave the decoder out"):
        tokenizer.decode(tokenizer.encode(pictures))


def test_of_a_whole_checkpoint_only_the_wanted_files_are_opened(
    chameleon: ChameleonVQVAE, tmp_path: Path, pictures: list[NDArray[np.uint8]]
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
    from_whole, from_part = (ChameleonVQ.load(tmp_path / n).encode(pictures) for n in "ab")
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


def test_changed_weights_are_refused(vqgan: Path, tmp_path: Path) -> None:
    ChameleonVQ.import_checkpoint(str(vqgan), tmp_path)
    raw = bytearray((tmp_path / "weights.safetensors").read_bytes())
    raw[-1] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(raw)
    with pytest.raises(CurateError, match="are not those of its card"):
        ChameleonVQ.load(tmp_path)


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


# Emu3

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


def test_emu3_pictures(emu3: Emu3VQVAE, emu3_folder: Path, pictures: list[NDArray[np.uint8]]) -> None:
    tokenizer = Emu3Image.load(emu3_folder / "picture")
    card = tokenizer.card
    assert (card.grid, card.vocabulary, card.dtype, card.temporal_stride) == ((8, 8), 300, "uint16", None)
    assert card.batch_invariance == 0.0
    holds_the_contract(tokenizer, pictures, (8, 8))
    x = (torch.from_numpy(pictures[0]).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        want = emu3.encode(x, torch.tensor([[SIZE, SIZE]])).image_tokens[0].numpy()
    np.testing.assert_array_equal(tokenizer.encode([pictures[0]])[0], want)


def test_emu3_clips(emu3_folder: Path, clips: list[NDArray[np.uint8]]) -> None:
    tokenizer = Emu3Clip.load(emu3_folder / "clip")
    assert tokenizer.card.temporal_stride == 4
    holds_the_contract(tokenizer, clips, (3, 8, 8))
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
    emu3: Emu3VQVAE, emu3_folder: Path, tmp_path: Path, pictures: list[NDArray[np.uint8]]
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
    mine, theirs = (Emu3Image.load(f).encode(pictures) for f in (emu3_folder / "picture", tmp_path / "imported"))
    np.testing.assert_array_equal(np.stack(mine), np.stack(theirs))


# dVAE

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


def test_dvae_encoder_of_flava(codebook: FlavaImageCodebook, tmp_path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    codebook.save_pretrained(tmp_path / "hub")
    card = DVAE.import_checkpoint(str(tmp_path / "hub"), tmp_path / "imported", size=SIZE)
    assert (card.grid, card.vocabulary, card.dtype, card.batch_invariance) == ((8, 8), 600, "uint16", 0.0)
    tokenizer = DVAE.load(tmp_path / "imported")
    # DALL-E's map_pixels: [0, 1] to [0.1, 0.9]
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255 * 0.8 + 0.1
    with torch.inference_mode():
        want = codebook.get_codebook_indices(x).numpy()
    assert np.mean(np.stack(tokenizer.encode(pictures)) == want) > 0.98
    with pytest.raises(CurateError, match="cannot decode: only the encoder was imported"):
        tokenizer.decode(tokenizer.encode(pictures))


def test_dvae_of_openai(codebook: FlavaImageCodebook, tmp_path: Path, pictures: list[NDArray[np.uint8]]) -> None:
    codebook.save_pretrained(tmp_path / "hub")
    DVAE.import_checkpoint(str(tmp_path / "hub"), tmp_path / "flava", size=SIZE)
    source = tmp_path / "openai"
    source.mkdir()
    decoder = seeded(lambda: DVAEDecoder(600, 32, 16, 2))
    save_file(openai(codebook.state_dict()), source / "encoder.safetensors")
    save_file(openai(decoder.state_dict()), source / "decoder.safetensors")
    DVAE.import_checkpoint(str(source), tmp_path / "both", size=SIZE)
    tokenizer = DVAE.load(tmp_path / "both")
    holds_the_contract(tokenizer, pictures, (8, 8))
    same = DVAE.load(tmp_path / "flava").encode(pictures)
    np.testing.assert_array_equal(np.stack(tokenizer.encode(pictures)), np.stack(same))


def test_dvae_decoder_gives_what_the_published_formula_says(
    codebook: FlavaImageCodebook, tmp_path: Path, pictures: list[NDArray[np.uint8]]
) -> None:
    """sigmoid of the first three of six channels, then (y - 0.1) / 0.8 (openai/DALL-E, usage and unmap_pixels)."""
    decoder = seeded(lambda: DVAEDecoder(600, 32, 16, 2))
    save_file(openai(codebook.state_dict()), tmp_path / "encoder.safetensors")
    save_file(openai(decoder.state_dict()), tmp_path / "decoder.safetensors")
    DVAE.import_checkpoint(str(tmp_path), tmp_path / "imported", size=SIZE)
    tokenizer = DVAE.load(tmp_path / "imported")
    ids = tokenizer.encode(pictures[:1])
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


# All

FAULTS = {
    "dtype": np.zeros((SIZE, SIZE, 3), np.float32),
    "size": np.zeros((SIZE, SIZE + 8, 3), np.uint8),
    "channels": np.zeros((SIZE, SIZE, 4), np.uint8),
}


def test_a_stack_of_none_has_no_ids_and_a_clip_has_a_frame(cosmos: dict[int, Path]) -> None:
    none = np.zeros((0, SIZE, SIZE, 3), np.uint8)
    [ids] = CosmosDI.load(cosmos[0]).encode([none])
    assert ids.shape == (0, 8, 8)
    with pytest.raises(ValueError, match="expects uint8"):
        CosmosDV.load(cosmos[4]).encode([none])


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_item_is_a_value_error(cosmos: dict[int, Path], emu3_folder: Path, fault: str) -> None:
    for tokenizer in (CosmosDI.load(cosmos[0]), CosmosDV.load(cosmos[4]), Emu3Image.load(emu3_folder / "picture")):
        with pytest.raises(ValueError, match="expects uint8"):
            tokenizer.encode([FAULTS[fault]])


def test_bad_ids_are_a_value_error(cosmos: dict[int, Path], emu3_folder: Path) -> None:
    for tokenizer, ids in (
        (CosmosDI.load(cosmos[0]), np.full((8, 8), 64000, np.uint16)),
        (CosmosDV.load(cosmos[4]), np.full((2, 8, 8), 64000, np.uint16)),
        (Emu3Image.load(emu3_folder / "picture"), np.full((8, 8), 300, np.uint16)),
    ):
        with pytest.raises(ValueError, match="has ids 0 <= id <"):
            tokenizer.decode([ids])
        with pytest.raises(ValueError, match="expects"):
            tokenizer.decode([ids[..., :4]])
        with pytest.raises(ValueError, match="expects integer ids"):
            tokenizer.decode([ids.astype(np.float32)])


def test_an_empty_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "zero.pt").write_bytes(b"")
    with pytest.raises(CurateError, match=r"zero\.pt holds more than tensors"):
        read_state(tmp_path / "zero.pt")


def test_an_imported_tokenizers_header_has_one_entry() -> None:
    """Several would be written in an order that changes from process to process, and the digest with it (law 6)."""
    raw = write_weights({"a": torch.zeros(2)}, {"one": 1, "two": [2]})
    head = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert list(head["__metadata__"]) == ["curate"]


class Endless(torch.nn.Module):
    """An archive that never answers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turns = 0
        while turns >= 0:
            turns = (turns + 1) % 1000
        return x


def test_a_program_that_does_not_end_is_ended(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    hub.mkdir()
    for name in ("encoder.jit", "decoder.jit"):
        torch.jit.script(Endless()).save(str(hub / name))
    with pytest.raises(CurateError, match="took longer than its limit of 2 s") as found:
        import_checkpoint("cosmos-di", str(hub), tmp_path / "zoo", {}, limit_s=2)
    assert "are they the publisher's own" in str(found.value.hint)
    assert not (tmp_path / "zoo").exists()
    with pytest.raises(CurateError, match="no option 'sise'"):
        import_checkpoint("cosmos-di", str(hub), tmp_path / "zoo", {"sise": "3"})

"""Cosmos: archives with its interface, made by the same call that makes the published ones."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from published import SIZE, Marks, holds_the_contract
from torch import Tensor, nn
from torch.nn import functional

from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.codecs.cosmos import CosmosDI, CosmosDV
from curate.tokenizers.importer import import_checkpoint
from curate.tokenizers.quantisers.fsq import fsq_ids

LEVELS = [8, 8, 8, 5, 5, 5]


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
    """Adopted folders by temporal stride; 0 is the tokenizer of images."""
    root = tmp_path_factory.mktemp("cosmos")
    out = {}
    for stride, of in ((0, CosmosDI), (4, CosmosDV), (8, CosmosDV)):
        of.import_checkpoint(str(export(root / f"published{stride}", stride)), root / f"imported{stride}", size=SIZE)
        out[stride] = root / f"imported{stride}"
    return out


def test_cosmos_images(cosmos: dict[int, Path], images: list[NDArray[np.uint8]]) -> None:
    tokenizer = CosmosDI.load(cosmos[0])
    card = tokenizer.card
    assert (card.grid, card.vocabulary, card.dtype, card.levels) == ((8, 8), 64000, "uint16", LEVELS)
    assert card.batch_invariance == 0.0
    holds_the_contract(tokenizer, images, (8, 8))
    stack = np.stack(images)
    np.testing.assert_array_equal(tokenizer.encode([stack])[0], np.stack(tokenizer.encode(images)))


def test_cosmos_ids_are_those_of_the_specification(cosmos: dict[int, Path], images: list[NDArray[np.uint8]]) -> None:
    values = images[0].astype(np.float32) / 127.5 - 1
    means = values.reshape(8, 2, 4, 8, 8, 3).mean((2, 4))  # (row, half, column, colour)
    z = 2 * means.transpose(0, 2, 1, 3).reshape(8, 8, 6).astype(np.float32)
    ids = CosmosDI.load(cosmos[0]).encode([images[0]])[0]
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
    np.testing.assert_array_equal(alone, tokenizer.encode([clips[0]])[0][:1])  # an image is a clip of one frame
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


def test_an_archive_traced_in_bfloat16_is_run_so(tmp_path: Path, images: list[NDArray[np.uint8]]) -> None:
    card = CosmosDI.import_checkpoint(
        str(export(tmp_path / "published", 0, torch.bfloat16)), tmp_path / "imported", size=SIZE
    )
    assert "The encoder computes in bfloat16, the decoder in float32" in card.input
    assert card.bf16_difference is None  # there is no float32 to compare with
    holds_the_contract(CosmosDI.load(tmp_path / "imported"), images, (8, 8))


def test_an_image_archive_is_no_clip_archive(cosmos: dict[int, Path], tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=r"encoder\.jit fails on"):
        CosmosDV.import_checkpoint(str(cosmos[0]), tmp_path / "imported", size=SIZE)


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
def test_a_bad_item_is_a_value_error(cosmos: dict[int, Path], fault: str) -> None:
    for tokenizer in (CosmosDI.load(cosmos[0]), CosmosDV.load(cosmos[4])):
        with pytest.raises(ValueError, match="expects uint8"):
            tokenizer.encode([FAULTS[fault]])


def test_bad_ids_are_a_value_error(cosmos: dict[int, Path]) -> None:
    for tokenizer, ids in (
        (CosmosDI.load(cosmos[0]), np.full((8, 8), 64000, np.uint16)),
        (CosmosDV.load(cosmos[4]), np.full((2, 8, 8), 64000, np.uint16)),
    ):
        with pytest.raises(ValueError, match="has ids 0 <= id <"):
            tokenizer.decode([ids])
        with pytest.raises(ValueError, match="expects"):
            tokenizer.decode([ids[..., :4]])
        with pytest.raises(ValueError, match="expects integer ids"):
            tokenizer.decode([ids.astype(np.float32)])


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

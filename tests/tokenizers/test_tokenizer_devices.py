"""Tokenizers on other hardware, as far as a CPU shows it: batches, bfloat16 before fp32 ids, memory that ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from curate.models.batches import exact
from curate.models.encoders import EfficientNetEncoder, encoder_of
from curate.models.passes import DeviceMemoryError, NotFiniteError
from curate.schema.errors import CurateError
from curate.tokenizers import zoo
from curate.tokenizers.audio import probe_audio
from curate.tokenizers.builtin import ARCHITECTURES, COSTS
from curate.tokenizers.codecs.audio_rvq import AudioRVQ
from curate.tokenizers.codecs.image_fsq import ImageFSQ
from curate.tokenizers.codecs.video_fsq import VideoFSQ
from curate.tokenizers.grid import nearest_code, probes

ZOO = Path(__file__).parents[2] / "tokenizers"
IMAGES = [clip[0] for clip in probes(5, 256)]


def share(one: list[NDArray[Any]], other: list[NDArray[Any]]) -> float:
    """Of ids that differ."""
    return float(np.mean([(a != b).mean() for a, b in zip(one, other, strict=True)]))


def test_images_in_batches_have_the_ids_of_each_alone() -> None:
    tokenizer = ImageFSQ.load(ZOO / "image-fsq-64k", batch=3)
    alone, seen = tokenizer.encode(IMAGES), []
    inner: Callable[[Any], Any] = tokenizer.net.ids
    tokenizer.net.ids = lambda x: [seen.append(len(x)), inner(x)][1]  # type: ignore[method-assign, func-returns-value]
    tokenizer.passes.size = 3  # as on a GPU
    together = tokenizer.encode(IMAGES)
    assert seen == [3, 3]
    assert share(alone, together) < 1e-3
    back = tokenizer.decode(together)
    assert [one.shape for one in back] == [(256, 256, 3)] * 5


@pytest.mark.parametrize(
    ("load", "items"),
    [
        (lambda **on: ImageFSQ.load(ZOO / "image-fsq-64k", **on), IMAGES[:2]),
        (lambda **on: VideoFSQ.load(ZOO / "video-fsq-64k", **on), probes(1, 256, 5)),
        (lambda **on: AudioRVQ.load(ZOO / "audio-rvq-4kbps", **on), probe_audio(16000, 1.0, 1)),
    ],
    ids=["image", "video", "audio"],
)
def test_bfloat16_changes_about_as_many_ids_as_the_card_says(load: Callable[..., Any], items: list[Any]) -> None:
    whole, half = load(), load(dtype="bfloat16")
    changed = share(whole.encode(items), half.encode(items))
    assert 0 < changed < 3 * whole.card.bf16_difference + 0.02
    if whole.card.modality == "video":
        assert share([half.ids_of(items[0])], [whole.ids_of(items[0], bf16=True)]) == 0


def test_the_nearest_code_is_found_in_fp32_whatever_the_network_computes_in() -> None:
    rng = torch.Generator().manual_seed(0)
    z, codes = torch.randn(500, 16, generator=rng), torch.randn(4000, 16, generator=rng)
    true = nearest_code(z, codes, "euclid")
    with exact(torch.device("cpu"), "bfloat16"):
        assert torch.equal(nearest_code(z, codes, "euclid"), true)
        rounded = (z @ codes.T - codes.square().sum(1) / 2).argmax(1)
    assert not torch.equal(rounded, true), "or this test sees nothing"
    with pytest.raises(NotFiniteError, match="in float32"):
        nearest_code(torch.full((1, 16), torch.nan), codes, "dot")


def test_latents_that_are_no_numbers_are_no_ids_and_take_no_other_image_along() -> None:
    tokenizer = ImageFSQ.load(ZOO / "image-fsq-64k", dtype="bfloat16")
    black, inner = np.zeros((256, 256, 3), np.uint8), tokenizer.net.latent

    def latent(x: torch.Tensor) -> torch.Tensor:
        z = inner(x)
        z[(x == -1).flatten(1).all(1)] = torch.inf
        return z

    tokenizer.net.latent = latent  # type: ignore[method-assign]
    for size in (1, 2):
        tokenizer.passes.size = size
        with pytest.raises(NotFiniteError, match="infinity in bfloat16"):
            tokenizer.encode([IMAGES[0], black])  # the caller encodes one by one then
        assert tokenizer.encode(IMAGES[:1])[0].shape == (32, 32)


def test_a_batch_of_images_that_does_not_fit_is_halved() -> None:
    tokenizer = ImageFSQ.load(ZOO / "image-fsq-64k")
    alone, inner, most = tokenizer.encode(IMAGES), tokenizer.net.ids, 1

    def ids(x: torch.Tensor) -> torch.Tensor:
        if len(x) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return inner(x)

    tokenizer.net.ids, tokenizer.passes.size = ids, 4  # type: ignore[method-assign]
    assert share(alone, tokenizer.encode(IMAGES)) == 0
    assert tokenizer.passes.halved == 2
    most = 0
    with pytest.raises(DeviceMemoryError, match="not even alone"):
        tokenizer.encode(IMAGES[:1])


def test_one_recording_that_does_not_fit_is_that_ones_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = AudioRVQ.load(ZOO / "audio-rvq-4kbps")

    def encoder(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(tokenizer._encoder, "forward", encoder)
    with pytest.raises(DeviceMemoryError, match="not even alone"):
        tokenizer.encode(probe_audio(16000, 1.0, 1))


def test_a_tokenizer_that_does_not_fit_at_all_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def to(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(CurateError, match="image-fsq-64k does not fit the memory of the GPU"):
        ImageFSQ.load(ZOO / "image-fsq-64k", device="cuda")


def test_an_encoder_in_batches_and_in_bfloat16_gives_about_the_same_features() -> None:
    crops = np.stack(IMAGES)[:, :224, :224]
    whole, spec = EfficientNetEncoder("global")(crops), {"library": "efficientnet-lite0", "kind": "global"}
    half: Any = encoder_of(spec, dtype="bfloat16", batch=4)
    for half._passes.size in (1, 4):  # one by one, then as on a GPU
        given = half(crops)
        cosine = (whole * given).sum(1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(given, axis=1)
        assert 0.98 < cosine.min() < 1
        assert not np.array_equal(whole, given)


OWN = """
class Own:
    name, digest, size, mean, std, grid, width, parameters = "own", "0" * 64, 8, (0,) * 3, (1,) * 3, (1,), 1, 0

    def __init__(self, device):
        self.device = device

    def __call__(self, images):
        return images[:, 0, 0, :1].astype("float32")
"""


def test_an_encoder_of_ones_own_is_not_told_what_it_does_not_ask_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_encoder.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert encoder_of({"library": "own_encoder:Own"}, "cuda", batch=4).device == "cuda"  # type: ignore[attr-defined]
    with pytest.raises(CurateError, match="does not say that it computes in bfloat16"):
        encoder_of({"library": "own_encoder:Own"}, dtype="bfloat16")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_is_said_of_an_architecture_is_what_its_class_takes(architecture: str) -> None:
    cost, takes = COSTS[architecture], inspect.signature(zoo.class_of(architecture).load).parameters
    assert cost.dtypes[0] == "float32"
    assert "dtype" in takes or cost.dtypes == ("float32",)
    assert "batch" in takes or cost.batch == 1
    assert "device" in takes or not cost.gpus

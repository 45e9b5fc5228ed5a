"""What ml-4m's reader needs of an export, by a reader of its contract that is written here: tars of all modalities are
zipped, keys must be the same, members are decoded by their extension."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from io import BytesIO
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from card_build import Item, image_item, photo, video
from exported import make_media_build
from PIL import Image
from synth import corner_names, corners, stored

from curate.exports import export
from curate.schema.errors import CurateError
from curate.shards.stream import stream

STREAMS = ["tok_depth@32", "caption"]
MODALITIES = ["rgb", "crop_settings", *STREAMS]


def decoded(name: str, data: bytes) -> tuple[str, Any]:
    """Key and value of a member: the reader cuts names at their first dot."""
    key, _, extension = name.partition(".")
    read = {"npy": lambda: np.load(BytesIO(data)), "json": lambda: json.loads(data)}
    return key, Image.open(BytesIO(data)).convert("RGB") if extension == "jpg" else read[extension]()


def zipped(root: Path, modalities: list[str]) -> list[dict[str, Any]]:
    """Samples of `ROOT/[modalities]/shard-{00000..N}.tar`; a key that is not the same in all, or a tar that ends early,
    fails, where the reader drops samples."""
    out = []
    for number in range(len(list((root / modalities[0]).iterdir()))):
        with ExitStack() as stack:
            files = [root / modality / f"shard-{number:05d}.tar" for modality in modalities]
            tars = [stack.enter_context(tarfile.open(file)) for file in files]
            for members in zip_longest(*tars):
                found = [decoded(m.name, t.extractfile(m).read()) for m, t in zip(members, tars, strict=True)]  # type: ignore[union-attr]
                (key,) = {key for key, _ in found}
                out.append({"key": key, **dict(zip(modalities, (value for _, value in found), strict=True))})
    return out


def turned() -> Item:
    """A photograph that lies on its side, with the mark that says so."""
    out, exif = BytesIO(), Image.Exif()
    exif[0x0112] = 6
    stored(Image.fromarray(corners((90, 60))), 6).save(out, "JPEG", exif=exif, quality=95)
    return Item("turned.jpg", out.getvalue(), "image", "say [EOS] v0=12", size=(90, 60))


def pictures() -> list[Item]:
    png = BytesIO()
    photo("rocket.jpg", 120).save(png, "PNG")
    names = ("astronaut.png", "chelsea.png", "coffee.png", "brick.png")
    plain = [image_item(name, photo(name, 200), f"a picture of {name}") for name in names]
    return [
        *plain,
        Item("rocket.png", png.getvalue(), "image", "a rocket", size=photo("rocket.jpg", 120).size),
        turned(),
    ]


def test_every_sample_has_every_modality_as_the_reader_takes_it(tmp_path: Path) -> None:
    items = make_media_build(tmp_path / "build", pictures())
    list(export(tmp_path / "build", "ml-4m", tmp_path / "out", streams=STREAMS))
    assert sorted(path.name for path in (tmp_path / "out/train").iterdir()) == sorted(MODALITIES)
    found = zipped(tmp_path / "out/train", MODALITIES)
    streamed = {sample["sample_id"]: sample for sample in stream(tmp_path / "build")}
    assert [sample["key"] for sample in found] == list({sample["key"]: 0 for sample in found})
    assert {sample["key"] for sample in found} == set(streamed) == set(items)
    for sample in found:
        item, tokens = items[sample["key"]], sample["tok_depth@32"]
        assert (tokens.dtype, tokens.shape) == (np.int16, (1, 16))
        assert np.array_equal(tokens.reshape(1, 4, 4), streamed[sample["key"]]["tok_depth@32"])
        width, height = item.size or (0, 0)
        assert sample["rgb"].size == (width, height)
        assert (sample["crop_settings"].dtype, sample["crop_settings"].shape) == (np.int64, (1, 5))
        side = min(width, height)
        assert sample["crop_settings"][0].tolist() == [(height - side) // 2, (width - side) // 2, side, side, 0]
        if item.name == "turned.jpg":
            assert corner_names(np.asarray(sample["rgb"])) == corner_names(corners((90, 60)))
            assert sample["caption"] == [r"say [\EOS] v0\=12"]
        else:
            assert sample["caption"] == [item.text]


def test_what_its_files_would_corrupt_is_refused_and_changed_media_are_named(tmp_path: Path) -> None:
    make_media_build(tmp_path / "build", pictures())
    with pytest.raises(CurateError, match="'tok_rgb@32': its 64000 ids do not fit the int16 of its files"):
        list(export(tmp_path / "build", "ml-4m", tmp_path / "out"))
    for tar in (tmp_path / "build/media").iterdir():
        tar.write_bytes(tar.read_bytes()[:-20_000].ljust(tar.stat().st_size, b"x"))
    with pytest.raises(CurateError, match=r"media/.*\.tar does not hold "):
        list(export(tmp_path / "build", "ml-4m", tmp_path / "out", streams=STREAMS))


def test_nothing_is_written_of_what_the_reader_would_drop(export_build: Path, tmp_path: Path) -> None:
    lacking = image_item("page.png", photo("page.png", 100), "a page", encode=False)
    make_media_build(tmp_path / "lacking", [*pictures(), lacking])
    film = Item("film.mp4", video(1.0), "video", "a film", 1.0, (320, 240), clips=[(0, 1)])
    make_media_build(tmp_path / "films", [pictures()[0], film])
    for build, streams, why in (
        (tmp_path / "lacking", STREAMS, "'tok_depth@32': 1 of 7 samples lack it"),
        (tmp_path / "films", STREAMS, "there are samples of video"),
        (export_build, ["clip_global"], "'clip_global': it is neither ids of images nor free text"),
    ):
        with pytest.raises(CurateError, match=why):
            list(export(build, "ml-4m", tmp_path / "out", streams=streams))
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif("CURATE_ML4M_PATH" not in os.environ, reason="CURATE_ML4M_PATH names no checkout of apple/ml-4m")
def test_ml4m_itself_reads_every_sample(tmp_path: Path) -> None:
    """`CURATE_ML4M_PYTHON`: of an environment with what ml-4m imports; this one's by default."""
    items = make_media_build(tmp_path / "build", pictures())
    written = list(export(tmp_path / "build", "ml-4m", tmp_path / "out", streams=STREAMS))
    script, python = Path(__file__).with_name("ml4m_reads.py"), os.environ.get("CURATE_ML4M_PYTHON", sys.executable)
    where = [os.environ["CURATE_ML4M_PATH"], tmp_path / "out/train", ",".join(MODALITIES), len(written) - 1]
    done = subprocess.run([python, script, *map(str, where)], capture_output=True, text=True, check=True, timeout=300)
    found = dict(json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("SAMPLE "))
    streamed = {sample["sample_id"]: sample for sample in stream(tmp_path / "build")}
    assert set(found) == set(items)
    for key, sample in found.items():
        assert sample["tok_depth@32"] == ["int64", [16], streamed[key]["tok_depth@32"].reshape(-1).tolist()]
        assert sample["rgb"][:2] == ["float32", [3, 32, 32]]
        assert sample["caption"].replace("\\", "") == items[key].text

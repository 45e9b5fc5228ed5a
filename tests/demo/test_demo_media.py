"""The quickstart's media: made twice the same, and each fault what its name says."""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.cli.demo import demo_media, demo_package
from curate.media.probe import probe
from curate.media.shots import find_shots
from curate.schema.errors import CurateError, MediaError
from curate.schema.recipe import FolderSource, TableSource, TarSource
from curate.schema.verdict import Failure
from curate.sources.listing import open_source
from curate.sources.read import read_all
from curate.storage import Folder

DEMO = demo_package("quickstart")
MAKE, PACKAGES = (importlib.import_module(f"{DEMO.__name__}.{name}") for name in ("make", "packages"))


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    return DEMO.prepare(tmp_path_factory.mktemp("demo")).folder


@pytest.fixture(scope="module")
def records(media, tmp_path_factory):
    """Entries by uri with their bytes or failures, as the quickstart's recipe reads them."""
    folder = FolderSource(kind="folder", name="folder", path="${CURATE_DEMO}/folder")
    tars = TarSource(kind="webdataset", name="tars", path="${CURATE_DEMO}/tars/*.tar")
    web = TableSource.model_validate(
        {
            "kind": "table",
            "name": "web",
            "path": "${CURATE_DEMO}/web.csv",
            "uri": "url",
            "text": "caption",
            "licence_column": "licence",
            "base_url": "${CURATE_DEMO_URL}",
            "fetch": {"timeout": 3, "attempts": 2, "max_bytes": 4_000_000, "allow_private": True},
        }
    )
    with DEMO.media(media.parent) as env:
        assert env["CURATE_DEMO"] == str(media)
        opened = [open_source(spec, Path("/"), env) for spec in (folder, tars, web)]
        build = Folder(tmp_path_factory.mktemp("build"))
        entries = [e for source in opened for unit in source.units(build) for e in source.read(unit, build)]
        got = read_all(entries, {"web": web.fetch})
    return {e.uri: (e, item) for e, item in zip(entries, got, strict=True)}


def digests(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_made_again_elsewhere_every_byte_is_the_same(media, tmp_path):
    again = DEMO.prepare(tmp_path).folder
    assert again.name == media.name
    assert digests(again) == digests(media)


def test_what_is_there_is_not_made_again_and_nothing_else_is_left(media):
    before = {p: p.stat().st_mtime_ns for p in media.rglob("*")}
    assert DEMO.prepare(media.parent).folder == media
    assert {p: p.stat().st_mtime_ns for p in media.rglob("*")} == before
    assert [p.name for p in media.parent.iterdir()] == [media.name]


def test_a_change_of_a_package_makes_other_media(media, monkeypatch):
    monkeypatch.setattr(MAKE, "versions", lambda: {"psychopy": "0"})
    assert f"quickstart-{MAKE._version()}" != media.name


def test_it_is_small(media):
    assert sum(p.stat().st_size for p in media.rglob("*") if p.is_file()) < 25_000_000


def test_there_is_enough_of_everything(records):
    kinds: dict[str, list[tuple[str, str | None, float | None]]] = {"image": [], "video": [], "audio": []}
    for uri, (entry, got) in records.items():
        if isinstance(got, bytes):
            try:
                found = probe(got, uri)
            except MediaError:
                assert uri.startswith("faults/")
                continue
            kinds[found.kind].append((uri, entry.text, found.duration))
    assert len([uri for uri, text, _ in kinds["image"] if text]) >= 60
    assert len([uri for uri, text, _ in kinds["image"] if not text and not uri.startswith("faults/")]) >= 3
    assert len([uri for uri, _, _ in kinds["video"] if not uri.startswith("faults/")]) >= 5
    assert 90 <= sum(seconds or 0 for _, _, seconds in kinds["video"]) <= 150
    assert len([uri for uri, _, seconds in kinds["audio"] if seconds and seconds >= 1]) >= 10
    assert len([uri for uri, _, seconds in kinds["audio"] if seconds and seconds < 1]) == 3


def test_every_good_record_says_its_licence_and_its_origin(records):
    for uri, (entry, got) in records.items():
        if isinstance(got, bytes) and uri not in ("faults/empty.png", "faults/a_text_file.jpg"):
            assert entry.licence, uri
            meta = json.loads(entry.meta)
            assert meta.get("credit") or meta.get("author"), uri


def test_the_web_part_fails_where_it_is_meant_to(records):
    failed = {uri: got for uri, (_, got) in records.items() if isinstance(got, Failure)}
    assert {uri: (got.message, got.attempt) for uri, got in failed.items()} == {
        "missing.jpg": ("status 404", 1),
        "slow.jpg": ("not complete within 3 s", 2),
        "wrong_length.jpg": ("it was cut off: the connection ended before the file did", 2),
        "too_large.jpg": ("it has 8000000 bytes, more than 4000000", 1),
    }
    assert isinstance(records["moved.jpg"][1], bytes)
    assert len([uri for uri, (e, got) in records.items() if e.source == "web" and isinstance(got, bytes)]) == 9


def test_files_that_are_no_media_cannot_be_probed(records):
    for name in ("empty.png", "a_text_file.jpg", "truncated_without_index.mp4"):
        with pytest.raises(MediaError):
            probe(records[f"faults/{name}"][1], name)


def test_the_video_cut_in_its_media_opens_and_breaks_off(records):
    import av

    path = "faults/truncated_in_its_media.mp4"
    whole = probe(records["videos/lecturer.mp4"][1], "lecturer.mp4").duration
    *_, rest = find_shots(records[path][1])
    assert rest.missing
    assert rest.end_us / 1e6 == pytest.approx(whole, abs=0.1)
    assert rest.start_us / 1e6 == pytest.approx(probe(records[path][1], path).duration, abs=0.3)
    with av.open(io.BytesIO(records[path][1])) as container:
        stream = container.streams.video[0]
        times = [p.pts * p.time_base for p in container.demux(stream) if p.pts is not None and p.size]
    assert 0.3 * whole < max(times) < 0.8 * whole


def test_the_corrupt_image_has_a_size_and_no_pixels(media):
    with Image.open(media / "folder/faults/corrupt.jpg") as image:
        assert image.size == (640, 427)
        with pytest.raises(OSError, match="truncated"):
            image.load()


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((128, 96)), np.float64)


def test_images_are_what_their_names_say(media):
    photos, faults = media / "folder/photos", media / "folder/faults"
    copy = faults / "exact_copy_of_grace_hopper.jpg"
    assert copy.read_bytes() == (photos / "grace_hopper.jpg").read_bytes()
    small, large = pixels(faults / "reencoded_flower.jpg"), pixels(photos / "flower.jpg")
    assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.99
    assert pixels(faults / "dark_swimming.jpg").mean() < 15
    house = PACKAGES.package_file("psychopy", "demos/builder/Design Templates/randomisedBlocks/stims/house03.jpg")
    blurred, sharp = (np.abs(np.diff(pixels(p))).mean() for p in (faults / "blurred_house.jpg", house))
    assert blurred < sharp / 2


def test_the_swapped_captions_are_each_others(records):
    assert "espresso" in records["faults/swapped_caption_cat.png"][0].text
    assert "cat" in records["faults/swapped_caption_coffee.png"][0].text


def test_every_file_is_listed_once_and_the_drawings_have_their_authors():
    listed = MAKE.items()
    assert len({(i.package, i.file) for i in listed}) == len({i.to for i in listed}) == len(listed)
    with tarfile.open(Path(MAKE.__file__).with_name("openclipart.tar")) as tar:
        infos = tar.getmembers()
        assert [i.name for i in infos] == sorted(i.name for i in infos)
        assert {(i.mtime, i.uid, i.gid) for i in infos} == {(0, 0, 0)}
        for info in infos:
            if info.name.endswith(".json"):
                about = json.load(tar.extractfile(info))
                assert about["title"]
                assert about["author"]


def test_the_table_names_files_that_are_served_by_relative_urls(media):
    with (media / "web.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13
    served = {p.name for p in (media / "served").iterdir()}
    assert {r["url"] for r in rows} - served == {
        "missing.jpg",
        "slow.jpg",
        "wrong_length.jpg",
        "too_large.jpg",
        "moved.jpg",
    }


def test_a_package_that_is_missing_is_named_with_the_way_to_install_it(monkeypatch):
    monkeypatch.setattr(PACKAGES.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CurateError, match="scikit-image") as error:
        PACKAGES.package_file("skimage", "data/coffee.png")
    assert "pip install 'curate-tokens[demo]'" in error.value.hint


def test_the_recipe_s_media_are_those(media, monkeypatch):
    monkeypatch.setenv("CURATE_CACHE", str(media.parents[1]))
    monkeypatch.setattr(DEMO, "default_folder", lambda: media.parent)
    with demo_media("quickstart") as env:
        assert env["CURATE_DEMO"] == str(media)
        assert env["CURATE_DEMO_URL"].startswith("http://127.0.0.1:")


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(CurateError, match="cannot be written"):
        DEMO.prepare(tmp_path / "file")


def test_the_cache_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path))
    assert DEMO.default_folder() == tmp_path / "demo"
    monkeypatch.delenv("CURATE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert DEMO.default_folder() == tmp_path / "curate-tokens" / "demo"

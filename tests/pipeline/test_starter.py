"""Recipes to begin with: for each kind of data one that a run would take, or a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from glance_files import put, tar
from object_store import ObjectStore

from curate.pipeline.looked import MOST, paths_of_tars
from curate.pipeline.plan import make_plan, open_sources
from curate.pipeline.starter import Starter, reads_the_same, starter_of, write_starter
from curate.schema.errors import CurateError
from curate.schema.recipe import TableSource
from curate.schema.recipe_file import RecipeFile
from curate.storage import Folder


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def begun(here: Path, *data: object) -> Starter:
    """The starter, whose recipe is a plan that a run would make, with sources that it would open."""
    starter = starter_of([str(one) for one in data], here / "my.yaml", Folder(here.parent / "listed"))
    (here / "my.yaml").unlink(missing_ok=True)
    write_starter(starter, here / "my.yaml")
    plan = make_plan(RecipeFile.load(here / "my.yaml"))
    open_sources(plan.file, {})
    assert [stream.use.name for stream in plan.streams] == list(starter.streams)
    assert reads_the_same(here / "my.yaml", starter)
    assert len(starter.text.splitlines()) < 50
    return starter


def table_of(starter: Starter) -> tuple[str, str | None, str | None]:
    spec = starter.found.sources[0].spec
    assert isinstance(spec, TableSource)
    return spec.uri, spec.text, spec.licence_column


def refused(here: Path, *data: object) -> str:
    with pytest.raises(CurateError) as raised:
        starter_of([str(one) for one in data], here / "my.yaml", Folder(here.parent / "listed"))
    return str(raised.value)


RGB, AUDIO, CAPTION = "tok_rgb@256", "tok_audio@16k", "caption"


@pytest.mark.parametrize(
    ("names", "streams"),
    [
        (["a.jpg"], [RGB]),
        (["a.jpg", "a.txt"], [RGB, CAPTION]),
        (["a/b/c.MP4"], [RGB, AUDIO]),
        (["a.wav"], [AUDIO]),
        (["a.flac", "a.txt", "x.npy"], [AUDIO, CAPTION]),
        (["a.jpg", "b.mp4", "c.ogg", "c.json"], [RGB, AUDIO, CAPTION]),
    ],
)
def test_a_folder_gets_streams_for_what_is_there(here: Path, names: list[str], streams: list[str]) -> None:
    for name in names:
        put(here / "photos" / name, b'{"text": "hello"}')
    starter = begun(here, "photos")
    assert list(starter.streams) == streams
    assert starter.name == "my"
    assert "motion" in starter.signals or not any(name.endswith(("mp4", "MP4")) for name in names)
    assert "path: photos\n" in starter.text, "relative to the recipe"


def test_a_folder_elsewhere_is_named_whole_and_odd_names_are_quoted(here: Path) -> None:
    odd = here.parent / "it's: {odd} #1, [x] ü"
    put(odd / "a.jpg")
    tar(odd / "t" / "0.tar", "a.jpg")
    (source,) = begun(here, odd / "t").found.sources
    assert source.spec.kind == "webdataset"
    (odd / "t" / "0.tar").unlink()
    (source,) = begun(here, odd).found.sources
    assert source.spec.path == str(odd)
    assert source.spec.name == "it-s-odd-1-x"


def test_tars_are_one_source(here: Path) -> None:
    for name in ("00.tar", "01.tar", "deep/02.tar"):
        tar(here / "shards" / name, "a.mp4", "a.txt")
    put(here / "shards" / "00.parquet")
    starter = begun(here, "shards")
    (source,) = starter.found.sources
    assert (source.spec.path, dict(source.kinds), source.texts) == ("shards/**/*.tar", {"video": 3}, 3)
    assert starter.found.notes == ["00.parquet lies beside tars in shards: it is not read unless you name it"]
    (source,) = begun(here, "shards/00.tar", "shards/01.tar").found.sources
    assert source.spec.path == "shards/0*.tar"
    assert len(begun(here, "shards/*.tar").found.sources) == 1
    put(here / "shards" / "05.tar", b"")
    assert paths_of_tars(["shards/00.tar", "shards/01.tar"]) == ["shards/00.tar", "shards/01.tar"]
    assert "05.tar" in refused(here, "shards/05.tar")


def test_a_table_of_urls_by_names_of_columns_in_any_case(here: Path) -> None:
    laion = {
        "SAMPLE_ID": [1.0, 2.0],
        "URL": ["https://x.org/1", "https://x.org/2"],
        "TEXT": ["a cat", "a dog"],
        "HEIGHT": [10, 20],
        "LICENSE": ["CC0", "?"],
        "NSFW": ["UNLIKELY", "UNSURE"],
    }
    pq.write_table(pa.table(laion), here / "laion.parquet")
    starter = begun(here, "laion.parquet")
    assert table_of(starter) == ("URL", "TEXT", "LICENSE")
    assert dict(starter.found.sources[0].kinds) == {"unknown": 2}
    assert list(starter.streams) == [RGB, CAPTION], "urls without an ending are taken as images"
    assert "meta.HEIGHT, meta.NSFW, meta.SAMPLE_ID" in starter.text


def test_columns_of_names_that_tell_nothing_are_known_by_what_they_hold(here: Path) -> None:
    rows = [
        {"n": i, "where": f"m/{i}.wav", "words": "what is said in it", "text": i, "bad\x1b\nkey": 1} for i in range(4)
    ]
    (here / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for i in range(4):
        put(here / "m" / f"{i}.wav")
    starter = begun(here, "t.jsonl")
    assert table_of(starter) == ("where", "words", None)
    assert list(starter.streams) == [AUDIO, CAPTION]
    assert "\x1b" not in starter.text


def test_a_table_of_the_files_of_a_folder_is_read_in_place_of_it(here: Path) -> None:
    put(here / "set" / "train" / "a.png")
    (here / "set" / "metadata.csv").write_text("file_name,text\ntrain/a.png,a hat\n")
    (source,) = begun(here, "set").found.sources
    assert (source.spec.kind, source.texts) == ("table", 1)
    (here / "set" / "metadata.csv").write_text("id,score\n1,2\n")
    starter = begun(here, "set")
    assert starter.found.sources[0].spec.kind == "folder"
    assert starter.found.notes[0].startswith("metadata.csv is not read: no column of metadata.csv holds")


def test_a_prefix_of_a_bucket_is_looked_at_as_a_folder_is(here: Path, s3: ObjectStore) -> None:
    place = s3.fresh()
    for name in ("photos/a.jpg", "photos/deep/b.png", "set/train/a.png", "other/notes.docx"):
        put(here / "data" / name)
    put(here / "data" / "photos" / "a.txt", b"a red bus")
    put(here / "data" / "set" / "metadata.csv", b"file_name,text\ntrain/a.png,a hat\n")
    put(here / "data" / "set" / "rows.jsonl", b'{"url": "https://x.org/1.jpg"}\n')
    for name in ("00.tar", "deep/01.tar"):
        tar(here / "data" / "shards" / name, "a.mp4", "a.txt")
    pafs.copy_files(str(here / "data"), place.removeprefix("s3://"), destination_filesystem=s3.arrow())

    def found(*names: str) -> list[tuple[str, str, dict[str, int], int]]:
        sources = begun(here, *(f"{place}{name}" for name in names)).found.sources
        return [(one.spec.kind, one.spec.path, dict(one.kinds), one.texts) for one in sources]

    photos = ("folder", f"{place}/photos", {"image": 2}, 1)
    assert found("/photos") == found("/photos/") == [photos]
    assert found("/shards") == [("webdataset", f"{place}/shards/**/*.tar", {"video": 2}, 2)]
    assert found("/shards/00.tar", "/photos") == [("webdataset", f"{place}/shards/00.tar", {"video": 1}, 1), photos]
    tables = [
        ("table", f"{place}/set/metadata.csv", {"image": 1}, 1),
        ("table", f"{place}/set/rows.jsonl", {"image": 1}, 0),
    ]
    assert found("/set") == tables
    assert found("/set/metadata.csv") == tables[:1]
    assert "it holds notes.docx" in refused(here, f"{place}/other")
    assert "there are no files in" in refused(here, f"{place}/nothing")
    assert "has no such bucket" in refused(here, "s3://no-such-bucket-of-ours/photos")


def test_addresses_of_ones_own_network_are_not_allowed_in_silence(here: Path) -> None:
    (here / "t.csv").write_text("url,caption\nhttp://127.0.0.1:80/a.jpg,a cat\n")
    starter = begun(here, "t.csv")
    assert "    # fetch: {allow_private: true}" in starter.text
    (here / "t.csv").write_text("url,caption\nhttp://example.org/a.jpg,a cat\n")
    assert "allow_private" not in begun(here, "t.csv").text


def test_several_sources_have_names_of_their_own(here: Path) -> None:
    put(here / "a" / "photos" / "x.jpg")
    put(here / "b" / "photos" / "y.wav")
    names = [one.spec.name for one in begun(here, "a/photos", "b/photos").found.sources]
    assert names == ["photos", "photos-2"]


def test_a_folder_of_many_files_is_not_counted(here: Path) -> None:
    for i in range(MOST + 50):
        put(here / "many" / f"{i}.jpg")
    (source,) = begun(here, "many").found.sources
    assert (source.records, source.is_all) == (MOST, False)
    assert "1,000 records looked at, and there are more: 1,000 image" in (here / "my.yaml").read_text()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nowhere", "there is no nowhere"),
        ("photoz", "did you mean 'photos'?"),
        ("empty", "there are no files in empty"),
        ("texts", "there is nothing in texts that is read; it holds a.txt, b.md"),
        ("photos/a.jpg", "a.jpg is one file of media\n  give its folder: photos"),
        ("my.zip", "my.zip is compressed"),
        ("packed.tar", "the tar is compressed with gzip"),
        ("old.yaml", "run it: curate run old.yaml"),
        ("table.csv", "no column of table.csv holds uris or paths of media; it has: id, score"),
        ("gone.csv", "column 'path' of gone.csv leads nowhere: a.jpg: there is no such file"),
        ("header.csv", "header.csv has no rows"),
        ("tabs.tsv", "tabs.tsv is nothing that is read"),
        ("arrays", "arrays alone"),
        ("built", "built is a build"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(here: Path, name: str, says: str) -> None:
    for path in ("photos/a.jpg", "texts/a.txt", "texts/b.md", "my.zip", "old.yaml", "tabs.tsv", "arrays/a.npy"):
        put(here / path)
    put(here / "built" / "manifest.json")
    put(here / "packed.tar", b"\x1f\x8b" + b"\0" * 1022)
    put(here / "table.csv", b"id,score\n1,2\n")
    put(here / "gone.csv", b"path,caption\na.jpg,hello\n")
    put(here / "header.csv", b"url,caption\n")
    (here / "empty").mkdir()
    assert says in refused(here, name)
    assert not (here / "my.yaml").exists()


def test_a_folder_with_the_recipe_in_it_is_not_read_with_its_build(here: Path) -> None:
    put(here / "a.jpg")
    assert f"cd {here.parent}, and give work" in refused(here, ".")
    (here / "a.jpg").unlink()
    tar(here / "a.tar", "a.jpg")
    (source,) = begun(here, ".").found.sources
    assert source.spec.path == "./*.tar", "of tars a build has none at its top"


def test_nothing_is_overwritten(here: Path) -> None:
    put(here / "photos" / "a.jpg")
    starter = begun(here, "photos")
    (here / "my.yaml").write_text("mine")
    with pytest.raises(CurateError, match="is there already"):
        write_starter(starter, here / "my.yaml")
    assert (here / "my.yaml").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_a_sentence(here: Path) -> None:
    put(here / "photos" / "a.jpg")
    starter = starter_of(["photos"], here / "my.yaml", Folder(here.parent / "listed"))
    here.chmod(0o500)
    with pytest.raises(CurateError, match="cannot write"):
        write_starter(starter, here / "my.yaml")

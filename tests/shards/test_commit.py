"""The manifest is the one commit point, and a build that is not there, or not yet, is told so plainly."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import TinyBuild, commit

from curate.schema.errors import CurateError
from curate.schema.manifest import FORMAT, File, Manifest
from curate.shards import lists
from curate.shards.commit import read_manifest
from curate.shards.lists import files_below, read_files, write_lists
from curate.storage import Folder
from curate.storage.place import atomic_write


def test_a_manifest_is_canonical_and_comes_back(tiny_build: TinyBuild) -> None:
    build = tiny_build(8)
    raw = (build / "manifest.json").read_text()
    manifest = read_manifest(build)
    assert raw == json.dumps(json.loads(raw), sort_keys=True, indent=1) + "\n"
    commit(build, manifest)
    assert (build / "manifest.json").read_text() == raw


def test_no_build(tmp_path: Path) -> None:
    for build in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(CurateError, match="no build here") as caught:
            read_manifest(build)
        assert "curate run" in caught.value.hint


def test_a_build_that_was_cut_off(tiny_build: TinyBuild) -> None:
    build = tiny_build(8)
    (build / "manifest.json").unlink()
    with pytest.raises(CurateError, match="not finished") as caught:
        read_manifest(build)
    assert f"curate run RECIPE --out {build}" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda said: said | {"format": FORMAT + 1}, "use the curate that made it"),
        (lambda said: said | {"format": 1}, "make it again into a new folder"),
        (lambda said: {k: v for k, v in said.items() if k != "seed"}, "seed"),
        (lambda said: [], "the file"),
    ],
)
def test_a_manifest_that_this_version_cannot_read(tiny_build: TinyBuild, change, says: str) -> None:  # type: ignore[no-untyped-def]
    build = tiny_build(8)
    place = build / "manifest.json"
    place.write_text(json.dumps(change(json.loads(place.read_text()))))
    with pytest.raises(CurateError) as caught:
        read_manifest(build)
    assert says in str(caught.value)


def test_a_manifest_cut_short(tiny_build: TinyBuild) -> None:
    place = tiny_build(8) / "manifest.json"
    place.write_bytes(place.read_bytes()[:-40])
    with pytest.raises(CurateError, match="not JSON"):
        read_manifest(place.parent)


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("old")

    def fail() -> None:
        with atomic_write(place) as temporary:
            temporary.write_text("half of the n")
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        fail()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("file", "old")]


def test_a_commit_sweeps_up_after_killed_writers(tiny_build: TinyBuild) -> None:
    build = tiny_build(8)
    left = build / "tokens/train/.shard-00000.arrow.0123456789abcdef.part"
    left.write_bytes(b"half")
    commit(build, read_manifest(build))
    assert not left.exists()


def test_lists_are_sorted_tables_that_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "MOST_ROWS", 4)
    store = Folder(tmp_path)
    files = [File(path=f"{folder}/{i}", digest=f"{i:064x}", bytes=i, rows=2 * i) for i in range(5) for folder in "ba"]
    entries = write_lists(store, files)
    assert [entry.rows for entry in entries] == [4, 4, 2]
    assert all(entry.path.startswith(f"versions/1/files-{i:05d}-") for i, entry in enumerate(entries))
    assert entries == write_lists(store, reversed(files)), "in any order"
    manifest = Manifest.model_construct(lists=entries)
    assert read_files(store, manifest) == sorted(files, key=lambda file: file.path)
    assert files_below(store, manifest, "b/") == sorted((f for f in files if f.path[0] == "b"), key=lambda f: f.path)
    assert files_below(store, manifest, "c/") == []
    assert write_lists(store, []) == []

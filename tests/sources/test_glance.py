"""A look at a source: enough to know what it holds, never all of a large one."""

from __future__ import annotations

from pathlib import Path

import pytest
from glance_files import put, tar

from curate.schema import recipe
from curate.sources.base import Glance
from curate.sources.folder import some_files
from curate.sources.listing import open_source
from curate.storage import Folder


def glance(spec: recipe.Source, root: Path, most: int) -> Glance:
    return open_source(spec, root, {}).glance(Folder(root / "listed"), most)


def folder(root: Path, *names: str) -> Path:
    for name in names:
        put(root / "in" / name)
    return root / "in"


def test_a_look_into_a_folder_of_many_names_asks_few_of_them(tmp_path: Path) -> None:
    top = folder(tmp_path, *(f"many/{i}.jpg" for i in range(3000)), "few/clip.mp4", "few/.hidden.mp4")
    asked: list[str] = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return True

    found, is_all = some_files(top, wanted, 20)
    assert not is_all
    assert len(found) == 20
    assert "few/clip.mp4" in found, "some of each folder"
    assert len(asked) < 100
    assert some_files(top, lambda name: name.endswith(".mp4"), 20) == (["few/clip.mp4"], True)
    assert some_files(top, lambda _: True, 5000)[1], "with enough asked for, all are found"


def test_a_folder_is_looked_at_with_its_words(tmp_path: Path) -> None:
    top = folder(tmp_path, "a.jpg", "b/c.wav", "notes.md")
    (top / "a.txt").write_text("a cat")
    spec = recipe.FolderSource(kind="folder", name="f", path=str(top))
    seen = glance(spec, tmp_path, 10)
    assert [(name, entry.text) for name, entry in seen.seen] == [("a.jpg", "a cat"), ("b/c.wav", None)]
    assert seen.is_all
    assert not glance(spec, tmp_path, 1).is_all
    assert glance(recipe.FolderSource(kind="folder", name="f", path=str(tmp_path / "listed")), tmp_path, 1).seen == []


@pytest.mark.parametrize("most", [1, 3, 4, 50])
def test_tars_are_looked_at_by_their_first_members(tmp_path: Path, most: int) -> None:
    names = [f"{i}.{ending}" for i in range(3) for ending in ("jpg", "txt")]
    tar(tmp_path / "a.tar", *names)
    tar(tmp_path / "b.tar", "x.mp4")
    seen = glance(recipe.TarSource(kind="webdataset", name="t", path="*.tar"), tmp_path, most)
    whole = [("a.tar/0.jpg", "hello"), ("a.tar/1.jpg", "hello"), ("a.tar/2.jpg", "hello"), ("b.tar/x.mp4", None)]
    assert [(name, entry.text) for name, entry in seen.seen] == whole[:most]
    assert seen.is_all == (most >= 4)


def test_a_large_tar_is_not_read_to_its_end(tmp_path: Path) -> None:
    at = tar(tmp_path / "a.tar", *(f"{i}.jpg" for i in range(100)))
    whole = at.read_bytes()
    at.write_bytes(whole[:20_000] + b"\xff" * 4096 + whole[24_096:])  # damage that a look does not come to
    spec = recipe.TarSource(kind="webdataset", name="t", path="a.tar")
    seen = glance(spec, tmp_path, 3)
    assert [name for name, _ in seen.seen] == ["a.tar/0.jpg", "a.tar/1.jpg", "a.tar/2.jpg"]
    assert not seen.is_all
    assert any(entry.is_whole for _, entry in glance(spec, tmp_path, 200).seen)


def test_a_table_is_looked_at_by_its_first_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("uri,text\n" + "".join(f"https://x.org/{i}.jpg,words\n" for i in range(9)))
    spec = recipe.TableSource(kind="table", name="t", path="t.csv")
    seen = glance(spec, tmp_path, 2)
    assert [(name, entry.text) for name, entry in seen.seen] == [(f"https://x.org/{i}.jpg", "words") for i in range(2)]
    assert not seen.is_all
    assert glance(spec, tmp_path, 9).is_all

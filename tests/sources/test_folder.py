"""A folder of media: what is listed, what belongs to what, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from listed import list_folder

from curate.sources.entry import File, UnreadableEntry
from curate.sources.sidecar import MAX_BYTES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def put(path: Path, content: bytes | str = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def listed(folder: Path):
    return {e.uri: e for e in list_folder("s", folder, "CC0-1.0")}


def message(entry) -> str:
    assert isinstance(entry.location, UnreadableEntry), entry
    return entry.location.message


def test_media_of_all_folders_are_listed_by_relative_path(folder):
    for name in ("b.JPG", "a/c.mp4", "a/d/e.flac", "z.webp", "a-b.png"):
        put(folder / name)
    for name in ("notes.txt", "data.csv", "no_suffix", ".hidden.jpg", ".git/x.jpg", "jpg"):
        put(folder / name)
    assert [e.uri for e in list_folder("s", folder)] == ["a-b.png", "a/c.mp4", "a/d/e.flac", "b.JPG", "z.webp"]
    assert listed(folder)["b.JPG"].location == File(str(folder / "b.JPG"), 1)


def test_sidecars_give_text_licence_and_the_rest(folder):
    put(folder / "a.jpg")
    put(folder / "a.txt", "\ufeffA cat.\n")
    put(folder / "a.json", json.dumps({"caption": "unused", "licence": "MIT", "z": 1, "author": "B"}))
    put(folder / "b.jpg")
    put(folder / "b.json", '{"text": "A dog.", "caption": null, "score": NaN}')
    put(folder / "c.jpg")
    entries = listed(folder)
    a, b, c = entries["a.jpg"], entries["b.jpg"], entries["c.jpg"]
    assert (a.text, a.licence) == ("A cat.", "MIT")
    assert a.meta == '{"author": "B", "caption": "unused", "z": 1}'
    assert (b.text, b.licence, b.meta) == ("A dog.", "CC0-1.0", '{"caption": null, "score": null}')
    assert (c.text, c.licence, c.meta) == (None, "CC0-1.0", "{}")


def test_a_sidecar_speaks_for_all_media_of_its_stem_and_for_no_others(folder):
    for name in ("a.jpg", "a.mp4", "ab.jpg", "sub/a.jpg"):
        put(folder / name)
    put(folder / "a.txt", "words")
    assert {uri: e.text for uri, e in listed(folder).items()} == {
        "a.jpg": "words",
        "a.mp4": "words",
        "ab.jpg": None,
        "sub/a.jpg": None,
    }


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.json", "{", "its .json is not JSON"),
        ("a.json", "[1]", "its .json is not a JSON object"),
        ("a.json", "[" * 100_000, "its .json is not JSON"),
        ("a.json", '{"a":' * 300 + "1" + "}" * 300, "its .json is nested deeper than 64 levels"),
        ("a.json", b"\xff\xfe{}", "its .json is not UTF-8"),
        ("a.txt", b"caf\xe9", "its .txt is not UTF-8 (byte 3)"),
        ("a.txt", b"x" * (MAX_BYTES + 1), "larger than"),
    ],
)
def test_a_sidecar_that_cannot_be_read_breaks_its_record_and_no_other(folder, name, content, says):
    put(folder / "a.jpg")
    put(folder / "b.jpg")
    put(folder / name, content)
    entries = listed(folder)
    assert says in message(entries["a.jpg"])
    assert entries["b.jpg"].location == File(str(folder / "b.jpg"), 1)


def test_half_a_surrogate_in_a_caption_is_replaced(folder):
    put(folder / "a.jpg")
    put(folder / "a.json", '{"caption": "half \\ud83d", "\\udc00": "\\ud800"}')
    entry = listed(folder)["a.jpg"]
    assert entry.text == "half \ufffd"
    entry.meta.encode()


def test_links_inside_are_read_and_links_that_leave_are_refused(folder, tmp_path):
    put(folder / "real.jpg", b"12345")
    outside = put(tmp_path / "secret.jpg")
    put(tmp_path / "other/x.jpg")
    (folder / "inner.jpg").symlink_to("real.jpg")
    (folder / "leaves.jpg").symlink_to(outside)
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "leaving_folder").symlink_to(tmp_path / "other")
    (folder / "loop").symlink_to(".")
    entries = listed(folder)
    assert sorted(entries) == ["dangling.jpg", "inner.jpg", "leaves.jpg", "leaving_folder", "real.jpg"]
    assert entries["inner.jpg"].location == File(str(folder / "real.jpg"), 5)
    assert message(entries["leaves.jpg"]) == "it is a link that leaves the folder: not followed"
    assert message(entries["leaving_folder"]) == "it is a link that leaves the folder: not followed"
    assert message(entries["dangling.jpg"]) == "it is a link to nothing"


def test_a_sidecar_that_links_out_of_the_folder_is_not_read(folder, tmp_path):
    put(folder / "a.jpg")
    (folder / "a.txt").symlink_to(put(tmp_path / "secret.txt", "secret"))
    entry = listed(folder)["a.jpg"]
    assert entry.text is None
    assert "leaves the folder" in message(entry)


def test_pipes_and_names_that_are_not_utf8_are_broken_entries(folder):
    os.mkfifo(folder / "pipe.mp4")
    put(Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")))
    entries = listed(folder)
    assert message(entries["pipe.mp4"]) == "it is not a file"
    assert message(entries["caf\\xe9.jpg"]) == "its name is not UTF-8"


def test_a_name_that_is_not_utf8_and_one_that_is_written_like_it_are_two_records(folder):
    put(Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")))
    put(folder / "caf\\xe9.jpg")
    one, two = list_folder("s", folder)
    assert one.uri == two.uri == "caf\\xe9.jpg"
    assert one.record_id != two.record_id


def test_a_folder_called_as_media_are_is_no_sibling(folder):
    put(folder / "a.npy")
    put(folder / "a.jpg/x.png")
    put(folder / "b.jpg")
    put(folder / "b.txt/y.png")
    assert {uri: type(e.location) for uri, e in listed(folder).items()} == dict.fromkeys(
        ("a.jpg/x.png", "a.npy", "b.jpg", "b.txt/y.png"), File
    )

"""WebDataset tars: which members make a record, and what a bad tar comes to."""

from __future__ import annotations

import io
import re
import string
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.sources.entry import Broken, TarMember
from curate.sources.tars import list_tar, split_key


def make(path: Path, members: list[tuple[str, bytes]], **more: str) -> Path:
    """A tar of files, then of members of another type: name="type:target"."""
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, what in more.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            kind, _, info.linkname = what.partition(":")
            info.type = {
                "sym": tarfile.SYMTYPE,
                "hard": tarfile.LNKTYPE,
                "chr": tarfile.CHRTYPE,
                "dir": tarfile.DIRTYPE,
            }[kind]
            tar.addfile(info)
    return path


def listed(tar: Path):
    return {e.uri: e for e in list_tar("s", tar, "t.tar", "CC0-1.0")}


def message(entry) -> str:
    assert isinstance(entry.location, Broken), entry
    return entry.location.message


def content(entry) -> bytes:
    at = entry.location
    assert isinstance(at, TarMember), at
    return Path(at.tar).read_bytes()[at.offset : at.offset + at.bytes]


def test_members_of_a_key_are_one_record_even_when_they_lie_apart(tmp_path):
    tar = make(
        tmp_path / "t.tar",
        [
            ("b/1.jpg", b"one"),
            ("a.mp4", b"two"),
            ("b/1.txt", b"first"),
            ("a.json", b'{"caption": "second", "licence": "MIT"}'),
        ],
    )
    entries = list_tar("s", tar, "t.tar", "CC0-1.0")
    assert [(e.uri, e.text, e.licence, content(e)) for e in entries] == [
        ("t.tar/b/1", "first", "CC0-1.0", b"one"),
        ("t.tar/a", "second", "MIT", b"two"),
    ]


def test_hidden_members_folders_and_metadata_are_passed_over(tmp_path):
    tar = make(
        tmp_path / "t.tar",
        [("a.jpg", b"x"), (".DS_Store", b"x"), ("._a.jpg", b"x"), ("__meta__/x.jpg", b"x")],
        folder="dir:",
    )
    assert list(listed(tar)) == ["t.tar/a"]


@pytest.mark.parametrize(
    ("members", "more", "says"),
    [
        (
            [("a.jpg", b"x"), ("a.mp3", b"y")],
            {},
            "more than one of its members is media, which is not read yet: a.jpg, a.mp3",
        ),
        ([("a.jpg", b"x"), ("a.seg.png", b"y")], {}, "more than one of its members is media"),
        ([("a.jpg", b"x"), ("a.JPG", b"y")], {}, "the tar holds more than one member a.JPG"),
        ([("a.txt", b"words"), ("a.json", b"{}")], {}, "none of its members is media: a.json, a.txt"),
        ([("a", b"x")], {}, "none of its members is media: a"),
        ([("a.jpg", b"x"), ("a.json", b"{")], {}, "its .json is not JSON"),
        ([("a.txt", b"words")], {"a__jpg": "sym:/etc/passwd"}, "a.jpg is a link: not followed"),
        ([("b.jpg", b"x")], {"a__jpg": "hard:b.jpg"}, "a.jpg is a link: not followed"),
        ([], {"a__jpg": "chr:"}, "a.jpg is not a file"),
    ],
)
def test_records_that_cannot_be_read_are_broken_and_say_why(tmp_path, members, more, says):
    good = ("z.jpg", b"good")
    entries = listed(make(tmp_path / "t.tar", [*members, good], **more))
    assert says in message(entries["t.tar/a"])
    assert content(entries["t.tar/z"]) == b"good"


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "x/../../a.jpg", ".."])
def test_names_that_lead_out_of_the_tar_are_refused(tmp_path, name):
    (entry,) = list_tar("s", make(tmp_path / "t.tar", [(name, b"x")]), "t.tar")
    assert "unsafe name" in message(entry)


def test_a_name_that_is_not_utf8_is_broken_and_can_be_stored(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.USTAR_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("café.jpg"), io.BytesIO())
    (entry,) = list_tar("s", tmp_path / "t.tar", "t.tar")
    assert entry.uri == "t.tar/caf\\xe9"
    assert "printable UTF-8" in message(entry)


def test_a_sparse_member_is_broken(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.jpg")
        info.size = 512
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "1000000"}
        tar.addfile(info, io.BytesIO(b"1\n0\n1\n".ljust(512, b"\0")))
    assert any("sparse" in message(e) for e in list_tar("s", tmp_path / "t.tar", "t.tar"))


MEMBERS = [(f"{i}.jpg", bytes([i]) * 700) for i in range(1, 5)]


def test_a_tar_that_is_cut_off_keeps_what_came_before_and_says_so(tmp_path):
    data = make(tmp_path / "t.tar", MEMBERS).read_bytes()
    (tmp_path / "t.tar").write_bytes(data[:4000])  # 1536 bytes a member: in the third's data
    entries = listed(tmp_path / "t.tar")
    assert [content(entries[f"t.tar/{i}"]) for i in (1, 2)] == [MEMBERS[0][1], MEMBERS[1][1]]
    assert "cut off" in message(entries["t.tar"])
    # what the tar does not hold is not made up: its third record is broken or not listed
    assert "t.tar/3" not in entries or "cut off" in message(entries["t.tar/3"])
    assert "t.tar/4" not in entries


@pytest.mark.parametrize(
    ("spoil", "says", "left"),
    [
        (lambda d: d[: 2 * 1536], "ends without its end mark", 2),
        (lambda d: d[:1536] + b"\xff" * 512 + d[2048:], "damaged or cut off at byte 1536", 1),
        (lambda d: d + d, "goes on after its end mark", 4),
        (lambda d: b"not a tar at all" * 100, "no tar", 0),
        (lambda d: b"", "no tar", 0),
        (lambda d: b"\x1f\x8b" + d, "compressed with gzip", 0),
    ],
)
def test_damage_to_the_tar_is_a_broken_entry_of_its_own(tmp_path, spoil, says, left):
    data = make(tmp_path / "t.tar", MEMBERS).read_bytes()
    (tmp_path / "t.tar").write_bytes(spoil(data))
    entries = listed(tmp_path / "t.tar")
    assert says in message(entries.pop("t.tar"))
    assert [content(e) for e in entries.values()] == [body for _, body in MEMBERS[:left]]


def test_a_whole_tar_has_no_damage(tmp_path):
    assert len(listed(make(tmp_path / "t.tar", MEMBERS))) == 4


names = st.text(string.ascii_letters + string.digits + "._-/", min_size=1, max_size=12)


WEBDATASET = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")  # webdataset.tariterators.base_plus_ext, 1.0.2


@given(names)
def test_keys_are_those_of_webdataset(name):
    theirs = WEBDATASET.match(name)
    if theirs is not None:  # it passes over hidden names and names without an ending
        assert split_key(name) == theirs.groups()


@given(names, names)
def test_a_key_and_its_ending_make_the_name_again(folder, base):
    name = f"{folder}/{base}"
    key, ending = split_key(name)
    assert name in (key, f"{key}.{ending}")
    assert "." not in key.rpartition("/")[2]


@settings(max_examples=60)
@given(st.data())
def test_no_damage_makes_listing_raise_or_lie_about_a_member(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("tar")
    raw = bytearray(make(folder / "t.tar", MEMBERS).read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, 4 * 1536 + 600))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(0, len(raw)))]
    (folder / "t.tar").write_bytes(raw)
    for entry in list_tar("s", folder / "t.tar", "t.tar"):
        entry.uri.encode()
        if isinstance(entry.location, TarMember):
            assert 0 <= entry.location.offset <= entry.location.offset + entry.location.bytes <= len(raw)

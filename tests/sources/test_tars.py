"""WebDataset tars: which members make a record, and what a bad tar comes to."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import re
import string
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.sources.entry import TarMember, UnreadableEntry
from curate.sources.read import read_all
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
                "blk": tarfile.BLKTYPE,
                "pipe": tarfile.FIFOTYPE,
                "dir": tarfile.DIRTYPE,
            }[kind]
            tar.addfile(info)
    return path


def listed(tar: Path):
    return {e.uri: e for e in list_tar("s", tar, "t.tar", "CC0-1.0")}


def message(entry) -> str:
    assert isinstance(entry.location, UnreadableEntry), entry
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
    entries = list(list_tar("s", tar, "t.tar", "CC0-1.0"))
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
        ([], {"a__jpg": "blk:"}, "a.jpg is not a file"),
        ([], {"a__jpg": "pipe:"}, "a.jpg is not a file"),
        ([("a.jpg", b"x")], {"a__txt": "sym:/etc/passwd"}, "a.txt is a link: not followed"),
        ([("a.jpg", b"x"), ("a.jpg", b"y")], {}, "the tar holds more than one member a.jpg"),
        ([("a.jpg", b"x"), ("a.txt", b"1"), ("a.txt", b"2")], {}, "the tar holds more than one member a.txt"),
        ([("a.pkl", b"x"), ("a.cls", b"y"), ("a.pt", b"z")], {}, "none of its members is media: a.cls, a.pkl, a.pt"),
        ([("a.jpg", b"x"), ("a.txt", b"w" * (1 << 20) + b"w")], {}, "its .txt is larger than 1048576 bytes"),
        ([("a.jpg", b"x"), ("a.txt", b"w" * (10 << 20))], {}, "its .txt is larger than 1048576 bytes"),
        ([("a.jpg", b"x"), ("a.txt", b"\xff\xfe")], {}, "its .txt is not UTF-8"),
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


@pytest.mark.parametrize(
    "name", ["a\x1b[31m.jpg", "a\n.jpg", "a\0b.jpg", "gpj.\u202eexe.jpg", "a\x7f.jpg", "\u200b.jpg", "\ufeff.jpg"]
)
def test_names_that_are_not_printable_are_broken(tmp_path, name):
    entries = list(list_tar("s", make(tmp_path / "t.tar", [(name, b"x"), ("z.jpg", b"good")]), "t.tar"))
    if "\0" not in name:  # a C string ends there: the header holds the beginning
        assert "a name that is not printable UTF-8" in message(entries[0])
    assert content(entries[-1]) == b"good"


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_name_without_end_is_broken_and_shown_short(tmp_path, form):
    long = "x" * 10_000
    with tarfile.open(tmp_path / "t.tar", "w", format=form) as tar:
        for name in (f"{long}.jpg", f"{long}/{long}.jpg", f"{'y' * 4000}.jpg"):
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    entries = list(list_tar("s", tmp_path / "t.tar", "t.tar"))
    for entry in entries[:2]:
        assert "characters, more than 4096" in message(entry)
        assert len(entry.uri) < 4200
    assert content(entries[2]) == b""


def test_dots_in_folders_belong_to_the_key_and_dots_in_endings_do_not(tmp_path):
    members = [("v1.0/a.jpg", b"one"), ("v1.0/a.txt", b"first"), ("v1.1/a.left.jpg", b"two"), ("v1.1/a.txt", b"second")]
    entries = listed(make(tmp_path / "t.tar", members))
    assert {uri: (e.text, content(e)) for uri, e in entries.items()} == {
        "t.tar/v1.0/a": ("first", b"one"),
        "t.tar/v1.1/a": ("second", b"two"),
    }


class Bomb:
    """What runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_pickles_beside_media_are_never_opened(tmp_path):
    bomb = pickle.dumps(Bomb(tmp_path / "boom"))
    array = io.BytesIO()
    np.save(array, np.array([Bomb(tmp_path / "boom")], object), allow_pickle=True)
    rest = [(f"a.{end}", bomb) for end in ("pkl", "pickle", "pt", "pth", "pyd")] + [("a.npy", array.getvalue())]
    (entry,) = list_tar("s", make(tmp_path / "t.tar", [("a.jpg", b"x"), *rest]), "t.tar")
    assert read_all([entry], {}) == [b"x"]
    assert not (tmp_path / "boom").exists()
    pickle.loads(bomb)  # it would have worked
    assert (tmp_path / "boom").exists()


def pax(size: str) -> bytes:
    """Good, then a member of 700 bytes whose PAX header states another size, then good."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("1.jpg", "2.jpg", "3.jpg"):
            info = tarfile.TarInfo(name)
            info.size = 700
            if name == "2.jpg":
                info.pax_headers = {"size": size}
            tar.addfile(info, io.BytesIO(name[:1].encode() * 700))
    return out.getvalue()


@pytest.mark.parametrize("size", ["700000", "-700", "-99999999999", "9" * 20, "0", "100", "1536", "5000", "1e3", ""])
def test_a_pax_header_that_lies_about_the_size_hides_nothing(tmp_path, size):
    (tmp_path / "t.tar").write_bytes(pax(size))
    entries = listed(tmp_path / "t.tar")
    assert content(entries.pop("t.tar/1")) == b"1" * 700
    assert re.search("two sizes|damaged|cut off", message(entries.pop("t.tar")))
    assert all("cut off" in message(entry) for entry in entries.values())


def test_a_pax_header_that_does_not_lie(tmp_path):
    (tmp_path / "t.tar").write_bytes(pax("700"))
    assert [content(e) for e in listed(tmp_path / "t.tar").values()] == [bytes([c]) * 700 for c in b"123"]


def test_a_header_that_states_the_largest_size_takes_no_memory(tmp_path):
    for name, extra in (("gnu", tarfile.GNUTYPE_LONGNAME), ("pax", tarfile.XHDTYPE), ("file", tarfile.REGTYPE)):
        info = tarfile.TarInfo("1.jpg")
        info.type, info.size = extra, 8**11 - 1
        good = make(tmp_path / "good.tar", [("0.jpg", b"good")]).read_bytes()[:1024]
        (tmp_path / "t.tar").write_bytes(good + info.tobuf(tarfile.GNU_FORMAT) + bytes(5000))
        entries = listed(tmp_path / "t.tar")
        assert content(entries["t.tar/0"]) == b"good", name
        assert isinstance(entries["t.tar"].location, UnreadableEntry), name


def test_an_old_gnu_sparse_member_is_broken(tmp_path):
    header = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[483:495] = b"00001000000\0"  # the size it pretends to have
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    good = make(tmp_path / "good.tar", [("z.jpg", b"good")]).read_bytes()
    (tmp_path / "t.tar").write_bytes(bytes(header) + good)
    entries = listed(tmp_path / "t.tar")
    assert "sparse" in message(entries["t.tar/a"])
    assert content(entries["t.tar/z"]) == b"good"


@pytest.mark.parametrize(
    ("compress", "what"), [(gzip.compress, "gzip"), (bz2.compress, "bzip2"), (lzma.compress, "xz")]
)
def test_a_compressed_tar_says_how_it_is_compressed(tmp_path, compress, what):
    (tmp_path / "t.tar").write_bytes(compress(make(tmp_path / "plain.tar", MEMBERS).read_bytes()))
    (entry,) = list_tar("s", tmp_path / "t.tar", "t.tar")
    assert f"compressed with {what}" in message(entry)


def test_an_empty_tar_has_no_records(tmp_path):
    assert listed(make(tmp_path / "t.tar", [])) == {}


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


STEMS = st.sampled_from(
    ["a", "b/a", "x" * 98, "d" * 60 + "/" + "e" * 60, "é", "a b", "p" * 200, "__meta__/a", ".h", "d/"]
)
KINDS = st.sampled_from([tarfile.REGTYPE] * 6 + [tarfile.AREGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.CONTTYPE])
FORMS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])

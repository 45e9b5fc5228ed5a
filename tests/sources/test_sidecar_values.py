"""Sidecars whose values are odd: the record is there with its media, or fails with the reason."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
from listed import list_folder

from curate.sources.entry import Entry, File, TarMember, UnreadableEntry
from curate.sources.tars import list_tar


def in_folder(folder, sidecar: str, content: bytes) -> Entry:
    (folder / "media").mkdir()
    (folder / "media/a.jpg").write_bytes(b"123")
    (folder / f"media/a{sidecar}").write_bytes(content)
    (entry,) = list_folder("s", folder / "media")
    return entry


def in_tar(folder, sidecar: str, content: bytes) -> Entry:
    with tarfile.open(folder / "t.tar", "w") as tar:
        for name, data in (("a.jpg", b"123"), (f"a{sidecar}", content)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (entry,) = list_tar("s", folder / "t.tar", "t.tar")
    return entry


PLACES = pytest.mark.parametrize("listed", [in_folder, in_tar])


@PLACES
@pytest.mark.parametrize(
    ("sidecar", "content", "says"),
    [
        (".txt", "café".encode("latin-1"), "its .txt is not UTF-8 (byte 3)"),
        (".txt", "a cat".encode("utf-16"), "its .txt is not UTF-8 but UTF-16, as it begins (byte 0)"),
        (".json", '{"caption": "a cat"}'.encode("utf-16"), "its .json is not UTF-8 but UTF-16, as it begins (byte 0)"),
        (".json", b'{"caption": "caf\xe9"}', "caption of its .json is not UTF-8"),
        (".json", b'{"license": "\xe9"}', "license of its .json is not UTF-8"),
        (".json", b'{"text": "a", "text": "b"}', "text of its .json is there more than once, with different values"),
        (".json", b'["a cat"]', "its .json is not a JSON object"),
        (".json", b'"a cat"', "its .json is not a JSON object"),
        (".json", b'{"a":' * 300 + b"1" + b"}" * 300, "its .json is nested deeper than 64 levels"),
    ],
)
def test_words_that_cannot_be_told_fail_the_record_with_the_reason(tmp_path, listed, sidecar, content, says):
    entry = listed(tmp_path, sidecar, content)
    assert entry.location == UnreadableEntry("SourceError", says)


@PLACES
@pytest.mark.parametrize(
    ("content", "text", "meta"),
    [
        (b'{"caption": "a cat", "by": "Andr\xe9"}', "a cat", {"by": "Andr\ufffd"}),
        (b'{"caption": "a cat", "m": 1, "m": 2}', "a cat", {"m": 2}),
        (b'{"caption": "a cat", "caption": "a cat"}', "a cat", {}),
        (b'{"caption": "a cat", "m": [NaN, -Infinity]}', "a cat", {"m": [None, None]}),
        (b'{"caption": "a cat", "m": ' + b"9" * 5000 + b"}", "a cat", {"m": "9" * 5000}),
        (b'\xef\xbb\xbf{"caption": "a cat"}', "a cat", {}),
        (b'{"caption": 5}', None, {"caption": 5}),
        (b'{"caption": ["a", "b"]}', None, {"caption": ["a", "b"]}),
        (b'{"caption": null, "text": " a cat\\n"}', "a cat", {"caption": None}),
        (b"{}", None, {}),
    ],
)
def test_values_that_are_odd_leave_the_record_its_media(tmp_path, listed, content, text, meta):
    entry = listed(tmp_path, ".json", content)
    assert isinstance(entry.location, File | TarMember)
    assert (entry.text, json.loads(entry.meta)) == (text, meta)


@PLACES
@pytest.mark.parametrize(
    ("content", "text"),
    [(b"\xef\xbb\xbfa cat\r\n", "a cat"), (b"", None), ("a\u2028b\x85c".encode(), "a\u2028b\x85c"), (b"a\0b", "a\0b")],
)
def test_texts_of_any_utf8_are_read(tmp_path, listed, content, text):
    entry = listed(tmp_path, ".txt", content)
    assert (entry.text, entry.location.bytes) == (text, 3)


@PLACES
def test_a_member_that_is_no_words_changes_nothing(tmp_path, listed):
    entry = listed(tmp_path, ".cls", b"\xff\xfe")
    assert (entry.text, entry.meta, entry.location.bytes) == (None, "{}", 3)

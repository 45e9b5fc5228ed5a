"""From a recipe's source to entries: variables, patterns, order, and what is said when nothing is found."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest
from listed import list_entries
from pydantic import TypeAdapter

from curate.schema.errors import CurateError
from curate.schema.recipe import Source
from curate.sources.entry import UnreadableEntry, Url


def source(kind: str, path: str, **more) -> Source:
    return TypeAdapter(Source).validate_python({"kind": kind, "name": "s", "path": path, **more})


def tar(path: Path, *names: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name in names:
            out.addfile(tarfile.TarInfo(name), io.BytesIO())


def uris(kind: str, path: str, root: Path, env: dict[str, str] | None = None, **more) -> list[str]:
    return [e.uri for e in list_entries(source(kind, path, **more), root, env or {})]


def test_relative_paths_start_in_the_root_and_variables_do_not_show_in_uris(tmp_path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media/a.jpg").write_bytes(b"x")
    assert uris("folder", "media", tmp_path) == ["a.jpg"]
    assert uris("folder", "${HERE}/media", Path("/"), {"HERE": str(tmp_path)}) == ["a.jpg"]


def test_a_variable_that_is_not_set_is_named(tmp_path):
    with pytest.raises(CurateError, match=r"\$\{MEDIAA\} .* is not set") as error:
        uris("folder", "${MEDIAA}/x", tmp_path, {"MEDIA": "/x"})
    assert "did you mean 'MEDIA'" in error.value.hint
    (tmp_path / "t.csv").write_text("uri\nx\n")
    with pytest.raises(CurateError, match=r"\$\{URL\}"):
        uris("table", "t.csv", tmp_path, base_url="${URL}/x")


def test_tars_are_sorted_by_name_and_named_from_where_the_pattern_begins(tmp_path):
    tar(tmp_path / "b/1.tar", "z.jpg", "y.jpg")
    tar(tmp_path / "a/2.tar", "x.jpg")
    assert uris("webdataset", "*/*.tar", tmp_path) == ["a/2.tar/x", "b/1.tar/z", "b/1.tar/y"]
    assert uris("webdataset", "**/*.tar", tmp_path) == ["a/2.tar/x", "b/1.tar/z", "b/1.tar/y"]
    assert uris("webdataset", "b/1.tar", tmp_path) == ["1.tar/z", "1.tar/y"]


def test_signs_of_patterns_in_a_variable_or_in_the_root_are_taken_as_they_are(tmp_path):
    odd = tmp_path / "[odd] *name"
    tar(odd / "1.tar", "x.jpg")
    assert uris("webdataset", "${HERE}/*.tar", tmp_path, {"HERE": str(odd)}) == ["1.tar/x"]
    assert uris("webdataset", "${HERE}/1.tar", tmp_path, {"HERE": str(odd)}) == ["1.tar/x"]
    assert uris("webdataset", "*.tar", odd) == ["1.tar/x"]


def test_a_uri_listed_twice_has_two_record_ids(tmp_path):
    (tmp_path / "t.csv").write_text("uri\nhttp://h/x\nhttp://h/y\nhttp://h/x\n")
    entries = list_entries(source("table", "t.csv"), tmp_path, {})
    assert [e.ordinal for e in entries] == [0, 0, 1]
    assert len({e.record_id for e in entries}) == 3


def test_a_base_url_may_hold_a_variable_and_its_port_leaves_no_trace_in_ids(tmp_path):
    (tmp_path / "t.csv").write_text("uri\nx.jpg\n")

    def at(port: int):
        env = {"URL": f"http://127.0.0.1:{port}"}
        return list_entries(source("table", "t.csv", base_url="${URL}"), tmp_path, env)[0]

    assert at(4000).location == Url("http://127.0.0.1:4000/x.jpg")
    assert at(4000).identity() == at(5000).identity()


@pytest.mark.parametrize(
    ("kind", "path", "says"),
    [
        ("folder", "nowhere", "there is no folder .*nowhere"),
        ("folder", "empty", "no media files in .*empty"),
        ("webdataset", "no-*.tar", r"no file matches 'no-\*.tar'"),
        ("webdataset", "bad.tar", "no records in .*bad.tar"),
        ("table", "no.csv", "there is no table .*no.csv"),
        ("table", "none.csv", "has no rows"),
    ],
)
def test_nothing_found_says_where_it_was_looked_for(tmp_path, kind, path, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("no media")
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    (tmp_path / "none.csv").write_text("uri\n")
    with pytest.raises(CurateError, match=says):
        uris(kind, path, tmp_path)


def test_a_base_url_that_is_no_web_address(tmp_path):
    (tmp_path / "t.csv").write_text("uri\nx.jpg\n")
    with pytest.raises(CurateError, match="is not http"):
        uris("table", "t.csv", tmp_path, base_url="/srv")


def test_one_bad_tar_among_good_ones_is_a_broken_entry(tmp_path):
    tar(tmp_path / "1.tar", "x.jpg")
    (tmp_path / "2.tar").write_bytes(b"no tar")
    good, bad = list_entries(source("webdataset", "*.tar"), tmp_path, {})
    assert good.uri == "1.tar/x"
    assert bad.uri == "2.tar"
    assert isinstance(bad.location, UnreadableEntry)


def test_a_tar_whose_name_is_not_utf8_is_refused(tmp_path):
    tar(tmp_path / "1.tar", "x.jpg")
    (tmp_path / "1.tar").rename(tmp_path / os.fsdecode(b"caf\xe9.tar"))
    with pytest.raises(CurateError, match=r"the name caf\\xe9.tar is not UTF-8"):
        uris("webdataset", "*.tar", tmp_path)

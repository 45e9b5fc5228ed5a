"""Bytes of entries: one answer each, in order, whatever is wrong with the others."""

from __future__ import annotations

import io
import os
import tarfile

from http_faults import BODY, fault_server
from listed import list_entries

from curate.schema.recipe import Fetch, TableSource
from curate.schema.verdict import Failure
from curate.sources.entry import Entry, File, TarMember, UnreadableEntry, Url
from curate.sources.read import read_all
from curate.sources.tars import list_tar


def entry(location, source: str = "s") -> Entry:
    return Entry(source, "uri", 0, None, None, "{}", location)


def test_every_kind_of_entry_gets_its_bytes_or_its_failure_in_order(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"file")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        info = tarfile.TarInfo("m.jpg")
        info.size = 6
        tar.addfile(info, io.BytesIO(b"member"))
    (member,) = list_tar("s", tmp_path / "t.tar", "t.tar")
    with fault_server() as (base, _):
        got = read_all(
            [
                entry(Url(f"{base}/good"), "web"),
                entry(File(str(tmp_path / "a.jpg"), 4)),
                entry(UnreadableEntry("SourceError", "is a link")),
                member,
                entry(Url(f"{base}/status/404"), "web"),
                entry(File(str(tmp_path / "gone.jpg"), 4)),
                entry(File(str(tmp_path / "empty.jpg"), 0)),
                entry(Url(f"{base}/good"), "strict"),
            ],
            {"web": Fetch(allow_private=True, timeout=5)},
        )
    assert got[:4] == [BODY, b"file", Failure("ingest", "SourceError", "is a link"), b"member"]
    assert got[4:7] == [
        Failure("ingest", "FetchError", "status 404"),
        Failure("ingest", "FileNotFoundError", "No such file or directory"),
        b"",
    ]
    # a source that is not named has the recipe's defaults, which refuse private addresses
    assert isinstance(got[7], Failure)
    assert "not a public address" in got[7].message


def test_files_that_change_after_listing_fail(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"12345")
    shorter, longer = File(str(path), 4), File(str(path), 6)
    for at in (shorter, longer, TarMember(str(path), 3, 10)):
        (got,) = read_all([entry(at)], {})
        assert got == Failure("ingest", "SourceError", "it has changed since it was listed")


def test_files_above_the_limit_are_not_read(tmp_path):
    path = tmp_path / "big.mp4"
    path.touch()
    os.truncate(path, 10_000_000)
    (got,) = read_all([entry(File(str(path), 10_000_000))], {}, max_bytes=1000)
    assert got == Failure("ingest", "SourceError", "it has 10000000 bytes, more than 1000")


def test_each_row_of_a_table_is_media_or_a_failure(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"file")
    bad = {3: 'a.jpg,"5 inch', 7: "a.jpg,a,b", 11: "a.jpg,caf\udce9", 13: "gone.jpg,x", 17: ",x"}
    lines = ["uri,text", *(bad.get(i, f"a.jpg,caption {i}") for i in range(20))]
    (tmp_path / "t.csv").write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    entries = list_entries(TableSource(kind="table", name="s", path="t.csv"), tmp_path, {})
    got = read_all(entries, {})
    assert len({e.record_id for e in entries}) == len(got) == 20
    assert {i for i, one in enumerate(got) if isinstance(one, Failure)} == set(bad)
    assert all(one == b"file" for i, one in enumerate(got) if i not in bad)

"""Units: each is read on its own, whatever became of it since it was listed, and costs a fixed number of requests."""

from __future__ import annotations

import gc
import io
import json
import os
import pickle
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from listed import entries_in, list_entries, units_of
from pydantic import TypeAdapter

from curate.schema import recipe
from curate.schema.errors import CurateError
from curate.schema.verdict import Failure
from curate.sources import folder, locate, parquet_rows, paths, tables
from curate.sources.base import Source, Unit
from curate.sources.entry import Entry, File, TarMember, UnreadableEntry, Url, identities
from curate.sources.folder import FEWEST, MOST, Named
from curate.sources.listing import open_source
from curate.sources.parquet_rows import FEW_ROWS, MOST_ROWS
from curate.sources.read import read_all
from curate.storage import Folder, Stat, Store


def spec(kind: str, path: str | Path, **more: Any) -> recipe.Source:
    return TypeAdapter(recipe.Source).validate_python({"kind": kind, "name": "s", "path": str(path), **more})


def opened(kind: str, path: str | Path, **more: Any) -> Source:
    return open_source(spec(kind, path, **more), Path("/"), {})


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def table(path: Path, rows: int, group: int, **columns: list[Any]) -> Path:
    uris = columns.pop("uri", [f"http://h/{i}" for i in range(rows)])
    pq.write_table(pa.table({"uri": uris} | columns), path, row_group_size=group)
    return path


def said(entry: Entry) -> str:
    assert isinstance(entry.location, UnreadableEntry), entry
    return entry.location.message


@pytest.fixture
def build(tmp_path: Path) -> Folder:
    (tmp_path / "build").mkdir()
    return Folder(tmp_path / "build")


class Watched(Folder):
    """A folder in the place of a bucket, which notes what is asked of it, and may do something after a request."""

    asked: Counter[str]
    spans: list[tuple[int, int]]
    then: Any

    @classmethod
    def at(cls, root: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
        """It stands for `s3://b`."""
        store = cls(root)
        for name, value in (("asked", Counter()), ("spans", []), ("then", lambda: None)):
            object.__setattr__(store, name, value)
        monkeypatch.setattr(paths, "open_store", lambda _: store)
        return store

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        self.asked["read_range"] += 1
        self.spans.append((offset, size))
        data = super().read_range(path, offset, size)
        self.then()
        return data

    def stat(self, path: str) -> Stat | None:
        self.asked["stat"] += 1
        return super().stat(path)

    def files(self, folder: str = "") -> list[Stat]:
        self.asked["files"] += 1
        return super().files(folder)


# what a unit is


def test_each_tar_is_a_unit_and_no_tar_is_opened_to_list_them(tmp_path, build):
    for i in range(3):
        tar(tmp_path / f"{i}.tar", {"a.jpg": b"x"})
    source = opened("webdataset", tmp_path / "*.tar")
    source.check()
    (tmp_path / "1.tar").chmod(0)
    units = units_of(source, build)
    size = (tmp_path / "0.tar").stat().st_size
    assert units == [Unit("s", f"{i}.tar", str(tmp_path / f"{i}.tar"), size, {}) for i in range(3)]
    assert [e.uri for e in entries_in(source, build, units[2:])] == ["2.tar/a"]


@pytest.mark.parametrize("first", ["", "t.parquet#0"])
def test_units_of_equal_content_have_records_of_their_own(tmp_path, build, first):
    if first:
        table(tmp_path / "t.parquet", 4000, 2000, uri=["http://h/1", "http://h/2"] * 2000)
        source = opened("table", tmp_path / "t.parquet")
    else:
        for name in ("a.tar", "b.tar"):
            tar(tmp_path / name, {"a.jpg": b"x", "b.jpg": b"y"})
        source = opened("webdataset", tmp_path / "*.tar")
    one, two = ([*source.read(unit, build)] for unit in units_of(source, build))
    assert [e.location for e in one] == [e.location for e in two] or not first
    assert not {e.record_id for e in one} & {e.record_id for e in two}
    assert not set(identities(one)) & set(identities(two))
    assert len({e.record_id for e in one}) == len(one)


def test_a_record_does_not_depend_on_the_units_beside_its_own(tmp_path, build):
    tar(tmp_path / "b.tar", {"a.jpg": b"x"})
    (before,) = entries_in(source := opened("webdataset", tmp_path / "*.tar"), build, units_of(source, build))
    tar(tmp_path / "a.tar", {"a.jpg": b"x"})
    after = entries_in(source, build, units_of(source, build))
    assert after[1] == before


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ([2000, 2000], ["t#0", "t#1"]),
        ([100, 100, 2000, 100], ["t#0", "t#2", "t#3"]),
        ([600, 600, 424, 1], ["t#0", "t#1", "t#3"]),
        ([6005, 10], ["t#0", "t#0+3000", "t#0+6000", "t#1"]),
        ([10, 0, 2000], ["t#0", "t#2"]),
    ],
)
def test_row_groups_are_units_but_for_small_and_large_ones(tmp_path, build, monkeypatch, groups, names):
    assert (FEW_ROWS, MOST_ROWS) == (1024, 65_536)
    monkeypatch.setattr(parquet_rows, "MOST_ROWS", 3000)
    path = tmp_path / "t.parquet"
    total = sum(groups)
    schema = pa.schema([("uri", pa.string()), ("n", pa.int64())])
    with pq.ParquetWriter(path, schema) as writer:
        done = 0
        for rows in groups:
            numbers = range(done, done + rows)
            batch = pa.table({"uri": [f"http://h/{i}" for i in numbers], "n": list(numbers)}, schema=schema)
            writer.write_table(batch, row_group_size=max(rows, 1))
            done += rows
    source = opened("table", path)
    units = units_of(source, build)
    assert [unit.name.replace(".parquet", "") for unit in units] == names
    assert all(0 < int(unit.detail["rows"]) <= 3000 for unit in units)
    entries = entries_in(source, build, units)
    assert [e.uri for e in entries] == [f"http://h/{i}" for i in range(total)]
    assert [e.meta for e in entries[-3:]] == [f'{{"n": {i}}}' for i in range(total - 3, total)]
    assert {e.unit for e in entries} == {unit.name for unit in units}


def test_a_table_of_lines_is_one_unit_and_counts_a_uri_again_in_every_block(tmp_path, build, monkeypatch):
    monkeypatch.setattr(tables, "BLOCK", 3)
    (tmp_path / "t.csv").write_text("uri\n" + "http://h/1\n" * 5)
    source = opened("table", tmp_path / "t.csv")
    (unit,) = units_of(source, build)
    assert (unit.name, unit.bytes) == ("t.csv", (tmp_path / "t.csv").stat().st_size)
    found = [(e.unit, e.ordinal) for e in source.read(unit, build)]
    assert found == [("t.csv#0", 0), ("t.csv#0", 1), ("t.csv#0", 2), ("t.csv#1", 0), ("t.csv#1", 1)]


def test_what_changes_nothing_that_is_read_is_not_in_the_fingerprint(tmp_path):
    url = {"base_url": "${URL}/x"}
    one = open_source(spec("table", "t.csv", **url), Path("/"), {"URL": "http://h:1"})
    other = open_source(spec("table", "u.csv", fetch={"concurrency": 3}, **url), Path("/"), {"URL": "http://h:2"})
    assert one.fingerprint() == other.fingerprint()
    for changed in ({"base_url": "http://h/y"}, {"fetch": {"max_bytes": 5}, **url}):
        again = open_source(spec("table", "t.csv", **changed), Path("/"), {"URL": "http://h:1"})
        assert again.fingerprint() != one.fingerprint()
    json.dumps(one.fingerprint())


# what becomes of a unit that is not what was listed


def test_a_tar_that_is_gone_stands_for_itself_and_takes_no_other_along(tmp_path, build):
    for name in ("a.tar", "b.tar"):
        tar(tmp_path / name, {"a.jpg": b"x"})
    source = opened("webdataset", tmp_path / "*.tar")
    units = units_of(source, build)
    (tmp_path / "a.tar").unlink()
    gone, good = entries_in(source, build, units)
    assert (gone.uri, gone.is_whole, gone.location) == (
        "a.tar",
        True,
        UnreadableEntry("FileNotFoundError", "No such file or directory"),
    )
    assert (good.uri, good.is_whole) == ("b.tar/a", False)


def test_a_tar_that_shrinks_after_it_was_listed_keeps_what_is_left(tmp_path, build):
    path = tar(tmp_path / "a.tar", {f"{i}.jpg": bytes(700) for i in range(4)})
    source = opened("webdataset", path)
    units = units_of(source, build)
    path.write_bytes(path.read_bytes()[: 2 * 1536])
    *left, end = entries_in(source, build, units)
    assert [e.uri for e in left] == ["a.tar/0", "a.tar/1"]
    assert end.is_whole
    assert "ends without its end mark" in said(end)


@pytest.mark.parametrize("what", ["shrinks", "goes", "is another"])
def test_a_tar_that_changes_while_it_is_read_keeps_what_was_read_and_says_so(tmp_path, build, monkeypatch, what):
    path = tar(tmp_path / "a.tar", {f"{i}.jpg": bytes(100_000) for i in range(8)})
    other = tar(tmp_path / "other", {"x.jpg": b"x"}).read_bytes()
    store = Watched.at(tmp_path, monkeypatch)
    source = opened("webdataset", "s3://b/a.tar")
    units = units_of(source, build)

    def change() -> None:
        if len(store.spans) == 3:
            path.unlink() if what == "goes" else path.write_bytes(b"" if what == "shrinks" else other)

    object.__setattr__(store, "then", change)
    *found, end = entries_in(source, build, units)
    assert end.is_whole
    assert said(end) == "the tar changed while it was read"
    assert found[0].location == TarMember("s3://b/a.tar", 512, 100_000)
    assert len(found) < 8


def test_a_file_of_a_folder_that_is_gone_when_its_page_is_read_fails_alone(tmp_path, build):
    here = tmp_path / "in"
    here.mkdir()
    for name in ("a.jpg", "b.jpg", "b.txt", "c.jpg"):
        (here / name).write_bytes(b"x")
    source = opened("folder", here)
    units = units_of(source, build)
    (here / "a.jpg").unlink()
    (here / "b.txt").unlink()
    (here / "c.jpg").write_bytes(b"xyz")
    a, b, c = entries_in(source, build, units)
    assert a.location == b.location == UnreadableEntry("FileNotFoundError", "No such file or directory")
    assert c.location == File(str(here / "c.jpg"), 3)
    for name in ("b.jpg", "c.jpg"):
        (here / name).unlink()
    here.rmdir()
    assert [said(e) for e in entries_in(source, build, units)] == ["No such file or directory"] * 3


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
@pytest.mark.parametrize("what", ["goes", "shrinks"])
def test_a_table_that_is_gone_or_another_one_says_so_for_each_unit(tmp_path, build, suffix, what):
    path = tmp_path / f"t.{suffix}"
    lines = {"csv": "uri\n" + "http://h/1\n" * 9, "jsonl": '{"uri": "http://h/1"}\n' * 9}
    table(path, 4000, 2000) if suffix == "parquet" else path.write_text(lines[suffix])
    source = opened("table", path)
    units = units_of(source, build)
    path.unlink()
    if what == "shrinks":
        table(path, 10, 10) if suffix == "parquet" else path.write_text(lines[suffix][:28])
    entries = entries_in(source, build, units)
    if what == "goes":
        assert [(e.uri, e.is_whole, said(e)) for e in entries] == [
            (unit.name, True, "No such file or directory") for unit in units
        ]
    elif suffix == "parquet":
        assert [(e.uri, said(e)) for e in entries] == [
            (unit.name, "the table has changed since it was listed") for unit in units
        ]
    else:  # a table of lines is read as it is when it is read
        assert "http://h/1" in {e.uri for e in entries}


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_table_that_changes_while_it_is_read_says_so_behind_its_rows(tmp_path, build, monkeypatch, suffix):
    path = tmp_path / f"t.{suffix}"
    if suffix == "parquet":
        table(path, 4000, 4000)
    else:
        row = "http://h/{i}\n" if suffix == "csv" else '{{"uri": "http://h/{i}"}}\n'
        path.write_text("uri\n" * (suffix == "csv") + "".join(row.format(i=i) for i in range(30_000)))
    store = Watched.at(tmp_path, monkeypatch)
    source = opened("table", f"s3://b/t.{suffix}")
    units = units_of(source, build)
    before = len(store.spans)

    def change() -> None:
        if len(store.spans) == before + (1 if suffix == "parquet" else 3):
            path.write_bytes(path.read_bytes()[:5000])

    object.__setattr__(store, "then", change)
    entries = entries_in(source, build, units)
    assert entries[-1].is_whole
    assert said(entries[-1]) == "the table changed while it was read"
    assert entries[0].location == Url("http://h/0")
    ids = [e.record_id for e in entries]
    assert len(ids) == len(set(ids))


def _varint(number: int) -> bytes:
    return bytes([number * 2 & 127 | 128, number * 2 >> 7])


@pytest.mark.parametrize("stated", [1990, 2010])
def test_a_row_group_that_lies_about_its_rows_hides_none_and_makes_up_none(tmp_path, build, stated):
    path = table(tmp_path / "t.parquet", 6000, 2000)
    raw = bytearray(path.read_bytes())
    footer = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    at = [i for i in range(footer, len(raw)) if raw[i : i + 2] == _varint(2000)]
    total = raw.index(_varint(6000), footer)
    raw[at[2] : at[2] + 2] = _varint(stated)  # after num_values of the column and of its statistics
    raw[total : total + 2] = _varint(6000 + stated - 2000)
    path.write_bytes(raw)
    assert pq.read_metadata(path).row_group(0).num_rows in (2000, stated)
    source = opened("table", path)
    if stated < 2000:
        with pytest.raises(CurateError, match="states 1990 rows, and 2000 of uri"):
            source.check()
        return
    source.check()
    entries = entries_in(source, build, units_of(source, build))
    bad = [e for e in entries if isinstance(e.location, UnreadableEntry)]
    assert len(entries) == 6010
    assert {said(e) for e in bad} == {"its uri cannot be read: its row group ends before it"}
    assert [e.uri for e in bad] == [f"t.parquet#{i}" for i in range(2001, 2011)]


# what listing and reading cost


def test_a_remote_parquet_table_is_listed_by_its_footer_and_read_by_its_columns(tmp_path, build, monkeypatch):
    rows, group = 20_000, 5000
    noise = [f"{i:08}" * 40 for i in range(rows)]
    jpg = pa.array([bytes([i % 251]) * 400 for i in range(rows)], pa.binary())
    uris = pa.array([f"http://h/{i}" for i in range(rows)])
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"jpg": jpg, "uri": uris, "text": noise}), path, row_group_size=group, compression="none")
    store = Watched.at(tmp_path, monkeypatch)
    source = opened("table", "s3://b/t.parquet")
    source.check()
    units = units_of(source, build)
    assert len(units) == 4
    assert store.asked == {"stat": 3, "read_range": 2}  # there, its size, its footer; again to list
    size = path.stat().st_size
    assert sum(length for _, length in store.spans) <= 2 * (64 << 10)
    for unit in units:
        store.asked.clear()
        store.spans.clear()
        assert len(list(source.read(unit, build))) == group
        assert store.asked["stat"] == 2
        assert store.asked["read_range"] <= 4
        assert sum(length for _, length in store.spans) < size // 4
    here = list_entries(spec("table", path), Path("/"), {})
    assert [e.identity() for e in here] == [e.identity() for e in entries_in(source, build, units)]


def test_sizes_of_objects_are_asked_for_while_rows_stream(tmp_path, build, monkeypatch):
    monkeypatch.setattr(locate, "WINDOW", 8)
    (tmp_path / "m").mkdir()
    for i in range(40):
        (tmp_path / f"m/{i}.jpg").write_bytes(bytes(i))
    (tmp_path / "t.csv").write_text("uri\n" + "".join(f"m/{i // 2}.jpg\n" for i in range(80)))
    store = Watched.at(tmp_path, monkeypatch)
    source = opened("table", "s3://b/t.csv")
    (unit,) = units_of(source, build)
    store.asked.clear()
    entries = source.read(unit, build)
    first = next(entries)
    assert first.location == File("s3://b/m/0.jpg", 0)
    assert store.asked["stat"] == 1 + 4  # the table, and each object of the first window once
    assert [e.location.bytes for e in entries if isinstance(e.location, File)] == [i // 2 for i in range(1, 80)]
    assert store.asked["stat"] == 1 + 40 + 1  # and whether the table is still the same


def test_a_page_of_a_bucket_costs_a_request_for_each_sidecar_and_none_besides(tmp_path, build, monkeypatch):
    for i in range(30):
        (tmp_path / f"{i}.jpg").write_bytes(b"x")
    for i in range(5):
        (tmp_path / f"{i}.txt").write_text(f"no. {i}")
    store = Watched.at(tmp_path, monkeypatch)
    source = opened("folder", "s3://b")
    units = units_of(source, build)
    store.asked.clear()
    assert sorted(e.text for e in entries_in(source, build, units) if e.text) == [f"no. {i}" for i in range(5)]
    assert store.asked == {"read_range": 5}


def test_listing_holds_no_more_of_a_long_bucket_than_of_a_short_one(build, monkeypatch):
    def objects(store: Store, prefix: str, after: str) -> Iterator[Stat]:
        for i in range(20_000):
            yield Stat(f"{i // 100:04}/{i:07}.jpg", 5)
            yield Stat(f"{i // 100:04}/{i:07}.txt", 5)

    monkeypatch.setattr(paths, "listed_after", objects)
    monkeypatch.setattr(folder, "listed_after", objects)
    monkeypatch.setattr(paths, "_is_in_order", lambda *_: True)
    Watched.at(build.root, monkeypatch)
    source = opened("folder", "s3://b")
    held, names = [], 0
    for unit in source.units(build):
        names += int(unit.detail["names"])
        held.append(sum(type(thing) in (Named, Stat) for thing in gc.get_objects()))
        assert int(unit.detail["names"]) <= MOST
    assert names == 20_000
    assert len(held) > 8
    assert max(held) <= MOST + FEWEST


def test_pages_are_written_once(tmp_path, build):
    here = tmp_path / "in"
    here.mkdir()
    for i in range(10):
        (here / f"{i}.jpg").write_bytes(b"x")
    source = opened("folder", here)
    (unit,) = units_of(source, build)
    path = build.root / str(unit.detail["page"])
    before = path.stat().st_mtime_ns
    assert units_of(source, build) == [unit]
    assert path.stat().st_mtime_ns == before


def test_the_state_of_a_page_is_that_of_its_files_and_sidecars(tmp_path, build):
    here = tmp_path / "media"
    here.mkdir()
    for name in ("a.png", "b.png"):
        (here / name).write_bytes(b"one")
    (here / "a.txt").write_text("a cat")
    (here / "gone.png").symlink_to("nowhere")
    source = opened("folder", here)
    [unit] = source.units(build)
    states = [source.state(unit, build), source.state(unit, build)]
    assert states[0] == states[1] != ""
    for change in (
        lambda: (here / "b.png").write_bytes(b"other"),
        lambda: os.utime(here / "a.png", ns=(1, 1)),
        lambda: (here / "a.txt").write_text("a dog, not a cat"),
        lambda: (here / "nowhere").write_bytes(b""),
        lambda: (here / "b.png").unlink(),
    ):
        change()
        states.append(source.state(unit, build))
    assert len(set(states[1:])) == len(states[1:])


def test_members_of_a_tar_that_lie_together_are_read_together(tmp_path, build, monkeypatch):
    members = {f"{i:03}.{end}": bytes([i]) * 700 for i in range(200) for end in ("jpg", "cls")}
    path = tar(tmp_path / "t.tar", members | {f"{i}.mp4": bytes([i]) * 5_000_000 for i in range(4)})
    store = Watched.at(tmp_path, monkeypatch)
    source = opened("webdataset", "s3://b/t.tar")
    entries = entries_in(source, build, units_of(source, build))
    store.asked.clear()
    got = read_all(entries, {})
    assert got == [bytes([i]) * 700 for i in range(200)] + [bytes([i]) * 5_000_000 for i in range(4)]
    assert store.asked["read_range"] == 4  # the small ones and the first large one have fewer than 8 MiB
    path.write_bytes(path.read_bytes()[: 100 * 2 * 1536 + 600])
    left = read_all(entries[::-1], {})[::-1]
    assert left == read_all(entries, {})
    assert left[:100] == got[:100]
    changed = Failure("ingest", "SourceError", "it has changed since it was listed")
    assert left[100:] == [changed] * 104


def test_a_source_takes_nothing_of_the_environment_along(tmp_path):
    env = {"MEDIA": str(tmp_path), "AWS_SECRET_ACCESS_KEY": "SECRET-WORD"}
    for kind, path in (("folder", "${MEDIA}"), ("webdataset", "${MEDIA}/*.tar"), ("table", "${MEDIA}/t.csv")):
        source = pickle.dumps(open_source(spec(kind, path), Path("/"), env))
        assert b"SECRET-WORD" not in source
        assert len(source) < 2000

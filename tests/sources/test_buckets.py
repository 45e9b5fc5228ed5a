"""Sources in a bucket, against a real server: the same files give the same entries and bytes as in a folder."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_proxy import BUSY, PASSING, FaultyProxy, faulty_proxy, seeded
from hypothesis import given
from hypothesis import strategies as st
from listed import list_entries
from object_store import ObjectStore
from pydantic import TypeAdapter

from curate.schema.errors import CurateError
from curate.schema.recipe import Source
from curate.schema.verdict import Failure
from curate.sources import ahead
from curate.sources.ahead import FIRST, LARGEST, ReadAhead
from curate.sources.entry import Entry, File, TarMember, UnreadableEntry, Url, entries_table
from curate.sources.paths import _fits
from curate.sources.read import read_all
from curate.sources.tars import list_tar
from curate.storage import Bucket, Folder, bucket, open_store, retry


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def proxy(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy that does no harm yet, in front of the store; tries follow each other quickly."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 0.05)
    monkeypatch.setattr(bucket, "SILENT_SECONDS", 1.0)
    bucket._made.cache_clear()
    with faulty_proxy(s3.endpoint, s3.key, s3.secret) as running:
        running.stall_seconds = 1.5
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running
    bucket._made.cache_clear()


def source(kind: str, path: str, **more) -> Source:
    return TypeAdapter(Source).validate_python({"kind": kind, "name": "s", "path": path, **more})


def upload(folder: Path, to: str) -> str:
    """Every file of a folder, below an `s3://` address."""
    store = open_store(to)
    for path in folder.rglob("*"):
        if path.is_file():
            store.write(path.relative_to(folder).as_posix(), path.read_bytes())
    return to


def put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def tar(path: Path, members: dict[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            raw = data.encode() if isinstance(data, str) else data
            info.size = len(raw)
            out.addfile(info, io.BytesIO(raw))
    return path


ODD = ["what?.jpg", "h#sh.jpg", "per%20cent.jpg", "plus+ and space.jpg", "ünï/[1].jpg", 'q"<b>.jpg', "*.jpg"]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Sources of each kind, in one folder."""
    media = tmp_path / "media"
    for i, name in enumerate(ODD):
        put(media / "files" / name, f"picture {i}")
    put(media / "files/a/b.c.jpg", "two dots")
    put(media / "files/a/b.c.txt", "\ufeffA caption.\n")
    put(media / "files/a/b.json", '{"caption": "of another stem"}')
    put(media / "files/a-b.MP4", b"")
    put(media / "files/bad.png", "x")
    put(media / "files/bad.json", "{")
    put(media / "files/.hidden/x.jpg", "x")
    put(media / "files/notes.txt", "no media")
    put(media / "files2/neighbour.jpg", "of another folder")
    tar(media / "tars/a/x-1.tar", {"1.jpg": b"one", "1.txt": "first", "2.jpg": b"two" * 1000, "2.json": '{"n": 2}'})
    tar(media / "tars/a-b/x-2.tar", {"3.wav": b"three", "../4.jpg": b"four"})
    put(media / "tars/a/y.tar", b"no tar")
    rows = [{"uri": "files/a/b.c.jpg"}, {"uri": "files/../files/what?.jpg", "text": "odd"}, {"uri": "files/none.jpg"}]
    rows += [{"uri": "../outside.jpg"}, {"uri": "http://h/x.jpg"}, {"uri": ""}]
    put(media / "t.jsonl", "\n".join(map(json.dumps, rows)))
    pq.write_table(pa.Table.from_pylist(rows), media / "t.parquet")
    put(media / "t.csv", "uri,text\n" + "\n".join(f"{row['uri']},{row.get('text', '')}" for row in rows[:5]) + "\n")
    return media


SOURCES = [
    source("folder", "${MEDIA}/files"),
    source("webdataset", "${MEDIA}/tars/*/x-*.tar"),
    source("webdataset", "${MEDIA}/tars/**/*.tar"),
    source("webdataset", "${MEDIA}/tars/a/x-1.tar"),
    source("table", "${MEDIA}/t.jsonl"),
    source("table", "${MEDIA}/t.parquet"),
    source("table", "${MEDIA}/t.csv"),
]


def both(here: Path, there: str, one: Source) -> tuple[list[Entry], list[Entry]]:
    return list_entries(one, Path("/"), {"MEDIA": str(here)}), list_entries(one, Path("/"), {"MEDIA": there})


def test_the_same_files_are_the_same_entries_with_the_same_bytes(here, s3):
    there = upload(here, s3.fresh())
    for one in SOURCES:
        local, remote = both(here, there, one)
        assert [e.identity() for e in remote] == [e.identity() for e in local]
        assert [e.record_id for e in remote] == [e.record_id for e in local]
        assert [e.unit for e in remote] == [e.unit for e in local], "partitions have the same names"
        stored = [e for e in remote if not isinstance(e.location, Url)]
        assert len(stored) >= 2
        for entry in stored:
            at = entry.location
            assert isinstance(at, UnreadableEntry) or (at.path if isinstance(at, File) else at.tar).startswith(
                f"{there}/"
            )
        assert read_all(stored, {}) == read_all([e for e in local if not isinstance(e.location, Url)], {})


def test_it_is_the_same_through_a_store_that_fails_all_the_time(here, s3, proxy):
    there = upload(here, f"{s3.bucket('behind-proxy')}/sources")
    proxy.choose = seeded(5, 0.3, [fault for fault in PASSING if fault not in ("stall", "drip")])
    for one in SOURCES:
        local, remote = both(here, there, one)
        assert [e.identity() for e in remote] == [e.identity() for e in local]
        stored = [i for i, e in enumerate(local) if not isinstance(e.location, Url)]
        assert read_all([remote[i] for i in stored], {}) == read_all([local[i] for i in stored], {})
    assert proxy.injected.total() > 20


def test_a_relative_uri_may_begin_in_a_bucket_and_a_table_may_name_others(here, s3):
    there = upload(here, s3.fresh())
    rows = ["a/b.c.jpg", f"{there}/files/what?.jpg", "../t.csv", "/a/b.c.jpg", f"{there}/files/none.jpg", "s3://x/a//b"]
    put(here / "names.csv", "uri\n" + "\n".join(rows) + "\n")
    found = list_entries(source("table", str(here / "names.csv"), base_url=f"{there}/files"), Path("/"), {})
    assert [e.uri for e in found] == rows
    assert [e.location for e in found[:2]] == [File(f"{there}/files/a/b.c.jpg", 8), File(f"{there}/files/what?.jpg", 9)]
    assert [e.location.message for e in found[2:]] == [
        "its path leaves base_url",
        "its path leaves base_url",
        "there is no such file",
        "its uri is not valid: no object can have that name",
    ]


def test_a_table_in_a_bucket_names_no_files_of_this_machine(tmp_path, s3):
    secret = tmp_path / "secret.jpg"
    secret.write_text("secret")
    there = s3.fresh()
    open_store(there).write("t.csv", f"uri\n{secret}\nfile://{secret}\n../../{secret}\nx/../../y.jpg\n".encode())
    found = list_entries(source("table", f"{there}/t.csv"), Path("/"), {})
    says = [e.location.message for e in found]
    assert says[:2] == ["its path is one of a machine; the table is in a bucket"] * 2
    assert says[2:] == ["its path leaves the folder of the table"] * 2


def test_a_strangers_bucket_in_a_table_costs_its_own_rows(here, s3):
    there = upload(here, s3.fresh())
    strange = [
        "s3://no-such-bucket-of-ours/x.jpg",
        "s3://me:pass@bucket/x.jpg",
        "s3://bucket:99/x",
        "s3://?/x",
        "s3://#",
    ]
    put(here / "names.csv", "\n".join(["uri", *strange, f"{there}/files/*.jpg"]) + "\n")
    table = source("table", str(here / "names.csv"))
    *broken, good = list_entries(table, Path("/"), {})
    assert good.location == File(f"{there}/files/*.jpg", 9)
    messages = [e.location.message for e in broken]
    assert messages[0] == "there is no such file"
    assert "credentials do not belong into an s3:// uri" in messages[1]
    assert not any("pass@" in message for message in messages)
    put(here / "names.csv", f"uri\n{strange[1]}\nhttp://h/x.jpg\n")
    assert [type(e.location) for e in list_entries(table, Path("/"), {})] == [UnreadableEntry, Url]
    put(here / "names.csv", f"uri\n{strange[1]}\n")
    with pytest.raises(CurateError, match="credentials do not belong"):
        list_entries(table, Path("/"), {})


def test_wrong_credentials_end_the_job_with_their_sentence(here, s3, monkeypatch):
    there = upload(here, s3.fresh())
    entries = [list_entries(one, Path("/"), {"MEDIA": there})[0] for one in SOURCES]
    put(here / "names.csv", f"uri\n{there}/files/*.jpg\n{there}/files/a/b.c.jpg\n")
    bucket._made.cache_clear()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "WRONG-SECRET")
    tries = [lambda one=one: list_entries(one, Path("/"), {"MEDIA": there}) for one in SOURCES]
    tries += [lambda: list_entries(source("table", str(here / "names.csv")), Path("/"), {})]
    tries += [lambda: read_all(entries[:1], {}), lambda: read_all(entries[1:2], {})]
    for attempt in tries:
        with pytest.raises(CurateError, match="refuses these credentials") as error:
            attempt()
        assert "AWS_ACCESS_KEY_ID" in error.value.hint
        assert "WRONG-SECRET" not in str(error.value)
    bucket._made.cache_clear()


def test_a_store_that_is_away_is_a_failure_of_the_records_that_were_read_then(here, s3, proxy):
    there = upload(here, s3.fresh())
    entries = list_entries(SOURCES[0], Path("/"), {"MEDIA": there})
    proxy.choose = lambda request: BUSY if request.path.endswith("b.c.jpg") else None
    got = dict(zip((e.uri for e in entries), read_all(entries, {}), strict=True))
    away = got.pop("a/b.c.jpg")
    assert away == Failure(
        "ingest", "StoreUnavailable", f"the object store answers 503, {retry.TRIES} times in a row", retry.TRIES
    )
    assert [uri for uri, item in got.items() if isinstance(item, Failure)] == ["bad.png"]


def test_objects_that_change_or_go_after_listing_fail(s3):
    there = s3.fresh()
    store = open_store(there)
    for name in ("grown", "shorter", "gone", "empty", "same"):
        store.write(f"{name}.jpg", b"12345")
    entries = list_entries(source("folder", there), Path("/"), {})
    store.write("grown.jpg", b"123456")
    store.write("shorter.jpg", b"1")
    store.write("empty.jpg", b"")
    store.remove(["gone.jpg"])
    got = dict(zip((e.uri for e in entries), read_all(entries, {}), strict=True))
    changed = Failure("ingest", "SourceError", "it has changed since it was listed")
    assert got == {
        "grown.jpg": changed,
        "shorter.jpg": changed,
        "empty.jpg": changed,
        "gone.jpg": Failure("ingest", "FileNotFoundError", "No such file or directory"),
        "same.jpg": b"12345",
    }
    (cut,) = read_all([Entry("s", "u", 0, None, None, "{}", TarMember(f"{there}/same.jpg", 2, 10))], {})
    assert cut == changed


@pytest.mark.parametrize(
    ("kind", "path", "says"),
    [
        ("folder", "{there}/nothing", "source 's': no media files in {there}/nothing"),
        ("webdataset", "{there}/x-*.tar", "source 's': no file matches '{there}/x-*.tar' in {there}"),
        ("webdataset", "{there}/x.tar", "source 's': no file matches '{there}/x.tar' in {there}"),
        ("table", "{there}/t.csv", "source 's': there is no table {there}/t.csv"),
        ("table", "s3://curate-tests", "source 's': there is no table s3://curate-tests"),
        ("folder", "s3://no-such-bucket-of-ours/x", "s3://no-such-bucket-of-ours: the object store has no such bucket"),
        ("webdataset", "s3://no-such-bucket-of-ours/*.tar", "the object store has no such bucket"),
        ("table", "s3://no-such-bucket-of-ours/t.csv", "there is no table"),
        ("folder", "gs://bucket/x", "gs:// is not a place that curate can read or write"),
        ("webdataset", "s3://*/x.tar", "names no bucket"),
        ("folder", "s3://me:secret@bucket/x", "credentials do not belong into an s3:// uri"),
    ],
)
def test_nothing_found_is_one_clear_sentence(s3, kind, path, says):
    there = s3.fresh()
    with pytest.raises(CurateError) as error:
        list_entries(source(kind, path.format(there=there)), Path("/"), {})
    assert says.format(there=there) in error.value.message
    assert "\n" not in error.value.message


def test_a_name_that_cannot_be_listed_is_said(s3):
    there = s3.fresh()
    with s3.arrow().open_output_stream(f"{there.removeprefix('s3://')}/two\nlines.jpg") as stream:
        stream.write(b"x")
    with pytest.raises(CurateError, match="whose name has a line break") as error:
        list_entries(source("folder", there), Path("/"), {})
    assert "rename it" in error.value.hint


class Counted(Folder):
    """A folder that notes what is asked of it."""

    asked: list[tuple[int, int]]

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        self.asked.append((offset, size))
        return super().read_range(path, offset, size)


def listed_with(tmp_path: Path, monkeypatch, members: dict[str, bytes | str]) -> tuple[int, int, int]:
    """Requests, bytes asked for, and bytes of the tar, when it is listed."""
    path = tar(tmp_path / "t.tar", members)
    store = Counted(tmp_path)
    object.__setattr__(store, "asked", [])
    monkeypatch.setattr(ahead, "in_bucket", lambda _: (store, "t.tar"))
    found = list_tar("s", "s3://b/t.tar", "t.tar")
    assert [e.identity() for e in found] == [e.identity() for e in list_tar("s", path, "t.tar")]
    return len(store.asked), sum(size for _, size in store.asked), path.stat().st_size


def test_a_tar_of_many_small_members_costs_few_requests(tmp_path, monkeypatch):
    members = {f"{i:04}.{end}": data for i in range(2000) for end, data in (("jpg", b"x" * 3000), ("txt", f"no. {i}"))}
    requests, read, size = listed_with(tmp_path, monkeypatch, members)
    assert size > 9_000_000
    assert requests <= 10
    assert read <= size


def test_of_a_tar_of_large_members_only_the_headers_are_read(tmp_path, monkeypatch):
    members = {f"{i}.{end}": data for i in range(8) for end, data in (("mp4", bytes(2_000_000)), ("txt", f"no. {i}"))}
    requests, read, size = listed_with(tmp_path, monkeypatch, members)
    assert requests <= 10
    assert read < size / 10


@given(st.data())
def test_reading_ahead_gives_what_a_file_gives(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "ahead"
    size = 3 * FIRST + 17
    if not folder.exists():
        folder.mkdir()
        (folder / "f").write_bytes(bytes(i * 7 % 251 for i in range(size)))
    with (folder / "f").open("rb") as plain:
        ahead = io.BufferedReader(ReadAhead(Folder(folder), "f", size))
        for _ in range(data.draw(st.integers(1, 8))):
            at = data.draw(st.integers(0, size + 10))
            count = data.draw(st.sampled_from([0, 1, 511, 512, FIRST, FIRST + 1, LARGEST]))
            assert (ahead.seek(at), ahead.read(count)) == (plain.seek(at), plain.read(count))


@given(
    st.lists(st.sampled_from(["a", "b.tar", ".h", "[x]", "ab"]), min_size=1, max_size=4),
    st.lists(st.sampled_from(["a", "*", "?", "**", "*.tar", "[ab]*", "[[]x]", ".*", "ab"]), min_size=1, max_size=4),
)
def test_patterns_mean_in_a_bucket_what_they_mean_on_disk(tmp_path_factory, path, pattern):
    import glob

    folder = tmp_path_factory.mktemp("g")
    target = folder.joinpath(*path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"")
    found = glob.glob("/".join(pattern), root_dir=folder, recursive=True)  # noqa: PTH207
    assert _fits(path, pattern) == ("/".join(path) in found)


def test_a_location_in_a_bucket_holds_no_endpoint_and_no_credentials(here, s3):
    there = upload(here, s3.fresh())
    found = [e for one in SOURCES for e in list_entries(one, Path("/"), {"MEDIA": there})]
    said = str(entries_table(found).to_pylist())
    for word in (s3.secret, s3.key, s3.endpoint, "127.0.0.1"):
        assert word not in said
    assert isinstance(open_store(there), Bucket)

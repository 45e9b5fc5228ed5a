"""`verify` notices each fault that a build can have, and names the file and the row."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tiny import TinyBuild, finish, make_samples, rewrite_files

from curate.schema.errors import CurateError
from curate.schema.tables import LEDGER
from curate.shards.commit import describe_file, read_manifest
from curate.shards.ipc import open_ipc, write_ipc
from curate.shards.lists import files_below, read_files
from curate.shards.stream import stream
from curate.shards.verify import verify
from curate.shards.verify_shards import RowSums
from curate.storage import Folder

VERDICTS = "verdicts/here-1.parquet"  # where the rows lie that tests change, but those of records
SAMPLES = "samples/here-0.parquet"


def shard_in(build: Path, split: str = "train") -> str:
    """The first shard of a split."""
    return next(s for s in read_manifest(build).splits if s.name == split).shards[0]


def reseal(build: Path, rows: dict[str, int] | None = None) -> None:
    """Make every digest and size in the lists right again, as a forger would, so that only the content tells."""
    manifest = read_manifest(build)
    files = [
        describe_file(Folder(build), f.path, (rows or {}).get(f.path, f.rows))
        for f in read_files(Folder(build), manifest)
    ]
    rewrite_files(build, manifest, files)


def edit_manifest(build: Path, change: Callable[[dict[str, Any]], None]) -> None:
    place = build / "manifest.json"
    said = json.loads(place.read_text())
    change(said)
    place.write_text(json.dumps(said))


def edit_entry(build: Path, of: str, **update: Any) -> None:
    """Change what the lists say of a file."""
    manifest = read_manifest(build)
    files = read_files(Folder(build), manifest)
    rewrite_files(build, manifest, [f.model_copy(update=update) if f.path == of else f for f in files])


def edit_shard(build: Path, column: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change the cells of one column of a shard, and seal the build again."""
    path = shard_in(build)
    schema, (batch,) = open_ipc(build / path)
    at = schema.names.index(column)
    columns = batch.columns
    columns[at] = pa.array(change(columns[at].to_pylist()), schema.field(at).type)
    write_ipc(Folder(build), path, schema, [pa.RecordBatch.from_arrays(columns, schema=schema)])
    reseal(build)


def edit_ledger(build: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the ledger, and seal the build again."""
    rows = {}
    for file in files_below(Folder(build), read_manifest(build), "verdicts/"):
        table = change(pq.read_table(build / file.path))
        pq.write_table(table.cast(LEDGER), build / file.path)
        rows[file.path] = table.num_rows
    reseal(build, rows)


def set_cell(table: pa.Table, row: str, column: str, value: Any) -> pa.Table:
    """The ledger with one cell of row `row` (its id) changed."""
    at = table.schema.get_field_index(column)
    cells = pc.if_else(pc.equal(table["id"], row), pa.scalar(value, table.schema.field(at).type), table[column])
    return table.set_column(at, table.schema.field(at), cells)


def problem(build: Path, *words: str, deep: bool = True) -> None:
    """`verify` says no, and one of its sentences holds all of `words`."""
    report = verify(build, deep=deep)
    assert not report.ok
    assert any(all(word in sentence for word in words) for sentence in report.problems), report.problems


@pytest.mark.parametrize("deep", [True, False])
def test_a_good_build(tiny_build: TinyBuild, deep: bool) -> None:
    samples = make_samples(60)
    report = verify(tiny_build(60), deep=deep)
    assert report.problems == []
    assert report.ok
    assert report.records == {"total": 33, "sampled": 30, "dropped": 1, "duplicate": 1, "failed": 1}
    assert report.samples == {"total": 63, "kept": 60, "dropped": 1, "duplicate": 1, "failed": 1}
    for found in report.streams:
        truth = sum(np.size(v) for s in samples if (v := s.ids.get(found.name)) is not None)
        assert found.ids == truth
    assert [s.name for s in report.streams] == ["tok_rgb@32", "tok_audio@16k", "caption"]
    assert json.loads(report.model_dump_json()).keys() == {"ok", "problems", "records", "samples", "streams"}


class TestFiles:
    @pytest.mark.parametrize("path", ["tokens", VERDICTS, SAMPLES])
    @pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
    def test_a_flipped_bit(self, tiny_build: TinyBuild, path: str, where: float) -> None:
        build = tiny_build()
        path = shard_in(build) if path == "tokens" else path
        raw = bytearray((build / path).read_bytes())
        raw[int(len(raw) * where)] ^= 1
        (build / path).write_bytes(raw)
        problem(build, path, "digest")

    def test_a_missing_file(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        shard = shard_in(build)
        (build / shard).unlink()
        problem(build, shard, "missing")

    @pytest.mark.parametrize("deep", [True, False])
    def test_a_shard_cut_short(self, tiny_build: TinyBuild, deep: bool) -> None:
        build = tiny_build()
        shard = shard_in(build)
        raw = (build / shard).read_bytes()
        (build / shard).write_bytes(raw[: len(raw) // 2])
        problem(build, shard, "bytes", deep=deep)

    def test_a_shard_cut_short_and_sealed_again(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        shard = shard_in(build)
        raw = (build / shard).read_bytes()
        (build / shard).write_bytes(raw[: len(raw) // 2])
        reseal(build)
        problem(build, shard, "not a whole Arrow IPC file")

    @pytest.mark.parametrize("path", ["notes.txt", "tokens/train/shard-00009.arrow", ".hidden"])
    def test_a_file_too_many(self, tiny_build: TinyBuild, path: str) -> None:
        build = tiny_build()
        (build / path).write_bytes(b"x")
        problem(build, path, "not listed")

    def test_wrong_rows(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()

        edit_entry(build, SAMPLES, rows=59)
        problem(build, SAMPLES, "60 rows", "59")

    @pytest.mark.parametrize("change", ["missing", "changed", "of something else"])
    def test_a_list_that_is_not_the_one_that_the_manifest_names(self, tiny_build: TinyBuild, change: str) -> None:
        build = tiny_build()
        entry = read_manifest(build).lists[0]
        place = build / entry.path
        if change == "missing":
            place.unlink()
        elif change == "changed":
            place.write_bytes(place.read_bytes() + b" ")
        else:
            pq.write_table(pa.table({"a": [1]}), place)
            other = describe_file(Folder(build), entry.path, 1).model_dump()
            edit_manifest(build, lambda said: said.update(lists=[other]))
        problem(build, entry.path)
        with pytest.raises(CurateError, match="curate verify"):
            stream(build)

    @pytest.mark.parametrize("path", ["../outside", "/etc/hostname", "verdicts/../../outside", "a//b"])
    def test_a_path_out_of_the_build(self, tiny_build: TinyBuild, path: str) -> None:
        build = tiny_build()
        (build.parent / "outside").write_bytes(b"x")
        edit_entry(build, SAMPLES, path=path)
        problem(build, path, "not a plain path inside the build")

    def test_a_link_out_of_the_build(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        shard = shard_in(build)
        (build / shard).rename(build.parent / "elsewhere.arrow")
        (build / shard).symlink_to(build.parent / "elsewhere.arrow")
        problem(build, shard, "leads out of the build")

    def test_a_tar_that_holds_more_records_than_it_should(self, tmp_path: Path) -> None:
        build = tmp_path / "build"
        (build / "media").mkdir(parents=True)
        with tarfile.open(build / "media/shard-00000.tar", "w") as tar:
            for name in ("a.jpg", "a.json", "b.x.mp4"):
                tar.addfile(tarfile.TarInfo(name), io.BytesIO())
        finish(build, make_samples(8), extra=[("media/shard-00000.tar", 2)])
        assert verify(build).ok
        edit_entry(build, "media/shard-00000.tar", rows=1)
        problem(build, "media/shard-00000.tar", "2 rows", "1")


class TestLedger:
    def test_a_row_taken_out(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        edit_ledger(build, lambda t: t.filter(pc.not_equal(t["id"], "s-dropped")))
        problem(build, "ledger", "samples count total 62", "the manifest says total 63")

    def test_a_verdict_turned_round(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        edit_ledger(build, lambda t: set_cell(t, "r-failed", "outcome", "dropped"))
        problem(build, "dropped without rule", "r-failed")
        problem(build, "records count", "failed 0")

    def test_an_id_twice(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        edit_ledger(build, lambda t: pa.concat_tables([t, t.filter(pc.equal(t["id"], "s-failed"))]))
        problem(build, "more than one row of one id", "s-failed")

    @pytest.mark.parametrize(
        ("row", "column", "value", "says"),
        [
            ("s-failed", "message", None, "failed without stage"),
            ("s-dropped", "error", "MediaError", "failed without stage"),
            ("s-dropped", "rule", None, "dropped without rule"),
            ("s-duplicate", "duplicate_of", None, "duplicate without keeper"),
            ("s-duplicate", "duplicate_of", "s-duplicate", "duplicate of itself"),
            ("s-duplicate", "duplicate_of", "r-dropped", "what the ledger does not hold"),
            ("s-dropped", "record_id", "r-failed", "sample of a record that is not sampled"),
            ("s-dropped", "level", "clip", "neither record nor sample"),
            ("s-dropped", "outcome", "sampled", "which it cannot have"),
            ("r-dropped", "outcome", "sampled", "sampled record without a sample"),
        ],
    )
    def test_a_verdict_that_does_not_say_what_it_must(
        self, tiny_build: TinyBuild, row: str, column: str, value: str | None, says: str
    ) -> None:
        build = tiny_build()
        edit_ledger(build, lambda t: set_cell(t, row, column, value))
        problem(build, "ledger", says)

    def test_a_kept_sample_that_no_shard_holds(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        clean = {"rule": None, "outcome": "kept"}

        def change(t: pa.Table) -> pa.Table:
            for column, value in clean.items():
                t = set_cell(t, "s-dropped", column, value)
            return t

        edit_ledger(build, change)
        problem(build, "kept sample that is in no shard", "s-dropped")

    def test_a_row_whose_sample_was_dropped(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        sample = make_samples(1)[0].sample_id
        edit_ledger(build, lambda t: set_cell(set_cell(t, sample, "outcome", "dropped"), sample, "rule", "x >= 1"))
        problem(build, "ledger does not say is kept", sample, "row")


class TestShards:
    def test_two_rows_of_one_stream_swapped(self, tiny_build: TinyBuild) -> None:
        """Ids of one sample under the key of another: every count is right, only the digest tells."""
        build = tiny_build()
        shard = shard_in(build)
        schema, (batch,) = open_ipc(build / shard)
        cells = batch.column("caption").to_pylist()
        one, other = sorted(range(len(cells)), key=lambda i: len(cells[i]))[-2:]
        cells[one], cells[other] = cells[other], cells[one]
        columns = batch.columns
        at = schema.names.index("caption")
        columns[at] = pa.array(cells, schema.field(at).type)
        write_ipc(Folder(build), shard, schema, [pa.RecordBatch.from_arrays(columns, schema=schema)])
        problem(build, shard)
        size = (build / shard).stat().st_size
        assert size == next(
            f.bytes for f in files_below(Folder(build), read_manifest(build), "tokens/") if f.path == shard
        )

    def test_rows_out_of_their_order(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        shard = shard_in(build)
        schema, (batch,) = open_ipc(build / shard)
        write_ipc(Folder(build), shard, schema, [batch.take(pa.array([1, 0, *range(2, batch.num_rows)]))])
        reseal(build)
        problem(build, f"{shard} row 1", "final order")

    def test_a_sample_twice(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        edit_shard(build, "sample_id", lambda cells: [cells[1], *cells[1:]])
        problem(build, "lies in shards twice")

    def test_an_id_that_is_not_below_the_vocabulary(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        shard = shard_in(build)
        row = next(i for i, v in enumerate(open_ipc(build / shard)[1][0].column("caption").to_pylist()) if v)
        edit_shard(build, "caption", lambda cells: [[300, *c[1:]] if i == row else c for i, c in enumerate(cells)])
        problem(build, shard, "stream caption", "not below 300", f"row {row} ")

    def test_a_sentinel_in_a_caption(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        shard = shard_in(build)
        row = next(i for i, v in enumerate(open_ipc(build / shard)[1][0].column("caption").to_pylist()) if v)
        edit_shard(build, "caption", lambda cells: [[2, *c[1:]] if i == row else c for i, c in enumerate(cells)])
        problem(build, shard, "sentinel", f"row {row} ")

    def test_a_grid_with_a_hole(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        shard = shard_in(build)
        row = next(i for i, v in enumerate(open_ipc(build / shard)[1][0].column("tok_rgb@32").to_pylist()) if v)
        edit_shard(build, "tok_rgb@32", lambda cells: [c[1:] if i == row else c for i, c in enumerate(cells)])
        problem(build, shard, "does not fit [None, 4, 4]", f"row {row} ")
        problem(build, "stream tok_rgb@32 holds", "the manifest says")

    @pytest.mark.parametrize(("stream", "kind"), [("tok_rgb@32", "image"), ("tok_rgb@32", "video")])
    def test_an_image_without_its_tokens(self, tiny_build: TinyBuild, stream: str, kind: str) -> None:
        build = tiny_build()
        shard = shard_in(build)
        row = open_ipc(build / shard)[1][0].column("kind").to_pylist().index(kind)
        edit_shard(build, stream, lambda cells: [None if i == row else c for i, c in enumerate(cells)])
        problem(build, shard, "is missing where the sample has it", f"row {row} ")

    @pytest.mark.parametrize("kind", ["audio", "video"])
    def test_audio_without_its_tokens(self, tiny_build: TinyBuild, kind: str) -> None:
        """Of a video too, where the table of samples says that it has sound."""
        build = tiny_build()
        shard = shard_in(build)
        _, (batch,) = open_ipc(build / shard)
        recordings = batch.column("tok_audio@16k").to_pylist()
        row = next(i for i, k in enumerate(batch.column("kind").to_pylist()) if k == kind and recordings[i])
        edit_shard(build, "tok_audio@16k", lambda cells: [None if i == row else c for i, c in enumerate(cells)])
        problem(build, shard, "tok_audio@16k is missing", f"row {row} ")

    def test_tokens_that_a_kind_cannot_have(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        shard = shard_in(build)
        row = open_ipc(build / shard)[1][0].column("kind").to_pylist().index("image")
        edit_shard(build, "tok_audio@16k", lambda cells: [[1] * 8 if i == row else c for i, c in enumerate(cells)])
        problem(build, shard, "cannot have it", f"row {row} ")

    def test_a_span_that_is_not_the_ledgers(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        shard = shard_in(build)
        edit_shard(build, "end_us", lambda cells: [cells[0] + 1, *cells[1:]])
        problem(build, "span is not the ledger's", f"{shard} row 0")

    def test_content_in_two_splits(self, tiny_build: TinyBuild) -> None:
        build = tiny_build()
        held = open_ipc(build / shard_in(build, "held"))[1][0].column("content_id")[0].as_py()
        edit_shard(build, "content_id", lambda cells: [held, *cells[1:]])
        problem(build, "more than one split", f"{shard_in(build)}", "row 0 ")

    def test_a_shard_of_another_codec(self, tiny_build: TinyBuild) -> None:
        """Equal ids under another bit order are other images: the codec's digest in the shard tells them apart."""
        build = tiny_build()
        shard = shard_in(build)
        edit_manifest(build, lambda said: said["codecs"]["pictures"].update(index_order="the other way round"))
        problem(build, shard, "codecs are not those of the manifest")


def test_splits_that_do_not_add_up(tiny_build: TinyBuild) -> None:
    build = tiny_build()
    edit_manifest(build, lambda said: said["splits"][1].update(samples=1000))
    problem(build, "split train", "1000")


def test_many_broken_rows_make_one_sentence(tiny_build: TinyBuild) -> None:
    build = tiny_build()
    edit_shard(build, "caption", lambda cells: [[299, 301] for _ in cells])
    sentences = [p for p in verify(build).problems if "not below" in p]
    assert len(sentences) == 1
    rows = next(s for s in read_manifest(build).splits if s.name == "train").shard_rows[0]
    assert f"and {rows - 1} more" in sentences[0]


def swap(build: Path, one: int, other: int) -> None:
    """Two rows of a shard change places, and the build is sealed again."""
    path = shard_in(build)
    schema, (batch,) = open_ipc(build / path)
    rows = list(range(batch.num_rows))
    rows[one], rows[other] = rows[other], rows[one]
    write_ipc(Folder(build), path, schema, [batch.take(pa.array(rows))])
    reseal(build)


def test_partitions_order_is_no_order_of_ids(tiny_build: TinyBuild) -> None:
    """`order: partition` promises which rows, not which come first; all else is checked alike."""
    build = tiny_build(60, order="partition")
    assert verify(build).problems == []
    swap(build, 0, 5)
    assert verify(build).problems == []
    edit_shard(build, "sample_id", lambda cells: [cells[1], *cells[1:]])
    problem(build, "lies in shards twice")


def test_a_row_that_is_replaced_by_another(tiny_build: TinyBuild) -> None:
    """Counts are right, the sums are not: then both rows are named."""
    build = tiny_build(60, order="partition")
    stranger, kept = "0" * 32, open_ipc(build / shard_in(build))[1][0].column("sample_id")[0].as_py()
    edit_shard(build, "sample_id", lambda cells: [stranger, *cells[1:]])
    problem(build, "a kept sample that is in no shard", kept)
    problem(build, "whose sample the ledger does not say is kept", stranger, f"{shard_in(build)} row 0")


def test_an_id_that_is_none(tiny_build: TinyBuild) -> None:
    build = tiny_build()
    edit_shard(build, "sample_id", lambda cells: ["me", *cells[1:]])
    problem(build, shard_in(build), "'me' is not 32 hex digits")
    problem(build, "a kept sample that is in no shard")


def test_splits_that_are_not_the_recipes(tiny_build: TinyBuild) -> None:
    build = tiny_build()
    edit_manifest(build, lambda said: said["recipe"]["pack"].update(splits={"train": 1.0}))
    problem(build, "manifest.json", "not those of its recipe")


def test_samples_of_records_that_are_not_sampled_are_no_fault(tiny_build: TinyBuild) -> None:
    build = tiny_build()
    table = pq.read_table(build / SAMPLES)
    pq.write_table(pa.concat_tables([table, table.slice(0, 3)]), build / SAMPLES)
    reseal(build, {SAMPLES: 63})
    assert verify(build).problems == []


def test_sums_do_not_depend_on_order_and_tell_any_change() -> None:
    n = 1000
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "id": [rng.bytes(16).hex() for _ in range(n)],
            "kind": ["image", "video"] * (n // 2),
            "start_us": rng.integers(0, 9, n),
            "end_us": rng.integers(9, 99, n),
        }
    )
    whole = RowSums().plus(table, "id")
    assert whole is not None
    turned = table.take(pa.array(rng.permutation(n)))
    halves = RowSums().plus(turned.slice(0, 300), "id")
    assert halves is not None
    assert halves.plus(turned.slice(300), "id") == whole
    for name, cell in (("id", "0" * 32), ("kind", "audio"), ("start_us", 100), ("end_us", 100)):
        cells = table[name].to_pylist()
        cells[500] = cell
        other = table.set_column(table.schema.names.index(name), name, pa.array(cells))
        assert RowSums().plus(other, "id") != whole


def test_too_little_memory_is_no_fault_of_the_build(tiny_build: TinyBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    build = tiny_build()
    monkeypatch.setenv("CURATE_SQL_MEMORY", "64KiB")
    with pytest.raises(CurateError, match="needs more than the 64KiB of memory"):
        verify(build)

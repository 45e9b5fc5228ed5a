"""Shards come out byte for byte the same however pieces were cut, and only from pieces that fit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tiny import STREAMS, TinyBuild, make_samples

from curate.schema.errors import CurateError
from curate.shards.commit import read_manifest
from curate.shards.ipc import open_ipc, write_ipc
from curate.shards.order import ShardPlan
from curate.shards.pack import write_shard
from curate.shards.pieces import Tokens, index_pieces, write_piece
from curate.shards.reader import iter_rows
from curate.shards.schema import StreamSpec, streams_in
from curate.storage import Folder


def files_of(build: Path) -> dict[str, bytes]:
    return {p.relative_to(build).as_posix(): p.read_bytes() for p in build.rglob("*") if p.is_file()}


def test_bytes_do_not_depend_on_how_pieces_were_cut(tiny_build: TinyBuild) -> None:
    one, other = (files_of(tiny_build(60, name, piece=n)) for name, n in (("one", 1), ("other", 17)))
    assert one == other
    assert sum(path.endswith(".arrow") for path in one) == 5


def test_bytes_do_not_depend_on_the_process(tiny_build: TinyBuild, tmp_path: Path) -> None:
    build = tiny_build(40)
    script = "import sys, pathlib; from tiny import *; finish(pathlib.Path(sys.argv[1]), make_samples(40))"
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    path = f"import sys; sys.path[:0] = {folders}; "
    subprocess.run([sys.executable, "-c", path + script, str(tmp_path / "other")], check=True)
    assert files_of(tmp_path / "other") == files_of(build)


def test_every_row_holds_what_its_sample_had(tiny_build: TinyBuild) -> None:
    samples = {s.sample_id: s for s in make_samples(60)}
    build = tiny_build(60)
    manifest = read_manifest(build)
    seen = set()
    for split in manifest.splits:
        for rows in iter_rows(build, manifest, split.name):
            for i in range(len(rows)):
                sample = samples[rows.keys["sample_id"][i]]
                seen.add(sample.sample_id)
                assert rows.keys["content_id"][i] == sample.content_id
                assert (rows.keys["kind"][i], rows.keys["start_us"][i]) == (sample.kind, sample.start_us)
                for stream in STREAMS:
                    want = sample.ids.get(stream.name)
                    have = rows.streams[stream.name][i]
                    assert (have is None) == (want is None)
                    if want is not None and have is not None:
                        assert have.dtype == stream.numpy_dtype
                        np.testing.assert_array_equal(have, want)
    assert seen == set(samples)


def test_more_than_one_record_batch(tmp_path: Path) -> None:
    """2,500 rows: record batches of 1,024, 1,024 and 452, from pieces that are longer than a batch themselves."""
    spec = StreamSpec("n", 1 << 20, "uint32", (None,))
    samples = [
        Tokens(f"{i:05d}", "c", "image", 0, 0, {"n": None if i % 7 == 0 else np.arange(i, i + i % 5)})
        for i in range(2500)
    ]
    write_piece(Folder(tmp_path), "p0.arrow", [spec], samples[:1500])
    write_piece(Folder(tmp_path), "p1.arrow", [spec], samples[1500:])
    places = index_pieces(Folder(tmp_path), ["p0.arrow", "p1.arrow"])
    plan = ShardPlan("train", "tokens/train/shard-00000.arrow", tuple(s.sample_id for s in reversed(samples)))
    assert write_shard(plan, places, Folder(tmp_path)).rows == 2500
    _, batches = open_ipc(tmp_path / plan.path)
    assert [b.num_rows for b in batches] == [1024, 1024, 452]
    want = [None if (v := s.ids["n"]) is None else v.tolist() for s in reversed(samples)]
    assert pa.Table.from_batches(batches).column("n").to_pylist() == want


def test_a_shard_says_what_it_holds(tiny_build: TinyBuild) -> None:
    build = tiny_build(20, splits={"train": 1.0})
    assert streams_in(open_ipc(build / "tokens/train/shard-00000.arrow")[0]) == STREAMS


def test_a_file_that_is_not_a_shard_is_refused() -> None:
    with pytest.raises(CurateError, match="not a token shard"):
        streams_in(pa.schema([("a", pa.int8())]))


def test_an_empty_piece_and_an_empty_list_of_ids(tmp_path: Path) -> None:
    spec = StreamSpec("caption", 300, "uint16", (None,))
    write_piece(Folder(tmp_path), "empty.arrow", [spec], [])
    silent = Tokens("a", "a", "image", 0, 0, {"caption": np.empty(0, np.int64)})
    absent = Tokens("b", "b", "image", 0, 0, {"caption": None})
    write_piece(Folder(tmp_path), "two.arrow", [spec], [silent, absent])
    assert index_pieces(Folder(tmp_path), ["empty.arrow", "two.arrow"]).keys() == {"a", "b"}
    _, (batch,) = open_ipc(tmp_path / "two.arrow")
    assert batch.column("caption").to_pylist() == [[], None]


class TestRefused:
    def pieces(self, tmp_path: Path) -> str:
        write_piece(Folder(tmp_path), "p.arrow", STREAMS, make_samples(4))
        return "p.arrow"

    def test_a_sample_without_tokens(self, tmp_path: Path) -> None:
        plan = ShardPlan("train", "tokens/train/shard-00000.arrow", ("nobody",))
        with pytest.raises(CurateError, match="nobody"):
            write_shard(plan, index_pieces(Folder(tmp_path), [self.pieces(tmp_path)]), Folder(tmp_path))

    def test_a_row_that_is_another_sample(self, tmp_path: Path) -> None:
        piece = self.pieces(tmp_path)
        one, two = (s.sample_id for s in make_samples(2))
        plan = ShardPlan("train", "tokens/train/shard-00000.arrow", (one, two))
        with pytest.raises(CurateError, match=f"row 1 is not sample {one}"):
            write_shard(plan, {one: (piece, 1), two: (piece, 0)}, Folder(tmp_path))
        assert not (tmp_path / "tokens/train/shard-00000.arrow").exists()
        assert not list(tmp_path.rglob(".*.part"))

    def test_a_row_that_is_not_there(self, tmp_path: Path) -> None:
        piece = self.pieces(tmp_path)
        one = make_samples(1)[0].sample_id
        with pytest.raises(CurateError, match="no row 9"):
            write_shard(ShardPlan("train", "t.arrow", (one,)), {one: (piece, 9)}, Folder(tmp_path))

    def test_a_sample_in_two_pieces(self, tmp_path: Path) -> None:
        piece = self.pieces(tmp_path)
        write_piece(Folder(tmp_path), "q.arrow", STREAMS, make_samples(1))
        with pytest.raises(ValueError, match="lies in"):
            index_pieces(Folder(tmp_path), [piece, "q.arrow"])

    def test_pieces_of_another_codec(self, tmp_path: Path) -> None:
        samples = make_samples(2)
        write_piece(Folder(tmp_path), "a.arrow", STREAMS, samples[:1])
        other = [StreamSpec(s.name, s.vocabulary, s.dtype, s.shape, "another") for s in STREAMS]
        write_piece(Folder(tmp_path), "b.arrow", other, samples[1:])
        places = index_pieces(Folder(tmp_path), ["a.arrow", "b.arrow"])
        with pytest.raises(CurateError, match="of another codec"):
            write_shard(ShardPlan("train", "t.arrow", tuple(places)), places, Folder(tmp_path))

    def test_a_piece_whose_ids_leave_the_vocabulary(self, tmp_path: Path) -> None:
        """Such a piece cannot be written by `write_piece`; here one is changed after the fact."""
        piece = self.pieces(tmp_path)
        schema, (batch,) = open_ipc(tmp_path / piece)
        at = schema.names.index("caption")
        columns = batch.columns
        columns[at] = pa.array([[299], [1], [300], []], schema.field(at).type)
        write_ipc(Folder(tmp_path), piece, schema, [pa.RecordBatch.from_arrays(columns, schema=schema)])
        places = index_pieces(Folder(tmp_path), [piece])
        with pytest.raises(CurateError, match="id 300 is not below 300"):
            write_shard(ShardPlan("train", "t.arrow", tuple(places)), places, Folder(tmp_path))

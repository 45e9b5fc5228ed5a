"""Shards come out byte for byte the same however samples lie in partitions, fragments and tasks; nothing is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from object_store import ObjectStore
from tiny import CARDS, STREAMS, TinyBuild, Tokens, finish, keys_of, make_samples, packed, tokenized

from curate.schema.errors import CurateError
from curate.schema.ids import content_id
from curate.schema.recipe import Pack
from curate.schema.tables import LEDGER
from curate.schema.verdict import Failure
from curate.shards.commit import file_digest, read_manifest
from curate.shards.fragments import write_fragment
from curate.shards.ipc import open_ipc, write_ipc
from curate.shards.order import id_words, order_keys, shard_of
from curate.shards.pack import Tokenized, count_kept, pack_range, plan_pack, splits_of, stream_entries
from curate.shards.reader import iter_rows
from curate.shards.schema import StreamSpec, streams_in
from curate.shards.verify import verify
from curate.storage import Folder, open_store

SHARES = {"train": 0.75, "held": 0.25}
PACK = Pack(shard_samples=16, splits=SHARES)
FAILED = Failure("tokenize:x", "MediaError", "broken", 1)


def files_of(build: Path) -> dict[str, bytes]:
    return {p.relative_to(build).as_posix(): p.read_bytes() for p in build.rglob("*") if p.is_file()}


def shards_of(store: Folder) -> dict[str, bytes]:
    return {path: data for path, data in files_of(store.root).items() if path.startswith("tokens/")}


@pytest.mark.parametrize("order", ["hash", "partition"])
def test_bytes_do_not_depend_on_partitions_and_tasks(tiny_build: TinyBuild, order: str) -> None:
    one = files_of(tiny_build(60, "one", partition=10, tasks=1, order=order))
    assert sum(path.endswith(".arrow") for path in one) >= 4
    assert files_of(tiny_build(60, "two", partition=10, tasks=7, order=order)) == one
    other = files_of(tiny_build(60, "other", partition=17, tasks=3, order=order))
    assert other == one


def test_bytes_do_not_depend_on_the_process(tiny_build: TinyBuild, tmp_path: Path) -> None:
    build = tiny_build(40)
    script = "import sys, pathlib; from tiny import *; finish(pathlib.Path(sys.argv[1]), make_samples(40))"
    folders = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
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


def test_shards_are_ranges_of_the_key(tmp_path: Path) -> None:
    store, seed = Folder(tmp_path), 3
    _, results = packed(store, tokenized(store, make_samples(200), 30), PACK, 3, STREAMS, seed)
    total = Counter({"train": 0, "held": 0})
    for result in results:
        total[result.split] += result.rows
    for result in results:
        ids = pa.Table.from_batches(open_ipc(tmp_path / result.path)[1]).column("sample_id")
        keys = order_keys(seed, ids)
        n = -(-total[result.split] // 16)
        assert set(shard_of(keys, n).tolist()) == {result.number}
        assert (np.diff(keys.astype(object)) > 0).all()
        said = file_digest(store, result.path)
        assert (result.file.digest, result.file.bytes) == said
        assert result.path == f"tokens/{result.split}/shard-{result.number:05d}-{said[0][:16]}.arrow"


def test_partition_order_is_the_order_of_partitions_in_shards_of_exact_size(tmp_path: Path) -> None:
    store, samples = Folder(tmp_path), make_samples(200)
    pack = PACK.model_copy(update={"order": "partition"})
    partitions = tokenized(store, samples, 30)
    plans, results = packed(store, partitions, pack, 4, STREAMS, 3)
    place = {s.sample_id: i for i, s in enumerate(samples)}
    for split in SHARES:
        mine = [r for r in results if r.split == split]
        assert [r.number for r in mine] == list(range(len(mine)))
        assert {r.rows for r in mine[:-1]} == {16}
        rows = [
            place[i]
            for r in mine
            for i in pa.Table.from_batches(open_ipc(tmp_path / r.path)[1]).column("sample_id").to_pylist()
        ]
        assert rows == sorted(rows)
    assert sum(r.rows for r in results) == 200
    assert max(len(plan.partitions) for plan in plans) <= 4, "a task reads its own partitions only"


@given(
    counts=st.lists(st.fixed_dictionaries({"a": st.integers(0, 40), "b": st.integers(0, 9)}), max_size=12),
    size=st.integers(1, 30),
    tasks=st.integers(1, 9),
    most=st.integers(1, 200),
    order=st.sampled_from(["hash", "partition"]),
)
@settings(deadline=None)
def test_a_plan_covers_every_shard_once(
    counts: list[dict[str, int]], size: int, tasks: int, most: int, order: str
) -> None:
    pack = Pack(shard_samples=size, splits={"a": 0.9, "b": 0.1}, order=order)
    plans = plan_pack(counts, pack, tasks, most)
    for name in ("a", "b"):
        total = sum(c[name] for c in counts)
        covered = [n for plan in plans for n in plan.mine[name]]
        assert covered == list(range(-(-total // size)))
        ends = np.cumsum([0, *(c[name] for c in counts)])
        for plan in plans if order == "partition" else ():
            assert plan.before[name] == ends[plan.partitions.start]
            if plan.mine[name]:
                assert ends[plan.partitions.start] <= plan.mine[name].start * size
                assert ends[plan.partitions.stop] >= min(plan.mine[name].stop * size, total)


def test_many_rows_make_more_tasks() -> None:
    counts = [{"train": 1000}] * 1000
    pack = Pack(shard_samples=1000)
    assert len(plan_pack(counts, pack)) == 4
    assert len(plan_pack(counts, pack, most_rows=10_000)) == 100
    assert len(plan_pack(counts, pack, tasks=7)) == 7
    assert len(plan_pack(counts, pack, tasks=5000)) == 1000
    assert plan_pack([], pack) == []
    assert plan_pack([{"train": 0}], pack) == []


def test_a_fragment_serves_the_kept_ones_of_its_partition(tmp_path: Path) -> None:
    """Fragments hold dropped samples too, and come in several increments that may overlap: the first one counts."""
    store, samples = Folder(tmp_path), make_samples(40)
    whole = tokenized(store, samples, 20)
    for name in ("verdicts/here-0.parquet", "verdicts/here-1.parquet"):
        table = pq.read_table(tmp_path / name)
        outcome = [
            "dropped" if level == "sample" and what == "kept" and i % 3 == 0 else what
            for i, (level, what) in enumerate(zip(*(table[c].to_pylist() for c in ("level", "outcome")), strict=True))
        ]
        pq.write_table(table.set_column(8, LEDGER.field("outcome"), pa.array(outcome)), tmp_path / name)
    text = STREAMS[2]
    some, nonsense = samples[:8], [np.array([7])] * 8
    write_fragment(store, "more.arrow", text, keys_of(some), nonsense, [None] * 8)
    before = replace(
        whole[0], fragments={**whole[0].fragments, text.name: ["more.arrow", *whole[0].fragments[text.name]]}
    )
    after = replace(
        whole[0], fragments={**whole[0].fragments, text.name: [*whole[0].fragments[text.name], "more.arrow"]}
    )
    _, results = packed(store, [after, whole[1]], PACK, 1, STREAMS, 0)
    _, other = packed(store, [before, whole[1]], PACK, 1, STREAMS, 0)
    kept = {
        i
        for name in ("0", "1")
        for level, i, what in zip(
            *(
                pq.read_table(tmp_path / f"verdicts/here-{name}.parquet")[c].to_pylist()
                for c in ("level", "id", "outcome")
            ),
            strict=True,
        )
        if (level, what) == ("sample", "kept")
    }
    assert 0 < len(kept) < 40
    truth = {s.sample_id: s for s in samples}
    for found, first in ((results, False), (other, True)):
        rows = {
            row["sample_id"]: row[text.name]
            for r in found
            for b in open_ipc(tmp_path / r.path)[1]
            for row in b.to_pylist()
        }
        assert rows.keys() == kept
        for sample, ids in rows.items():
            early = first and sample in {s.sample_id for s in some}
            assert ids == ([7] if early else truth[sample].ids[text.name].tolist())


def test_a_sample_that_failed_in_one_stream_is_in_no_shard(tmp_path: Path) -> None:
    store, samples = Folder(tmp_path), make_samples(20)
    partitions = tokenized(store, samples, 10, failures={samples[3].sample_id: FAILED})
    plans, results = packed(store, partitions, PACK, 2, STREAMS, 0)
    assert sum(split.samples for split in splits_of(list(SHARES), plans, results)) == 19
    packed_ids = {i for r in results for b in open_ipc(tmp_path / r.path)[1] for i in b.column("sample_id").to_pylist()}
    assert packed_ids == {s.sample_id for s in samples} - {samples[3].sample_id}


def test_sums_are_those_of_the_shards(tmp_path: Path) -> None:
    store, samples = Folder(tmp_path), make_samples(60)
    _, results = packed(store, tokenized(store, samples, 20), PACK, 2, STREAMS, 0)
    for entry in stream_entries(results, STREAMS, {c.stream: (n, c.modality) for n, c in CARDS.items()}):
        have = [s.ids.get(entry.name) for s in samples]
        assert entry.samples == sum(one is not None for one in have)
        assert entry.ids == sum(np.size(one) for one in have if one is not None)


def test_a_second_run_writes_nothing(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    partitions = tokenized(store, make_samples(60), 20)
    _, one = packed(store, partitions, PACK, 2, STREAMS, 0)
    inodes = {r.path: (tmp_path / r.path).stat().st_ino for r in one}
    _, two = packed(store, partitions, PACK, 3, STREAMS, 0)
    assert {r.path: r for r in one} == {r.path: r for r in two}
    assert {r.path: (tmp_path / r.path).stat().st_ino for r in two} == inodes


def test_more_than_one_record_batch(tmp_path: Path) -> None:
    """2,500 rows: record batches of 1,024, 1,024 and 452, from fragments that are longer than a batch themselves."""
    spec = StreamSpec("n", 1 << 20, "uint32", (None,))
    samples = [
        Tokens(
            content_id(str(i).encode()),
            content_id(b"c"),
            "image",
            0,
            0,
            {"n": None if i % 7 == 0 else np.arange(i, i + i % 5)},
        )
        for i in range(2500)
    ]
    store = Folder(tmp_path)
    pack = Pack(shard_samples=4000)
    _, [result] = packed(store, tokenized(store, samples, 1500, [spec]), pack, 1, [spec], 0)
    _, batches = open_ipc(tmp_path / result.path)
    assert [b.num_rows for b in batches] == [1024, 1024, 452]
    table = pa.Table.from_batches(batches)
    truth = {s.sample_id: s.ids["n"] for s in samples}
    want = [None if (v := truth[i]) is None else v.tolist() for i in table.column("sample_id").to_pylist()]
    assert table.column("n").to_pylist() == want


def test_compressed_shards_are_smaller_and_read_as_others_are(tiny_build: TinyBuild) -> None:
    plain = tiny_build(300, "plain", shard_samples=100)
    packed = [tiny_build(300, f"zstd-{i}", shard_samples=100, compression="zstd", tasks=i + 1) for i in range(2)]
    assert files_of(packed[0]) == files_of(packed[1])
    assert sum(map(len, files_of(packed[0]).values())) < 0.9 * sum(map(len, files_of(plain).values()))
    shards = [[build / path for path in read_manifest(build).splits[0].shards] for build in (plain, packed[0])]
    for one, other in zip(*shards, strict=True):
        assert open_ipc(one) == open_ipc(other)


def test_a_compressed_shard_that_cannot_be_unpacked(
    tiny_build: TinyBuild, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = tiny_build(40, compression="zstd")
    shard = build / read_manifest(build).splits[0].shards[0]
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(CurateError, match=r"cannot be unpacked in .*nowhere.*\n.*TMPDIR"):
        open_ipc(shard)
    monkeypatch.undo()
    raw = bytearray(shard.read_bytes())
    raw[len(raw) // 3 : len(raw) // 2] = bytes(len(raw) // 2 - len(raw) // 3)
    shard.write_bytes(raw)
    with pytest.raises(CurateError, match="not a whole Arrow IPC file"):
        open_ipc(shard)


def test_a_shard_says_what_it_holds(tiny_build: TinyBuild) -> None:
    build = tiny_build(20, splits={"train": 1.0})
    [split] = read_manifest(build).splits
    assert streams_in(open_ipc(build / split.shards[0])[0]) == STREAMS


def test_a_file_that_is_not_a_shard_is_refused() -> None:
    with pytest.raises(CurateError, match="not a token shard"):
        streams_in(pa.schema([("a", pa.int8())]))


@pytest.mark.parametrize("n", [0, 1])
def test_a_build_of_almost_nothing(tmp_path: Path, n: int) -> None:
    store = Folder(tmp_path)
    partitions = [*tokenized(store, make_samples(n), 5), *tokenized(Folder(tmp_path), [], 5)]
    plans, results = packed(store, partitions, PACK, 4, STREAMS, 0)
    assert [split.samples for split in splits_of(list(SHARES), plans, results)] in ([0, 0], [0, 1], [1, 0])
    assert sum(r.rows for r in results) == n


def test_one_sample_a_shard_leaves_empty_ranges_out(tmp_path: Path) -> None:
    finish(tmp_path / "build", make_samples(60), shard_samples=1)
    assert verify(tmp_path / "build").problems == []
    sizes = [n for split in read_manifest(tmp_path / "build").splits for n in split.shard_rows]
    assert sum(sizes) == 60
    assert len(sizes) < 60
    assert 0 not in sizes


class TestWrong:
    def partitions(self, tmp_path: Path, n: int = 20) -> list[Tokenized]:
        return tokenized(Folder(tmp_path), make_samples(n), 10)

    def fails(self, tmp_path: Path, partitions: list[Tokenized], says: str) -> None:
        with pytest.raises(CurateError, match=says):
            packed(Folder(tmp_path), partitions, PACK, 2, STREAMS, 0)
        assert shards_of(Folder(tmp_path)) == {}

    def test_a_kept_sample_without_a_row(self, tmp_path: Path) -> None:
        partitions = self.partitions(tmp_path)
        write_fragment(
            Folder(tmp_path), "few.arrow", STREAMS[1], keys_of(make_samples(20)[11:]), [None] * 9, [None] * 9
        )
        lost = make_samples(20)[10].sample_id
        for paths in (["few.arrow"], []):
            one = replace(partitions[1], fragments={**partitions[1].fragments, STREAMS[1].name: paths})
            self.fails(tmp_path, [partitions[0], one], f"here-1: .* kept samples have no row of stream .*{lost}")

    def test_a_sample_that_is_kept_in_two_partitions(self, tmp_path: Path) -> None:
        partitions = self.partitions(tmp_path)
        self.fails(tmp_path, [*partitions, partitions[0]], "kept in two places, ")

    def test_a_fragment_of_another_codec(self, tmp_path: Path) -> None:
        partitions = self.partitions(tmp_path)
        other = replace(STREAMS[0], codec="another")
        path = partitions[1].fragments[STREAMS[0].name][0]
        write_fragment(Folder(tmp_path), path, other, keys_of(make_samples(20)[10:]), [None] * 10, [None] * 10)
        self.fails(tmp_path, partitions, "another codec")

    def test_an_id_outside_the_vocabulary(self, tmp_path: Path) -> None:
        """Such a fragment cannot be written by `write_fragment`; here one is changed after the fact."""
        partitions = self.partitions(tmp_path)
        path = partitions[1].fragments[STREAMS[2].name][0]
        schema, (batch,) = open_ipc(tmp_path / path)
        at = schema.names.index("caption")
        columns = batch.columns
        columns[at] = pa.array([[299], [1], [300], *[[]] * 7], schema.field(at).type)
        write_ipc(Folder(tmp_path), path, schema, [pa.RecordBatch.from_arrays(columns, schema=schema)])
        self.fails(tmp_path, partitions, "id 300 is not below 300")

    @pytest.mark.parametrize("order", ["hash", "partition"])
    def test_verdicts_that_change_between_counting_and_packing(self, tmp_path: Path, order: str) -> None:
        store, partitions = Folder(tmp_path), self.partitions(tmp_path)
        pack = PACK.model_copy(update={"order": order})
        counts = [count_kept(store, one, 0, pack.splits) for one in partitions]
        plans = plan_pack(counts, pack, 2)
        table = pq.read_table(tmp_path / partitions[0].verdicts)
        pq.write_table(table.slice(0, 8), tmp_path / partitions[0].verdicts)
        with pytest.raises(CurateError, match="changed while they were packed"):
            splits_of(
                list(SHARES), plans, [r for plan in plans for r in pack_range(store, partitions, plan, STREAMS, 0)]
            )


class DiesAt(Folder):
    """A folder whose process is killed when it is about to write another shard."""

    def write(self, path: str, data: bytes) -> None:
        if path.startswith("tokens/") and len(list((self.root / "tokens").rglob("*.arrow"))) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        super().write(path, data)


def test_a_process_that_dies_while_it_packs_leaves_whole_shards_and_a_rerun_gives_the_same_bytes(
    tmp_path: Path,
) -> None:
    samples = make_samples(100)
    for name in ("calm", "killed"):
        tokenized(Folder(tmp_path / name), samples, 20)
    calm, killed = Folder(tmp_path / "calm"), Folder(tmp_path / "killed")
    partitions = tokenized(calm, samples, 20)
    packed(calm, partitions, PACK, 1, STREAMS, 0)
    pid = os.fork()
    if pid == 0:
        packed(DiesAt(killed.root), partitions, PACK, 1, STREAMS, 0)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    want, left = shards_of(calm), shards_of(killed)
    assert len(left) == 2 < len(want)
    assert left.items() <= want.items(), "whole ones, as they should be"
    packed(killed, partitions, PACK, 3, STREAMS, 0)
    assert shards_of(killed) == want


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_is_said_in_one_sentence(small_disk: Path) -> None:
    store = Folder(small_disk)
    partitions = tokenized(store, make_samples(60), 20)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    os.truncate(filler, filler.stat().st_size - 24576)
    with pytest.raises(CurateError, match="no space left on the disk"):
        packed(store, partitions, PACK, 1, STREAMS, 0)
    left = shards_of(store)
    filler.unlink()
    packed(store, partitions, PACK, 2, STREAMS, 0)
    assert left.items() <= shards_of(store).items()
    assert not list(small_disk.rglob("*.part"))


def test_ids_that_share_their_first_half_lie_in_the_order_of_ids(tmp_path: Path) -> None:
    """Their keys are equal: the rest of the id decides."""
    spec = STREAMS[2]
    names = [f"{'ab' * 8}{i:016x}" for i in (9, 2, 30, 0)]
    samples = [Tokens(n, content_id(b"c"), "image", 0, 0, {spec.name: np.array([i])}) for i, n in enumerate(names)]
    store = Folder(tmp_path)
    _, [result] = packed(store, tokenized(store, samples, 2, [spec]), Pack(shard_samples=2), 1, [spec], 0)
    ids = open_ipc(tmp_path / result.path)[1][0].column("sample_id")
    assert ids.to_pylist() == sorted(names)
    assert len(set(id_words(ids)[0].tolist())) == 1


def test_a_bucket_holds_the_same_shards(tmp_path: Path, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    made = []
    for store in (Folder(tmp_path / "folder"), open_store(s3.fresh())):
        partitions = tokenized(store, make_samples(60), 15)
        plans, results = packed(store, partitions, PACK, 2, STREAMS, 0)
        made.append({r.path: store.read(r.path) for r in results})
        assert sum(split.samples for split in splits_of(list(SHARES), plans, results)) == 60
    assert made[0] == made[1]

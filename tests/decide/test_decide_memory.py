"""Verdicts take memory for ids and the ledger, not for what is only looked at: embeddings, signals, joins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.decide.samples import decide_samples
from curate.decide.sql import MEMORY_VARIABLE, connect
from curate.decide.vectors import VectorFile, vectors_of
from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.schema.ids import content_id
from curate.schema.recipe import Decide, NearDuplicates, Rule
from curate.schema.tables import FAILURE, SAMPLES

DIM, PIECE = 768, 1024
FIELDS = {
    "sharpness": SignalField("sharpness", pa.float32(), "score", (0, 1)),
    "look": SignalField("look", pa.list_(pa.float32(), DIM)),
}
SPEC = Decide(
    rules=[Rule(field="sharpness", min=0.05), Rule(field="sharpness", max_percentile=99)],
    near_duplicates=[NearDuplicates(embedding="look", cells=64, keep=["sharpness"])],
)


def write(folder: Path, rows: int) -> None:
    """Pieces of samples, a number and an embedding: every tenth is a copy of the one before, one of 97 failed."""
    rng = np.random.default_rng(0)
    for kind in ("samples", "sharpness", "look"):
        (folder / kind).mkdir(parents=True)
    for start in range(0, rows, PIECE):
        n = min(PIECE, rows - start)
        ids = pa.array([content_id(str(i).encode()) for i in range(start, start + n)])
        said = {"kind": "image", "source": "s", "uri": "https://example.org/picture.jpg", "media": "m", "member": "p"}
        blank = {f.name: pa.nulls(n, f.type) for f in SAMPLES} | {k: pa.array([v] * n) for k, v in said.items()}
        zero = pa.array(np.zeros(n, np.int64))
        about = {"sample_id": ids, "record_id": ids, "content_id": ids, "start_us": zero, "end_us": zero}
        look = rng.standard_normal((n, DIM), dtype=np.float32)
        look[1::10] = look[::10][: len(look[1::10])] + np.float32(0.1) * look[1::10]
        failed = {
            f.name: pa.array(
                [(1 if f.name == "attempt" else "broken") if i % 97 == 0 else None for i in range(n)], f.type
            )
            for f in FAILURE
        }
        nothing = {f.name: pa.nulls(n, f.type) for f in FAILURE}
        vectors = pa.FixedSizeListArray.from_arrays(look.ravel(), DIM)
        for kind, table in (
            ("samples", pa.table(blank | about).cast(SAMPLES)),
            ("sharpness", pa.table({"sample_id": ids, "sharpness": rng.random(n, np.float32), **failed})),
            ("look", pa.table({"sample_id": ids, "look": vectors, **nothing})),
        ):
            pq.write_table(table, folder / kind / f"part-{start:07d}.parquet")


def decided(folder: Path) -> pa.Table:
    files = {kind.name: sorted(str(f) for f in kind.iterdir()) for kind in folder.iterdir()}
    return decide_samples(files.pop("samples"), files, SPEC, FIELDS, seed=0)


def alone(folder: Path, memory: str) -> dict:
    """`decided` in a process of its own: a digest of the ledger, and by how many MiB its peak memory grew."""
    env = {**os.environ, MEMORY_VARIABLE: memory, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    out = subprocess.run([sys.executable, "-c", _ALONE, str(folder)], env=env, capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


_ALONE = """
import json, sys
from pathlib import Path
from test_decide_memory import decided, digest

def peak():  # not ru_maxrss, which begins with the size of the process that started this one
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 1024

import duckdb, faiss, scipy.sparse.csgraph
duckdb.connect(":memory:").close()
before = peak()
ledger = decided(Path(sys.argv[1]))
outcomes = sorted(set(ledger["outcome"].to_pylist()))
print(json.dumps({"digest": digest(ledger), "grown": peak() - before, "outcomes": outcomes}))
"""


def digest(ledger: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    pq.write_table(ledger, sink)
    return content_id(sink.getvalue())


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory that Linux says")
def test_embeddings_are_never_in_memory_all_at_once(tmp_path):
    """Five times the samples: 117 MiB more of embeddings, and far less more of memory."""
    few, many = tmp_path / "few", tmp_path / "many"
    for folder, rows in ((few, 10_000), (many, 50_000)):
        write(folder, rows)
    small, large = alone(few, "96MiB"), alone(many, "96MiB")
    more_vectors = 40_000 * DIM * 4 / 2**20
    print(
        f"\npeak memory grew by {small['grown']:.0f} and {large['grown']:.0f} MiB, the embeddings by {more_vectors:.0f}"
    )
    assert large["outcomes"] == ["dropped", "duplicate", "failed", "kept"]
    assert large["grown"] - small["grown"] < more_vectors / 2
    assert large["grown"] < 400
    assert small["digest"] == digest(decided(few))  # little memory, plenty of it: the same bytes


def test_too_little_memory_is_an_error_that_says_what_to_set(tmp_path, monkeypatch):
    write(tmp_path / "build", 4 * PIECE)
    monkeypatch.setenv(MEMORY_VARIABLE, "1MiB")
    with pytest.raises(CurateError, match="deciding needs more than the 1MiB") as raised:
        decided(tmp_path / "build")
    assert "CURATE_DECIDE_MEMORY" in raised.value.hint
    monkeypatch.setenv(MEMORY_VARIABLE, "much")
    with pytest.raises(CurateError, match="CURATE_DECIDE_MEMORY is much, which is no size"), connect():
        pass


def test_long_queries_write_nothing_to_the_terminal(capfd):
    with connect() as con:
        con.execute("SET progress_bar_time = 0")
        con.execute("SELECT max(hash(range)) FROM range(300_000_000)")
    assert capfd.readouterr() == ("", "")


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.data())
def test_rows_of_a_file_are_rows_of_an_array(tmp_path_factory, n, dim, data):
    truth = np.random.default_rng(n).standard_normal((n, dim)).astype(np.float32)
    rows = st.lists(st.integers(0, n - 1), max_size=20).map(lambda r: np.array(r, np.int64))
    with (tmp_path_factory.mktemp("vectors") / "v").open("w+b") as file:
        vectors = VectorFile(file.fileno(), n, dim)
        order = data.draw(st.permutations(range(n)))
        for part in np.array_split(np.array(order), 3):
            vectors[part] = truth[part]
        asked = data.draw(rows)
        assert np.array_equal(vectors[asked], truth[asked])
        start, stop = data.draw(st.integers(0, n)), data.draw(st.integers(0, n + 5))
        assert np.array_equal(vectors[start:stop], truth[start:stop])


def test_a_file_that_lost_its_end_is_an_error_and_not_zeros(tmp_path):
    with (tmp_path / "v").open("w+b") as file:
        vectors = VectorFile(file.fileno(), 4, 2)
        os.ftruncate(file.fileno(), 20)
        with pytest.raises(OSError, match="20 of 32 bytes"):
            vectors[0:4]


def test_embeddings_lie_in_the_order_of_ids_without_nulls_and_strangers(tmp_path):
    kind = pa.list_(pa.float32(), 2)
    files = []
    for number, rows in enumerate([{"d": [4, 4], "é": [9, 9], "a": [1, 1]}, {"c": None, "b": [2, 2], "bb": [3, 3]}]):
        files.append(str(tmp_path / f"{number}.parquet"))
        pq.write_table(pa.table({"sample_id": list(rows), "look": pa.array(rows.values(), kind)}), files[-1])
    with vectors_of(pa.array(["a", "b", "d", "é"]), files, "look", 2, "hint") as vectors:
        assert vectors[0:4].tolist() == [[1, 1], [2, 2], [4, 4], [9, 9]]
    longer = vectors_of(pa.array(["a", "b"]), files, "look", 3, "hint")
    with pytest.raises(CurateError, match="look holds vectors that are not 3 long"), longer:
        pass

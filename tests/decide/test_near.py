"""Near duplicates of a whole build against all pairs, computed the plain way."""

from __future__ import annotations

import numpy as np
import pytest
from test_forest import all_pairs, groups

from curate.decide import near
from curate.decide.forest import unit
from curate.decide.near import Bucket, _buckets, _Nearest, default_cells
from curate.schema.recipe import NearDuplicates, Rule


def planted(n, d, seed, copies=0.1, low=0.9):
    """Random topics; a share of the rows is a copy of an earlier row, turned by a random angle of cosine >= `low`."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((max(2, n // 50), d))
    vectors = unit(topics[rng.integers(len(topics), size=n)] + rng.standard_normal((n, d)))
    for i in np.flatnonzero(rng.random(n) < copies):
        if i:
            cosine = rng.uniform(low, 1)
            original = vectors[rng.integers(i)]
            off = rng.standard_normal(d)
            off -= (off @ original) * original
            vectors[i] = cosine * original + np.sqrt(1 - cosine**2) * off / np.linalg.norm(off)
    return vectors * rng.uniform(0.1, 30, (n, 1)).astype(np.float32)


def build_of(tables, vectors, parts=1, **more):
    ids = [f"{i:04d}" for i in range(len(vectors))]
    signals = [
        {"sample_id": i, "look": v.tolist(), **{k: x[n] for k, x in more.items()}}
        for n, (i, v) in enumerate(zip(ids, vectors, strict=True))
    ]
    samples = [{"sample_id": i, "width": 1 + n % 5, "height": 1} for n, i in enumerate(ids)]
    return tables.build(samples, signals, parts=parts)


def oracle(vectors, threshold, alive=None):
    """Keeper of each duplicate and their cosine: the largest image, then the smallest id, of those alive."""
    stored = unit(vectors)
    label = groups(len(vectors), all_pairs(stored, threshold))
    out = {}
    for one in set(label):
        members = [i for i, at in enumerate(label) if at == one and (alive is None or alive[i])]
        best = min(members, key=lambda i: (-(1 + i % 5), i), default=None)
        for i in members:
            if i != best:
                x, y = stored[i].astype(np.float64), stored[best].astype(np.float64)
                out[f"{i:04d}"] = (f"{best:04d}", (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))
    return out


def duplicates(rows):
    return {i: (r["duplicate_of"], r["similarity"]) for i, r in rows.items() if r["outcome"] == "duplicate"}


@pytest.mark.parametrize(("parts", "per_task"), [(1, 1), (5, 1), (7, 3)])
def test_one_cell_is_all_pairs_and_the_stated_keeper(tables, parts, per_task):
    vectors = planted(250, 8, seed=parts, copies=0.5)
    vectors[3] = 0
    vectors[10:14] = vectors[9]
    rng = np.random.default_rng(0)
    sharp = rng.integers(0, 100, 250).astype(float)
    build = build_of(tables, vectors, parts, sharpness=sharp)
    for threshold in (0.93, 0.97):
        spec = [NearDuplicates(embedding="look", threshold=threshold, keep=["pixels"])]
        assert duplicates(build.verdicts(near=spec, per_task=per_task)) == oracle(vectors, threshold)
        rows = build.verdicts([Rule(field="sharpness", min=30)], spec, per_task=per_task)
        assert duplicates(rows) == oracle(vectors, threshold, sharp >= 30)


@pytest.mark.parametrize(("cell_rows", "held"), [(64, 0), (64, 1 << 29), (10_000, 1 << 29)])
def test_cells_lose_hardly_any_and_add_none(tables, monkeypatch, cell_rows, held):
    """Small cells, in chunks too; the chunks of a cell lose nothing."""
    monkeypatch.setattr(near, "EXACT_ROWS", 0)
    monkeypatch.setattr(near, "CELL_ROWS", cell_rows)
    monkeypatch.setattr(near, "WAVE", 3)
    monkeypatch.setattr(near, "HELD_BYTES", held)
    vectors = planted(500, 8, seed=12, copies=0.3)
    spec = [NearDuplicates(embedding="look", threshold=0.95, keep=["pixels"], cells=8)]
    build = build_of(tables, vectors, parts=4)
    found = duplicates(build.verdicts(near=spec, per_task=1))
    truth = oracle(vectors, 0.95)
    assert len(truth) > 100
    assert len(found) >= 0.95 * len(truth)
    assert found.keys() <= truth.keys() | {k for k, _ in truth.values()}
    if cell_rows == 64:
        monkeypatch.setattr(near, "CELL_ROWS", 10_000)
        monkeypatch.setattr(near, "HELD_BYTES", 1 << 29 if not held else 0)
        assert duplicates(build.verdicts(near=spec, per_task=2)) == found


def test_one_cell_in_chunks_is_still_all_pairs(tables, monkeypatch):
    monkeypatch.setattr(near, "CELL_ROWS", 40)
    vectors = planted(200, 8, seed=3, copies=0.5)
    spec = [NearDuplicates(embedding="look", threshold=0.95, keep=["pixels"])]
    assert duplicates(build_of(tables, vectors, 3).verdicts(near=spec, per_task=1)) == oracle(vectors, 0.95)


def test_recall_on_pictures_of_digits():
    """Real vectors with crowded, overlapping clusters: 1,797 scanned digits of 8 x 8 pixels."""
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits

    vectors = unit(load_digits().data.astype(np.float32))
    keys = np.frombuffer(np.random.default_rng(0).bytes(16 * len(vectors)), "S16")
    rows = near.Rows(np.zeros(len(vectors), np.int32), keys, vectors)
    assigned = _Nearest(near._centroids(0, default_cells(len(vectors)), 64, rows))(vectors)
    cosine = vectors @ vectors.T
    pairs = np.argwhere(np.triu(cosine >= 0.95, 1))
    assert len(pairs) > 6000
    shared = (assigned[pairs[:, 0], :, None] == assigned[pairs[:, 1], None, :]).any(axis=(1, 2))
    assert shared.mean() > 0.95
    nearest_only = (assigned[pairs[:, 0], 0] == assigned[pairs[:, 1], 0]).mean()
    assert nearest_only < 0.8  # what the second cell is for


def test_cells_of_a_row_do_not_depend_on_its_company():
    rng = np.random.default_rng(0)
    centroids = unit(rng.standard_normal((32, 4)).astype(np.float32))
    centroids[16:] = centroids[:16]  # ties
    vectors = unit(rng.standard_normal((300, 4)).astype(np.float32))
    together = _Nearest(centroids)(vectors)
    assert together.tolist() == [_Nearest(centroids)(vectors[i : i + 1])[0].tolist() for i in range(300)]


def test_buckets_hold_neighbours_and_large_cells_are_cut():
    counts = np.array([3, 0, 4, 1, 25, 2, 2])
    assert _buckets(counts, 8) == [
        Bucket((0, 3), 0, 1),
        *(Bucket((4, 4), i, 4) for i in range(4)),
        Bucket((5, 6), 0, 1),
    ]
    assert _buckets(np.array([1, 0]), 8) == []
    assert _buckets(np.array([9]), 8) == [Bucket((0, 0), 0, 2), Bucket((0, 0), 1, 2)]


def test_the_keeper_has_the_largest_keys_then_the_smallest_id(tables):
    def keeper(*keys):
        samples = [{"sample_id": i, "width": w, "duration": d} for i, (w, d) in zip("abcde", keys, strict=True)]
        signals = [{"sample_id": i, "look": [1.0] * 8} for i in "abcde"]
        spec = [NearDuplicates(embedding="look", keep=["width", "duration"])]
        rows = tables.build(samples, signals, parts=2).verdicts(near=spec)
        found = duplicates(rows)
        assert len(found) == 4
        assert {s for _, s in found.values()} == {1.0}
        return {k for k, _ in found.values()}

    assert keeper((1, 0), (2, 0), (2, 5), (2, 5), (1, 9)) == {"c"}
    assert keeper((None, 9), (None, 9), (1, 0), (None, 9), (None, 9)) == {"c"}
    assert keeper((1, 0), (1, 0), (1, 0), (1, 0), (1, 0)) == {"a"}


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_none_is_named(tables, refused, bad):
    vectors = np.ones((3, 8), np.float32)
    vectors[1, 2] = bad
    said = refused(build_of(tables, vectors), near=[NearDuplicates(embedding="look")])
    assert said == f"the embedding of {b'0001'.hex().ljust(32, '0')} holds NaN or an infinity"


def test_more_cells_than_rows_and_equal_rows_only(tables, monkeypatch):
    monkeypatch.setattr(near, "EXACT_ROWS", 0)
    build = build_of(tables, np.ones((20, 8), np.float32), parts=3)
    rows = build.verdicts(near=[NearDuplicates(embedding="look", cells=64, keep=[])])
    assert set(duplicates(rows).values()) == {("0000", 1.0)}
    assert len(duplicates(rows)) == 19


def test_the_default_number_of_cells():
    assert [default_cells(n) for n in (0, 1, 4, 5, 20_000, 1_000_000)] == [1, 1, 2, 4, 256, 1024]

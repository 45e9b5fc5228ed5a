"""Near duplicates against all pairs, computed the plain way."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.decide import near
from curate.decide.near import Cell, cell_links, cell_pairs, cells, cosines, default_cells, near_duplicates, unit
from curate.schema.errors import CurateError
from curate.schema.ids import content_id


def names(n):
    """Ids as samples have them, sorted."""
    return sorted(content_id(str(i).encode()) for i in range(n))


def all_pairs(vectors, threshold):
    """Pairs i < j with a cosine of at least `threshold`, one at a time, in float64 from the stored float32 vectors."""
    wide = unit(vectors).astype(np.float64)
    norm = (wide * wide).sum(axis=1)
    n = len(wide)
    return {
        (i, j)
        for i in range(n)
        for j in range(i + 1, n)
        if norm[i] > 0 < norm[j] and (wide[i] * wide[j]).sum() / np.sqrt(norm[i] * norm[j]) >= threshold
    }


def plain_groups(n, pairs, keys):
    """Keeper of each duplicate by following pairs until nothing changes."""
    label = list(range(n))
    for _ in range(n):
        for i, j in pairs:
            label[i] = label[j] = min(label[i], label[j])
    keeper = {}
    for one in set(label):
        members = [i for i in range(n) if label[i] == one]
        best = min(members, key=lambda i: ([-k if k == k else np.inf for k in keys[i]], i))
        keeper |= {i: best for i in members if i != best}
    return keeper


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


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 40), st.integers(1, 6), st.integers(0, 10_000), st.sampled_from([0.3, 0.8, 0.95, 0.999, 1.0]))
def test_one_cell_is_all_pairs_and_the_stated_keeper(n, d, seed, threshold):
    rng = np.random.default_rng(seed)
    # few distinct values: equal vectors, zero vectors, equal keys and missing keys all occur
    vectors = rng.integers(-1, 2, (n, d)).astype(np.float32)
    keys = rng.choice([1.0, 2.0, np.nan], (n, 2))
    pairs = all_pairs(vectors, threshold)
    ids = names(n)

    got = near_duplicates(ids, vectors, keys, threshold)

    want = plain_groups(n, pairs, keys)
    assert got.ids == [ids[i] for i in sorted(want)]
    assert got.keepers == [ids[want[i]] for i in sorted(want)]
    found = [tuple(p) for block in cell_pairs(np.arange(n), unit(vectors), threshold) for p in block]
    assert sorted(found) == sorted(pairs)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([4, 16, 48]))
def test_cells_add_no_pair_and_lose_hardly_any(seed, d):
    n, k, threshold = 400, 8, 0.95
    vectors, ids = planted(n, d, seed), names(n)
    assigned = cells(ids, vectors, k, seed)
    truth = all_pairs(vectors, threshold)
    found = set()
    for cell in near.cell_rows(ids, vectors, k, seed):
        found |= {tuple(p) for block in cell_pairs(cell.rows, cell.vectors, threshold) for p in block}
    together = {(i, j) for i, j in truth if set(assigned[i]) & set(assigned[j])}
    assert found == together  # exact within a cell, and nothing but cells loses a pair
    assert len(truth) >= 5
    assert len(found) >= 0.9 * len(truth)


def test_recall_on_pictures_of_digits():
    """Real vectors with crowded, overlapping clusters: 1,797 scanned digits of 8 x 8 pixels."""
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_digits

    vectors = load_digits().data.astype(np.float32)
    n, threshold = len(vectors), 0.95
    assigned = cells(names(n), vectors, default_cells(n), seed=0)
    pairs = np.concatenate(list(cell_pairs(np.arange(n), unit(vectors), threshold)))
    assert len(pairs) > 6000
    shared = (assigned[pairs[:, 0], :, None] == assigned[pairs[:, 1], None, :]).any(axis=(1, 2))
    assert shared.mean() > 0.95
    nearest_only = (assigned[pairs[:, 0], 0] == assigned[pairs[:, 1], 0]).mean()
    assert nearest_only < 0.8  # what the second cell is for


def test_planted_pairs_on_either_side_of_the_threshold():
    d, threshold = 64, 0.95
    rng = np.random.default_rng(3)
    base = np.linalg.qr(rng.standard_normal((d, d)))[0]  # orthonormal: no chance pairs
    rows, want = [], []
    for i, cosine in enumerate([0.95 - 1e-6, 0.95 + 1e-6, 1.0, 0.5]):
        rows += [base[2 * i], cosine * base[2 * i] + np.sqrt(1 - cosine**2) * base[2 * i + 1]]
        if cosine >= threshold:
            want.append((2 * i, 2 * i + 1))
    vectors = unit(np.array(rows))
    found = [tuple(p) for block in cell_pairs(np.arange(8), vectors, threshold) for p in block]
    assert found == want


def test_the_keeper_has_the_largest_keys_then_the_smallest_id():
    same = np.ones((5, 3), np.float32)
    ids = ["a", "b", "c", "d", "e"]
    nan = float("nan")

    def keeper(*keys):
        groups = near_duplicates(ids, same, np.array(keys, float), 0.95)
        assert len(groups.ids) == 4
        assert groups.similarity.tolist() == [1.0] * 4
        return set(groups.keepers)

    assert keeper([1, 0], [2, 0], [2, 5], [2, 5], [0, 9]) == {"c"}
    assert keeper([nan, 9], [nan, 9], [-5, 0], [nan, 9], [nan, 9]) == {"c"}
    assert keeper([0, 0], [0, 0], [0, 0], [0, 0], [0, 0]) == {"a"}


def test_a_chain_is_one_group_and_its_far_end_says_so():
    angle = np.deg2rad([0, 15, 30])  # neighbours 0.966 apart, the ends 0.866
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    groups = near_duplicates(["a", "b", "c"], vectors, np.zeros((3, 0)), 0.95)
    assert groups.ids == ["b", "c"]
    assert groups.keepers == ["a", "a"]
    assert groups.similarity == pytest.approx([0.9659, 0.8660], abs=1e-4)


@pytest.mark.parametrize("block", [1, 7, 64, 2048])
def test_no_block_size_changes_a_verdict(monkeypatch, block):
    """Thresholds that are themselves cosines of the data: one last bit would flip a pair."""
    vectors = unit(planted(150, 33, seed=5, copies=0.4))
    pairs = np.array(sorted(all_pairs(vectors, 0.9)))
    exact = near.row_cosines(vectors, pairs)
    monkeypatch.setattr(near, "_BLOCK", block)
    monkeypatch.setattr(near, "_WIDE", block * 10)
    for threshold in exact[:: max(1, len(exact) // 8)]:
        found = {tuple(p) for b in cell_pairs(np.arange(150), vectors, threshold) for p in b}
        assert found == {tuple(p) for p, c in zip(pairs.tolist(), exact, strict=True) if c >= threshold}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 700))
def test_a_pairs_cosine_has_the_same_bits_in_any_company(seed, d):
    rng = np.random.default_rng(seed)
    a, b = unit(rng.standard_normal((9, d))), unit(rng.standard_normal((9, d)))
    together = cosines(a, b)
    assert together.tolist() == [cosines(a[i : i + 1], b[i : i + 1])[0] for i in range(9)]
    assert together.tolist() == cosines(b, a).tolist()
    assert together[::-2].tolist() == cosines(a[::-2], b[::-2]).tolist()
    assert cosines(a, a).tolist() == [1.0] * 9


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 60), st.sampled_from([0.2, 0.7, 0.9]))
def test_links_connect_what_all_pairs_connect_and_are_fewer_than_rows(seed, m, threshold):
    vectors = planted(m, 4, seed, copies=0.5)
    rows = np.arange(m) * 3 + 7
    links = cell_links(Cell(rows, unit(vectors)), threshold)
    assert len(links) < m
    local = [(int(i), int(j)) for i, j in (links - 7) // 3]
    keys = np.zeros((m, 0))
    assert plain_groups(m, local, keys) == plain_groups(m, all_pairs(vectors, threshold), keys)


def test_the_order_of_rows_changes_nothing():
    n = 600
    vectors, ids = planted(n, 24, seed=11, copies=0.3), np.array(names(n))
    keys = np.random.default_rng(0).integers(0, 3, (n, 1)).astype(float)
    want = near_duplicates(ids.tolist(), vectors, keys, 0.93, cells=16, seed=4, exact_rows=0)
    assert len(want.ids) > 50
    for shuffle in range(3):
        order = np.random.default_rng(shuffle).permutation(n)
        got = near_duplicates(ids[order].tolist(), vectors[order], keys[order], 0.93, 16, 4, exact_rows=0)
        assert (got.ids, got.keepers) == (want.ids, want.keepers)
        assert got.similarity.tobytes() == want.similarity.tobytes()


def test_cells_may_run_anywhere_and_end_in_any_order():
    n = 500
    vectors, ids, keys = planted(n, 24, seed=12, copies=0.3), names(n), np.zeros((n, 0))
    want = near_duplicates(ids, vectors, keys, 0.93, cells=16, exact_rows=0)

    def elsewhere(compare, compared):
        compare = pickle.loads(pickle.dumps(compare))
        with ThreadPoolExecutor(2) as pool:
            return reversed(list(pool.map(compare, compared)))

    got = near_duplicates(ids, vectors, keys, 0.93, cells=16, exact_rows=0, mapper=elsewhere)
    assert got.keepers == want.keepers
    assert got.similarity.tobytes() == want.similarity.tobytes()


_BITS = """
import sys, numpy as np, faiss
from blake3 import blake3
from curate.decide.near import cells, near_duplicates
from curate.schema.ids import content_id
rng = np.random.default_rng(7)
n = 3000
vectors = rng.standard_normal((n, 96)).astype(np.float32)
vectors[1::3] = vectors[::3] + 0.25 * rng.standard_normal((n // 3, 96))
ids = sorted(content_id(str(i).encode()) for i in range(n))
assigned = cells(ids, vectors, 32, 1)
groups = near_duplicates(ids, vectors, np.zeros((n, 0)), 0.95, 32, 1, exact_rows=0)
assert len(groups.ids) > 500
said = assigned.tobytes() + repr(groups.keepers).encode() + groups.similarity.tobytes()
print(faiss.omp_get_max_threads(), blake3(said).hexdigest())
"""


def test_one_and_two_threads_give_the_same_bits():
    def run(threads):
        env = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        out = subprocess.run([sys.executable, "-c", _BITS], env=env, capture_output=True, text=True, check=True).stdout
        return out.split()

    (one, bits), (two, same) = run("1"), run("2")
    assert (one, two) == ("1", "2")
    assert bits == same


def test_the_number_of_threads_that_others_use_is_left_alone():
    import faiss

    before = faiss.omp_get_max_threads()
    cells(names(50), planted(50, 8, 0), 4, 0)
    assert faiss.omp_get_max_threads() == before


def test_zero_vectors_are_like_no_other():
    vectors = np.zeros((6, 4), np.float32)
    vectors[4:] = 1
    groups = near_duplicates(names(6), vectors, np.zeros((6, 0)), 1e-9)
    assert groups.ids == [names(6)[5]]
    nothing = near_duplicates(names(6), vectors[:4].repeat(2, axis=0)[:6], np.zeros((6, 0)), 0.5, cells=2, exact_rows=0)
    assert nothing.ids == []


def test_vectors_far_from_unit_length_are_compared_by_direction():
    vectors = np.array([[1e-30, 0], [1e30, 0], [0, 1]], np.float32)
    groups = near_duplicates(["a", "b", "c"], vectors, np.zeros((3, 0)), 1.0)
    assert (groups.ids, groups.keepers) == (["b"], ["a"])


def test_nan_is_refused_by_name():
    vectors = np.ones((3, 4), np.float32)
    vectors[1, 2] = np.nan
    with pytest.raises(CurateError, match="embedding of b holds NaN"):
        near_duplicates(["a", "b", "c"], vectors, np.zeros((3, 0)), 0.9)


def test_more_cells_than_rows_and_equal_rows_only():
    vectors = np.ones((20, 4), np.float32)
    groups = near_duplicates(names(20), vectors, np.zeros((20, 0)), 0.95, cells=64, exact_rows=0)
    assert set(groups.keepers) == {names(20)[0]}
    assert len(groups.ids) == 19


def test_wrong_arguments():
    vectors = np.ones((2, 4), np.float32)
    with pytest.raises(ValueError, match="occurs twice"):
        near_duplicates(["a", "a"], vectors, np.zeros((2, 0)), 0.9)
    with pytest.raises(ValueError, match="need"):
        near_duplicates(["a"], vectors, np.zeros((2, 0)), 0.9)
    with pytest.raises(ValueError, match="threshold"):
        near_duplicates(["a", "b"], vectors, np.zeros((2, 0)), 0)


def test_the_default_number_of_cells():
    assert [default_cells(n) for n in (0, 1, 4, 5, 20_000, 1_000_000)] == [1, 1, 2, 4, 256, 1024]

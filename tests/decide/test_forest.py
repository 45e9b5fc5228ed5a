"""Links of a cell against all pairs, computed the plain way."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.decide import forest
from curate.decide.forest import completed, cosines, heaviest_forest, spanning_forest, unit


def all_pairs(vectors, threshold):
    """Pairs a < b with a cosine of at least `threshold`, one at a time, in float64."""
    wide = vectors.astype(np.float64)
    norm = (wide * wide).sum(axis=1)
    out = {}
    for a in range(len(wide)):
        for b in range(a + 1, len(wide)):
            if norm[a] > 0 < norm[b]:
                cosine = min(1, (wide[a] * wide[b]).sum() / np.sqrt(norm[a] * norm[b]))
                if cosine >= threshold:
                    out[a, b] = cosine
    return out


def groups(n, pairs):
    """The smallest member of each row's group, by following pairs until nothing changes."""
    label = list(range(n))
    changed = True
    while changed:
        changed = False
        for a, b in pairs:
            low = min(label[a], label[b])
            changed |= label[a] != low or label[b] != low
            label[a] = label[b] = low
    return label


def same_groups_at_every_threshold(vectors, threshold, split=None):
    pairs = {p: w for p, w in all_pairs(vectors, threshold).items() if split is None or p[0] < split <= p[1]}
    a, b, w = spanning_forest(vectors, threshold, split)
    found = dict(zip(zip(a.tolist(), b.tolist(), strict=True), w.tolist(), strict=True))
    assert len(found) == len(a)
    assert len(a) < max(1, len(vectors))
    for level in sorted({threshold, *pairs.values()})[:40]:
        want = groups(len(vectors), [p for p, cosine in pairs.items() if cosine >= level])
        assert groups(len(vectors), [p for p, cosine in found.items() if cosine >= level]) == want
    if split is None:
        assert all(pairs[p] == cosine for p, cosine in found.items())


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 30),
    st.integers(1, 6),
    st.integers(0, 10_000),
    st.sampled_from([0.3, 0.8, 0.95, 0.999, 1.0]),
    st.sampled_from(["few", "any", "alike"]),
)
def test_a_forest_has_the_groups_of_all_pairs_at_every_threshold(n, d, seed, threshold, what):
    rng = np.random.default_rng(seed)
    if what == "few":  # equal vectors and zero vectors occur
        vectors = rng.integers(-1, 2, (n, d))
    elif what == "any":
        vectors = rng.standard_normal((n, d))
    else:
        vectors = np.ones(d) + 1e-4 * rng.standard_normal((n, d))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forest, "BLOCK", 7)
        patch.setattr(forest, "DENSE", 1)
        same_groups_at_every_threshold(unit(vectors.astype(np.float32)), threshold)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 30), st.integers(0, 10_000), st.data())
def test_two_chunks_of_a_cell_are_compared_across(n, seed, data):
    """Copies within a chunk are linked here too; then the forests of all chunks have the groups of all pairs."""
    rng = np.random.default_rng(seed)
    vectors = unit(rng.integers(-1, 2, (n, 4)).astype(np.float32))
    split = data.draw(st.integers(1, n - 1))
    a, b, w = (
        np.concatenate(columns)
        for columns in zip(
            spanning_forest(vectors, 0.5, split),
            spanning_forest(vectors[:split], 0.5),
            [x + (split if i < 2 else 0) for i, x in enumerate(spanning_forest(vectors[split:], 0.5))],
            strict=True,
        )
    )
    got = heaviest_forest(n, a, b, w)
    assert groups(n, list(zip(*got[:2], strict=True))) == groups(n, all_pairs(vectors, 0.5))


@pytest.mark.parametrize(("block", "dense"), [(1, 1), (7, 1), (64, 1), (64, 1000), (2048, 16)])
def test_no_block_size_changes_a_link(monkeypatch, block, dense):
    rng = np.random.default_rng(5)
    vectors = unit((np.ones(33) + rng.standard_normal((150, 33)) * 0.4).astype(np.float32))
    want = spanning_forest(vectors, 0.8)
    assert len(want[0]) > 100
    monkeypatch.setattr(forest, "BLOCK", block)
    monkeypatch.setattr(forest, "DENSE", dense)
    monkeypatch.setattr(forest, "_WIDE", block * 10)
    got = spanning_forest(vectors, 0.8)
    assert [x.tobytes() for x in got] == [x.tobytes() for x in want]


@pytest.mark.parametrize("spread", [0.1, 1e-5])
@pytest.mark.parametrize("n", [6_000, pytest.param(20_000, marks=pytest.mark.long)])
def test_a_heap_of_look_alikes_has_one_link_less_than_rows(n, spread):
    rng = np.random.default_rng(1)
    vectors = unit((rng.standard_normal(16) + spread * rng.standard_normal((n, 16))).astype(np.float32))
    start = time.process_time()
    a, _, w = spanning_forest(vectors, 0.9)
    print(f"\n{n} look-alikes in {time.process_time() - start:.1f} s of CPU")
    assert len(a) == n - 1
    assert w.min() > 0.9


@pytest.mark.parametrize("most", [2, 3, 5, 40])
def test_small_groups_have_all_their_pairs(most):
    rng = np.random.default_rng(most)
    vectors = unit(rng.standard_normal((12, 6))[rng.integers(12, size=40)] + 0.05 * rng.standard_normal((40, 6)))
    vectors[7] = vectors[3]
    tree = spanning_forest(vectors, 0.98)
    label = groups(40, list(zip(tree[0].tolist(), tree[1].tolist(), strict=True)))
    small = {g for g in set(label) if label.count(g) <= most}
    want = {p for p in itertools.combinations(range(40), 2) if label[p[0]] == label[p[1]] and label[p[0]] in small}
    want |= {(a, b) for a, b in zip(tree[0].tolist(), tree[1].tolist(), strict=True) if label[a] not in small}
    a, b, w = completed(vectors, tree, most)
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == sorted(want)
    assert w.tolist() == cosines(vectors[a], vectors[b]).tolist()


def test_equal_vectors_are_linked_with_the_first():
    vectors = unit(np.array([[1, 0], [0, 0], [2, 0], [0, 1], [0, 0], [3, 0], [-0.0, 5]], np.float32))
    a, b, w = spanning_forest(vectors, 0.5)
    assert list(zip(a.tolist(), b.tolist(), w.tolist(), strict=True)) == [(0, 2, 1.0), (0, 5, 1.0), (3, 6, 1.0)]
    heap = np.ones((100_000, 4), np.float32) / 2
    assert len(spanning_forest(heap, 1.0)[0]) == 99_999


def test_planted_pairs_on_either_side_of_the_threshold():
    d, threshold = 64, 0.95
    rng = np.random.default_rng(3)
    base = np.linalg.qr(rng.standard_normal((d, d)))[0]  # orthonormal: no chance pairs
    rows, want = [], []
    for i, cosine in enumerate([0.95 - 1e-6, 0.95 + 1e-6, 1.0, 0.5]):
        rows += [base[2 * i], cosine * base[2 * i] + np.sqrt(1 - cosine**2) * base[2 * i + 1]]
        if cosine >= threshold:
            want.append((2 * i, 2 * i + 1))
    a, b, _ = spanning_forest(unit(np.array(rows)), threshold)
    assert list(zip(a.tolist(), b.tolist(), strict=True)) == want


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


_BITS = """
import numpy as np, faiss
from blake3 import blake3
from curate.decide.forest import spanning_forest, unit
from curate.decide.near import Rows, _Nearest, _centroids
rng = np.random.default_rng(7)
n = 3000
vectors = rng.standard_normal((n, 96)).astype(np.float32)
vectors[1::3] = vectors[::3] + 0.25 * rng.standard_normal((n // 3, 96))
vectors = unit(vectors)
keys = np.frombuffer(rng.bytes(16 * n), "S16")
centroids = _centroids(1, 32, 96, Rows(np.zeros(n, np.int32), keys, vectors))
links = spanning_forest(vectors, 0.95)
assert len(links[0]) > 500
said = _Nearest(centroids)(vectors).tobytes() + b"".join(x.tobytes() for x in links)
print(faiss.omp_get_max_threads(), blake3(said).hexdigest())
"""


def test_one_and_two_threads_give_the_same_bits():
    def run(threads):
        env = os.environ | {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        out = subprocess.run([sys.executable, "-c", _BITS], env=env, capture_output=True, text=True, check=True).stdout
        return out.split()

    one, two = run("1"), run("2")
    assert (one[0], two[0]) == ("1", "2")
    assert one[1] == two[1]

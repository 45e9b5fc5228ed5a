"""Cosines with all samples, and what a map makes of vectors."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.measure import points_in_poly

from curate.browse import vectors as of_vectors
from curate.browse.columns import Columns
from curate.browse.map import SIDE, Map, Maps, classes, directions
from curate.browse.table import Browsed, open_table
from curate.browse.vectors import Vectors
from curate.schema.errors import CurateError
from curate.storage import open_store

FIELD = "tiny_image"


@pytest.fixture(scope="module")
def browsed(browsed_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browsed]:
    with open_table(open_store(browsed_build), tmp_path_factory.mktemp("cache")) as found:
        yield found


def embeddings(build: Path) -> dict[str, np.ndarray]:
    """What the build's fragments hold, by sample."""
    found = pa.concat_tables(map(pq.read_table, build.glob("signals/*/*.parquet")), promote_options="default")
    rows = found.select(["sample_id", FIELD]).to_pylist()
    return {row["sample_id"]: np.array(row[FIELD]) for row in rows if row[FIELD] is not None}


def test_cosines_are_those_of_the_builds_vectors_whatever_the_block(
    browsed: Browsed, browsed_build: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = embeddings(browsed_build)
    ids = dict(enumerate(pa.concat_tables(map(pq.read_table, browsed.files))["id"].to_pylist()))
    found = Vectors(browsed, FIELD)
    assert {ids[n] for n in found.rows} == given.keys()
    first = ids[found.rows[3]]
    vector = found.of(found.rows[3])
    assert vector is not None
    expected = [given[ids[n]] @ given[first] for n in found.rows]
    np.testing.assert_allclose(found.cosines(vector), expected, atol=1e-5)
    monkeypatch.setattr(of_vectors, "BLOCK_BYTES", 3 * 4 * found.dim)
    np.testing.assert_allclose(Vectors(browsed, FIELD).cosines(vector), expected, atol=1e-5)


def test_a_row_without_an_embedding_has_no_vector(browsed: Browsed) -> None:
    found = Vectors(browsed, FIELD)
    [(audio,)] = browsed.con.execute("SELECT n FROM rows WHERE kind = 'audio'").fetchall()
    assert found.of(audio) is None


def test_vectors_that_are_gone_are_said_to_be(browsed_build: Path, tmp_path: Path) -> None:
    shutil.copytree(browsed_build, tmp_path / "build")
    with open_table(open_store(tmp_path / "build"), tmp_path / "cache") as browsed:
        shutil.rmtree(tmp_path / "build" / browsed.tables.fields[FIELD])
        with pytest.raises(CurateError, match="the vectors of tiny_image are gone from this build"):
            Vectors(browsed, FIELD)


def test_the_map_is_of_the_directions_that_differ_most() -> None:
    rng = np.random.default_rng(1)
    true = np.linalg.qr(rng.standard_normal((6, 2)))[0]
    drawn = rng.standard_normal((5000, 2)) * [3, 2] @ true.T + 0.1 * rng.standard_normal((5000, 6)) + 7
    middle, axes, shares = directions(drawn.astype(np.float32))
    np.testing.assert_allclose(middle, 7, atol=0.2)
    np.testing.assert_allclose(np.abs(axes.T @ true), np.eye(2), atol=0.05)
    np.testing.assert_allclose(shares, np.array([9, 4]) / (13 + 6 * 0.01), atol=0.02)
    _, axes, shares = directions(np.ones((4, 1), np.float32))  # one number that is always the same
    assert (axes.shape, shares.tolist()) == ((1, 2), [0, 0])


corners = st.lists(st.tuples(*[st.floats(-0.2, 1.2).map(lambda x: x + 1e-7)] * 2), min_size=3, max_size=8)


@given(corners, st.integers(0, 100))
def test_a_lasso_holds_what_another_implementation_says(polygon: list[tuple[float, float]], seed: int) -> None:
    points = np.random.default_rng(seed).integers(0, SIDE + 1, (200, 2)).astype(np.uint16)
    scaled = np.array(polygon) * SIDE
    found = Map(np.arange(200) * 3, points, (0, 0)).inside(scaled)
    expected = points_in_poly(points.astype(np.float64), scaled)
    assert found.tolist() == (np.flatnonzero(expected) * 3).tolist()


def test_the_commonest_values_have_colours_of_their_own() -> None:
    values = [name for i, name in enumerate("abcdefghij") for _ in range(20 - i)] + [None]
    codes, names, rest = classes(pa.array(values))
    assert (names, rest) == (list("abcdefgh"), ["others", "none"])
    assert codes.tolist() == [min(8, "abcdefghij".index(v)) if v else 9 for v in values]
    assert classes(pa.array(["x", "x"]))[1:] == (["x"], [])


def test_colours_are_those_of_the_points_own_samples(browsed: Browsed) -> None:
    columns = Columns(browsed)
    maps = Maps(columns, browsed.numbers, lambda _: Vectors(browsed, FIELD))
    table = pa.concat_tables(map(pq.read_table, browsed.files))
    rows = [maps.row({"point": i}) for i in range(maps.about({})["count"])]
    told = maps.legend({"by": "outcome"})["classes"]
    codes = list(maps.codes({"by": "outcome"}))
    assert [told[code]["label"] for code in codes] == [table["outcome"][n].as_py() for n in rows]
    assert [one["count"] for one in told] == [codes.count(i) for i in range(len(told))]
    bins = np.frombuffer(maps.codes({"by": "brightness"}), np.uint8)
    assert np.corrcoef(bins, [table["brightness"][n].as_py() for n in rows])[0, 1] > 0.9

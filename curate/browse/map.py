"""A map of an embedding: its samples as points on a plane, their colours, and what lies inside a polygon.

The plane is that of the two directions along which vectors differ most (principal components, Pearson 1901), found in a
drawn sample and applied to all. Points are 4 bytes each, kept in the cache beside the vectors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.browse.columns import NONE, Columns, Spread
from curate.browse.query import known, number
from curate.browse.vectors import Vectors
from curate.schema.errors import CurateError
from curate.storage.place import atomic_write

DRAWN = 20_000
"""Vectors that directions are found in."""

SIDE = 65_535
"""Steps of the map along each of its sides."""

CORNERS = 1000
"""Of a polygon at most."""

WORDS = ("outcome", "source", "kind")
"""What points are coloured by beside numbers."""

CLASSES = 8
"""Values that have a colour of their own, the commonest ones; the others share one."""

_FILE = "map.npz"


@dataclass(frozen=True)
class Map:
    """Points of the samples that have a vector, in the order of the vectors.

    Attributes:
        rows: int64 `(m,)`, the number of each sample's row in the table.
        points: uint16 `(m, 2)`, across and up, each from 0 to SIDE.
        shares: of the vectors' variance, what the two sides of the map hold.
    """

    rows: NDArray[np.int64]
    points: NDArray[np.uint16]
    shares: tuple[float, float]

    def inside(self, polygon: NDArray[np.float64]) -> NDArray[np.int64]:
        """Rows of the table whose points lie inside a polygon `(c, 2)`, ascending; where its edges cross, by the
        even-odd rule.

        An edge is compared with the points at its height alone, so the work grows with how often the polygon passes a
        height, not with its corners.
        """
        x, y, rows = self._by_height
        odd = np.zeros(len(y), bool)
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            here = slice(*np.searchsorted(y, np.sort([y0, y1])))
            if here.start < here.stop:
                odd[here] ^= x[here] < x0 + (y[here] - y0) * ((x1 - x0) / (y1 - y0))
        return np.sort(rows[odd])

    @cached_property
    def _by_height(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Points from the lowest on: across, up, and rows."""
        order = np.argsort(self.points[:, 1], kind="stable")
        x, y = self.points[order].T.astype(np.float64)
        return x, y, self.rows[order]


class Maps:
    """Maps of a build's embeddings as the page asks for them: every question names its `field`.

    Args:
        numbers: columns that points may be coloured by.
        vectors: gives those of a field; CurateError where there are none.
    """

    def __init__(self, columns: Columns, numbers: tuple[str, ...], vectors: Callable[[object], Vectors]) -> None:
        self._columns, self._numbers, self._vectors = columns, numbers, vectors
        self._lock = threading.Lock()
        self._maps: dict[Path, Map] = {}

    def about(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """How many points there are, and how much of what vectors differ in the map shows."""
        found = self._map(asked)
        return {"count": len(found.rows), "shares": found.shares}

    def points(self, asked: Mapping[str, Any]) -> bytes:
        """Of each point two little-endian uint16: across, up."""
        return self._map(asked).points.astype("<u2", copy=False).tobytes()

    def row(self, asked: Mapping[str, Any]) -> int:
        """The row of the table of a point, by the `point`'s number."""
        rows, point = self._map(asked).rows, asked.get("point")
        if not isinstance(point, int) or not 0 <= point < len(rows):
            raise CurateError(f"{point!r} is no point of the map")
        return int(rows[point])

    def legend(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What the colours of points say.

        Args:
            asked: `by`, one of WORDS or a number of the table.

        Returns:
            `classes`, for each code of `codes` its label, how many points have it, and whether it is a `rest` and no
            value; or, of a number, `ticks` along its axis and how many points have `none`.
        """
        codes, said = self._coloured(asked)
        counts = np.bincount(codes, minlength=NONE + 1).tolist()
        if isinstance(said, Spread):
            return {"ticks": said.ticks, "none": counts[NONE]}
        names, rest = said
        labels = [(label, False) for label in names] + [(label, True) for label in rest]
        return {"classes": [{"label": one, "count": counts[i], "rest": rest} for i, (one, rest) in enumerate(labels)]}

    def codes(self, asked: Mapping[str, Any]) -> bytes:
        """Of each point a byte: the number of its class, or of its bin; NONE where there is no value."""
        return self._coloured(asked)[0].tobytes()

    def inside(self, asked: Mapping[str, Any]) -> NDArray[np.int64]:
        """Rows of the table whose points lie in a polygon.

        Args:
            asked: `polygon`: corners `[across, up]`, each from 0 to 1 along the map's sides.

        Raises:
            CurateError: it is no polygon.
        """
        corners = asked.get("polygon")
        if not isinstance(corners, list) or not 3 <= len(corners) <= CORNERS:
            raise CurateError(f"a polygon has 3 to {CORNERS} corners")
        if not all(isinstance(corner, list) and len(corner) == 2 for corner in corners):
            raise CurateError("a corner is two numbers")
        places = np.array([[number(one) for one in corner] for corner in corners])
        return self._map(asked).inside(places * SIDE)

    def _map(self, asked: Mapping[str, Any]) -> Map:
        vectors = self._vectors(asked.get("field"))
        with self._lock:
            if vectors.folder not in self._maps:
                self._maps[vectors.folder] = _open(vectors)
            return self._maps[vectors.folder]

    def _coloured(self, asked: Mapping[str, Any]) -> tuple[NDArray[np.uint8], Spread | tuple[list[str], list[str]]]:
        """Codes of all points, and the spread of a number or the labels of classes."""
        found, columns = self._map(asked), self._columns
        by = known(asked.get("by"), (*WORDS, *self._numbers), "number")
        places = np.searchsorted(columns.rows, found.rows)
        if by in WORDS:
            codes, *labels = classes(columns.arrow([by])[by].combine_chunks())
            return codes[places], (labels[0], labels[1])
        spread = columns.spread(by)
        return spread.bins[places], spread


def classes(values: pa.Array) -> tuple[NDArray[np.uint8], list[str], list[str]]:
    """The class of each value, `(s,)`; the commonest CLASSES values, which are the first classes (of equally common
    ones the first by name); and what the classes after those are called: all others, and none."""
    counted = pc.value_counts(values.drop_null()).to_pylist()
    names = [one["values"] for one in sorted(counted, key=lambda one: (-one["counts"], one["values"]))]
    names, rest = names[:CLASSES], ["others"] * (len(names) > CLASSES)
    codes = pc.fill_null(pc.index_in(values, pa.array(names, pa.string())), len(names)).to_numpy()
    codes = np.where(values.is_valid().to_numpy(zero_copy_only=False), codes, len(names) + len(rest))
    return codes.astype(np.uint8), names, [*rest, *["none"] * bool(values.null_count)]


def _open(vectors: Vectors) -> Map:
    """The map in the cache; made where there is none."""
    file = vectors.folder / _FILE
    if not file.exists():
        points, shares = project(vectors)
        with atomic_write(file, "choose another --cache") as unfinished, unfinished.open("wb") as out:
            np.savez(out, points=points, shares=shares)
    with np.load(file) as held:
        first, second = held["shares"].tolist()
        return Map(vectors.rows, held["points"], (first, second))


def project(vectors: Vectors) -> tuple[NDArray[np.uint16], NDArray[np.float64]]:
    """Points of all vectors, uint16 `(m, 2)`, and the shares of the variance that they hold, `(2,)`."""
    middle, axes, shares = directions(_draw(vectors))
    places = np.empty((len(vectors), 2), np.float32)
    for some, block in vectors.blocks():
        places[some] = (block - middle) @ axes
    low, high = (f(places, axis=0, initial=0) for f in (np.min, np.max))
    scale = SIDE / np.where(high > low, high - low, 1)
    return np.round((places - low) * scale).astype(np.uint16), shares


def directions(
    drawn: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float64]]:
    """The two directions in which vectors `(n, d)` differ most: their mean `(d,)`, directions `(d, 2)`, and their
    shares of the variance `(2,)`. A direction's largest number is positive, so that a map is not turned over."""
    if not len(drawn):
        return np.zeros(drawn.shape[1], np.float32), np.zeros((drawn.shape[1], 2), np.float32), np.zeros(2)
    middle = drawn.mean(axis=0)
    wide = (drawn - middle).astype(np.float64)
    variance, found = np.linalg.eigh(wide.T @ wide / len(wide))
    axes = np.zeros((len(middle), 2))
    axes[:, : min(2, len(middle))] = found[:, ::-1][:, :2]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0))
    shares = np.pad(variance[::-1][:2], (0, max(0, 2 - len(middle)))) / (variance.sum() or 1)
    return middle, (axes * signs).astype(np.float32), np.clip(shares, 0, 1)


def _draw(vectors: Vectors) -> NDArray[np.float32]:
    """Some vectors, the same ones each time."""
    count = min(DRAWN, len(vectors))
    chosen = np.sort(np.random.default_rng(0).choice(len(vectors), count, replace=False)) if count else np.empty(0, int)
    out = np.empty((count, vectors.dim), np.float32)
    for places, block in vectors.blocks():
        here = slice(*np.searchsorted(chosen, [places.start, places.stop]))
        out[here] = block[chosen[here] - places.start]
    return out

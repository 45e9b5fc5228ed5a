"""Numbers of all samples in memory, a column at a time as it is asked for: what histograms and moved rules look at.

A column takes 4 or 8 bytes a sample, and as much again where it is sorted.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.browse.table import Browsed
from curate.card.axis import Axis
from curate.card.histogram import LOG_SPREAD
from curate.schema.errors import CurateError

BINS = 60
"""Of a histogram."""

AXIS = 1000
"""Steps of an axis, of which places of ticks are whole ones."""

NONE = 63
"""The bin of samples that have no value: bins fit into 6 bits."""

_BEYOND = 0.002  # share of values at each end that an axis may leave out, where they lie far from the others
_FAR = 0.25  # of the length of the others' axis
_LOOKED_AT = 200_000  # values that an axis is made from


@dataclass(frozen=True)
class Spread:
    """Where values of a column lie.

    Attributes:
        edges: float64 `(BINS + 1,)`, ascending; bins at the ends hold what lies beyond.
        ticks: places from 0 to 1 along the axis, with labels.
        bins: uint8 `(s,)`, the bin of each sample; NONE where there is no value.
        counts: samples in each bin, `(BINS,)`.
        count: samples that have a value.
    """

    edges: NDArray[np.float64]
    ticks: list[tuple[float, str]]
    bins: NDArray[np.uint8]
    counts: NDArray[np.int64]
    count: int


class Columns:
    """Columns of the samples of a table; rows are in its order, records that came to no sample are left out.

    Attributes:
        rows: int64 `(s,)`, the number `n` of each sample's row in the table.
    """

    def __init__(self, browsed: Browsed) -> None:
        self._lock = threading.RLock()
        self._table = pq.ParquetDataset([str(file) for file in browsed.files])
        found = self._table.read(["n", "level"])
        n = found["n"].to_numpy()
        if not np.array_equal(n, np.arange(len(n))):
            raise CurateError("the cached table of this build is damaged", f"remove it: {browsed.cache}")
        self._is_sample = pc.equal(found["level"], "sample")
        self.rows = n[self._is_sample.to_numpy()]
        self._numbers: dict[str, NDArray[Any]] = {}
        self._orders: dict[str, tuple[NDArray[np.int32], NDArray[Any]]] = {}
        self._included: dict[str, list[float]] = {}
        self._spreads: dict[tuple[str, tuple[float, ...]], Spread] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def arrow(self, names: Sequence[str]) -> pa.Table:
        """Columns as the table has them, `(s,)`; read each time."""
        return self._table.read(list(names)).filter(self._is_sample)

    def number(self, field: str) -> NDArray[Any]:
        """A number, float32 or float64 `(s,)`, NaN where there is none."""
        with self._lock:
            if field not in self._numbers:
                column = self.arrow([field])[field]
                kind = column.type if pa.types.is_floating(column.type) else pa.float64()
                self._numbers[field] = column.cast(kind, safe=False).to_numpy()
            return self._numbers[field]

    def order(self, field: str) -> tuple[NDArray[np.int32], NDArray[Any]]:
        """Samples that have the number, the smallest first (of equal ones as in the table), and the numbers."""
        with self._lock:
            if field not in self._orders:
                values = self.number(field)
                order = np.argsort(values, kind="stable").astype(np.int32)[: int((~np.isnan(values)).sum())]
                self._orders[field] = order, values[order]
            return self._orders[field]

    def include(self, field: str, value: float) -> None:
        """Have the axis of a field reach to a value."""
        with self._lock:
            if value not in self._included.setdefault(field, []):
                self._included[field].append(value)

    def spread(self, field: str) -> Spread:
        """Where its values lie. Several may be made at once, each in a thread."""
        included = tuple(self._included.get(field, ()))
        found = self._spreads.get((field, included))
        if found is None:
            found = self._spreads[field, included] = spread_of(self.number(field), included)
        return found

    def share(self, field: str, value: float) -> float | None:
        """The share of samples with the number whose value is at most this one; None where none has it."""
        values = self.number(field)
        have = int((~np.isnan(values)).sum())
        return int((values.astype(np.float64, copy=False) <= value).sum()) / have if have else None


def spread_of(values: NDArray[Any], included: Sequence[float]) -> Spread:
    """Where values lie, on an axis that reaches to others too."""
    axis = axis_of(values, included)
    edges = np.array(axis.edges(BINS))
    bins = np.searchsorted(edges[1:-1], values, side="right").astype(np.uint8)
    bins[np.isnan(values)] = NONE
    counts = np.bincount(bins, minlength=NONE + 1)
    ticks = [(x / AXIS, label) for x, label in axis.ticks()]
    return Spread(edges, ticks, bins, counts[:BINS], int(counts[:BINS].sum()))


def axis_of(values: NDArray[Any], included: Sequence[float] = ()) -> Axis:
    """An axis of AXIS steps for values, and for others that it must reach to. A few values that lie far from all others
    do not stretch it."""
    finite = values[np.isfinite(values)].astype(np.float64)
    if not len(finite):
        return Axis(0, 1, 0, AXIS)
    low, high = float(finite.min()), float(finite.max())
    some = finite[:: -(-len(finite) // _LOOKED_AT)]
    first, median, last = np.quantile(some, [_BEYOND, 0.5, 1 - _BEYOND]).tolist()
    if last > first and high - last > _FAR * (last - first):
        high = last
    if last > first and first - low > _FAR * (last - first):
        low = first
    low, high = min([low, *included]), max([high, *included])
    if low == high:
        low, high = low - (abs(low) or 1.0) * 0.5, high + (abs(high) or 1.0) * 0.5
    return Axis(low, high, 0, AXIS, low > 0 and high > LOG_SPREAD * median)

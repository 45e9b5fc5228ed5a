"""What tasks decoded, as a column of their rows: media are decoded once before decisions, and once after (law 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from curate.media.decodes import Decodes

_TYPES = {"int": pa.int64(), "float": pa.float64()}

DECODES = pa.field(
    "decodes",
    pa.struct([pa.field(f.name, _TYPES[str(f.type)], nullable=False) for f in fields(Decodes)]),
    nullable=False,
)
"""Column of a row that comes out of a plan."""


def decodes_of(value: Mapping[str, Any]) -> Decodes:
    """Counts from a value of that column."""
    return Decodes(**value)


def decodes_column(*counts: Decodes) -> pa.Array:
    """A column of one row, with the sum of some counts."""
    total = Decodes()
    for one in counts:
        total.add(one)
    return pa.array([asdict(total)], DECODES.type)

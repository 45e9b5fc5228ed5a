"""What was decoded, summed over tasks: media are decoded once before decisions, and once after (law 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import pyarrow as pa

from curate.media.decodes import Decodes

_TYPES = {"int": pa.int64(), "float": pa.float64()}

DECODES = tuple(pa.field(f.name, _TYPES[str(f.type)], nullable=False) for f in fields(Decodes))
"""Columns of a row that comes out of a plan."""


def decode_columns(counts: Decodes) -> dict[str, list[Any]]:
    """Counts as columns of one row."""
    return {name: [value] for name, value in asdict(counts).items()}


def add_row(counts: Decodes, row: Mapping[str, Any]) -> None:
    """Add the counts of a row."""
    counts.add(Decodes(**{f.name: row[f.name] for f in fields(Decodes)}))

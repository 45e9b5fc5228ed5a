"""The probed fields, which are columns of records and samples and not of a signal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from curate.schema.fields import SignalField
from curate.signals.probed import PROBED_FIELDS

PROBED: Mapping[str, SignalField] = {f.name: f for f in PROBED_FIELDS}
"""Probed fields by name: what `decide.records` rules may bound, and `decide.rules` too."""


def columns_of(fields: Iterable[str]) -> list[str]:
    """Columns of RECORDS or SAMPLES that probed fields come from."""
    return sorted({c for f in fields for c in (("width", "height") if f == "pixels" else (f,))})


def probed(table: pa.Table, field: str) -> pa.ChunkedArray:
    """A probed field of a table of RECORDS or SAMPLES."""
    if field == "pixels":
        return pc.multiply(table["width"].cast(pa.int64()), table["height"])
    return table[field]

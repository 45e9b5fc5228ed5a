"""SQL of the probed fields, which are columns of records and samples and not of a signal."""

from __future__ import annotations

from collections.abc import Mapping

from curate.decide.sql import name
from curate.schema.fields import SignalField
from curate.signals.probed import PROBED_FIELDS

PROBED: Mapping[str, SignalField] = {f.name: f for f in PROBED_FIELDS}
"""Probed fields by name: what `decide.records` rules may bound, and `decide.rules` too."""


def probed_sql(field: str) -> str:
    """SQL of a probed field over a table of RECORDS or SAMPLES."""
    return "width::BIGINT * height" if field == "pixels" else name(field)

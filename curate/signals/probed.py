"""Fields that probing gives (`curate.schema.tables.PROBE`), with units and ranges, so that rules can use them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from curate.schema.fields import SignalField

PROBED: Mapping[str, SignalField] = {
    field.name: field
    for field in (
        SignalField("width", pa.int32(), "px", (1, None), ("image", "video"), "Width of the image as displayed."),
        SignalField("height", pa.int32(), "px", (1, None), ("image", "video"), "Height of the image as displayed."),
        SignalField("pixels", pa.int64(), "px", (1, None), ("image", "video"), "Width times height."),
        SignalField("duration", pa.float64(), "s", (0, None), ("video", "audio"), "Length of the clip or audio."),
        SignalField("fps", pa.float64(), "1/s", (0, None), ("video",), "Average frame rate of the video."),
    )
}
"""By name. Computed by probing, not by a signal; always there, so a signal's `after` may name them, and rules for
records may bound them."""


def columns_of(fields: Iterable[str]) -> list[str]:
    """Columns of RECORDS or SAMPLES that probed fields come from."""
    return sorted({c for f in fields for c in (("width", "height") if f == "pixels" else (f,))})


def probed(table: pa.Table, field: str) -> pa.ChunkedArray:
    """A probed field of a table of RECORDS or SAMPLES."""
    if field == "pixels":
        return pc.multiply(table["width"].cast(pa.int64()), table["height"])
    return table[field]


def probed_sql(table: str) -> str:
    """SQL of all probed fields of a table of RECORDS or SAMPLES, each under its name."""
    return ", ".join(
        f"{table}.width::BIGINT * {table}.height AS pixels" if name == "pixels" else f"{table}.{name}"
        for name in PROBED
    )

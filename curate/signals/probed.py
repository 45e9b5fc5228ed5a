"""Fields that probing gives (`curate.schema.tables.PROBE`), with units and ranges, so that rules can use them."""

from __future__ import annotations

import pyarrow as pa

from curate.schema.fields import SignalField

PROBED_FIELDS: tuple[SignalField, ...] = (
    SignalField("width", pa.int32(), "px", (1, None), ("image", "video"), "Width of the image as displayed."),
    SignalField("height", pa.int32(), "px", (1, None), ("image", "video"), "Height of the image as displayed."),
    SignalField("pixels", pa.int64(), "px", (1, None), ("image", "video"), "Width times height."),
    SignalField("duration", pa.float64(), "s", (0, None), ("video", "audio"), "Length of the clip or audio."),
    SignalField("fps", pa.float64(), "1/s", (0, None), ("video",), "Average frame rate of the video."),
)
"""Computed by probing, not by a signal; always there, so a signal's `after` may name them."""

"""A signal of a user's own that breaks where no signal may."""

from __future__ import annotations

import pyarrow as pa

from curate.schema.fields import SignalField
from curate.signals.base import Batch, Result, Signal


class OddVersion(Signal):
    """Raises where its files are named."""

    name = "odd_version"
    gives = (SignalField("odd", pa.float32(), "count", (0, 1e6)),)

    def version(self) -> str:
        raise LookupError("no version, and a\x1b[31m colour")

    def __call__(self, batch: Batch) -> list[Result]:
        return [{"odd": 1.0} for _ in batch.text]

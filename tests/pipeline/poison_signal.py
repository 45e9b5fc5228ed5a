"""A signal that kills the process it runs in, for samples whose text says so, while a file stands beside it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa

from curate.schema.fields import SignalField
from curate.signals import base
from curate.signals.base import Batch, Result, Signal


class Poison(Signal):
    """Counts the letters of the text; dies of a segmentation fault where it holds `poison` and `while_there` exists."""

    name = "poison"
    gives = (SignalField("letters", pa.float32(), "count", (0, 1e6), about="Letters of the text."),)

    class Options(base.Options):
        while_there: str

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self._flag = Path(self.options.while_there)

    def __call__(self, batch: Batch) -> list[Result]:
        if self._flag.exists() and any("poison" in (text or "") for text in batch.text):
            os.kill(os.getpid(), signal.SIGSEGV)
        return [{"letters": float(len(text or ""))} for text in batch.text]

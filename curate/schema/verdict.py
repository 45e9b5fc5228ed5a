"""Verdicts: what became of a record or a sample, and why.

A failure is not a drop (law 2): `Failure` carries the stage, the class of the error and its message and travels
beside good results in a batch, so that one bad member never takes its neighbours along.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from curate.schema.errors import Quarantined


class Outcome(StrEnum):
    """Where a record or a sample ended.

    `sampled` is for records only (samples were cut from it), `kept` for samples only.
    """

    SAMPLED = "sampled"
    KEPT = "kept"
    DROPPED = "dropped"
    DUPLICATE = "duplicate"
    FAILED = "failed"


RECORD_OUTCOMES = (Outcome.SAMPLED, Outcome.DROPPED, Outcome.DUPLICATE, Outcome.FAILED)
SAMPLE_OUTCOMES = (Outcome.KEPT, Outcome.DROPPED, Outcome.DUPLICATE, Outcome.FAILED)


@dataclass(frozen=True)
class Failure:
    """Why one record or sample could not be processed.

    Attributes:
        stage: `ingest`, `cut`, `annotate`, `tokenize`; a part of a stage is written `annotate:ocr`.
        error: class name of the exception, e.g. `MediaError`; of a helper process that died `TimeLimit`,
            `MemoryLimit` or `Crashed`.
        message: its text, cut to 500 characters, on one line.
        attempt: 1 for the first try.
    """

    stage: str
    error: str
    message: str
    attempt: int = 1

    @classmethod
    def of(cls, stage: str, exc: BaseException, attempt: int = 1) -> Failure:
        """The failure that `exc` means at `stage`. A `Quarantined` brings its own class and attempt."""
        text = " ".join(str(exc).split()) or type(exc).__name__
        if isinstance(exc, Quarantined):
            return cls(stage, exc.error, text[:500], exc.attempt)
        return cls(stage, type(exc).__name__, text[:500], attempt)

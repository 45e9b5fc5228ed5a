"""What `verify` found."""

from __future__ import annotations

from pydantic import BaseModel


class StreamReport(BaseModel):
    """A stream as recounted in the shards; `ids` is the count of all its ids."""

    name: str
    vocabulary: int
    dtype: str
    ids: int


class Report(BaseModel):
    """The result of `verify`; `curate verify --json` prints it.

    Attributes:
        ok: true if there is no problem.
        problems: sentences, each naming the file and, where there is one, the row.
        records: recounted from the ledger: total, sampled, dropped, duplicate, failed. Empty where it cannot be read.
        samples: the same: total, kept, dropped, duplicate, failed.
        streams: recounted from the shards that can be read.
    """

    ok: bool
    problems: list[str]
    records: dict[str, int]
    samples: dict[str, int]
    streams: list[StreamReport]


class Problems:
    """Collects sentences."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def add(self, sentence: str) -> None:
        self.found.append(sentence)

    def many(self, what: str, first: str, count: int) -> None:
        """One sentence for `count` cases of the same kind: the first is named, the others are counted."""
        if count:
            self.found.append(f"{what}: {first}" + (f", and {count - 1} more" if count > 1 else ""))

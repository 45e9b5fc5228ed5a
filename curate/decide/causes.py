"""Causes of failure, out of the ledger: which stage, which class of error, how often. No row of it is held."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from curate.schema.events import Cause
from curate.storage import Store
from curate.storage.sql import connect, scan

_FILES = 256
"""Fragments that one query reads."""

_QUERY = """
    SELECT level, stage, error, count(*) AS n, min(id) AS id, arg_min(uri, id) AS uri, arg_min(message, id) AS message
    FROM {} WHERE outcome = 'failed' GROUP BY level, stage, error
"""


def causes_of(build: Store, verdicts: Sequence[str]) -> list[Cause]:
    """Failures by level, stage and class of error, the most frequent first.

    Args:
        build: where they lie.
        verdicts: fragments of LEDGER, relative to it.

    Returns:
        Every cause, with the failure of the smallest id as its example. Ties go by level, stage and error.
    """
    counts: dict[tuple[str, str, str], int] = {}
    examples: dict[tuple[str, str, str], tuple[Any, ...]] = {}
    with connect() as con:
        for start in range(0, len(verdicts), _FILES):
            with build.pinned(verdicts[start : start + _FILES]) as local:
                found = con.execute(_QUERY.format(scan([str(path) for path in local]))).fetchall()
            for level, stage, error, count, *example in found:
                key = (level, stage, error)
                counts[key] = counts.get(key, 0) + count
                examples[key] = min(examples.get(key, tuple(example)), tuple(example))
    return [
        Cause(level=level, stage=stage, error=error, count=counts[level, stage, error], uri=uri, message=message)
        for (level, stage, error), (_, uri, message) in sorted(
            examples.items(), key=lambda item: (-counts[item[0]], item[0])
        )
    ]

"""Answers of endpoints, kept on this machine until their partition is surely committed, so that none is paid for twice.

A partition that is killed, or that a budget ends, asks only what it had not asked. Answers are of one build, and of a
request to the byte; they lie in CURATE_CACHE/answers in a folder a day, and those of a week ago are removed.
"""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from curate.storage.copies import CACHE_HINT, cache_folder
from curate.storage.place import atomic_write

DAYS = 7


class Kept:
    """Answers that this machine keeps."""

    def __init__(self) -> None:
        self._folder = cache_folder() / "answers"

    def sweep(self) -> None:
        """Remove what is older than `DAYS`."""
        oldest = _day(DAYS)
        for folder in self._days():
            if folder.name < oldest:
                shutil.rmtree(folder, ignore_errors=True)  # another worker may be at it

    def get(self, key: str) -> Any:
        """What was kept under a key; None where nothing is."""
        for folder in self._days():
            try:
                return json.loads((folder / f"{key}.json").read_bytes())
            except FileNotFoundError:
                continue
        return None

    def put(self, key: str, answer: Any) -> None:
        """Keep an answer, a JSON value.

        Raises:
            CurateError: the folder cannot be written.
        """
        with atomic_write(self._folder / _day(0) / f"{key}.json", CACHE_HINT) as path:
            path.write_text(json.dumps(answer), "utf-8")

    def _days(self) -> list[Path]:
        return list(self._folder.iterdir()) if self._folder.is_dir() else []


def _day(ago: int) -> str:
    return (datetime.now(UTC) - timedelta(days=ago)).date().isoformat()

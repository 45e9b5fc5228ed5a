"""What is said of an error that nobody foresaw: one sentence, where its traceback lies, and what to do."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from pathlib import Path

from curate.cli.output import console
from curate.pipeline.error_location import cause_of, location_of
from curate.schema.text import escape_controls

EXIT = 1
"""Exit code of a command that ended so."""

MESSAGE_CHARS = 300


def say_unexpected(exc: Exception, debug: bool) -> None:
    """Say it on stderr.

    Args:
        debug: show the traceback there too.
    """
    said = "".join(traceback.format_exception(exc))
    if debug:
        sys.stderr.write(said)
    where = location_of(exc)
    out = console(errors=True)
    out.print(f"curate: unexpected{f' in {where}' if where else ''}: {_shown(cause_of(exc))}", style="red")
    kept = _kept(f"{' '.join(sys.argv)}\n{said}")
    out.print(f"  the whole traceback is in {kept}" if kept else "  `curate --debug ...` shows the traceback")
    out.print("  the same command goes on from what was committed; if it ends so again, report it with that traceback")


def _shown(text: str) -> str:
    """The first line, such that a terminal obeys none of it."""
    safe = escape_controls(text.split("\n", 1)[0])
    return safe if len(safe) <= MESSAGE_CHARS else f"{safe[:MESSAGE_CHARS]}…"


def _kept(text: str) -> Path | None:
    """The file that holds the text, for this user's eyes only; None where no file can be written.

    Not in the build, which may be a bucket, or finished.
    """
    try:
        handle, name = tempfile.mkstemp(prefix="curate-error-", suffix=".log")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    except OSError:
        return None
    return Path(name)

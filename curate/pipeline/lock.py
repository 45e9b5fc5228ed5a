"""One run at a time on a build. The kernel drops the lock with the process, so a crash leaves nothing behind."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.schema.errors import CurateError


@contextmanager
def only_run(build: Path) -> Iterator[None]:
    """Hold the build's folder.

    Raises:
        CurateError: another run holds it, or the folder cannot be made.
    """
    try:
        build.mkdir(parents=True, exist_ok=True)
        handle = os.open(build, os.O_RDONLY)
    except OSError as exc:
        raise CurateError(f"cannot make the build in {build}: {exc.strerror}", "choose another --out") from exc
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(handle)
        raise CurateError(f"another run is at work on {build}", "wait for it, or choose another --out") from exc
    try:
        yield
    finally:
        os.close(handle)

"""What is said when a run ends without a word: killed, or taken along by Ray's server on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_WATCH = "import os, sys\nos.read(0, 1) or sys.stderr.write(sys.argv[1] + '\\n')"


@contextmanager
def crash_notice(text: str) -> Iterator[None]:
    """Say `text` on stderr if this process ends inside the block.

    When its raylet dies, Ray's C++ core ends the driver at once, and no Python code of it runs any more. So a small
    process waits at the other end of a pipe: it is told when the block ends, and otherwise sees the pipe close.
    """
    theirs, ours = os.pipe()
    watch = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _WATCH, text],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is for the run
    )
    os.close(theirs)
    try:
        yield
    finally:
        os.write(ours, b".")
        os.close(ours)
        watch.wait()

"""Limits that a helper process puts on itself before it touches its first input."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import resource
import select
import signal
from pathlib import Path

MIB = 1 << 20
_NO_MEMORY = -4
"""OpenCV's code for an allocation that failed (cv2.Error.StsNoMem)."""


_MUCH = 128 * MIB
"""What calls may leave mapped, beyond what was left when the garbage collector was asked last, before it is asked
again: it takes 20 ms."""


def die_with(lifeline: int) -> None:
    """Let the kernel kill this process and its whole group when the other end of the pipe `lifeline` is closed.

    The parent holds that end and never writes, so it closes when the parent dies, by SIGKILL too. Not a thread that
    watches: native code that holds the interpreter's lock would keep it from running. Not PR_SET_PDEATHSIG: it fires
    when the *thread* that started the process ends, and a worker's threads come and go.
    """
    fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    gone = select.poll()
    gone.register(lifeline, 0)
    if gone.poll(0):  # it died before the signal was asked for
        os._exit(0)


def no_core() -> None:
    """A crash writes no core file: it would be large, and hold other people's media."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def mapped_bytes() -> int:
    """Address space of this process."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class MemoryLimit:
    """A limit on what one call maps beyond what the process has mapped when the call comes.

    RLIMIT_AS counts address space, so that an allocation that would pass the limit fails at once, before pages are
    touched. What calls before it left behind is not counted against a call: what becomes of an input must not depend
    on its predecessors. Objects in circles are freed first, where they hold much (PyAV's hold their decoders' frames).

    Args:
        allowance: bytes; None: no limit.
    """

    def __init__(self, allowance: int | None) -> None:
        self._allowance = allowance
        self._floor = self._settled = mapped_bytes()

    def raise_limit(self, given: int, held: int = 0) -> None:
        """Set the limit for a call that is handed `given` bytes, which are not of its making; nor are the `held` ones,
        kept from an earlier call. What else was left behind may grow to one more allowance and no further.
        """
        if self._allowance is None:
            return
        mapped = mapped_bytes()
        if mapped > self._settled + _MUCH:
            gc.collect()
            mapped = self._settled = mapped_bytes()
        soft = min(mapped, self._floor + self._allowance + held) + self._allowance + given
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def is_out_of_memory(error: BaseException | None) -> bool:
    """True if an allocation that failed is behind an exception; FFmpeg's is a MemoryError."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            return True
        if type(error).__module__ == "cv2" and getattr(error, "code", None) == _NO_MEMORY:
            return True
        error = error.__cause__ or error.__context__
    return False

"""Errors that a person reads: one sentence of what is wrong, one of the way out."""

from __future__ import annotations


class CurateError(Exception):
    """A user error, of input, settings or machine. The command line prints it without a traceback and exits with 2.

    Args:
        message: what is wrong, in one sentence.
        hint: what to do about it; empty when the message says it already.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


def first_line(error: BaseException) -> str:
    """What an exception of a library says, its first line; the name of its class where it says nothing."""
    return (str(error) or type(error).__name__).splitlines()[0]


class MediaError(Exception):
    """Media that cannot be opened or decoded. Becomes a `failed` verdict, never a `dropped` one."""


class Quarantined(MediaError):
    """Media that native code died of, or that took more time or memory than a sample may (law 10).

    Attributes:
        error: what the ledger calls it in place of this class: `TimeLimit`, `MemoryLimit`, `Crashed`, or the class of
            an exception that the code does not promise.
        attempt: tries made, 1 or more.
    """

    def __init__(self, error: str, message: str, attempt: int = 1) -> None:
        super().__init__(error, message, attempt)  # all of them, so that it can be pickled out of a Ray task
        self.error = error
        self.message = message
        self.attempt = attempt

    def __str__(self) -> str:
        return self.message


class FetchError(Exception):
    """A uri that could not be fetched: refused, missing, too slow, too large, cut off.

    Attributes:
        transient: true if a later try could succeed (a server's 503, a lost connection), as against a 404.
        retry_after: seconds that the server asks to wait before it; 0 where it asks for nothing.
    """

    def __init__(self, message: str, transient: bool = False, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.transient = transient
        self.retry_after = retry_after

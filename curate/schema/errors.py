"""Errors that a person reads: one sentence of what is wrong, one of the way out."""

from __future__ import annotations


class CurateError(Exception):
    """Something the user can mend. The command line prints it without a traceback and exits with 2.

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


class MediaError(Exception):
    """Media that cannot be opened or decoded. Becomes a `failed` verdict, never a `dropped` one."""


class FetchError(Exception):
    """A uri that could not be fetched: refused, missing, too slow, too large, cut off.

    Attributes:
        transient: whether a later try could succeed (a server's 503, a lost connection), as against a 404.
    """

    def __init__(self, message: str, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient

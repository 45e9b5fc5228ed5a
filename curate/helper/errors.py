"""How a call to a helper process can end other than with an answer."""

from __future__ import annotations


class WireError(Exception):
    """A message that cannot be sent, or that is not what the protocol says."""


class HelperNotStarted(Exception):
    """The helper process cannot be started: no input is to blame, and another try will not help."""


class HelperError(Exception):
    """The service raised an exception that it does not promise.

    Attributes:
        error: class name of the exception.
        message: its text.
    """

    def __init__(self, error: str, message: str) -> None:
        super().__init__(error, message)
        self.error = error
        self.message = message

    def __str__(self) -> str:
        return f"{self.error}: {self.message}"


class HelperDied(Exception):
    """The helper process died or had to be killed; the next call starts a new one.

    Attributes:
        error: `TimeLimit`, `MemoryLimit` or `Crashed`: the class that the ledger shows.
        message: why, the same for the same cause: no ids of processes, no paths, no measured times. Reads on from "the
            helper process", e.g. "was killed by SIGSEGV".
        debug: the last that the process wrote to stderr, for a person; not for the ledger.
    """

    def __init__(self, error: str, message: str, debug: str = "") -> None:
        super().__init__(error, message, debug)
        self.error = error
        self.message = message
        self.debug = debug

    def __str__(self) -> str:
        return f"The helper process {self.message}."

"""Tries again what may pass: a server that is busy, a connection that was lost, an answer that was cut off."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from obstore import exceptions

from curate.schema.errors import CurateError

T = TypeVar("T")

TRIES = 8
FIRST_WAIT = 0.2
LONGEST_WAIT = 15.0
"""Waits double from the first to the longest, each shortened by up to a half by chance: about 25 s in all."""

PASSING = {408, 425, 429}
"""HTTP statuses below 500 that say "later"."""

_PERMANENT = (
    FileNotFoundError,
    ValueError,
    exceptions.AlreadyExistsError,
    exceptions.PreconditionError,
    exceptions.PermissionDeniedError,
    exceptions.UnauthenticatedError,
    exceptions.NotSupportedError,
    exceptions.InvalidPathError,
)


class StoreUnavailable(CurateError):
    """A store that did not answer after all tries."""


class _Count:
    """How often this process tried again."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0

    def add(self) -> None:
        with self._lock:
            self._taken += 1

    def take(self) -> int:
        """The count since the last call."""
        with self._lock:
            taken, self._taken = self._taken, 0
        return taken


retries = _Count()


def retried(call: Callable[[], T], where: str, tries: int = TRIES) -> T:
    """The result of `call`, which is made again after errors that may pass, with growing waits.

    Args:
        call: safe to be made twice.
        where: the store's address, for the message.

    Raises:
        StoreUnavailable: every try failed in a way that may pass.
        CurateError: the store refuses the credentials, or refuses for another lasting reason.
        FileNotFoundError, AlreadyExistsError, PreconditionError: as the store says, at once.
    """
    wait = FIRST_WAIT
    for left in reversed(range(tries)):
        try:
            return call()
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError):
            raise CurateError(
                f"{where}: the object store refuses these credentials",
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role that may use it",
            ) from None
        except _PERMANENT:
            raise
        except (exceptions.BaseError, OSError) as exc:
            reason, passing = explain(exc)
            if not passing:
                raise CurateError(
                    f"{where}: {reason}", "check the address, and AWS_ENDPOINT_URL and AWS_REGION"
                ) from None
            if not left:
                raise StoreUnavailable(
                    f"{where}: {reason}, {tries} times in a row",
                    "run the same command again when it is back: what was committed is kept",
                ) from None
        retries.add()
        time.sleep(wait * random.uniform(0.5, 1))  # not all workers at once
        wait = min(2 * wait, LONGEST_WAIT)
    raise AssertionError("unreachable")


def explain(exc: BaseException) -> tuple[str, bool]:
    """What an error of the client means, and whether it may pass.

    The client's own text is not passed on: it quotes answers of the server, which may quote the request's credentials.
    """
    said = str(exc)
    found = re.search(r"status:? (\d{3})|Status \{ status: (\d{3})|\b([45]\d{2}) [A-Z][a-z]+", said)
    if found:
        status = int(next(group for group in found.groups() if group))
        passing = status >= 500 or status in PASSING or "RequestTimeout" in said
        return f"the object store answers {status}", passing and status != 501
    if "timed out" in said or "Timeout" in said or "timeout" in said:
        return "the object store takes too long to answer", True
    if "dns error" in said:
        return "the object store's host is not known", True
    if "onnection refused" in said or "tcp connect error" in said:
        return "the object store cannot be connected to", True
    return "the connection to the object store was lost", True

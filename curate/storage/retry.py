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

_STATUS = re.compile(r"Server returned non-2xx status code: (\d{3})")
_ROLE_SERVICE = re.compile(r"://169\.254\.|/latest/(api/token|meta-data)\b")
"""What is asked for a role's credentials where the environment has none."""
_HOW_TO_SIGN = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give this machine a role, that may read and write there"
)

_PERMANENT = (
    FileNotFoundError,
    exceptions.AlreadyExistsError,
    exceptions.PreconditionError,
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


def retried(call: Callable[[], T], where: str) -> T:
    """The result of `call`, which is made again after errors that may pass, with growing waits.

    Args:
        call: safe to be made twice.
        where: the store's address, for the message.

    Raises:
        StoreUnavailable: every try failed in a way that may pass.
        CurateError: the store refuses the credentials, has no such bucket, or refuses for another lasting reason.
        FileNotFoundError, AlreadyExistsError, PreconditionError: as the store says, at once.
    """
    wait = FIRST_WAIT
    for left in reversed(range(TRIES)):
        try:
            return call()
        except (exceptions.BaseError, OSError) as exc:
            lasting = _lasting(exc, where)
            if lasting is not None:
                raise lasting from None
            if isinstance(exc, _PERMANENT):
                raise
            reason = _passing(exc)
            if not left:
                raise StoreUnavailable(
                    f"{where}: {reason}, {TRIES} times in a row",
                    "run the same command again when it is back: what was committed is kept",
                ) from None
        retries.add()
        time.sleep(wait * random.uniform(0.5, 1))  # not all workers at once
        wait = min(2 * wait, LONGEST_WAIT)
    raise AssertionError("unreachable")


def status_of(exc: BaseException) -> int | None:
    """The HTTP status that an error of the client speaks of, or None where there was no answer."""
    found = _STATUS.search(str(exc))
    return int(found[1]) if found else None


def _lasting(exc: BaseException, where: str) -> CurateError | None:
    """The user error of a failure that trying again does not help.

    The client's own text is not passed on: it quotes answers of the server, which may quote the request's credentials.
    """
    said, status = str(exc), status_of(exc)
    later = status is not None and (status in PASSING or (status >= 500 and status != 501))
    if _ROLE_SERVICE.search(said) and not later:
        return CurateError(f"{where}: there are no credentials for the object store", _HOW_TO_SIGN)
    if "<Code>RequestTimeTooSkewed</Code>" in said:
        return CurateError(f"{where}: the object store's clock and this machine's differ too much", "set the clock")
    if status in (401, 403):
        return CurateError(f"{where}: the object store refuses these credentials", _HOW_TO_SIGN)
    if status == 404 and "<Code>NoSuchBucket</Code>" in said:
        return CurateError(f"{where}: the object store has no such bucket", "make it, or name another one")
    if isinstance(exc, _PERMANENT) or status is None or later:
        return None
    if "<Code>RequestTimeout</Code>" in said:  # S3 says so with status 400
        return None
    return CurateError(f"{where}: the object store answers {status}", "check AWS_ENDPOINT_URL and AWS_REGION")


def _passing(exc: BaseException) -> str:
    """What an error that may pass means."""
    said, status = str(exc), status_of(exc)
    if status is not None:
        return f"the object store answers {status}"
    if '"dns error"' in said:
        return "the object store's host is not known"
    if "kind: ConnectionRefused" in said:
        return "the object store refuses connections"
    if "kind: Timeout" in said or "TimedOut" in said:
        return "the object store takes too long to answer"
    return "the connection to the object store was lost"

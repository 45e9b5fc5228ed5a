"""Errors that a task met and the user can mend, as they were raised there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from curate.schema.errors import CurateError


@contextmanager
def user_errors() -> Iterator[None]:
    """Raise what Ray wrapped as the CurateError that it was, without the worker's traceback.

    Raises:
        CurateError: a task raised it, or there is no room for what tasks exchange. Anything else passes as it is.
    """
    try:
        yield
    except Exception as exc:
        found = _user_error(exc)
        if found is None:
            raise
        raise CurateError(found.message, found.hint) from None


def _user_error(exc: BaseException) -> CurateError | None:
    """The CurateError that a worker raised, through whatever Ray wraps it in."""
    seen: list[BaseException] = []
    at: BaseException | None = exc
    while at is not None and at not in seen:
        if isinstance(at, OutOfDiskError | ObjectStoreFullError):
            return CurateError(
                "no space left on the disk for what tasks exchange",
                "free some where Ray's session lies (RAY_TMPDIR moves it) and run the same command again",
            )
        cause = getattr(at, "cause", None)  # Ray's copy of an error is of both classes
        if isinstance(at, CurateError) and not isinstance(cause, CurateError):
            return at
        seen.append(at)
        at = cause or at.__cause__ or at.__context__
    # an actor that dies while it loads a model reports only the text of its traceback, and what Ray says of it behind
    _, found, said = str(exc).rpartition(f"{CurateError.__module__}.{CurateError.__name__}: ")
    return CurateError(*said.split("\n\n")[0].strip().split("\n  ", 1)) if found else None

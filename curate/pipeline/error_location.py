"""Where a run was when something went wrong: notes on exceptions (PEP 678), which Ray carries along as text."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import pyarrow as pa

from curate.schema.errors import CurateError

F = TypeVar("F", bound=Callable[..., Any])

_NOTE = re.compile(r"^\(curate: (.+)\)$", re.MULTILINE)


def note(exc: BaseException, where: str) -> None:
    """Note on an exception where it came up, e.g. `the stage cut`."""
    exc.add_note(f"(curate: {where})")


def with_location(stage: str) -> Callable[[F], F]:
    """A decorator of operators: what they raise carries stage and partition. A CurateError says all by itself."""

    def decorate(operator: F) -> F:
        @contextmanager
        def told(args: Sequence[Any]) -> Iterator[None]:
            try:
                yield
            except CurateError:
                raise
            except Exception as exc:
                note(exc, f"the stage {stage}, {_partition(next(a for a in args if isinstance(a, pa.Table)))}")
                raise

        @functools.wraps(operator)
        def generate(*args: Any, **kwargs: Any) -> Any:
            with told(args):
                yield from operator(*args, **kwargs)

        @functools.wraps(operator)
        def call(*args: Any, **kwargs: Any) -> Any:
            with told(args):
                return operator(*args, **kwargs)

        return generate if inspect.isgeneratorfunction(operator) else call  # type: ignore[return-value]

    return decorate


def _partition(block: pa.Table) -> str:
    """What a block is about, from its first row: a partition, or a unit that is being listed."""
    for column, word in (("partition", "partition"), ("address", "unit")):
        if column in block.column_names:
            return f"{word} {block.column(column)[0].as_py()}"
    return "some partitions"


def location_of(exc: BaseException) -> str:
    """The innermost note on an exception, or in the text of one that Ray brought from a worker; "" without any."""
    notes = [*_NOTE.findall(str(exc)), *(m for text in getattr(exc, "__notes__", []) for m in _NOTE.findall(text))]
    return notes[0] if notes else ""


def cause_of(exc: BaseException) -> str:
    """`Class: message` of what was raised first, on whichever machine.

    Ray's errors hold the text of the worker's traceback: there it is the line before the first note. Where a worker
    died, their own first line says so.
    """
    before = _NOTE.split(str(exc), maxsplit=1)
    if len(before) > 1:
        raised = re.findall(r"^[A-Za-z_][\w.]*(?:: .*)?$", before[0], re.MULTILINE)
        if raised:
            return str(raised[-1])
    cause = getattr(exc, "cause", None)
    if isinstance(cause, BaseException):
        exc = cause
    message = str(exc).strip()
    return f"{type(exc).__name__}: {message}" if message else type(exc).__name__

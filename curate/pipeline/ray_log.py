"""What Ray says of itself while a run is at work goes to a file of its own, and not between the lines of progress.

What matters of it is raised as an exception too.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from importlib import import_module
from types import FrameType
from typing import IO, Any, TextIO

from rich.console import Console

RAISED = {"ray.data.exceptions", "ray.data._internal.execution.streaming_executor_state"}
"""Loggers whose errors are raised as well, as what they were in the task."""

PRINTS = "ray.experimental.tqdm_ray"
"""Once Ray has printed something, everybody's `print` is a function of this module."""

DATA = "ray.data"
"""The logger of Ray Data, and its module."""

OFF = "ray.data._internal.progress"
"""A logger that warns of Ray's bars being off, which they are since we show our own."""


class RayLog(logging.Handler):
    """The file, which is made when there is something to hold: for this user's eyes only, among temporary files, since
    the build may be a bucket, or finished.

    Attributes:
        path: of the file; None where there is none yet.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        self.addFilter(_is_new)
        self.path: str | None = None
        self._file: IO[str] | None = None
        self._writing = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        self.hold(self.format(record) + "\n")

    def hold(self, text: str) -> None:
        """Write something to the file; to stderr where no file can be written."""
        with self._writing:
            try:
                if self._file is None:
                    handle, self.path = tempfile.mkstemp(prefix="curate-ray-", suffix=".log")
                    self._file = os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace")
                self._file.write(text)
                self._file.flush()
            except OSError:
                sys.stderr.write(text)

    def close(self) -> None:
        with self._writing:
            if self._file is not None:
                self._file.close()
        super().close()


@contextmanager
def ray_log(console: Console) -> Iterator[Callable[[], None]]:
    """Put aside what Ray logs, warns of and prints in this process while the block runs; what others say passes. All is
    as before at the end.

    Args:
        console: is told at the end where the file is, if there is one.

    Yields:
        What is to be called before Ray Data is used: its import gives its logger a handler.
    """
    import ray
    from ray._private.log import PlainRayHandler

    log = RayLog()
    with ExitStack() as at_end:
        at_end.callback(log.close)

        def take(name: str) -> None:
            logger = logging.getLogger(name)
            if log not in logger.handlers:
                at_end.callback(_set, logger, list(logger.handlers), logger.level)
                others = [handler for handler in logger.handlers if not isinstance(handler, PlainRayHandler)]
                _set(logger, [*others, log], logging.WARNING)

        def take_data() -> None:
            import_module(DATA)
            take(DATA)

        take(ray.__name__)
        if DATA in sys.modules:
            take_data()
        at_end.callback(setattr, warnings, "showwarning", warnings.showwarning)
        warnings.showwarning = _sifting(log, warnings.showwarning)
        at_end.enter_context(redirect_stdout(Sifted(log, sys.stdout)))
        told = "what Ray said of itself is in"
        try:
            yield take_data
        except Exception as exc:
            if log.path is not None:
                exc.add_note(f"{told} {log.path}")
            raise
        finally:
            if log.path is not None:
                console.print(f"{'log':<10} {told} {log.path}", markup=False)


class Sifted(io.TextIOBase):
    """A stdout on which Ray prints what its servers report: that is put aside, the rest goes to `out`."""

    def __init__(self, log: RayLog, out: TextIO) -> None:
        self._log, self._out = log, out

    def write(self, text: str) -> int:
        if _is_ray(sys._getframe(1), PRINTS):
            self._log.hold(text)
        else:
            self._out.write(text)
        return len(text)

    def flush(self) -> None:
        self._out.flush()


def _sifting(log: RayLog, show: Any) -> Any:
    """As `warnings.showwarning`, but that Ray's go to the file: by who warns, since many name their caller's place."""

    def shown(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if _is_ray(sys._getframe(1), warnings.__name__):
            log.hold(warnings.formatwarning(message, category, filename, lineno, line))
        else:
            show(message, category, filename, lineno, file, line)

    return shown


def _is_new(record: logging.LogRecord) -> bool:
    return record.name != OFF and not (record.levelno >= logging.ERROR and record.name in RAISED)


def _is_ray(at: FrameType, through: str) -> bool:
    """True if a module of Ray has called.

    Args:
        through: a module that calls for others.
    """
    while at.f_back is not None and at.f_globals.get("__name__") == through:
        at = at.f_back
    return str(at.f_globals.get("__name__")).partition(".")[0] == "ray"


def _set(logger: logging.Logger, handlers: list[logging.Handler], level: int) -> None:
    logger.handlers[:] = handlers
    logger.setLevel(level)

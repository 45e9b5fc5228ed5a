"""The worker's side of a helper process: starts it, calls it, kills it at its limits, and says how it died."""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from curate.helper import wire
from curate.helper.errors import HelperDied, HelperError, HelperNotStarted, WireError
from curate.helper.limits import MIB
from curate.helper.startup import once
from curate.schema.errors import CurateError

START_SECONDS = 300.0
"""Time for a start: imports, and weights that are read from a slow disk on a busy machine."""

ANSWER_BYTES = 4 << 30
"""Most bytes in one answer of a service without a memory limit; others cannot answer with more than their limit."""

_START_TRIES = 2
"""A start that dies is tried once more: something outside may have killed it."""

_HEAP_BYTES = 32 * MIB
"""What a process with a memory limit keeps of its heap's end when it is freed."""

_STDERR_BYTES = 8192
_PIPE_BYTES = 1 << 16
_ENDING_SECONDS = 5.0
"""How long a child that closed its socket may take to end by itself, before it is killed."""


class Helper:
    """A service in a process of its own.

    The process starts at the first call, and again at the first call after it died. Calls from several threads wait
    for each other. It ends when the helper is closed or no longer referenced, and when this process ends, however
    that happens.

    A service is any object whose public methods take and give what `wire` carries. It may have:

    * on its factory, `RAISES`, a tuple of exception classes that callers expect from it. They are made anew here with
      their message (and hint), whatever else they carry is lost. The service's module is imported here for that, so it
      must be cheap to import;
    * on itself, `held_bytes`: how much of what it was given it keeps from one call to the next; that is not counted
      against its memory limit, as a call's own arguments are not.

    Args:
        service: `package.module:factory`.
        options: the factory's keyword arguments.
        memory_bytes: what it may map beyond what it had mapped after its start; None: no limit. A library that is
            imported by a call counts, so the factory should import what all calls need.
        name: for messages.
    """

    def __init__(
        self, service: str, options: Mapping[str, Any] | None = None, *, memory_bytes: int | None, name: str
    ) -> None:
        self.name = name
        self._service = service
        self._options = dict(options or {})
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def call(self, method: str, *args: Any, limit_s: float, **kwargs: Any) -> Any:
        """What the service's method gives.

        Args:
            limit_s: seconds from sending the arguments to the whole answer, without the wait for other threads and
                for a start.

        Raises:
            HelperDied: by a limit, a signal, or an end of its own; the next call starts a new process. One that ran
                out of memory is killed even where it could go on, so that no verdict depends on what it did before.
            HelperError: an exception that the service does not promise; the process lives on.
            HelperNotStarted: the service's module, its factory, or the machine is at fault.
            Exception: one of the service's `RAISES`.
            WireError: arguments that cannot be sent.
        """
        with self._lock:
            child = self._running()
            request = wire.encode([method, args, kwargs])
            try:
                answer = child.ask(request, limit_s)
                return self._given(answer)
            except HelperDied:
                self._drop()
                raise
            except BaseException:
                if not child.idle:  # stopped half-way through a message, as by Ctrl-C
                    self._drop()
                raise

    def start(self) -> None:
        """Start the process where none runs, as the next call would.

        Raises:
            HelperNotStarted: as `call`.
        """
        with self._lock:
            self._running()

    def reject(self) -> HelperDied:
        """For callers that find an answer's value wrong: kills the process; the error to raise."""
        with self._lock:
            self._drop()
        return HelperDied("Crashed", "gave an answer of the wrong form")

    @property
    def pid(self) -> int | None:
        """Process id, also the id of its process group; None while none runs."""
        child = self._child
        return None if child is None else child.pid

    def close(self) -> None:
        """Kill the process and all that it started. The next call starts a new one."""
        with self._lock:
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _drop(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _running(self) -> _Child:
        if self._child is not None and not self._child.usable():
            self._drop()
        if self._child is None:
            with once():
                self._child = self._started()
        return self._child

    def _started(self) -> _Child:
        hello = {"service": self._service, "options": self._options, "memory_bytes": self._memory_bytes}
        for left in reversed(range(_START_TRIES)):
            child = _Child(self._memory_bytes)
            try:
                answer = child.ask(wire.encode(hello), START_SECONDS)
                self._given(answer)
                return child
            except HelperDied as died:
                child.end()
                if not left or died.error == "TimeLimit":
                    raise HelperNotStarted(
                        f"The helper process {self.name!r} {died.message} when it started.\n{died.debug}".rstrip()
                    ) from died
            except HelperError as failed:
                child.end()
                raise HelperNotStarted(f"The helper process {self.name!r} cannot be started: {failed}") from failed
            except BaseException:
                child.end()
                raise
        raise AssertionError

    def _given(self, answer: object) -> Any:
        """The value of an answer, or its exception."""
        match answer:
            case ["gave", value]:
                return value
            case ["memory"] if self._memory_bytes is not None:
                raise HelperDied(
                    "MemoryLimit", f"needed more memory than its limit of {self._memory_bytes // MIB:,} MiB"
                )
            case ["memory"]:
                raise HelperDied("MemoryLimit", "needed more memory than there is")
            case ["raised", str(name), str(message), str(hint)]:
                for kind in self._raises():
                    if kind.__name__ == name:
                        raise kind(message, hint) if issubclass(kind, CurateError) else kind(message)
                raise HelperError(name, message)
        raise HelperDied("Crashed", "gave an answer that is none")

    def _raises(self) -> tuple[type[Exception], ...]:
        module, _, factory = self._service.partition(":")
        try:
            found = getattr(importlib.import_module(module), factory, None)
        except Exception:  # the child said why the service cannot be imported
            return ()
        raises: tuple[type[Exception], ...] = getattr(found, "RAISES", ())
        return raises


class _Child:
    """One helper process, from its start to its end."""

    def __init__(self, memory_bytes: int | None) -> None:
        self._owner = os.getpid()
        self._answer_bytes = ANSWER_BYTES if memory_bytes is None else memory_bytes
        self._memory_bytes = memory_bytes
        self.idle = True
        ours, theirs = socket.socketpair()
        beat, lifeline = os.pipe()
        self._outbox, self._inbox = wire.shared_memory(), wire.shared_memory()
        # Ray and tests add to sys.path: the child must find the same modules
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(str(Path(p).absolute()) for p in sys.path)}
        if memory_bytes is not None:
            # else glibc keeps what was freed: after a large image the next one finds its room in pieces
            env["MALLOC_MMAP_THRESHOLD_"] = str(MIB)
            # to say so lets it return the heap's end at every free, and have it zeroed again at the next call
            env["MALLOC_TRIM_THRESHOLD_"] = str(_HEAP_BYTES)
        given = theirs.fileno(), beat, self._outbox, self._inbox
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "curate.helper.child", *map(str, given)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=given,
                env=env,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            for fd in (lifeline, self._outbox, self._inbox):
                os.close(fd)
            raise
        finally:
            theirs.close()
            os.close(beat)
        assert self._process.stderr is not None
        self.pid = self._process.pid
        self._socket = ours
        self._socket.setblocking(False)
        self._stderr = self._process.stderr
        os.set_blocking(self._stderr.fileno(), False)
        self._said = b""
        self._pidfd = os.pidfd_open(self.pid)
        fds = lifeline, self._pidfd, self._outbox, self._inbox
        self.end = weakref.finalize(self, _end, self._owner, self._process, self._socket, self._stderr, fds)

    def usable(self) -> bool:
        """True if it lives, and is this process's own: a fork shares the socket and must not use it."""
        return self._owner == os.getpid() and not _ready(self._pidfd, 0)

    def ask(self, request: list[Any], limit_s: float) -> Any:
        """Send a request and read the answer. Raises HelperDied."""
        until = time.monotonic() + limit_s
        self.idle = False
        try:
            wire.send(self._socket, request, lambda: self._wait(select.POLLOUT, until, limit_s), self._outbox)
            answer = wire.receive(
                self._socket, lambda: self._wait(select.POLLIN, until, limit_s), self._admit, self._inbox
            )
        except (EOFError, ConnectionError) as error:
            raise self._died() from error
        except WireError as error:
            raise HelperDied("Crashed", f"gave an answer that cannot be read: {error}", self.debug()) from error
        self.idle = True
        return answer

    def debug(self) -> str:
        """The last that it wrote to stderr."""
        self._drain()
        return self._said.decode(errors="replace")

    def _admit(self, size: int) -> None:
        if size > self._answer_bytes:
            raise WireError("buffers longer than its memory")

    def _wait(self, event: int, until: float, limit_s: float) -> None:
        """Until the socket is ready, the process ended, or the time is up; stderr is read meanwhile."""
        poll = select.poll()
        poll.register(self._socket, event)
        poll.register(self._pidfd, select.POLLIN)
        poll.register(self._stderr, select.POLLIN)
        while True:
            left = until - time.monotonic()
            ready = dict(poll.poll(left * 1000)) if left > 0 else {}
            if not ready:
                raise HelperDied("TimeLimit", f"took longer than its limit of {limit_s:g} s", self.debug())
            if self._socket.fileno() in ready:
                return
            if self._pidfd in ready:  # what it started may hold the socket open
                raise EOFError
            if not self._drain():
                poll.unregister(self._stderr)

    def _drain(self) -> bool:
        """Read a pipe's fill of stderr, not until it is empty: it may be written to for ever. False at its end."""
        try:
            got = os.read(self._stderr.fileno(), _PIPE_BYTES)
        except BlockingIOError:
            return True
        self._said = (self._said + got)[-_STDERR_BYTES:]
        return bool(got)

    def _died(self) -> HelperDied:
        """Why it ended. It is looked at, not collected: until then its group's id cannot become another's."""
        if not _ready(self._pidfd, _ENDING_SECONDS):
            return HelperDied("Crashed", "closed its connection", self.debug())
        how = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
        said = self.debug()
        if how is None or how.si_code == os.CLD_EXITED:
            return HelperDied("Crashed", f"ended with exit code {how.si_status if how else 0}", said)
        if how.si_status == signal.SIGABRT and "std::bad_alloc" in said and self._memory_bytes is not None:
            limit = f"{self._memory_bytes // MIB:,} MiB"
            return HelperDied("MemoryLimit", f"needed more memory than its limit of {limit}", said)
        try:
            name = signal.Signals(how.si_status).name
        except ValueError:
            name = f"signal {how.si_status}"
        return HelperDied("Crashed", f"was killed by {name}", said)


def _ready(pidfd: int, seconds: float) -> bool:
    """True if the process has ended, or does so within `seconds`."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _end(owner: int, process: subprocess.Popen[bytes], sock: socket.socket, stderr: Any, fds: tuple[int, ...]) -> None:
    """Kill the process's group, collect it, close all. In a fork of its owner: close the copies only."""
    if owner == os.getpid():
        with suppress(ProcessLookupError):  # where SIGCHLD is ignored, the kernel has collected it
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    sock.close()
    stderr.close()
    for fd in fds:
        os.close(fd)

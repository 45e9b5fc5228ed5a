"""The start of a Ray of this machine, and the way to one that is up."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

from curate.schema.errors import CurateError

START_SECONDS = 120.0
"""How long Ray may take to start or to connect: on an idle machine it takes three."""

CONNECT_SECONDS = 10.0
"""How long an address may take to accept a connection."""

SOCKET_BYTES = 107
"""Longest path of a socket: 108 bytes with the zero at its end (unix(7))."""

SESSION_BYTES = len("/ray/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store_99")
"""What Ray puts behind its folder; a longer process id than this has Linux none (`PID_MAX_LIMIT`)."""


def start_ray(address: str | None, workers: int | None, dashboard: bool, at_end: ExitStack) -> None:
    """Start a Ray of this machine, during which Ray Data is imported, since that takes as long; or connect to one.

    Args:
        address, workers, dashboard: as `cluster.Cluster` takes them.
        at_end: what ends it.

    Raises:
        CurateError: it does not start, or the address does not answer.
    """
    import ray

    given: dict[str, Any] = {"address": address}
    if address is None:
        session = at_end.enter_context(session_folder())
        # "local": never a cluster that someone else left running on this machine
        given = {"address": "local", "num_cpus": workers, "include_dashboard": dashboard}
        given |= {} if session is None else {"_temp_dir": session}
    # what goes wrong in it shows where Ray Data is used
    importing = threading.Thread(target=import_module, args=("ray.data",), name="curate-imports", daemon=True)
    try:
        _answers(address)
        with _ended_where_it_hangs(), _away_from_the_terminal(), _head_of_one_machine(dashboard, importing):
            ray.init(**given, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as exc:  # where its raylet takes more than 30 s, on a busy machine, Ray raises a bare one
        reason = " ".join(str(exc).split())[:300]
        if address is None:
            raise CurateError(
                f"Ray did not start on this machine: {reason}", "run the same command again: it goes on from here"
            ) from exc
        raise CurateError(
            f"Ray is not reachable at {address}: {reason}",
            "start one with `ray start --head`, or leave --address out to run on a fresh local Ray",
        ) from exc
    at_end.callback(ray.shutdown)


@contextmanager
def _head_of_one_machine(dashboard: bool, meanwhile: threading.Thread) -> Iterator[None]:
    """A Ray that is started inside has no process that only a cluster, a dashboard or a reader of its log needs.

    Each imports Ray for itself, a second of a CPU, and the raylet is started after the dashboard's server has answered.
    `ray start` leaves the first two out by `--no-monitor` and `--include-log-monitor=false`; `ray.init` has no such
    arguments, and starts the server of a dashboard, to count users, where there is none. So methods of the class that
    starts them are replaced; of a Ray that has no such methods, the processes start as ever.

    Args:
        dashboard: True for all of them.
        meanwhile: is started once this process only waits for Ray's others.
    """
    from ray._private import node

    full = node.Node

    def start_ray_processes(self: node.Node) -> None:
        full.start_ray_processes(self)  # type: ignore[no-untyped-call]
        meanwhile.start()

    methods: dict[str, Any] = {"start_ray_processes": start_ray_processes}
    if not dashboard:
        methods |= dict.fromkeys(("start_monitor", "start_log_monitor", "start_api_server"), lambda *_, **__: None)
    node.Node = type(full.__name__, (full,), methods)  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        node.Node = full  # type: ignore[misc]


@contextmanager
def session_folder() -> Iterator[str | None]:
    """A folder for Ray's session, this user's alone and removed at the end, where Ray's own choice would not do.

    Ray puts sockets into `$RAY_TMPDIR/ray/session_.../sockets`, or `$TMPDIR/...`, or `/tmp/...`, and the path of a
    socket has a limit (unix(7)); so a long one is not used, nor one that is not absolute. None where Ray's choice does.

    Raises:
        CurateError: no other place can be written.
    """
    base = os.environ.get("RAY_TMPDIR", os.environ.get("TMPDIR", "/tmp"))
    if os.path.isabs(base) and len(os.fsencode(base)) <= SOCKET_BYTES - SESSION_BYTES:  # noqa: PTH117 - as Ray reads it
        yield None
        return
    for place in ("/tmp", os.environ.get("XDG_RUNTIME_DIR", ""), "/var/tmp", "/dev/shm"):
        if os.access(place, os.W_OK | os.X_OK) and len(os.fsencode(place)) <= SOCKET_BYTES - SESSION_BYTES:
            with TemporaryDirectory(prefix="curate-", dir=place, ignore_cleanup_errors=True) as folder:
                yield folder
            return
    raise CurateError(
        f"Ray's sockets cannot lie below {base}: the path of a socket has at most {SOCKET_BYTES} bytes",
        "set RAY_TMPDIR to a folder with a short path",
    )


@contextmanager
def _ended_where_it_hangs() -> Iterator[None]:
    """End this process where Ray's start takes too long: its raylet answers a driver once the first workers have come,
    and never where one of them was killed before. The same command then goes on."""
    terminal = os.dup(2)  # stderr is elsewhere while Ray starts

    def end() -> None:
        said = (
            f"error: Ray did not start within {START_SECONDS:g} s; run the same command again: it goes on from here\n"
        )
        os.write(terminal, said.encode())
        os.kill(os.getpid(), signal.SIGKILL)

    watch = threading.Timer(START_SECONDS, end)
    watch.daemon = True
    watch.start()
    try:
        yield
    finally:
        watch.cancel()
        watch.join()
        os.close(terminal)


@contextmanager
def _away_from_the_terminal() -> Iterator[None]:
    """Processes started inside neither read, write nor set up the terminal of this one.

    Ray's processes inherit stdin, and workers stand in process groups of their own. A library in one that touches the
    terminal's settings would be stopped by the kernel (SIGTTOU) for ever, and the run with it. Their stderr goes too:
    Ray's C++ side announces its log level there; errors come as exceptions.
    """
    sys.stderr.flush()
    kept = {fd: os.dup(fd) for fd in (0, 2)}
    nowhere = os.open(os.devnull, os.O_RDWR)
    # what is ignored stays ignored in a child, and in its children
    signals = {s: signal.signal(s, signal.SIG_IGN) for s in (signal.SIGTTIN, signal.SIGTTOU)}
    try:
        for fd in kept:
            os.dup2(nowhere, fd)
        yield
    finally:
        for fd, copy in kept.items():
            os.dup2(copy, fd)
            os.close(copy)
        os.close(nowhere)
        for number, handler in signals.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _answers(address: str | None) -> None:
    """Ray itself tries an address for minutes before it says that no one is there.

    Raises:
        OSError: nothing listens at `host:port` or `ray://host:port`.
    """
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()

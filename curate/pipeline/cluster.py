"""A Ray cluster to run on: a fresh local one, or an existing one by its address."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from curate.decide.engine import Engine
from curate.decide.processes import ProcessEngine
from curate.pipeline.placement import Capacity, Node
from curate.schema.errors import CurateError

START_SECONDS = 120.0
"""How long Ray may take to start or to connect: on an idle machine it takes three."""

CONNECT_SECONDS = 10.0
"""How long an address may take to accept a connection."""


SOCKET_BYTES = 107
"""Longest path of a socket: 108 bytes with the zero at its end (unix(7))."""

SESSION_BYTES = len("/ray/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store_99")
"""What Ray puts behind its folder; a longer process id than this has Linux none (`PID_MAX_LIMIT`)."""


class Cluster:
    """What there is to run on; a Ray on this machine is started when it is first needed.

    Args:
        address: of a cluster that is there, as `connect` takes it; None for a fresh local Ray.
        workers: CPUs of a fresh local Ray; all of the machine's where None.
        dashboard: True for a dashboard of a fresh local Ray, on loopback.
        started: is called once, as soon as Ray is up.
    """

    def __init__(
        self,
        address: str | None,
        workers: int | None,
        dashboard: bool,
        at_end: ExitStack,
        started: Callable[[Cluster], None] | None,
    ) -> None:
        self.address = address
        self._workers, self._dashboard, self._at_end, self._started = workers, dashboard, at_end, started
        self._is_up = False
        self._is_own = False
        self._ending: threading.Thread | None = None
        self._had: dict[str, float] = {}
        self._known: Capacity | None = None
        self._processes: ProcessEngine | None = None

    @property
    def cpus(self) -> int:
        """CPUs of the whole cluster."""
        return max(1, int(self._resources().get("CPU", 1)))

    @property
    def gpus(self) -> int:
        """GPUs of the whole cluster."""
        return self.capacity.gpus

    @property
    def capacity(self) -> Capacity:
        """What each node has to give away; of this machine alone that is known before Ray is started."""
        if self._known is not None and not self._is_up:
            return self._known
        if self.address is None and not _is_ray_up():
            return Capacity((Node(self._workers or len(os.sched_getaffinity(0)), _gpus_here()),))
        self.start()
        import ray

        given = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        nodes = [Node(r.get("CPU", 0), r.get("GPU", 0), int(r.get("memory", 0))) for r in given]
        return Capacity(tuple(nodes), grows=self.address is not None)

    @property
    def dashboard(self) -> str | None:
        """Where Ray's dashboard is, as `host:port`; None where there is none."""
        from ray._private.worker import get_dashboard_url

        self.start()
        url: str | None = get_dashboard_url()  # type: ignore[no-untyped-call]
        return url or None

    def hardware(self) -> str:
        """The class of hardware that results depend on in their last bits (law 6), e.g. `x86_64 cpu`."""
        import platform

        if not self.gpus:
            return f"{platform.machine()} cpu"
        kinds = sorted({k.split(":", 1)[1] for k in self._resources() if k.startswith("accelerator_type:")})
        return f"{platform.machine()} gpu {', '.join(kinds) or 'unknown'}"

    def engine(self) -> Engine:
        """What runs single tasks: the cluster, or processes of this machine where Ray was not needed yet."""
        if self._is_up:
            from curate.pipeline.engine import RayEngine

            return RayEngine(self.cpus)
        if self._processes is None:
            workers = self._workers or len(os.sched_getaffinity(0))
            self._processes = self._at_end.enter_context(ProcessEngine(workers))
        return self._processes

    def start(self) -> None:
        """Start Ray, or connect to it, where that is not done.

        Raises:
            CurateError: it does not start, or the address does not answer.
        """
        if self._is_up:
            return
        self._is_up = True
        import ray

        if self._ending is not None:
            self._ending.join()
        self._is_own = self.address is None and not ray.is_initialized()
        if not ray.is_initialized():
            _start_ray(self.address, self._workers, self._dashboard, self._at_end)
        if self._started is not None:
            self._started(self)

    def release(self) -> None:
        """Say that no plan follows, only single tasks: a Ray that was started here ends meanwhile, which takes it more
        than a second.

        Ray's part of this process is gone when this returns; only its other processes are still ending. An object
        reference that is freed while that part ends would make it end this process.
        """
        if not self._is_up or not self._is_own:
            return
        import ray
        from ray._private.worker import global_worker

        self._had, self._known, self._is_up = resources(), self.capacity, False
        self._ending = threading.Thread(target=ray.shutdown)
        self._ending.start()
        while self._ending.is_alive() and hasattr(global_worker, "core_worker"):
            time.sleep(0.01)
        self._at_end.callback(self._ending.join)

    def _resources(self) -> dict[str, float]:
        if self._had and not self._is_up:
            return self._had
        self.start()
        return resources()


@contextmanager
def connect(
    address: str | None,
    workers: int | None,
    dashboard: bool = False,
    started: Callable[[Cluster], None] | None = None,
) -> Iterator[Cluster]:
    """A local Ray with `workers` CPUs (all of the machine's where None) once it is needed; or connect to `address`.

    A Ray that is already up in this process is used as it is and left up.

    Args:
        address: `auto`, or `host:port` of a head.
        workers, dashboard, started: as `Cluster` takes them.

    Raises:
        CurateError: the address does not answer, or `workers` was given for an existing cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's C++ side writes hints about its own insides to the terminal; what fails is raised as an exception too
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # nobody waits for the calls with which Ray Data keeps statistics; what matters is raised
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # a message about a future default for GPU-less tasks that says nothing to a user of this command
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if address is not None and workers is not None:
        raise CurateError(
            "--workers sizes a fresh local Ray and cannot resize the cluster at --address", "leave one of them out"
        )
    with ExitStack() as at_end:
        cluster = Cluster(address, workers, dashboard, at_end, started)
        if address is not None:
            cluster.start()
        yield cluster


def _start_ray(address: str | None, workers: int | None, dashboard: bool, at_end: ExitStack) -> None:
    import ray

    try:
        _answers(address)
        if address is None:
            session = at_end.enter_context(session_folder())
            # "local": never a cluster that someone else left running on this machine
            given: dict[str, Any] = {"address": "local", "num_cpus": workers, "include_dashboard": dashboard}
            given |= {} if session is None else {"_temp_dir": session}
        else:
            given = {"address": address}
        with _ended_where_it_hangs(), _away_from_the_terminal():
            ray.init(**given, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError, OSError) as exc:
        where = f"at {address}" if address else "on this machine"
        reason = " ".join(str(exc).split())[:300]
        raise CurateError(
            f"Ray is not reachable {where}: {reason}",
            "start one with `ray start --head`, or leave --address out to run on a fresh local Ray",
        ) from exc
    at_end.callback(ray.shutdown)


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


def _is_ray_up() -> bool:
    """True if this process is connected to a Ray, by whom ever; importing it takes most of a second."""
    ray = sys.modules.get("ray")
    return ray is not None and bool(ray.is_initialized())


def _gpus_here() -> int:
    """GPUs that a fresh local Ray will find on this machine; CUDA_VISIBLE_DEVICES may hide some."""
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        return 0
    from ray._private.accelerators import NvidiaGPUAcceleratorManager as manager

    visible = manager.get_current_process_visible_accelerator_ids()
    found = manager.get_current_node_num_accelerators()
    return found if visible is None else min(found, len(visible))


def resources() -> dict[str, float]:
    """What the connected cluster has, by Ray's names: `CPU`, `GPU`, `accelerator_type:...`."""
    import ray

    return dict(ray.cluster_resources())  # type: ignore[no-untyped-call]

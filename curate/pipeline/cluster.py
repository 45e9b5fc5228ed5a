"""A Ray cluster to run on: a fresh local one, or an existing one by its address."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from curate.decide.engine import Engine
from curate.decide.processes import ProcessEngine
from curate.pipeline.board import Board
from curate.pipeline.placement import Capacity, Node
from curate.pipeline.ray_start import start_ray
from curate.schema.errors import CurateError

IDLE_SECONDS = 60.0
"""How long a worker of a Ray that is started here may wait for its next task."""


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
        self._board: Board | None = None

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

    def board(self) -> Board:
        """An empty board, on which tasks count; one actor for all plans of a run, since each is a process."""
        self.start()
        if self._board is None:
            self._board = Board()
        else:
            self._board.clear()
        return self._board

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
            start_ray(self.address, self._workers, self._dashboard, self._at_end)
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

        self._had, self._known, self._is_up, self._board = resources(), self.capacity, False, None
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
    # Ray ends a worker that is idle for a second, if there are more than CPUs; tasks of a part of a CPU need more, and
    # the next one's start, with all that it imports, takes three seconds of a CPU
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", str(round(1000 * IDLE_SECONDS)))
    if address is not None and workers is not None:
        raise CurateError(
            "--workers sizes a fresh local Ray and cannot resize the cluster at --address", "leave one of them out"
        )
    with ExitStack() as at_end:
        cluster = Cluster(address, workers, dashboard, at_end, started)
        if address is not None:
            cluster.start()
        yield cluster


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

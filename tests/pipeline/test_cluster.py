"""A Ray cluster that is already there, started as a user starts one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_cluster import ray_head
from small import RECIPE, Project, digests

TOKEN = "a-token-of-the-tests-0123456789abcdef"


@pytest.fixture
def cpus() -> int:
    return 2


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch, cpus: int) -> Iterator[str]:
    """A head with the token authentication that is its default."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with ray_head(cpus) as (_, address):
        yield address


@pytest.mark.long
@pytest.mark.parametrize("cpus", [2, 8])  # from 8 on each model has workers of its own
def test_the_same_recipe_gives_the_same_bytes_on_a_cluster(
    address: str, small_build: Path, project: Project, tmp_path: Path, cpus: int
) -> None:
    out = tmp_path / "out"
    project.recipe.write_text(RECIPE)
    said = project.curate("run", project.recipe, "--dry-run", "--json", "--address", address).stdout
    [placed] = [event for event in map(json.loads, said.splitlines()) if event["event"] == "placement"]
    apart = [pool["models"] for pool in placed["pools"] if not pool["decodes"]]
    assert apart == (
        [] if cpus == 2 else [["voice_activity"], ["conse"], ["caption"], ["tok_rgb@256"], ["tok_audio@16k"]]
    )
    project.curate("run", project.recipe, "--out", out, "--address", address)
    assert digests(out) == digests(small_build)


def test_references_may_be_freed_while_ray_ends() -> None:
    """Ray ends a process that frees one while the part of it that is in that process ends."""
    script = (
        "import time, ray\n"
        "from curate.pipeline.cluster import connect\n"
        "with connect(None, 1) as cluster:\n"
        "    cluster.start()\n"
        "    held = [ray.put(i) for i in range(3000)]\n"
        "    cluster.release()\n"
        "    while held:\n"
        "        held.pop()\n"
        "        time.sleep(0.0002)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dashboard", [False, True])
def test_a_ray_of_one_machine_has_no_process_that_nobody_asks_anything(dashboard: bool) -> None:
    """Each takes a second of a CPU to start: two monitors, and the server of a dashboard that is not shown."""
    script = (
        "import os\n"
        "from small import processes_under\n"
        "from curate.pipeline.cluster import connect\n"
        f"with connect(None, 1, dashboard={dashboard}) as cluster:\n"
        "    cluster.start()\n"
        "    said = [open(f'/proc/{pid}/cmdline').read() for pid in processes_under(os.getpid())]\n"
        "    for name in ('raylet', 'autoscaler/_private/monitor.py', 'log_monitor.py', 'dashboard/dashboard.py'):\n"
        "        print(any(f'/{name}\\0' in line for line in said))\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env)
    assert done.stdout.split() == ["True", *3 * [str(dashboard)]], done.stderr


def test_a_start_of_ray_that_would_hang_ends() -> None:
    """A worker that is killed before Ray's raylet knows it lets that wait for ever."""
    script = (
        "import os, signal, threading, time\n"
        "from small import processes_under\n"
        "from curate.pipeline import cluster, ray_start\n"
        "ray_start.START_SECONDS = 10.0\n"
        "def first_worker():\n"
        "    for pid in processes_under(os.getpid()):\n"
        "        if b'default_' + b'worker.py' in open(f'/proc/{pid}/cmdline', 'rb').read():\n"
        "            return pid\n"
        "def kill():\n"
        "    while not (pid := first_worker()):\n"
        "        time.sleep(0.003)\n"
        "    os.kill(pid, signal.SIGKILL)\n"
        "threading.Thread(target=kill, daemon=True).start()\n"
        "with cluster.connect(None, 2) as found:\n"
        "    found.start()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env=env, timeout=60
    )
    assert done.returncode in (0, -9), done.stderr
    assert ("Ray did not start within 10 s" in done.stderr) == (done.returncode == -9)


@pytest.mark.long
def test_workers_wait_for_their_next_task() -> None:
    """Ray's own choice ends those beyond the number of CPUs a second after their last one."""
    script = (
        "import os, time, ray\n"
        "from curate.pipeline.cluster import connect\n"
        "with connect(None, 1) as cluster:\n"
        "    cluster.start()\n"
        "    work = ray.remote(num_cpus=0.3)(lambda: time.sleep(5) or os.getpid())\n"
        "    workers = set(ray.get([work.remote() for _ in range(3)]))\n"
        "    time.sleep(5)\n"
        "    print(len(workers) > 1, all(os.path.exists(f'/proc/{pid}') for pid in workers))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "True"], done.stderr

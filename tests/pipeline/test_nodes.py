"""Clusters of several nodes: a node that dies in the middle, and paths that not every node sees."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import Run
from ray_cluster import ray_head
from small import RECIPE, Project, digests, processes_under

NODES = """
import json, os, sys, time
os.environ["RAY_AUTH_MODE"] = "disabled"
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
nodes = [cluster.add_node(num_cpus=n, resources={f"kind{n}": 1}) for n in (1, 2)]
cluster.wait_for_nodes()
raylets = [node.all_processes["raylet"][0].process.pid for node in nodes]
print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
sys.stdin.read()
cluster.shutdown()
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """Three nodes on this machine with different resources: `address`, and `raylets` (pids) of the second and third."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    process = subprocess.Popen(
        [sys.executable, "-c", NODES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert process.stdin is not None
    yield next(json.loads(line) for line in process.stdout if line.startswith(b"{"))
    process.stdin.close()
    process.wait(timeout=60)


def test_a_node_dies_in_the_middle(
    cluster: dict[str, object], small_build: Path, project: Project, tmp_path: Path
) -> None:
    """The third node's raylet is killed while models run; the build ends right, and says what a local path means."""
    recipe = project.root / "nodes.yaml"
    recipe.write_text(RECIPE)
    out = tmp_path / "out"
    log = tmp_path / "log"
    run = Run(project.command("run", recipe, "--out", out, "--address", cluster["address"], "--json"), log)
    until = time.monotonic() + 240
    assert run.wait_for("annotate", until), log.read_text()
    while not list((out / "signals").glob("*/part-*")):
        time.sleep(0.05)
        assert run.process.poll() is None, log.read_text()
        assert time.monotonic() < until
    raylets = cluster["raylets"]
    assert isinstance(raylets, list)
    os.kill(raylets[1], signal.SIGKILL)
    run.finish(until)
    assert run.process.returncode == 0, log.read_text()
    shown = " ".join(note["text"] for note in run.events if note["event"] == "note")
    assert digests(out) == digests(small_build)
    assert "which all of them see now" in shown, "what a local path means on several nodes"


BLIND_NODE = """
mount -t tmpfs none "$1"
exec "$2" -m ray.scripts.scripts start --address="$3" --num-cpus=1 --block --disable-usage-stats
"""


TWO_NODES = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
sys.exit(len([node for node in ray.nodes() if node["Alive"]]) != 2)
"""


@pytest.fixture
def half_blind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Two nodes, the second of which has other files at `tmp_path`, as a machine of its own has; the head's address."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with ray_head(1) as (_, address):
        blind = subprocess.Popen(
            ["unshare", "--mount", "bash", "-ec", BLIND_NODE, "node", tmp_path, sys.executable, address],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        limit = time.monotonic() + 60
        while subprocess.run([sys.executable, "-c", TWO_NODES, address], check=False).returncode:
            assert time.monotonic() < limit
            if blind.poll() is not None:
                assert blind.stderr is not None
                pytest.skip(f"no leave to make a mount namespace: {blind.stderr.read().decode()[:200]}")
        yield address
        for pid in reversed(processes_under(blind.pid)):
            os.kill(pid, signal.SIGKILL)
        blind.wait()


def test_a_path_that_a_node_does_not_see_is_refused(half_blind: str, project: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"
    recipe = project.root / "nodes.yaml"
    recipe.write_text(RECIPE)
    done = project.curate("run", recipe, "--out", out, "--address", half_blind, ok=False)
    assert done.returncode == 2
    assert f"the build lies at {out}, which 1 of the cluster's 2 nodes do not see" in done.stderr
    assert "s3://" in done.stderr
    assert list(out.iterdir()) == [], "nothing was begun"

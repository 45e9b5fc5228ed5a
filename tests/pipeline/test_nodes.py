"""Clusters of several nodes: a node that dies in the middle, and paths that not every node sees."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kills import LONGEST_WAIT, Run
from ray_cluster import has_nodes, ray_head, ray_node
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
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
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


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The same three nodes as people start them: `ray start --head`, and `ray start --address` twice."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with (
        ray_head(1) as (_, address),
        ray_node(address, 1, "kind1") as second,
        ray_node(address, 2, "kind2") as third,
    ):
        limit = time.monotonic() + 60
        while not has_nodes(address, 3):
            assert time.monotonic() < limit
        yield {"address": address, "raylets": [second, third]}


def build_while_a_node_dies(
    cluster: dict[str, Any], project: Project, out: Path, stage: str, after: float, node: int
) -> str:
    """Run on the cluster, SIGKILL a node's raylet `after` seconds into a stage; what the run said to people."""
    recipe = project.root / "nodes.yaml"
    recipe.write_text(RECIPE)
    log = out.parent / "log"
    run = Run(project.command("run", recipe, "--out", out, "--address", cluster["address"], "--json"), log)
    until = time.monotonic() + 400
    assert run.wait_for(stage, until), log.read_text()
    time.sleep(after)
    assert run.process.poll() is None, "it ended before a node could die"
    os.kill(cluster["raylets"][node], signal.SIGKILL)
    run.finish(until)
    assert run.process.returncode == 0, log.read_text()
    return " ".join(event["text"] for event in run.events if event["event"] == "note")


@pytest.mark.long
def test_a_node_dies_in_the_middle(
    cluster: dict[str, Any], small_build: Path, project: Project, tmp_path: Path
) -> None:
    """While models run; the build ends right, and the command said what a local path means on several nodes."""
    out = tmp_path / "out"
    shown = build_while_a_node_dies(cluster, project, out, "annotate", after=4.0, node=1)
    assert "which all of them see now" in shown
    assert digests(out) == digests(small_build)


@pytest.mark.long
def test_a_node_of_ray_start_dies_in_the_middle(
    started: dict[str, Any], small_build: Path, project: Project, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shown = build_while_a_node_dies(started, project, out, "tokenize", after=3.0, node=1)
    assert "nodes      3;" in shown
    assert digests(out) == digests(small_build)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(6))
def test_a_node_dies_at_a_random_moment(
    cluster: dict[str, Any], small_build: Path, project: Project, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    stage = chance.choice(["ingest", "annotate", "annotate", "tokenize", "tokenize"])
    after, node = chance.uniform(0, LONGEST_WAIT[stage]), chance.randrange(2)
    print(f"seed {seed}: node {node}, {after:.1f} s into {stage}")
    out = tmp_path / "out"
    build_while_a_node_dies(cluster, project, out, stage, after, node)
    assert digests(out) == digests(small_build)


@pytest.mark.long
def test_a_node_dies_while_it_packs(
    cluster: dict[str, Any], small_build: Path, project: Project, tmp_path: Path
) -> None:
    """Its workers stand still from the stage's first moment, so what they were given is done elsewhere or never."""
    out, log, raylet = tmp_path / "out", tmp_path / "log", cluster["raylets"][1]
    recipe = project.root / "nodes.yaml"
    recipe.write_text(RECIPE)
    run = Run(project.command("run", recipe, "--out", out, "--address", cluster["address"], "--json"), log)
    until = time.monotonic() + 400
    assert run.wait_for("pack", until), log.read_text()
    workers = [pid for pid in processes_under(raylet) if pid != raylet]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(3.0)
    assert not any(event["event"] == "stage_end" and event["stage"] == "pack" for event in run.events)
    for pid in (raylet, *workers):
        os.kill(pid, signal.SIGKILL)
    run.finish(until)
    assert run.process.returncode == 0, log.read_text()
    assert digests(out) == digests(small_build)


BLIND_NODE = """
mount -t tmpfs none "$1"
exec "$2" -m ray.scripts.scripts start --address="$3" --num-cpus=1 --block --disable-usage-stats
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
        while not has_nodes(address, 2):
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

"""What a cluster says it has: this machine without starting Ray, a Ray that is up by its own word."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from curate.pipeline.cluster import connect
from curate.pipeline.placement import Capacity, Node


def test_this_machine_is_known_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.pipeline.cluster._gpus_here", lambda: 0)
    with connect(None, 3) as cluster:
        assert cluster.capacity == Capacity((Node(3),))
        assert (cluster.gpus, cluster.hardware().split()[-1]) == (0, "cpu")
    with connect(None, None) as cluster:
        assert cluster.capacity.cpus == len(os.sched_getaffinity(0))


OF_RAY = """
import ray
from curate.pipeline.cluster import connect
ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
with connect(None, None) as cluster:
    [node] = cluster.capacity.nodes
    assert (node.cpus, node.gpus, cluster.capacity.grows) == (2, 2, False), node
    assert node.memory > 0
with connect(None, None) as own:
    own.start()
    known = own.capacity
    own.release()
    assert own.capacity == known and own.gpus == 2
"""


def test_a_ray_that_is_up_is_asked() -> None:
    subprocess.run([sys.executable, "-c", OF_RAY], check=True, capture_output=True, timeout=300)

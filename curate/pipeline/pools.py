"""How many workers a stage gets. It never changes a result: a batch follows from its piece, threads are fixed."""

from __future__ import annotations

from dataclasses import dataclass

from curate.pipeline.cluster import Cluster

COMMIT_CPUS = 0.1
"""What Ray reserves for writing one piece: it waits for the disk."""


@dataclass(frozen=True)
class Pools:
    """Sizes of a stage's workers.

    Attributes:
        actors: workers that decode and hold the models on CPUs.
        actor_cpus: CPUs that Ray reserves for one of them.
    """

    actors: int
    actor_cpus: float

    def gpu_actors(self, cluster: Cluster, share: float) -> int:
        """Actors of a model that takes `share` of a GPU."""
        return max(1, int(cluster.gpus / share))


def pools(cluster: Cluster, pieces: int) -> Pools:
    """A worker a CPU, each of which decodes and computes in turn, on one thread.

    Together they reserve half of the CPUs: the rest is for Ray's own tasks and for writing, which wait more than they
    work.
    """
    actors = max(1, min(cluster.cpus, pieces))
    return Pools(actors=actors, actor_cpus=min(0.5, cluster.cpus / 2 / actors))

"""How many workers a stage gets. It never changes a result: a batch follows from its partition, threads are fixed."""

from __future__ import annotations

from dataclasses import dataclass

from curate.pipeline.cluster import Cluster

LIST_CPUS, FETCH_CPUS = 0.25, 0.4
"""What Ray reserves for listing a unit, and for fetching and hashing a partition: both wait more than they work. Each
differs from what a worker reserves: Ray Data fuses operators that reserve the same, and a worker that fetches decodes
nothing meanwhile."""

GROWTH = 16
"""How many times as many workers as the cluster had CPUs when the run began a pool may grow to: nodes may join."""

SMALL_CLUSTER = 8
"""CPUs below which a cluster is shared as one machine is."""


@dataclass(frozen=True)
class Pools:
    """Sizes of a stage's pool of workers.

    Attributes:
        actors: fewest and most workers that decode and hold the models on CPUs.
        actor_cpus: CPUs that Ray reserves for one of them.
    """

    actors: tuple[int, int]
    actor_cpus: float

    def gpu_actors(self, cluster: Cluster, share: float) -> tuple[int, int]:
        """Fewest and most actors of a model that takes `share` of a GPU."""
        return 1, max(1, int(GROWTH * cluster.gpus / share))


def pools(cluster: Cluster) -> Pools:
    """A worker a CPU, each of which decodes and computes in turn, on one thread.

    On this machine alone each reserves half a CPU: the rest is for listing, fetching and Ray's own tasks, which wait
    more than they work. Where there are few CPUs all workers start at once, beside the first listing. On a cluster,
    which may grow, the pool may grow with it.
    """
    if cluster.address is None or cluster.cpus < SMALL_CLUSTER:
        first = cluster.cpus if cluster.cpus < SMALL_CLUSTER else 1
        return Pools(actors=(first, cluster.cpus), actor_cpus=min(0.5, cluster.cpus / 4))
    return Pools(actors=(1, GROWTH * cluster.cpus), actor_cpus=1)

"""How many workers a stage gets. It never changes a result: a batch follows from its piece, threads are fixed."""

from __future__ import annotations

from dataclasses import dataclass

from curate.pipeline.cluster import Cluster

COMMIT_CPUS = 0.1
"""What Ray reserves for writing one piece: it waits for the disk."""


@dataclass(frozen=True)
class Pools:
    """Sizes for a decode -> models pipeline.

    Attributes:
        decode_cpus: CPUs that Ray reserves for one decode task.
        actors: model actors on CPUs.
        actor_cpus: CPUs that Ray reserves for one of them.
    """

    decode_cpus: float
    actors: int
    actor_cpus: float

    def gpu_actors(self, cluster: Cluster, share: float) -> int:
        """Actors of a model that takes `share` of a GPU."""
        return max(1, int(cluster.gpus / share))


def pools(cluster: Cluster, pieces: int) -> Pools:
    """Decoding and CPU models take turns on the same cores.

    Each side reserves half of the CPUs for as many workers as there are CPUs, every worker runs one thread, and Ray's
    back-pressure holds decoding when models are behind. Reserving whole CPUs would leave a two-core machine with one
    model worker, or with none that decodes.
    """
    actors = max(1, min(cluster.cpus, pieces))
    return Pools(decode_cpus=0.5, actors=actors, actor_cpus=min(0.5, cluster.cpus / 2 / actors))

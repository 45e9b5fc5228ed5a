"""Which worker holds which model: pools of workers, from what models take and what a cluster has. Plain numbers: Ray
puts workers on nodes that fit. It never changes a result: a batch follows from its partition, threads are fixed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from curate.pipeline.paths import Group
from curate.schema.errors import CurateError
from curate.schema.events import PoolOfWorkers
from curate.schema.fields import Resources, RunsOn
from curate.schema.recipe import Compute

LIST_CPUS, FETCH_CPUS = 0.25, 0.4
"""What Ray reserves for listing a unit, and for fetching and hashing a partition: both wait more than they work. Each
differs from what a worker that decodes reserves: Ray Data fuses operators that reserve the same, and a worker that
fetches decodes nothing meanwhile."""

LIGHT_CPUS = 0.25
"""What a worker of signals without a network reserves that has none beside it."""

GROWTH = 16
"""How many times as many workers as the cluster had room for when the run began a pool may grow to: nodes may join."""

SMALL_CLUSTER = 8
"""CPUs below which a cluster is shared as one machine is."""

LEAST_SHARE = 1 / 64
"""Of a GPU: shares that do not fit beside each other are halved down to this."""


@dataclass(frozen=True)
class Node:
    """What Ray may give away of a machine; `memory` in bytes."""

    cpus: float
    gpus: float = 0
    memory: int = 0


@dataclass(frozen=True)
class Capacity:
    """What there is to run on.

    Attributes:
        grows: True for a cluster that was there, which nodes may join; False for this machine alone.
    """

    nodes: tuple[Node, ...]
    grows: bool = False

    @property
    def cpus(self) -> int:
        return max(1, int(sum(node.cpus for node in self.nodes)))

    @property
    def gpus(self) -> int:
        return int(sum(node.gpus for node in self.nodes))

    @property
    def is_shared(self) -> bool:
        """True if models on CPUs share the workers that decode: one machine, or a small cluster."""
        return not self.grows or self.cpus < SMALL_CLUSTER


@dataclass(frozen=True)
class Model:
    """What is placed: a group of signals, or a stream's tokenizer.

    Attributes:
        cost: what one worker of it takes.
        said: what the recipe says of it.
        on: what it runs on (`device_of`).
        after: names of others that it reads.
    """

    name: str
    cost: Resources = field(default_factory=Resources)
    said: Compute = field(default_factory=Compute)
    on: RunsOn = field(default_factory=RunsOn)
    after: frozenset[str] = frozenset()

    @property
    def ran_on(self) -> RunsOn:
        """As `on`; on a CPU networks see items one by one."""
        return self.on if self.on.device != "cpu" else replace(self.on, batch=1)


@dataclass(frozen=True)
class Pool:
    """Workers that hold the same.

    Attributes:
        stage: `annotate`, `look` or `tokenize`.
        models: what they hold, in order; the first pool's workers decode too.
        cpus, gpus, memory: what Ray reserves for one of them; memory in bytes.
        workers: fewest and most.
        decodes: True of the first pool.
    """

    stage: str
    models: tuple[Model, ...]
    cpus: float
    workers: tuple[int, int]
    gpus: float = 0
    memory: int = 0
    decodes: bool = False

    @property
    def names(self) -> list[str]:
        return [model.name for model in self.models]

    @property
    def on(self) -> list[RunsOn]:
        """What its networks run on, each once."""
        return list(dict.fromkeys(model.ran_on for model in self.models if model.cost.model))

    def for_rows(self, count: int) -> Pool:
        """The pool for a plan of so many rows: a worker that gets none takes seconds of a CPU to start."""
        fewest, most = self.workers
        return replace(self, workers=(min(fewest, count), most))

    def told(self) -> PoolOfWorkers:
        """The pool for people and programs."""
        return PoolOfWorkers(
            stage=self.stage,
            decodes=self.decodes,
            models=self.names,
            device="cuda" if self.gpus else "cpu",
            dtypes=sorted({on.dtype for on in self.on}),
            batches=sorted({on.batch for on in self.on}),
            cpus=self.cpus,
            gpus=self.gpus,
            memory=self.memory,
            workers=self.workers,
        )


def models_of(groups: Sequence[Group], said: Mapping[str, Compute]) -> list[Model]:
    """Groups of signals as models.

    Args:
        said: by signal what the recipe says of it.
    """
    homes = {f.name: group.name for group in groups for signal in group.signals for f in signal.gives}
    models = []
    for group in groups:
        reads = {homes[f] for s in group.signals for f in s.after if f in homes} - {group.name}
        model = Model(group.name, after=frozenset(reads))
        if len(group.signals) == 1:  # where several share a group, none of them has a model
            [one] = group.signals
            model = replace(model, cost=one.cost, said=said.get(one.name, Compute()), on=one.on)
        models.append(model)
    return models


def device_of(name: str, cost: Resources, said: Compute, has: Capacity) -> str:
    """`cuda` for a model that can use a GPU where the cluster has one and the recipe says nothing else, or `cpu`.

    Raises:
        CurateError: the recipe says `cuda`, and the cluster has none.
    """
    if not cost.gpus or said.device == "cpu":
        return "cpu"
    if has.gpus:
        return "cuda"
    if said.device == "cuda":
        raise CurateError(
            f"{name} is to run on a GPU, and there is none among {has.cpus} CPUs",
            "device: auto takes a GPU where there is one; --address names a cluster that has some",
        )
    return "cpu"


def pools_of(stage: str, models: Sequence[Model], has: Capacity, beside: float = 0) -> list[Pool]:
    """Pools of one plan: that of the workers that decode, then one a model that does not share them, in an order in
    which each comes after those that it reads.

    A model on a GPU has a pool of its own, and so has one that reads what such a one gives, and one that may have fewer
    workers than decode. Elsewhere models share the workers that decode, but on a larger cluster only those without a
    network do: there each model's CPUs and memory are reserved.

    Args:
        models: each after those that it reads.
        beside: CPUs that other stages of the plan reserve (`LIST_CPUS`, `FETCH_CPUS`).

    Raises:
        CurateError: the shares of GPUs that the recipe names do not fit beside each other.
    """
    first, decoders, cpus = _decoders(has)
    spare = max(0.0, has.cpus - beside - first * cpus)
    apart = _apart(models, has, decoders)
    alone = [model for model in models if model.name in apart]
    shares = _shares(stage, [m for m in alone if m.on.device != "cpu"], has.gpus)
    beside_decoder = tuple(m for m in models if m.name not in apart)
    pools = [Pool(stage, beside_decoder, cpus, (first, decoders), decodes=True)]
    memory = _memory(alone, has)
    for model in alone:
        wanted = cpus if has.is_shared else min(model.cost.cpus, max(node.cpus for node in has.nodes))
        wanted = wanted if model.cost.model else min(wanted, LIGHT_CPUS)
        reserved = _floor(min(wanted, spare / len(alone)))  # so that the first worker of each fits
        share = shares.get(model.name, 0)
        room = has.gpus * int(1 / share + 1e-6) if share else int(has.cpus / max(1, wanted))
        most = max(1, room * (GROWTH if has.grows else 1))
        workers = 1, most if model.said.workers is None else min(most, model.said.workers)
        pools.append(Pool(stage, (model,), reserved, workers, share, memory.get(model.name, 0)))
    return pools


def _decoders(has: Capacity) -> tuple[int, int, float]:
    """Fewest and most workers that decode, and the CPUs that Ray reserves for one: a worker a CPU, each of which
    decodes and computes in turn, on one thread.

    Where a machine is shared each reserves half a CPU: the rest is for listing, fetching, Ray's own tasks and models on
    GPUs, which wait more than they work. On one machine of few CPUs all workers start at once, beside the first
    listing. Not on a cluster: of a node that dies they come again on those that are left, which may then have room for
    nothing else, and only workers beyond the fewest are given up where they wait for tasks that have no room.
    """
    if has.is_shared:
        at_once = has.cpus < SMALL_CLUSTER and not has.grows
        return (has.cpus if at_once else 1), has.cpus, min(0.5, has.cpus / 4)
    return 1, GROWTH * has.cpus, 1


def _apart(models: Sequence[Model], has: Capacity, decoders: int) -> Collection[str]:
    """Names of those that have a pool of their own."""
    apart: set[str] = set()
    free = has.cpus / 2
    for model in models:
        bounded = model.cost.model and model.said.workers is not None and model.said.workers < decoders
        if model.on.device != "cpu" or apart & model.after or (bounded and has.is_shared):
            apart.add(model.name)
        elif not has.is_shared and model.cost.model and model.cost.cpus <= free:
            free -= model.cost.cpus  # the first worker of each must fit beside those that decode
            apart.add(model.name)
    return apart


def _shares(stage: str, models: Sequence[Model], gpus: int) -> dict[str, float]:
    """The share of a GPU that a worker of each takes: the recipe's, else the model's own, halved while the first
    workers of all do not fit beside each other.

    Raises:
        CurateError: those of the recipe alone do not fit.
    """
    shares = {m.name: m.said.gpus or m.cost.gpus for m in models}
    free = {m.name for m in models if m.said.gpus is None}
    while not _fit(shares.values(), gpus):
        largest = max(free, key=lambda name: (shares[name], name), default=None)
        if largest is None or shares[largest] <= LEAST_SHARE:
            wanted = ", ".join(f"{name} {share:g}" for name, share in shares.items())
            raise CurateError(
                f"the models of `{stage}` are at work together and do not fit on {gpus} GPUs: {wanted}",
                "give some a smaller share (compute: {gpus: 0.25}), or a CPU (compute: {device: cpu})",
            )
        shares[largest] /= 2
    return shares


def _fit(shares: Collection[float], gpus: int) -> bool:
    """True if each share finds a GPU that has so much left, the largest first."""
    left = [1.0] * gpus
    for share in sorted(shares, reverse=True):
        place = next((i for i, free in enumerate(left) if free >= share - 1e-9), None)
        if place is None:
            return False
        left[place] -= share
    return True


def _memory(models: Sequence[Model], has: Capacity) -> dict[str, int]:
    """Bytes that a worker of each reserves on a larger cluster: at most what a node has, and together, for the first
    worker of each, at most what all have."""
    if has.is_shared:
        return {}
    largest, whole = max(node.memory for node in has.nodes), sum(node.memory for node in has.nodes)
    wanted = {m.name: min(m.cost.memory, largest) for m in models}
    over = max(1.0, sum(wanted.values()) / max(whole, 1))
    return {name: int(size / over) for name, size in wanted.items()}


def _floor(cpus: float) -> float:
    """Ray counts in ten-thousandths."""
    return max(0.01, int(cpus * 100) / 100)

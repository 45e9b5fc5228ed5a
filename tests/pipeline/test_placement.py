"""Which pool holds which model, on clusters of plain numbers. No Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from gpu_signal import Halved, Redness
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.pipeline.paths import groups_of
from curate.pipeline.placement import (
    FETCH_CPUS,
    GROWTH,
    LIST_CPUS,
    Capacity,
    Model,
    Node,
    Pool,
    device_of,
    models_of,
    pools_of,
)
from curate.schema.errors import CurateError
from curate.schema.fields import Resources, RunsOn
from curate.schema.recipe import Compute, SignalUse
from curate.signals import registry

LAPTOP = Capacity((Node(2),))
DESK = Capacity((Node(16, gpus=1),))
CLUSTER = Capacity(tuple(Node(16, memory=64 << 30) for _ in range(4)), grows=True)
GPUS = Capacity(tuple(Node(16, gpus=2, memory=64 << 30) for _ in range(2)), grows=True)
BESIDE = LIST_CPUS + FETCH_CPUS

LIGHT = Model("light")
CLIP = Model("clip", Resources(gpus=0.25, batch=32, model=True))
OCR = Model("ocr", Resources(model=True))
LARGE = Model("large", Resources(cpus=4, memory=20 << 30, model=True))
HALVED = Model("halved", after=frozenset({"clip"}))
ALL = [LIGHT, CLIP, OCR, LARGE, HALVED]


def placed(has: Capacity, *models: Model, **said: Mapping[str, object]) -> dict[str, Pool]:
    """Pools by the names of what they hold, of models on the devices that they get."""
    asked = [replace(m, said=Compute.model_validate(said.get(m.name, {}))) for m in models]
    settled = [replace(m, on=RunsOn(device_of(m.name, m.cost, m.said, has), batch=m.cost.batch)) for m in asked]
    return {" ".join(pool.names): pool for pool in pools_of("annotate", settled, has, BESIDE)}


def test_on_one_machine_models_share_the_workers_that_decode() -> None:
    [(names, pool)] = placed(LAPTOP, *ALL).items()
    assert names == "light clip ocr large halved"
    assert (pool.cpus, pool.workers, pool.gpus, pool.decodes) == (0.5, (2, 2), 0, True)
    assert pool.for_rows(1).workers == (1, 2), "of one partition no second worker has anything to do"
    assert pool.for_rows(9) == pool
    assert pool.on == [RunsOn()], "on a CPU items pass one by one"


def test_a_model_on_a_gpu_has_a_pool_and_so_has_what_reads_it() -> None:
    pools = placed(DESK, *ALL)
    assert list(pools) == ["light ocr large", "clip", "halved"]
    assert (pools["clip"].gpus, pools["clip"].workers, pools["clip"].on) == (0.25, (1, 4), [RunsOn("cuda", batch=32)])
    assert pools["halved"].gpus == 0
    assert pools["halved"].on == []


def test_on_a_larger_cluster_each_model_has_a_pool_with_what_it_takes() -> None:
    pools = placed(CLUSTER, *ALL)
    assert list(pools) == ["light", "clip", "ocr", "large", "halved"]
    assert pools["light"].workers == (1, 64 * GROWTH)
    assert (pools["large"].cpus, pools["large"].memory, pools["large"].workers) == (4, 20 << 30, (1, 16 * GROWTH))
    assert placed(GPUS, *ALL)["clip"].workers == (1, 16 * GROWTH)
    assert placed(CLUSTER, *ALL, large={"workers": 3})["large"].workers == (1, 3)


def test_a_small_cluster_is_shared_as_one_machine_is() -> None:
    assert list(placed(Capacity((Node(4), Node(3)), grows=True), *ALL)) == ["light clip ocr large halved"]


def test_fewer_workers_than_decode_are_a_pool_of_their_own() -> None:
    assert placed(LAPTOP, *ALL, large={"workers": 1})["large"].workers == (1, 1)
    assert len(placed(LAPTOP, *ALL, large={"workers": 2})) == 1


def test_what_the_recipe_says_of_the_device_goes_before_the_models_own() -> None:
    assert len(placed(DESK, *ALL, clip={"device": "cpu"})) == 1
    assert placed(DESK, *ALL, clip={"gpus": 0.5})["clip"].workers == (1, 2)
    with pytest.raises(CurateError, match="clip is to run on a GPU, and there is none among 2 CPUs"):
        placed(LAPTOP, *ALL, clip={"device": "cuda"})
    assert device_of("ocr", OCR.cost, Compute(device="cuda"), LAPTOP) == "cpu", "said of all, it binds those that can"


def test_shares_are_halved_until_all_fit_beside_each_other() -> None:
    models = [Model(name, Resources(gpus=0.5, model=True)) for name in "abc"]
    assert [p.gpus for p in placed(DESK, *models).values()] == [0, 0.5, 0.25, 0.25]
    assert [p.gpus for p in placed(DESK, *models, a={"gpus": 0.8}).values()] == [0, 0.8, 0.125, 0.0625]
    with pytest.raises(CurateError, match=r"do not fit on 1 GPUs: a 0.8, b 0.8, c "):
        placed(DESK, *models, a={"gpus": 0.8}, b={"gpus": 0.8})


def test_groups_of_signals_say_what_they_read() -> None:
    signals = registry.order([registry.build(SignalUse(name="brightness")), Redness(), Halved()])
    light, redness, halved = models_of(groups_of(signals), {"redness": Compute(workers=2)})
    assert (light.cost, redness.said.workers, redness.cost.gpus) == (Resources(), 2, 0.5)
    assert (light.after, redness.after, halved.after) == (frozenset(), frozenset(), {"redness"})


costs = st.builds(
    Resources,
    cpus=st.sampled_from([0.5, 1, 4, 64]),
    gpus=st.sampled_from([0, 0, 0.25, 0.5, 1]),
    memory=st.sampled_from([0, 8 << 30, 1 << 40]),
    model=st.just(True),
)
nodes = st.builds(Node, st.integers(1, 64), st.integers(0, 4), st.sampled_from([1 << 30, 64 << 30]))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(costs, max_size=12),
    st.builds(Capacity, st.lists(nodes, min_size=1, max_size=4).map(tuple), st.booleans()),
)
def test_the_first_workers_of_all_pools_fit_beside_each_other(costs: list[Resources], has: Capacity) -> None:
    pools = pools_of("annotate", placed_models(costs, has), has, BESIDE)
    assert sorted(name for pool in pools for name in pool.names) == sorted(f"{i}" for i in range(len(costs)))
    assert all(1 <= pool.workers[0] <= pool.workers[1] for pool in pools)
    assert all(pool.cpus > 0 for pool in pools)
    spare = 0.01 * len(pools)  # what no pool goes below
    assert sum(pool.cpus * pool.workers[0] for pool in pools) + BESIDE <= has.cpus + spare + BESIDE
    assert sum(pool.gpus for pool in pools) <= has.gpus
    assert sum(pool.memory for pool in pools) <= sum(node.memory for node in has.nodes)
    assert pools[0].gpus == 0


def placed_models(costs: list[Resources], has: Capacity) -> list[Model]:
    return [Model(f"{i}", cost, on=RunsOn(device_of(f"{i}", cost, Compute(), has))) for i, cost in enumerate(costs)]

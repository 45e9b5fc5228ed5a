"""The same verdicts from tasks on a cluster."""

from __future__ import annotations

import numpy as np
import pytest
from test_near import build_of, planted

from curate.pipeline import cluster
from curate.pipeline.engine import RayEngine
from curate.schema.errors import CurateError
from curate.schema.recipe import NearDuplicates, Rule


@pytest.fixture(scope="module")
def engine():
    with cluster.connect(None, 2):
        yield RayEngine()


def test_verdicts_are_those_of_one_process(tables, engine):
    build = build_of(tables, planted(120, 8, seed=1, copies=0.5), 5, sharpness=np.arange(120.0) % 100)
    more = {"rules": [Rule(field="sharpness", min_percentile=20)], "near": [NearDuplicates(embedding="look")]}
    want = build.decide(**more, per_task=2)
    build.store.remove([*want.pairs, *(f.path for f in want.fragments)])
    assert build.decide(**more, per_task=2, engine=engine) == want
    assert all(build.store.stat(path) for path in want.pairs)


def test_what_a_task_refuses_is_said_as_it_was_there(tables, engine):
    build = tables.build([{"sample_id": "a"}], [{"sample_id": "b"}])
    with pytest.raises(CurateError) as caught:
        build.decide(engine=engine)
    assert caught.value.message.startswith("1 samples lack the signals one")
    assert caught.value.hint.startswith("signals and samples are of different runs")

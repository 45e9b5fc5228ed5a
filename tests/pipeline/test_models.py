"""Models in a helper process that dies between calls and inside them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.media.requests import Frames
from curate.pipeline.blocks import FAIL, VIEW, failures_of, pack_view, view_name
from curate.pipeline.models import Models
from curate.schema.recipe import SignalUse
from curate.signals import registry
from curate.signals.base import Signal
from curate.signals.probed import PROBED
from curate.tokenizers import zoo


def block(texts: list[str], signal: Signal) -> pa.Table:
    """Images of noise with these texts."""
    rng = np.random.default_rng(0)
    columns: dict[str, pa.Array] = {
        "sample_id": pa.array([f"{i:032x}" for i in range(len(texts))]),
        "kind": pa.array(["image"] * len(texts)),
        "text": pa.array(texts),
        **{name: pa.array([1.0] * len(texts)) for name in PROBED},
    }
    for view in signal.needs:
        assert isinstance(view, Frames)
        shape = (1, view.size, view.size, 3)
        columns[VIEW + view_name(view)] = pack_view([rng.integers(0, 256, shape, np.uint8) for _ in texts])
    return pa.table(columns)


def test_a_helper_that_died_between_two_calls_is_not_noticed() -> None:
    models = Models()
    sharpness = registry.build(SignalUse(name="sharpness"))
    rows = block(["a", "b"], sharpness)
    models.load_signal(sharpness)
    first = models.compute([sharpness], rows)
    pid = models._helper.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert models.compute([sharpness], rows) == first
    assert models._helper.pid != pid


def test_a_tokenizer_is_loaded_again_too() -> None:
    models = Models()
    card = zoo.card("text-bpe-8k")
    models.load_tokenizer("text-bpe-8k", card)
    (first,) = models.encode("text-bpe-8k", "tokenize:caption", ["a cup of coffee"])
    pid = models._helper.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    (again,) = models.encode("text-bpe-8k", "tokenize:caption", ["a cup of coffee"])
    assert isinstance(first, np.ndarray)
    np.testing.assert_array_equal(first, again)


def test_poison_costs_one_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    flag = tmp_path / "flag"
    flag.touch()
    poison = registry.build(SignalUse.model_validate({"name": "poison_signal:Poison", "while_there": str(flag)}))
    answer = Models().compute([poison], block(["one", "poison", "three"], poison))
    assert answer.column("letters").to_pylist() == [3.0, None, 5.0]
    dead = failures_of(answer.column(FAIL + "poison"))[1]
    assert dead is not None
    assert (dead.stage, dead.error, dead.attempt) == ("annotate:poison", "Crashed", 2)
    assert "SIGSEGV" in dead.message


def test_a_sample_that_kills_one_signal_of_several_costs_that_one_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    flag = tmp_path / "flag"
    flag.touch()
    poison = registry.build(SignalUse.model_validate({"name": "poison_signal:Poison", "while_there": str(flag)}))
    sharpness = registry.build(SignalUse(name="sharpness"))
    answer = Models().compute([sharpness, poison], block(["one", "poison", "three"], sharpness))
    assert answer.column("letters").to_pylist() == [3.0, None, 5.0]
    assert answer.column("sharpness").null_count == 0
    assert [f is None for f in failures_of(answer.column(FAIL + "poison"))] == [True, False, True]
    assert failures_of(answer.column(FAIL + "sharpness")) == [None] * 3

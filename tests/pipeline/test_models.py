"""Models in a helper process that dies between calls and inside them, and in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from gpu_signal import NOTES

from curate.media.requests import Frames
from curate.pipeline.blocks import FAIL, VIEW, failures_of, pack_view, view_name
from curate.pipeline.models import InProcess, Models, helper, models
from curate.schema.fields import RunsOn
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
    process = helper()
    loaded = Models(process)
    sharpness = registry.build(SignalUse(name="sharpness"))
    rows = block(["a", "b"], sharpness)
    loaded.load_signal(sharpness)
    first = loaded.compute([sharpness], rows)
    pid = process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    assert loaded.compute([sharpness], rows) == first
    assert process.pid != pid


def test_a_tokenizer_is_loaded_again_too() -> None:
    process = helper()
    loaded = Models(process)
    card = zoo.card("text-bpe-8k")
    loaded.load_tokenizer("text-bpe-8k", card)
    (first,) = loaded.encode("text-bpe-8k", "tokenize:caption", ["a cup of coffee"])
    pid = process.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    (again,) = loaded.encode("text-bpe-8k", "tokenize:caption", ["a cup of coffee"])
    assert isinstance(first, np.ndarray)
    np.testing.assert_array_equal(first, again)


def test_a_tokenizer_is_one_for_each_thing_that_it_runs_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NOTES, str(tmp_path))
    name, loaded = "gpu_signal:Greys", Models(InProcess())
    places = [RunsOn(), RunsOn("cuda", "float32", 16), RunsOn("cuda", "bfloat16", 16)]
    for on in places:
        loaded.load_tokenizer(name, zoo.card(name), on)
    for on in reversed(places):
        (ids,) = loaded.encode(name, "tokenize:greys", [np.zeros((1, 32, 32, 3), np.uint8)], on)
        assert isinstance(ids, np.ndarray)
    [notes] = tmp_path.iterdir()
    said = [line.split()[1:4] for line in notes.read_text().splitlines()]
    assert said == [["cuda", "bfloat16", "16"], ["cuda", "float32", "16"], ["cpu", "float32", "8"]]


def test_poison_costs_one_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    flag = tmp_path / "flag"
    flag.touch()
    poison = registry.build(SignalUse.model_validate({"name": "poison_signal:Poison", "while_there": str(flag)}))
    answer = Models(helper()).compute([poison], block(["one", "poison", "three"], poison))
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
    answer = Models(helper()).compute([sharpness, poison], block(["one", "poison", "three"], sharpness))
    assert answer.column("letters").to_pylist() == [3.0, None, 5.0]
    assert answer.column("sharpness").null_count == 0
    assert [f is None for f in failures_of(answer.column(FAIL + "poison"))] == [True, False, True]
    assert failures_of(answer.column(FAIL + "sharpness")) == [None] * 3


def test_both_places_give_the_same() -> None:
    sharpness = registry.build(SignalUse(name="sharpness"))
    rows = block(["a", "b", "c"], sharpness)
    here, there = models(), Models(helper())
    for one in (here, there):
        one.load_signal(sharpness)
        one.load_tokenizer("text-bpe-8k", zoo.card("text-bpe-8k"))
    assert here.compute([sharpness], rows) == there.compute([sharpness], rows)
    texts = ["a cup of coffee", 7]
    (ids, refused), (same, too) = (m.encode("text-bpe-8k", "tokenize:caption", texts) for m in (here, there))
    assert isinstance(ids, np.ndarray)
    np.testing.assert_array_equal(ids, same)
    assert refused == too


ODD = """
import sys, time
from curate.pipeline.models import InProcess
from curate.helper.errors import HelperDied, HelperError

class Odd:
    def leaves(self): sys.exit(3)
    def is_too_large(self): raise MemoryError
    def breaks(self): raise KeyError("x")
    def hangs(self): time.sleep(60)

inside = InProcess()
inside._service = Odd()
for method in ("leaves", "is_too_large", "breaks", "hangs"):
    try:
        inside.call(method, limit_s=0.5)
    except (HelperDied, HelperError) as error:
        print(type(error).__name__, error.error, error.message, flush=True)
"""


def test_what_a_model_may_do_to_its_process() -> None:
    done = subprocess.run([sys.executable, "-c", ODD], capture_output=True, text=True, check=False, timeout=50)
    assert done.stdout.splitlines() == [
        "HelperDied Crashed ended with exit code 3",
        "HelperDied MemoryLimit needed more memory than there is",
        "HelperError KeyError 'x'",
    ]
    assert done.returncode == 1, "a model that hangs ends the worker"
    assert "in hangs" in done.stderr, "and its traceback is in the worker's log"

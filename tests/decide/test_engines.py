"""The same verdicts from tasks on a cluster, and from tasks in processes of this machine."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_near import build_of, planted

from curate.decide.processes import ProcessEngine
from curate.pipeline import cluster
from curate.schema.errors import CurateError
from curate.schema.recipe import NearDuplicates, Rule


@pytest.fixture(scope="module", params=["ray", "processes"])
def engine(request: pytest.FixtureRequest):
    with cluster.connect(None, 2) as found:
        if request.param == "ray":
            found.start()
        yield found.engine()


def test_verdicts_are_those_of_one_process(tables, engine):
    said = {"sharpness": np.arange(120.0) % 100, "tags": [f"tag {i % 70}" for i in range(120)]}
    build = build_of(tables, planted(120, 8, seed=1, copies=0.5), 5, **said)
    rules = [Rule(field="sharpness", min_percentile=20), Rule(copies_of="tags", max=1)]
    more = {"rules": rules, "near": [NearDuplicates(embedding="look")]}
    want = build.decide(**more, per_task=2)
    broken = {row.get("rule") for row in build.verdicts(**more, per_task=2).values()}
    assert broken == {None, "sharpness >= p20", "copies of tags <= 1"}
    build.store.remove([*want.pairs, *(f.path for f in want.fragments)])
    assert build.decide(**more, per_task=2, engine=engine) == want
    assert all(build.store.stat(path) for path in want.pairs)


def test_what_a_task_refuses_is_said_as_it_was_there(tables, engine):
    build = tables.build([{"sample_id": "a"}], [{"sample_id": "b"}])
    with pytest.raises(CurateError) as caught:
        build.decide(engine=engine)
    assert caught.value.message.startswith("1 samples lack the signals one")
    assert caught.value.hint.startswith("signals and samples are of different runs")


def test_a_task_whose_process_is_killed_is_done_again(tmp_path):
    with ProcessEngine(2) as engine:
        assert list(engine.map(_dies_once, [(str(tmp_path / name),) for name in "abc"])) == ["done"] * 3


def test_a_task_that_kills_its_process_ends_the_run_with_a_sentence_and_none_is_left():
    with ProcessEngine(2) as engine:
        pids = set(engine.map(_pid, [()] * 4))
        with pytest.raises(CurateError, match=r"a process of this run ended: .* killed by SIGKILL, 2 times"):
            list(engine.map(_dies, [()]))
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_processes_end_with_the_one_that_started_them():
    script = (
        "import os, time\n"
        "from curate.decide.processes import ProcessEngine\n"
        "with ProcessEngine(1) as engine:\n"
        "    print(next(engine.map(os.getpid, [()])), flush=True)\n"
        "    time.sleep(60)\n"
    )
    run = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    pid = run.stdout.readline().strip()
    run.kill()
    run.wait()
    until = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()


def test_a_full_disk_is_said():
    with ProcessEngine(1) as engine, pytest.raises(CurateError, match="no space left"):
        engine.hold(_full, [()])


def _dies():
    os.kill(os.getpid(), signal.SIGKILL)


def _dies_once(flag):
    if not Path(flag).exists():
        Path(flag).touch()
        _dies()
    return "done"


def _pid() -> int:
    time.sleep(0.5)  # so that each process gets one
    return os.getpid()


def _full() -> None:
    raise OSError(errno.ENOSPC, "No space left on device")

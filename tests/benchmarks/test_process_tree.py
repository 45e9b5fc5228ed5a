"""What a command cost, all its processes together."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BURN = """
import time
kept = bytearray(SIZE * 1_000_000)
while time.process_time() < SECONDS: pass
time.sleep(0.4)
"""
DAEMON = """
import json, os, subprocess, sys
print("not JSON")
print(json.dumps({"event": "stage_end", "stage": "first", "seconds": 1.5}), flush=True)
child = subprocess.Popen([sys.executable, "-c", %r], start_new_session=True)
middle = subprocess.run([sys.executable, "-c", %r])
child.wait() if %r else os._exit(0)
"""


def burn(seconds: float, size: int) -> str:
    return BURN.replace("SECONDS", str(seconds)).replace("SIZE", str(size))


def test_all_processes_are_counted_once(tmp_path: Path) -> None:
    from parts.process_tree import run

    script = DAEMON % (burn(0.8, 60), burn(0.8, 0), True)
    found = run([sys.executable, "-c", script], {"SOME": "x"}, tmp_path / "log")
    assert found.code == 0
    assert 1.6 <= found.cpu < 2.6
    assert found.wall > 0.8
    assert found.largest_other[1] > 60_000_000 > found.peaks["driver"] > 1_000_000
    assert [moment.event["stage"] for moment in found.moments] == ["first"]
    assert "not JSON" in found.said


def test_a_process_whose_parent_is_gone_is_the_commands_by_its_mark(tmp_path: Path) -> None:
    from parts.process_tree import run

    leave = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', %r], start_new_session=True)"
    burnt = tmp_path / "burnt"
    inner = leave % f"{burn(0.5, 0)}open({str(burnt)!r}, 'w'); time.sleep(2)"
    wait = f"while not os.path.exists({str(burnt)!r}): time.sleep(0.05)"
    script = (
        f"import os, subprocess, sys, time\nsubprocess.run([sys.executable, '-c', {inner!r}])\n{wait}\ntime.sleep(0.6)"
    )
    found = run([sys.executable, "-c", script], {}, tmp_path / "log")
    assert 0.5 <= found.cpu < 1.3


def test_one_that_has_ended_and_is_not_waited_for_keeps_its_role(tmp_path: Path) -> None:
    from parts.process_tree import run

    child = f"{burn(0.1, 60)}# as curate.helper"
    script = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(2)"
    found = run([sys.executable, "-c", script], {}, tmp_path / "log")
    assert found.peaks["helper"] > 60_000_000


def test_a_command_that_fails_says_so(tmp_path: Path) -> None:
    from parts.process_tree import run

    found = run([sys.executable, "-c", "import sys; sys.exit('no such thing')"], {}, tmp_path / "log")
    assert (found.code, found.said.strip()) == (1, "no such thing")


def test_roles_are_told_by_command_line_and_name() -> None:
    from parts.process_tree import role_of

    assert role_of("python -m curate.helper.child 7", "python") == "helper"
    assert role_of("ray::MapWorker(x)", "ray::MapWorker") == role_of("", "ray::IDLE") == "worker"
    assert role_of("python site-packages/ray/_private/workers/default_worker.py --x", "python") == "worker"
    assert role_of("site-packages/ray/core/src/ray/raylet/raylet --x", "raylet") == "ray"
    assert role_of("sleep 1", "sleep") == "sleep"


def test_a_name_may_hold_anything() -> None:
    from parts.process_tree import parse_stat

    numbers = " ".join(map(str, [7, *range(5, 14), 100, 200, 300, 400, *range(18, 22), 99, 23]))
    stat = parse_stat(f"42 (a) b (c) S {numbers}")
    assert (stat.pid, stat.parent, stat.start) == (42, 7, 99)
    assert stat.own / stat.waited == pytest.approx(300 / 700)


def test_children_between_two_looks_count_and_none_counts_twice() -> None:
    from parts.process_tree import Process, Stat, total_cpu

    parent = Process(Stat(1, 0, 0, own=2.0, waited=5.0))
    child = Process(Stat(2, 1, 0, own=3.0, waited=1.0), ended=True)
    assert total_cpu([parent, child]) == pytest.approx(2 + 5)
    lost = Process(Stat(1, 0, 0, own=2.0, waited=0.0))  # it did not wait for its child
    assert total_cpu([lost, child]) == pytest.approx(2 + 3 + 1)
    alive = Process(Stat(3, 1, 0, own=4.0, waited=0.0))
    assert total_cpu([parent, child, alive]) == pytest.approx(2 + 5 + 4)


def test_stages_that_overlap_are_marked() -> None:
    from parts.process_tree import Moment
    from scale import stages_of

    def moment(event: str, stage: str, wall: float, cpu: float) -> Moment:
        return Moment({"event": event, "stage": stage, "seconds": wall}, wall, cpu)

    moments = [
        moment("stage_start", "fetch", 0, 1),
        moment("stage_start", "annotate", 2, 3),
        moment("stage_end", "fetch", 5, 8),
        moment("stage_end", "annotate", 9, 12),
        moment("stage_start", "decide", 9.01, 12),
        moment("stage_end", "decide", 10, 13),
    ]
    assert [(s.name, s.cpu, s.shared) for s in stages_of(moments)] == [
        ("fetch", 7, True),
        ("annotate", 9, True),
        ("decide", 1, False),
    ]

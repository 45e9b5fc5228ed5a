"""What nobody foresaw is one sentence too: what, where, the file with the traceback, and what to do."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from kills import _those
from small import RECIPE, Project, digests, processes_under

from curate.pipeline.error_location import cause_of, location_of, note
from curate.pipeline.user_errors import user_errors
from curate.schema.errors import CurateError


def said_well(done: subprocess.CompletedProcess[str]) -> str:
    """The sentence; and the file that it names holds the traceback."""
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    [sentence] = re.findall(r"^curate: unexpected.*$", done.stderr, re.MULTILINE)
    kept = re.search(r"the whole traceback is in (\S+)", done.stderr)
    assert kept
    assert Path(kept[1]).stat().st_mode & 0o077 == 0
    assert "Traceback" in Path(kept[1]).read_text()
    Path(kept[1]).unlink()
    assert "the same command goes on" in done.stderr
    return str(sentence)


@pytest.mark.long
def test_a_plug_in_that_breaks_in_the_driver(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=":")
    recipe = tmp_path / "odd.yaml"
    text = RECIPE.replace("path: media", f"path: {project.root}/media")
    recipe.write_text(text.replace("name: conse", 'name: "odd_signal:OddVersion"'))
    # signals are named before anything is fetched, so this is quick
    done = project.curate("run", recipe, "--out", tmp_path / "out", "--workers", 1, ok=False)
    assert said_well(done).endswith(r"LookupError: no version, and a\u001b[31m colour")


def test_a_task_that_breaks_says_its_stage_and_partition(
    small_build: Path, project: Project, copy_of: Callable[[Path], Path]
) -> None:
    build = copy_of(small_build)
    shutil.rmtree(build / "signals")
    shutil.rmtree(build / "media")
    command = ("run", project.recipe, "--out", build, "--workers", 1)
    project.recipe.write_text(RECIPE)
    sentence = said_well(project.curate(*command, ok=False))
    assert re.search(r"in the stage annotate, partition here-[0-9a-f]{16}: FileNotFoundError: .*/media/here-", sentence)


@pytest.mark.long
def test_workers_that_are_killed_again_and_again(small_build: Path, project: Project, tmp_path: Path) -> None:
    """Whatever comes of it is a sentence or a build; the same command ends with the right bytes."""
    project.recipe.write_text(RECIPE)
    out = tmp_path / "out"
    running = subprocess.Popen(
        project.command("run", project.recipe, "--out", out, "--workers", 2), stderr=subprocess.PIPE, text=True
    )
    ended = threading.Event()

    def kill() -> None:
        until = time.monotonic() + 60
        while not ended.wait(1.0) and time.monotonic() < until:
            for pid in _those(processes_under(running.pid), "worker"):
                subprocess.run(["kill", f"-{signal.SIGKILL}", str(pid)], check=False, capture_output=True)

    killer = threading.Thread(target=kill)
    killer.start()
    said = running.communicate(timeout=400)[1]
    ended.set()
    killer.join()
    assert running.returncode in (0, 1, 2)
    assert "Traceback" not in said
    project.run(out)
    assert digests(out) == digests(small_build)


def test_the_innermost_note_tells_where() -> None:
    exc = ValueError("what\nis wrong")
    note(exc, "the stage cut, partition web-1")
    note(exc, "the stage cut")
    assert location_of(exc) == "the stage cut, partition web-1"
    assert cause_of(exc) == "ValueError: what\nis wrong"
    assert location_of(ValueError("elsewhere")) == ""


def test_of_an_actors_text_the_sentence_and_the_way_out_are_left() -> None:
    said = (
        "ray::MapWorker(MapBatches(Annotate)).submit() (pid=1)\n  File ..., in load\n"
        "curate.schema.errors.CurateError: the weights are not there\n  fetch them\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "ray::MapWorker(MapBatches(Annotate)).submit() (pid=1)\nray.exceptions.UserCodeException: UDF failed"
    )
    with pytest.raises(CurateError) as error, user_errors():
        raise RuntimeError(said)
    assert (error.value.message, error.value.hint) == ("the weights are not there", "fetch them")

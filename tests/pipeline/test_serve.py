"""A captioner whose model is served by a program that the worker starts: the real protocol, a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chat_server
import numpy as np
import pyarrow as pa
import pytest

from curate.media.clips import Span
from curate.media.examine import Viewed
from curate.media.requests import Frames
from curate.pipeline.blocks import FAIL
from curate.pipeline.examined import Batch
from curate.pipeline.models import InProcess, Models
from curate.schema.errors import CurateError
from curate.schema.recipe import CaptionerUse
from curate.signals.captions import CaptionerOptions, CaptionerSignal

COMMAND = f"{sys.executable} {chat_server.__file__} {{port}}"


def captioner(**changes: Any) -> CaptionerSignal:
    given = {"name": "short", "model": "m", "serve": COMMAND, "prompt": "It says {text}.", "calls": {"attempts": 1}}
    return CaptionerSignal(CaptionerOptions(use=CaptionerUse(**(given | changes))))


def table(*texts: str) -> pa.Table:
    view = Frames(448, 1.0, 1, crop=False)
    batch = Batch()
    for i, text in enumerate(texts):
        row = {"sample_id": str(i), "kind": "image", "text": text, "width": 64, "height": 48}
        frames = {view: np.full((1, 48, 64, 3), (255, 0, 0), np.uint8)}
        batch.add(row, Viewed(i, Span(0, 0), frames), b"", [view], "pyav")
    return batch.table([view])


@pytest.fixture
def served() -> Iterator[Models]:
    models = Models(InProcess())
    yield models
    models.close()


def processes() -> set[int]:
    """Servers of this test that run."""
    done = subprocess.run(["pgrep", "-f", chat_server.__file__], capture_output=True, text=True, check=False)
    return {int(pid) for pid in done.stdout.split()}


def test_a_sample_that_ends_the_server_costs_its_own_caption_alone(served: Models) -> None:
    short = captioner()
    for _ in range(2):  # as often as such a sample comes
        said = served.compute([short], table("one", "crash", "three", "four"))
        assert said.column("short").to_pylist() == ["Frames: red.", None, "Frames: red.", "Frames: red."]
        failures = said.column(FAIL + "short").to_pylist()
        assert [f is None for f in failures] == [True, False, True, True]
        assert (failures[1]["error"], failures[1]["stage"]) == ("Crashed", "annotate:short")
    assert len(processes()) == 1
    served.close()
    assert processes() == set()


def test_a_server_takes_a_gpu_and_its_command_is_part_of_the_captions() -> None:
    assert captioner().cost.gpus == 1
    assert captioner(serve=COMMAND + " --dtype float16").made_by() != captioner().made_by()


def test_the_server_ends_with_its_worker_whatever_ends_that(tmp_path: Path) -> None:
    code = (
        "import time; from test_serve import captioner; s = captioner(); s.load(); print('up', flush=True); "
        "time.sleep(600)"
    )
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(chat_server.__file__).parent), *sys.path])
    before = processes()
    worker = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "up\n"
    assert len(processes() - before) == 1
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    until = time.monotonic() + 20
    while processes() - before and time.monotonic() < until:
        time.sleep(0.05)
    assert processes() == before


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("no-such-program --port {port}", "there is no program `no-such-program`"),
        (
            f"{sys.executable} -c 'print(\"no GPU here\"); exit(7)' {{port}}",
            "exit code 7 .*its last words: no GPU here",
        ),
        ("vllm serve {model}", "does not say where the port goes"),
        ("vllm serve {modl} --port {port}", "is no command: 'modl'"),
    ],
    ids=["no program", "ends", "no port", "no such word"],
)
def test_what_cannot_serve_is_said(command: str, says: str) -> None:
    with pytest.raises(CurateError, match=says):
        captioner(serve=command).load()

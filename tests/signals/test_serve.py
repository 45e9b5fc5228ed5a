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
import pytest

from curate.media.requests import Frames
from curate.schema.errors import CurateError
from curate.schema.recipe import CaptionerUse
from curate.schema.verdict import Failure
from curate.signals.base import Batch
from curate.signals.captions import CaptionerOptions, CaptionerSignal

COMMAND = f"{sys.executable} {chat_server.__file__} {{port}}"


def captioner(**changes: Any) -> CaptionerSignal:
    given = {"name": "short", "model": "m", "serve": COMMAND, "prompt": "It says {text}.", "calls": {"attempts": 1}}
    return CaptionerSignal(CaptionerOptions(use=CaptionerUse(**(given | changes))))


def batch(*texts: str) -> Batch:
    frames: list[Any] = [np.full((1, 48, 64, 3), (255, 0, 0), np.uint8) for _ in texts]
    ids = [str(i) for i in range(len(texts))]
    return Batch(ids, ["image"] * len(texts), list(texts), {Frames(448, 1.0, 1, crop=False): frames})


@pytest.fixture
def served() -> Iterator[CaptionerSignal]:
    signal = captioner()
    signal.load()
    yield signal
    assert signal._server is not None
    signal._server.stop()


def processes() -> set[int]:
    """Servers of this test that run."""
    done = subprocess.run(["pgrep", "-f", chat_server.__file__], capture_output=True, text=True, check=False)
    return {int(pid) for pid in done.stdout.split()}


def test_a_sample_that_ends_the_server_costs_its_own_caption_alone(served: CaptionerSignal) -> None:
    said = served(batch("one", "crash", "three", "four"))
    assert [s["short"] for s in said if not isinstance(s, Failure)] == ["Frames: red."] * 3
    [failure] = [s for s in said if isinstance(s, Failure)]
    assert (said.index(failure), failure.error) == (1, "EndpointError")
    assert [s["short"] for s in served(batch("five")) if isinstance(s, dict)] == ["Frames: red."]


def test_a_server_that_ends_again_and_again_ends_the_run(served: CaptionerSignal) -> None:
    with pytest.raises(CurateError, match="captioner short: the server of its model ended 4 times"):
        served(batch("crash", "crash", "crash", "crash", "crash"))


def test_a_server_takes_a_gpu_and_its_command_is_part_of_the_captions(served: CaptionerSignal) -> None:
    assert served.cost.gpus == 1
    assert captioner().made_by() == served.made_by()
    assert captioner(serve=COMMAND + " --dtype float16").made_by() != served.made_by()


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

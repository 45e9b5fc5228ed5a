"""A Ray cluster that is already there, started as a user starts one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from small import RECIPE, Project, digests, processes_under

TOKEN = "a-token-of-the-tests-0123456789abcdef"


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`ray start --head` on loopback, with the token authentication that is its default."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # a folder of its own, so that no later `--address auto` on this machine finds this cluster; short, for socket names
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    head = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"),
            *("--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false", "--disable-usage-stats"),
            f"--temp-dir={folder}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    limit = time.monotonic() + 60
    while True:
        assert head.poll() is None, "ray start ended"
        assert time.monotonic() < limit
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.2)
    time.sleep(3)  # the raylet registers after the port is open
    yield f"127.0.0.1:{port}"
    for pid in reversed(processes_under(head.pid)):
        os.kill(pid, 9)
    head.wait()
    shutil.rmtree(folder, ignore_errors=True)


def test_the_same_recipe_gives_the_same_bytes_on_a_cluster(
    address: str, small_build: Path, project: Project, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    project.recipe.write_text(RECIPE)
    project.curate("run", project.recipe, "--out", out, "--address", address)
    assert digests(out) == digests(small_build)

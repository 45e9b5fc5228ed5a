"""A real Ray head with its dashboard on loopback, and the means to use it as a user and as its owner."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

TOKEN = "a-token-of-the-tests-0123456789abcdef"
RAY_VARIABLES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    parents: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            # the command's name is in brackets and may hold anything; the parent comes two fields after it
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def shell(home: Path, **more: str) -> dict[str, str]:
    """The environment of a shell that knows nothing of any cluster but what `more` says."""
    env = {name: value for name, value in os.environ.items() if name not in RAY_VARIABLES}
    # a head takes `python` from its PATH; Ray's own servers stay off the network
    path = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', '')}"
    return {**env, "HOME": str(home), "PATH": path, "RAY_USAGE_STATS_ENABLED": "0", **more}


@dataclass(frozen=True)
class Head:
    """A cluster of one node that wants TOKEN.

    Attributes:
        address: of its dashboard.
        home: an empty home folder, so that no token of the tester's is found.
    """

    address: str
    home: Path

    def command(self, *args: object) -> list[str]:
        return [sys.executable, "-m", "curate.cli.main", *map(str, args)]

    def env(self, **more: str) -> dict[str, str]:
        return shell(self.home, **{"RAY_AUTH_TOKEN": TOKEN, "RAY_API_SERVER_ADDRESS": self.address, **more})

    def curate(self, *args: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run `curate ARGS` in a shell that has address and token, or in `env`."""
        return subprocess.run(
            self.command(*args),
            env=self.env() if env is None else dict(env),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def start(self, *args: object, **env: str) -> subprocess.Popen[str]:
        """Start `curate ARGS`; its log on stdout, what it says on stderr."""
        return subprocess.Popen(
            self.command(*args),
            env=self.env(**env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def rest(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the job server itself."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = httpx.request(method, f"{self.address}/api/jobs/{path}", json=body, headers=headers, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def submit(self, name: str, entrypoint: str) -> None:
        """A job that is any shell command."""
        self.rest("POST", "", {"entrypoint": entrypoint, "submission_id": name})

    def state(self, name: str) -> str:
        return str(self.rest("GET", name)["status"])

    def log(self, name: str) -> str:
        return str(self.rest("GET", f"{name}/logs")["logs"])


@contextmanager
def ray_head(home: Path) -> Iterator[Head]:
    """`ray start --head` with dashboard and token authentication, its default; ended with all its processes."""
    # a folder of its own, so that no `--address auto` on this machine finds this cluster; short, for socket names
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    port = free_port()
    head = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"),
            *("--node-ip-address=127.0.0.1", f"--port={free_port()}", "--disable-usage-stats"),
            *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
            *(f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={folder}"),
        ],
        env=shell(home, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=TOKEN),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    here = Head(f"http://127.0.0.1:{port}", home)
    limit = time.monotonic() + 90
    try:
        while True:
            assert head.poll() is None, "ray start ended"
            assert time.monotonic() < limit, "the job server does not come up"
            try:
                here.rest("GET", "")
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        yield here
    finally:
        # asked to end, Ray takes half a minute
        for pid in reversed(family(head.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        head.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)

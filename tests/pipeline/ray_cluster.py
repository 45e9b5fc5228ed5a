"""A Ray cluster started as a user starts one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from small import processes_under


@contextmanager
def ray_head(cpus: int) -> Iterator[tuple[int, str]]:
    """`ray start --head` on loopback; the process id of the command, and the address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # a folder of its own, so that no later `--address auto` on this machine finds this cluster; short, for socket names
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    head = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--num-cpus={cpus}"),
            *("--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false", "--disable-usage-stats"),
            f"--temp-dir={folder}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
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
        yield head.pid, f"127.0.0.1:{port}"
    finally:
        end(head)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def ray_node(address: str, cpus: int, kind: str) -> Iterator[int]:
    """`ray start --address`: one more node, with a resource of its own named `kind`; the process id of its raylet."""
    node = subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", f"--address={address}", "--block"),
            *(f"--num-cpus={cpus}", f'--resources={{"{kind}": 1}}', "--disable-usage-stats"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + 60
        while not (raylets := [pid for pid in processes_under(node.pid) if name_of(pid) == "raylet"]):
            assert node.poll() is None, "ray start ended"
            assert time.monotonic() < limit
            time.sleep(0.2)
        yield raylets[0]
    finally:
        end(node)


COUNT = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
sys.exit(len([node for node in ray.nodes() if node["Alive"]]) != int(sys.argv[2]))
"""


def has_nodes(address: str, count: int) -> bool:
    """Whether as many nodes of a cluster are alive."""
    return not subprocess.run([sys.executable, "-c", COUNT, address, str(count)], check=False).returncode


def name_of(pid: int) -> str:
    """A process's name; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def end(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process and all below it."""
    for pid in reversed(processes_under(process.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
    process.wait()

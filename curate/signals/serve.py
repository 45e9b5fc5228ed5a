"""A server of a model on the worker's own GPU: any program that speaks OpenAI's protocol, such as vLLM's.

The server sees many samples at once and batches them as it likes (`calls.concurrency`), so a captioner's values may
depend on neighbours in their last bits, as at any endpoint. It ends with the worker.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import IO

from curate.schema.errors import CurateError
from curate.schema.recipe import CaptionerUse

READY_SECONDS = 1700.0
"""How long a server may take to load its model: less than a worker may (`curate.pipeline.models.LOAD_SECONDS`)."""

ASKED_SECONDS = 0.2
"""How often it is asked whether it is ready."""

_SAID = 600
"""Characters of a server's last words in a message."""


class Server:
    """The server of one captioner, which its `serve` names.

    Raises (constructor):
        CurateError: there is no such program.
    """

    def __init__(self, use: CaptionerUse) -> None:
        assert use.serve is not None
        self._use, self._command = use, use.serve
        find_program(use)
        self._process: subprocess.Popen[bytes] | None = None
        self._leash: int | None = None
        self._log: IO[bytes] | None = None
        self.url = ""

    def has_ended(self, wait_s: float = 0) -> bool:
        """True if the server does not run, or ends within `wait_s` seconds."""
        if self._process is None:
            return True
        try:
            self._process.wait(wait_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            CurateError: it ends, or does not answer.
        """
        import httpx

        self.stop()
        port = _free_port()
        self.url = f"http://127.0.0.1:{port}/v1"
        command = shlex.split(self._command.format(model=shlex.quote(self._use.model), port=port))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - it stays open as long as the server runs
        reading, self._leash = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "curate.helper.leashed", str(reading), *command],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            pass_fds=(reading,),
            start_new_session=True,
        )
        os.close(reading)
        until = time.monotonic() + READY_SECONDS
        while True:
            if self.has_ended():
                raise self._failed(f"ended with exit code {self._process.poll()} before it was ready")
            try:
                if httpx.get(f"{self.url}/models", timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.HTTPError:
                pass  # not yet
            if time.monotonic() > until:
                raise self._failed(f"did not answer within {READY_SECONDS:g} s")
            time.sleep(ASKED_SECONDS)

    def stop(self) -> None:
        """End the server and all that it started."""
        if self._leash is not None:
            os.close(self._leash)
            self._leash = None
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # what it started may live on after it
            self._process.wait()
            self._process = None
        if self._log is not None:
            self._log.close()

    def _failed(self, what: str) -> CurateError:
        said = b""
        if self._log is not None:
            size = self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, size - _SAID))
            said = self._log.read()
        words = " ".join(said.decode(errors="replace").split())
        self.stop()
        return CurateError(
            f"captioner {self._use.name}: the server of its model {what}"
            + (f"; its last words: {words}" if words else ""),
            "try its command by itself: " + self._command,
        )


def find_program(use: CaptionerUse) -> None:
    """Refuse a captioner whose `serve` names a program that this machine does not have.

    Raises:
        CurateError: there is none.
    """
    program = shlex.split(use.serve or "")[0]
    if shutil.which(program) is None:
        raise CurateError(
            f"captioner {use.name}: there is no program `{program}` to serve its model with",
            "install it where workers run: pip install vllm gives `vllm serve`",
        )


def check_command(command: str) -> None:
    """Refuse a command that cannot be one.

    Raises:
        CurateError: it is no shell words, or does not say where the port goes.
    """
    try:
        shlex.split(command.format(model="m", port=1))
    except (ValueError, KeyError, IndexError) as error:
        raise CurateError(f"`serve` is no command: {error}", "e.g. vllm serve {model} --port {port}") from None
    if "{port}" not in command:
        raise CurateError("`serve` does not say where the port goes", "e.g. vllm serve {model} --port {port}")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port

"""How much all workers of a run ask of endpoints: their rates and budgets are those of the run, so one place counts.

The driver counts (`served`); a worker asks it over one short connection a request (`RemoteMeter`). A message is a line
of JSON, `[secret, captioner, null]` for a turn and `[secret, captioner, n]` for n tokens that an answer took. The
answer is `[seconds, null]`, or `[null, sentence]` where a budget is spent.
"""

from __future__ import annotations

import json
import secrets
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from curate.schema.errors import CurateError
from curate.schema.recipe import Calls

_SECONDS = 20.0
"""Within which the driver answers."""

_AGAIN = "what was committed is kept; raise it and run the same command again"


class Counts(Protocol):
    """What a client of an endpoint tells and asks."""

    def turn(self, captioner: str) -> float:
        """Seconds to wait before the next request, which is counted. Raises CurateError where a budget is spent."""

    def add(self, captioner: str, tokens: int) -> None:
        """An answer took so many tokens."""


@dataclass
class _Account:
    """Of one captioner. `next_at`: when a request may begin; `paid_at`: when the minute's tokens are paid off."""

    requests: int = 0
    tokens: int = 0
    next_at: float = 0.0
    paid_at: float = 0.0


class Meter:
    """Counts requests and tokens of captioners by their limits.

    Requests are spread evenly over a minute. Tokens are known when the answer is there: a request waits while those
    that were used take more than a minute to pay off at the rate that is allowed.

    Args:
        limits: by captioner.
    """

    def __init__(self, limits: Mapping[str, Calls]) -> None:
        self._limits = limits
        self._accounts = {name: _Account() for name in limits}
        self._lock = threading.Lock()

    def turn(self, captioner: str) -> float:
        """As `Counts.turn`."""
        limits, account = self._limits[captioner], self._accounts[captioner]
        with self._lock:
            for what, used in (("max_requests", account.requests), ("max_tokens", account.tokens)):
                budget = getattr(limits, what)
                if budget is not None and used >= budget:
                    raise CurateError(
                        f"captioner {captioner}: its budget of this run is spent ({what}: {budget})", _AGAIN
                    )
            account.requests += 1
            now = time.monotonic()
            start = max(now, account.paid_at - 60)
            if limits.requests_per_minute is not None:
                start = max(start, account.next_at)
                account.next_at = start + 60 / limits.requests_per_minute
            return start - now

    def add(self, captioner: str, tokens: int) -> None:
        """As `Counts.add`."""
        limits, account = self._limits[captioner], self._accounts[captioner]
        with self._lock:
            account.tokens += tokens
            if limits.tokens_per_minute is not None:
                account.paid_at = max(account.paid_at, time.monotonic()) + 60 * tokens / limits.tokens_per_minute


class RemoteMeter:
    """The driver's meter, asked from a worker.

    Args:
        address: as `served` gives it.
    """

    def __init__(self, address: str) -> None:
        where, _, self._secret = address.partition("/")
        host, _, port = where.rpartition(":")
        self._at = host, int(port)

    def turn(self, captioner: str) -> float:
        """As `Counts.turn`."""
        return self._asked(captioner, None)

    def add(self, captioner: str, tokens: int) -> None:
        """As `Counts.add`."""
        self._asked(captioner, tokens)

    def _asked(self, captioner: str, tokens: int | None) -> float:
        try:
            with socket.create_connection(self._at, timeout=_SECONDS) as connection:
                connection.sendall(json.dumps([self._secret, captioner, tokens]).encode() + b"\n")
                seconds, spent = json.loads(connection.makefile("rb").readline())
        except (OSError, ValueError) as exc:
            raise CurateError(
                "the process that counts the run's calls of endpoints cannot be reached",
                "workers must reach the machine on which `curate run` was started; run the same command again",
            ) from exc
        if spent is not None:
            raise CurateError(spent, _AGAIN)
        return float(seconds)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 256


@contextmanager
def served(limits: Mapping[str, Calls], host: str) -> Iterator[str]:
    """A meter that others may ask while the block runs; its address, with a secret, which is told to workers alone.

    Args:
        limits: by captioner.
        host: address of this machine that workers reach.
    """
    meter, secret = Meter(limits), secrets.token_hex(16)

    class Handler(socketserver.StreamRequestHandler):
        timeout = _SECONDS

        def handle(self) -> None:
            with suppress(OSError, ValueError, TypeError):  # a worker that died, or someone else
                said, captioner, tokens = json.loads(self.rfile.readline(4096))
                if secrets.compare_digest(said, secret) and captioner in limits:
                    self.wfile.write(json.dumps(_answer(meter, captioner, tokens)).encode() + b"\n")

    with _Server((host, 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        try:
            yield f"{host}:{server.server_address[1]}/{secret}"
        finally:
            server.shutdown()


def _answer(meter: Meter, captioner: str, tokens: int | None) -> list[float | str | None]:
    try:
        if tokens is None:
            return [meter.turn(captioner), None]
        meter.add(captioner, tokens)
    except CurateError as exc:
        return [None, exc.message]
    return [0.0, None]

"""The helper process itself: `python -m curate.helper.child SOCKET LIFELINE INBOX OUTBOX`, started by
`process.Helper` only. The last two are memory shared with it, which it writes to and which it reads.

The first message is `{service, options, memory_bytes}`; then each is `[method, args, kwargs]`. Answers are
`["gave", value]`, `["raised", class name, message, hint]` or `["memory"]`.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import socket
import sys
from typing import Any

from curate.helper import wire
from curate.helper.limits import MemoryLimit, die_with, is_out_of_memory, no_core
from curate.schema.errors import CurateError

_MESSAGE_CHARS = 10_000


def main(fd: int, lifeline: int, inbox: int, outbox: int) -> None:
    """Serve until the parent closes its end."""
    for inherited in (fd, lifeline, inbox, outbox):
        os.set_inheritable(inherited, False)  # what the service starts must not keep them open
    die_with(lifeline)
    no_core()
    faulthandler.enable()  # a crash leaves its Python stack on stderr
    with socket.socket(fileno=fd) as sock:
        hello = wire.receive(sock)
        try:
            module, _, factory = hello["service"].partition(":")
            service = getattr(importlib.import_module(module), factory)(**hello["options"])
            answer: list[object] = ["gave", None]
        except Exception as error:
            answer = _raised(error)
        limit = MemoryLimit(hello["memory_bytes"])
        wire.send(sock, wire.encode(answer))
        while answer[0] == "gave":
            try:
                _serve(sock, service, limit, inbox, outbox)
            except (EOFError, BrokenPipeError):
                return


def _serve(sock: socket.socket, service: Any, limit: MemoryLimit, inbox: int, outbox: int) -> None:
    """One call."""

    def check_size(size: int) -> None:
        limit.raise_limit(size, getattr(service, "held_bytes", 0))

    method, args, kwargs = wire.receive(sock, check_size=check_size, memory=inbox)
    failed: list[object] = []
    try:
        parts = wire.encode(["gave", getattr(service, method)(*args, **kwargs)])
    except Exception as error:
        failed = ["memory"] if is_out_of_memory(error) else _raised(error)
    # not inside `except`: the call's frames, and all that they hold, are gone only here
    wire.send(sock, wire.encode(failed) if failed else parts, memory=outbox)


def _raised(error: Exception) -> list[object]:
    hint = error.hint if isinstance(error, CurateError) else ""
    message = error.message if isinstance(error, CurateError) else str(error)
    return ["raised", type(error).__name__, message[:_MESSAGE_CHARS], hint]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))

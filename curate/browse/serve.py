"""The HTTP server of `curate browse`: one process, until it is interrupted."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

GRACE_SECONDS = 2
"""How long answers may take that are being made when the server is to end."""


def serve(app: ASGIApp, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Answer who connects until SIGINT or SIGTERM.

    Args:
        listening: a bound socket.
        ready: is called once who connects is answered, and at once: what the first answer would import is there.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        lifespan="off",
        ws="none",
    )
    config.load()
    asyncio.run(run_in_threadpool(lambda: None))
    listening.listen()
    ready()
    _Server(config).run([listening])


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # what is cancelled then is no error; uvicorn tells of each with its traceback
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)

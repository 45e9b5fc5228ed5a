"""Following a job's log over a connection that may be lost, without losing or repeating a line."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import aiohttp
from ray.job_submission import JobStatus

from curate.cli.job_server import JobServer, Unreachable, no_job, refused_token, unreachable
from curate.schema.errors import CurateError

HEARTBEAT_SECONDS = 15.0
"""A connection that is dead without saying so is found out by an unanswered ping."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 20.0
"""Seconds between tries to connect again, doubled each time."""

PATIENCE_SECONDS = 600.0
"""How long nobody may answer before following ends (the job does not)."""

CONTROL = dict.fromkeys((*range(9), *range(11, 13), *range(14, 32), 127, *range(128, 160)))
"""A log may quote a file name or a caption from the open web; what could steer a terminal is left out."""


class Follower:
    """Writes a job's log as it grows, from its first character or from where a lost connection cut it off.

    The server sends a log from its start on every connection, so the place is a count of characters.

    Args:
        server: where the job is.
        name: the job's submission id.
        write: takes text of the log.
        say: takes a line about the job, or about the connection.
    """

    def __init__(
        self, server: JobServer, name: str, write: Callable[[str], object], say: Callable[[str], object]
    ) -> None:
        self._server, self._name, self._write, self._say = server, name, write, say
        self._jobs = f"{server.address}/api/jobs/{quote(name, safe='')}"
        self._seen = 0

    def follow(self) -> dict[str, Any]:
        """Until the job ends; what the server then says of it: `status`, `driver_exit_code`, `message`, ...

        Raises:
            Unreachable: nobody answered for PATIENCE_SECONDS.
            CurateError: the token is refused, or the job is not there any more.
        """
        return asyncio.run(self._follow())

    async def _follow(self) -> dict[str, Any]:
        wait, heard, lost = FIRST_WAIT, time.monotonic(), False
        # no limit on the whole of it: a log is followed for as long as the job takes
        limits = aiohttp.ClientTimeout(total=None, sock_connect=10)
        async with aiohttp.ClientSession(timeout=limits, **self._server.connection()) as session:
            while True:
                before, reached = self._seen, False
                try:
                    await self._started(session)
                    reached = True
                    if lost:
                        self._say(f"connected to {self._server.address} again")
                        lost = False
                    await self._tail(session)
                    job = await self._ended(session)
                    if job is not None:
                        return job
                    # the server closed while the job runs
                    raise unreachable(self._server.address, "the log was cut off")
                except (Unreachable, aiohttp.ClientError, OSError) as exc:  # a time-out is an OSError
                    _refused(exc, self._server.address, self._name)
                    if reached:
                        heard = time.monotonic()
                    if self._seen > before:
                        wait = FIRST_WAIT
                    if time.monotonic() - heard > PATIENCE_SECONDS:
                        raise unreachable(self._server.address, exc) from exc
                    if not lost:
                        self._say(f"lost the connection to {self._server.address}; the job goes on; trying again")
                        lost = True
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)

    async def _started(self, session: aiohttp.ClientSession) -> None:
        said = ""
        while (job := await self._get(session, "")).get("status") == JobStatus.PENDING:
            message = " ".join(str(job.get("message") or "waiting for the cluster to start it").split())
            if message != said:
                self._say(f"pending: {message[:300]}")
                said = message
            await asyncio.sleep(1)

    async def _tail(self, session: aiohttp.ClientSession) -> None:
        passed = 0
        url = f"{self._jobs}/logs/tail"
        # a log may hold one line of any length
        async with session.ws_connect(url, heartbeat=HEARTBEAT_SECONDS, max_msg_size=0) as socket:
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    break
                self._show(message.data, passed)
                passed += len(message.data)

    async def _ended(self, session: aiohttp.ClientSession) -> dict[str, Any] | None:
        """What became of the job, after the rest of its log; None while it runs."""
        job = await self._get(session, "")
        if not JobStatus(job["status"]).is_terminal():
            return None
        logs = await self._get(session, "/logs")
        self._show(str(logs.get("logs") or ""), 0)
        return job

    def _show(self, text: str, at: int) -> None:
        """Write what is new of the text that starts at the log's character `at`."""
        new = text[max(0, self._seen - at) :]
        if new:
            self._write(new.translate(CONTROL))
            self._seen = max(self._seen, at + len(text))

    async def _get(self, session: aiohttp.ClientSession, what: str) -> dict[str, Any]:
        limit = aiohttp.ClientTimeout(total=60, sock_connect=10)
        async with session.get(self._jobs + what, timeout=limit, raise_for_status=True) as response:
            try:
                answer = json.loads(await response.text())
            except ValueError as exc:  # a proxy's page, while the cluster is away
                raise unreachable(self._server.address, "it answers with something else") from exc
            return dict(answer)


def _refused(exc: Exception, address: str, name: str) -> None:
    """Raise what trying again does not mend."""
    if not isinstance(exc, aiohttp.ClientResponseError):
        return
    if exc.status in (401, 403):
        raise refused_token(address, missing=exc.status == 401) from exc
    if exc.status == 404:
        raise no_job(address, name) from exc
    if 400 <= exc.status < 500:
        raise CurateError(f"the cluster at {address} cannot show the log of {name}: HTTP {exc.status}") from exc

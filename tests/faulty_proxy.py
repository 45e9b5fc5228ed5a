"""A proxy in front of an object store that does to requests what networks and busy servers do."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

BUSY = "busy"  # 503, the request was not looked at
ERROR = "error"  # 500, the same
ERROR_AFTER = "error after"  # 500, though the request was carried out
RESET = "reset"  # the connection breaks before the request is passed on
RESET_AFTER = "reset after"  # the request is carried out and its answer is lost
UPLOAD_CUT = "upload cut"  # the connection breaks in the middle of the request's body
CUT = "cut"  # the connection breaks in the middle of the answer's body, or head where it has no body
STALL = "stall"  # no answer for longer than the client waits
DRIP = "drip"  # the answer comes, but slowly
SHORT = "short"  # half of an object's bytes come, as if they were all (to answers without a range: nothing)
NOT_IMPLEMENTED = "not implemented"  # 501

PASSING = (BUSY, ERROR, ERROR_AFTER, RESET, RESET_AFTER, UPLOAD_CUT, CUT, STALL, DRIP)
"""All that may happen to a request which then succeeds when it is made again."""


@dataclass
class Request:
    """The head of a request.

    Attributes:
        head: names in small letters.
        before: how often a request of the same method and name came before.
    """

    method: str
    target: str
    head: dict[str, str]
    before: int

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def name(self) -> str:
        """The target without what the store drew by chance, so that it is the same in each run of a test."""
        return re.sub(r"(uploadId|continuation-token)=[^&]*", r"\1", self.target)

    @property
    def conditional(self) -> bool:
        return bool({"if-match", "if-none-match"} & self.head.keys())


Choose = Callable[[Request], str | None]
"""What is done to a request; None passes it on unharmed. It is called in the proxy's thread."""


def seeded(seed: int, rate: float, faults: Sequence[str] = PASSING) -> Choose:
    """Harms a share of all requests. Which ones follows from the seed, and not from which of two came first."""

    def choose(request: Request) -> str | None:
        draw = random.Random(f"{seed} {request.method} {request.name} {request.before}")
        return draw.choice(faults) if draw.random() < rate else None

    return choose


@dataclass
class FaultyProxy:
    """A running proxy.

    Attributes:
        endpoint: its url, to be given to clients as the store's.
        choose: what is done to each request; a test may set another one at any time.
        ignore_conditions: pass requests on without `If-Match` and `If-None-Match`, as to a store that has never heard
            of them.
        stall_seconds: how long STALL is silent; more than the client's time limit.
        injected: faults by kind.
        requests: how many came.
    """

    upstream: tuple[str, int]
    key: str
    secret: str
    endpoint: str = ""
    choose: Choose = lambda request: None
    ignore_conditions: bool = False
    stall_seconds: float = 5.0
    injected: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    _seen: Counter[tuple[str, str]] = field(default_factory=Counter)
    _at_work: set[asyncio.Task[None]] = field(default_factory=set)

    def __str__(self) -> str:
        by_kind = ", ".join(f"{kind} {count}" for kind, count in sorted(self.injected.items())) or "none"
        return f"faulty proxy: {self.requests} requests, {self.injected.total()} faults ({by_kind})"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client: its requests, one after the other, over one connection to the store."""
        task = asyncio.current_task()
        assert task is not None
        self._at_work.add(task)  # the loop itself would let go of it
        task.add_done_callback(self._at_work.discard)
        store_reader, store_writer = await asyncio.open_connection(*self.upstream, limit=1 << 20)
        try:
            while await self._exchange(reader, writer, store_reader, store_writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()  # one side, or the test, is gone; so the other one is told
        finally:
            store_writer.transport.abort()
            writer.close()

    async def _exchange(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        store_reader: asyncio.StreamReader,
        store_writer: asyncio.StreamWriter,
    ) -> bool:
        """One request and its answer; whether the connection lives on."""
        try:
            first, lines, head = await _read_head(reader)
        except asyncio.IncompleteReadError:
            return False
        method, target, _ = first.split(" ", 2)
        request = Request(method, target, head, 0)
        request.before = self._seen[method, request.name]
        self._seen[method, request.name] += 1
        fault = self._fault(request)
        body = await reader.readexactly(int(head.get("content-length", "0")))
        if fault == STALL:
            await asyncio.sleep(self.stall_seconds)
        if fault in (RESET, STALL):
            return _reset(writer)
        if fault in (BUSY, ERROR, NOT_IMPLEMENTED):
            return await _answer(writer, fault, method)
        if self.ignore_conditions and {"if-match", "if-none-match"} & head.keys():
            lines = _without_conditions(method, target, lines, head, self.key, self.secret)
        store_writer.write("\r\n".join([first, *lines, "", ""]).encode("latin-1"))
        if fault == UPLOAD_CUT:
            store_writer.write(body[: len(body) // 2])
            await store_writer.drain()
            return _reset(writer)
        store_writer.write(body)
        await store_writer.drain()
        answer, answer_lines, answer_head = await _read_head(store_reader)
        bare = method == "HEAD" or answer.split(" ")[1] in ("204", "304")
        answer_body = b"" if bare else await _read_body(store_reader, answer_head)
        if fault == SHORT and "content-range" in answer_head:
            answer_body = answer_body[: len(answer_body) // 2]
            answer_lines = [line for line in answer_lines if not line.lower().startswith("content-length:")]
            answer_lines.append(f"Content-Length: {len(answer_body)}")
        whole = "\r\n".join([answer, *answer_lines, "", ""]).encode("latin-1") + answer_body
        if fault == RESET_AFTER:
            return _reset(writer)
        if fault == ERROR_AFTER:
            return await _answer(writer, ERROR, method)
        if fault == CUT:
            writer.write(whole[: len(whole) - max(1, len(answer_body) // 2)])
            await writer.drain()
            await asyncio.sleep(0.02)  # else the reset overtakes what was written
            return _reset(writer)
        if fault == DRIP:
            step = max(1, len(whole) // 10)
            for at in range(0, len(whole), step):
                writer.write(whole[at : at + step])
                await writer.drain()
                await asyncio.sleep(0.01)
        else:
            writer.write(whole)
            await writer.drain()
        return answer_head.get("connection", "").lower() != "close"

    def _fault(self, request: Request) -> str | None:
        self.requests += 1
        fault = self.choose(request)
        if fault is not None:
            self.injected[fault] += 1
        return fault


async def _read_head(reader: asyncio.StreamReader) -> tuple[str, list[str], dict[str, str]]:
    text = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = text.rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return first, lines, {name.strip().lower(): value.strip() for name, _, value in pairs}


async def _read_body(reader: asyncio.StreamReader, head: dict[str, str]) -> bytes:
    """An answer's body as it is on the wire."""
    if head.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(head.get("content-length", "0")))
    body = b""
    while True:
        size = await reader.readuntil(b"\r\n")
        body += size + await reader.readexactly(int(size, 16) + 2)
        if int(size, 16) == 0:
            return body


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Break a connection as a machine does that goes down: with RST, not with FIN."""
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


ANSWERS = {
    BUSY: ("503 Service Unavailable", "SlowDown"),
    ERROR: ("500 Internal Server Error", "InternalError"),
    NOT_IMPLEMENTED: ("501 Not Implemented", "NotImplemented"),
}


async def _answer(writer: asyncio.StreamWriter, fault: str, method: str) -> bool:
    status, code = ANSWERS[fault]
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by the test</Message></Error>".encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    writer.write(head + (b"" if method == "HEAD" else body))
    await writer.drain()
    return True


def _without_conditions(
    method: str, target: str, lines: list[str], head: dict[str, str], key: str, secret: str
) -> list[str]:
    """The lines of a head without its conditions, signed anew (AWS Signature Version 4), since they are signed too."""
    names = ("if-match", "if-none-match")
    kept = [line for line in lines if line.partition(":")[0].strip().lower() not in (*names, "authorization")]
    fields = dict(part.split("=", 1) for part in head["authorization"].split(" ", 1)[1].replace(" ", "").split(","))
    scope = fields["Credential"].split("/", 1)[1]
    signed = [name for name in fields["SignedHeaders"].split(";") if name not in names]
    parts = urlsplit(target)
    canonical = "\n".join(
        [
            *(method, parts.path, "&".join(sorted(parts.query.split("&"))) if parts.query else ""),
            *(f"{name}:{' '.join(head[name].split())}" for name in signed),
            *("", ";".join(signed), head["x-amz-content-sha256"]),
        ]
    )
    text = "\n".join(["AWS4-HMAC-SHA256", head["x-amz-date"], scope, hashlib.sha256(canonical.encode()).hexdigest()])
    with_key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        with_key = hmac.new(with_key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(with_key, text.encode(), hashlib.sha256).hexdigest()
    credential = f"Credential={key}/{scope}, SignedHeaders={';'.join(signed)}, Signature={signature}"
    return [*kept, f"authorization: AWS4-HMAC-SHA256 {credential}"]


@contextmanager
def faulty_proxy(endpoint: str, key: str, secret: str, choose: Choose | None = None) -> Iterator[FaultyProxy]:
    """A proxy in front of the store at `endpoint`, in a thread of this process; at the end it says what it did."""
    parts = urlsplit(endpoint)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = FaultyProxy((parts.hostname, parts.port), key, secret)
    if choose is not None:
        proxy.choose = choose
    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=1 << 20, backlog=512))
    proxy.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    thread = threading.Thread(target=loop.run_forever, name="faulty proxy", daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        asyncio.run_coroutine_threadsafe(_stop(server), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
        print(proxy)


async def _stop(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)

"""Fetching over http(s): many at once, each within its time and size, and an error that says what went wrong.

Messages hold no address, port, credential or query: they go to the ledger, which is published and must not change with
the port that a server happened to get (law 6). The record's uri stands beside them.
"""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpcore
import httpx

from curate.schema.errors import FetchError
from curate.schema.recipe import Fetch
from curate.schema.verdict import Failure
from curate.sources.network import Backend, CountedStream
from curate.storage.retry import retries

MAX_REDIRECTS = 5
BACK_OFF = 0.5
"""Seconds before the second attempt; twice as many before each further one, all shortened by up to a half by chance."""

_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_ERRORS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
    OSError,
)
_SETTLE = 0.25
"""Seconds that a server has, after the last byte it promised, to show that there are more."""


@dataclass(frozen=True)
class Request:
    """An address and the limits it is fetched under."""

    url: str
    limits: Fetch


def fetch_all(requests: Sequence[Request], stage: str = "ingest") -> list[bytes | Failure]:
    """Fetch all, in the order given. Requests of equal limits share their `concurrency`.

    An attempt has `timeout` seconds from connecting to the last byte, redirects included. What may pass is tried up to
    `attempts` times: statuses 408, 425, 429, 500, 502, 503, 504, a lost connection, a body that was cut off, an attempt
    that took too long, a resolver that says "try again". What lasts is not: other statuses, a file that is too large,
    an address that is refused or wrong. Waits grow, are as long as a Retry-After asks, and never longer than
    `max_wait`; while a request waits, others have its turn. Never raises for one bad request. Must not be called where
    an event loop runs.
    """
    return asyncio.run(_fetch_all(requests, stage))


async def _fetch_all(requests: Sequence[Request], stage: str) -> list[bytes | Failure]:
    turns = {limits: asyncio.Semaphore(limits.concurrency) for limits in {r.limits for r in requests}}
    context = httpx.create_ssl_context()

    async def one(request: Request) -> bytes | Failure:
        limits, attempt = request.limits, 1
        while True:
            async with turns[limits]:
                got = await _attempt(request, context)
            if isinstance(got, bytes):
                return got
            if not (isinstance(got, FetchError) and got.transient and attempt < limits.attempts):
                return Failure.of(stage, got, attempt)
            retries.add()
            await asyncio.sleep(_wait(attempt, got.retry_after, limits.max_wait))
            attempt += 1

    return await asyncio.gather(*(one(request) for request in requests))


async def _attempt(request: Request, context: ssl.SSLContext) -> bytes | Exception:
    """The body, or what went wrong."""
    try:
        async with asyncio.timeout(request.limits.timeout):
            return await _fetch(request, context)
    except TimeoutError:
        return FetchError(f"not complete within {request.limits.timeout:g} s", transient=True)
    except Exception as exc:  # a fault of ours or of a library is this record's alone too
        return exc


def _wait(attempt: int, retry_after: float, max_wait: float) -> float:
    """Seconds to wait after attempt number `attempt`."""
    # the largest wait any recipe may ask for comes long before the power is large
    grown: float = BACK_OFF * 2 ** min(attempt - 1, 16) * random.uniform(0.5, 1)
    return min(max(grown, retry_after), max_wait)


async def _fetch(request: Request, context: ssl.SSLContext) -> bytes:
    """The body, redirects followed."""
    limits = request.limits
    url = _parse(request.url)
    async with httpcore.AsyncConnectionPool(
        ssl_context=context, max_keepalive_connections=0, network_backend=Backend(limits.allow_private)
    ) as pool:
        for _ in range(MAX_REDIRECTS + 1):
            try:
                got = await _get(pool, url, limits)
            except _ERRORS as exc:
                raise _translated(exc) from exc
            if isinstance(got, bytes):
                return got
            url = _parse(got, url)
    raise FetchError(f"redirected more than {MAX_REDIRECTS} times")


async def _get(pool: httpcore.AsyncConnectionPool, url: httpx.URL, limits: Fetch) -> bytes | str:
    """The body, or the place it is redirected to."""
    headers = [
        (b"Host", url.netloc),
        (b"User-Agent", limits.user_agent.encode("ascii", "replace")),
        (b"Accept", b"*/*"),
        (b"Accept-Encoding", b"identity"),
        (b"Connection", b"close"),
    ]
    if url.userinfo:
        pair = f"{url.username}:{url.password}".encode()
        headers.append((b"Authorization", b"Basic " + base64.b64encode(pair)))
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    async with pool.stream("GET", target, headers=headers) as response:
        answer = httpx.Headers(response.headers)
        if response.status in _REDIRECTS and "location" in answer:
            return answer["location"]
        if response.status != 200:
            passing = response.status in _TRANSIENT
            raise FetchError(f"status {response.status}", passing, _retry_after(answer) if passing else 0.0)
        encoding = answer.get("content-encoding", "identity").strip().lower()
        if encoding not in ("", "identity"):
            raise FetchError(f"it came compressed ({encoding}), which was not asked for")
        length = _length(answer)
        if length is not None and length > limits.max_bytes:
            raise FetchError(f"it has {length} bytes, more than {limits.max_bytes}")
        body = bytearray()
        try:
            async for chunk in response.aiter_stream():
                body += chunk
                if len(body) > limits.max_bytes:
                    raise FetchError(f"it has more than {limits.max_bytes} bytes")
        except (httpcore.NetworkError, httpcore.RemoteProtocolError) as exc:
            raise FetchError("it was cut off: the connection ended before the file did", transient=True) from exc
        if length is not None and await _goes_on(response.extensions["network_stream"], length):
            raise FetchError(f"it has more bytes than the {length} of its Content-Length")
        return bytes(body)


def _retry_after(answer: httpx.Headers) -> float:
    """Seconds of a Retry-After header, which holds a number or a date (RFC 9110, 10.2.3); 0 where it says nothing."""
    text = answer.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return 0.0
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (date - datetime.now(UTC)).total_seconds())


def _length(answer: httpx.Headers) -> int | None:
    """Content-Length, where it governs the body."""
    if "transfer-encoding" in answer:
        return None
    text = answer.get("content-length", "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


async def _goes_on(stream: CountedStream, length: int) -> bool:
    """Whether the server sent more than `length` bytes of body; waits shortly for it to close."""
    while stream.body_bytes <= length:
        try:
            async with asyncio.timeout(_SETTLE):
                if not await stream.read(4096):
                    return False
        except (TimeoutError, httpcore.NetworkError, OSError):
            return False  # still open, or closed roughly: what was promised is there
    return True


def _parse(address: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        url = httpx.URL(address) if base is None else base.join(address)
    except (httpx.InvalidURL, ValueError) as exc:
        raise FetchError("its address is not valid") from exc
    if url.scheme not in ("http", "https"):
        raise FetchError(f"{'it is redirected to ' if base else ''}a {url.scheme or 'relative'} address: not fetched")
    if not url.raw_host:
        raise FetchError("its address names no host")
    return url


def _translated(exc: Exception) -> FetchError:
    """What an error of the connection means."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return FetchError(f"its certificate is not trusted: {cause.verify_message}")
        cause = cause.__cause__ or cause.__context__
    if isinstance(exc, httpcore.ConnectError | httpcore.ConnectTimeout):
        return FetchError("its server cannot be connected to", transient=True)
    if isinstance(exc, httpcore.ProtocolError | httpcore.UnsupportedProtocol):
        return FetchError("its server does not answer in HTTP", transient=True)
    return FetchError("the connection was lost", transient=True)

"""Fetching over http(s) as browsers do: many at once, each within its time and size, errors that say what went wrong.

Messages hold no address, port, credential or query: they go to the ledger, which is published and must not change with
the port that a server happened to get (law 6). The record's uri stands beside them.
"""

from __future__ import annotations

import asyncio
import base64
import random
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import unquote_to_bytes

import ada_url
import pycurl

from curate.schema.errors import FetchError
from curate.schema.recipe import Fetch
from curate.schema.verdict import Failure
from curate.sources import network
from curate.sources.encodings import decoded
from curate.storage.retry import retries

MAX_REDIRECTS = 5
BACK_OFF = 0.5
"""Seconds before the second attempt; twice as many before each further one, all shortened by up to a half by chance."""

_REDIRECTS = (300, 301, 302, 303, 307, 308)
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
_TOO_LARGE = 100
"""CURLE_TOO_LARGE, which pycurl does not name."""
_TRANSLATED = {
    pycurl.E_COULDNT_RESOLVE_PROXY: "the proxy of the environment has no address",
    pycurl.E_COULDNT_CONNECT: "its server cannot be connected to",
    pycurl.E_SSL_CONNECT_ERROR: "its server cannot be connected to",
    pycurl.E_OPERATION_TIMEDOUT: "its server cannot be connected to",  # other time limits are not the library's
    pycurl.E_SSL_CACERT_BADFILE: "the file that SSL_CERT_FILE names holds no certificate authorities",
    pycurl.E_UNSUPPORTED_PROTOCOL: "its server does not answer in HTTP",
    pycurl.E_FTP_WEIRD_SERVER_REPLY: "its server does not answer in HTTP",  # of HTTP too
    pycurl.E_BAD_CONTENT_ENCODING: "its server does not answer in HTTP",
}
_SETTLE = 0.25
"""Seconds for the rest of an answer that holds no file; its connection is kept if that has come by then."""


@dataclass(frozen=True)
class Request:
    """An address and the limits it is fetched under."""

    url: str
    limits: Fetch


def fetch_all(requests: Sequence[Request], stage: str = "ingest") -> list[bytes | Failure]:
    """Fetch all, in the order given. Requests of equal limits share connections and `concurrency`, process-wide.

    An attempt has `timeout` seconds from connecting to the last byte, redirects included. What may pass is tried up to
    `attempts` times: statuses 408, 425, 429, 500, 502, 503, 504, a lost connection, a body that was cut off, an attempt
    that took too long, a resolver that says "try again". What lasts is not: other statuses, a file that is too large,
    an address that is refused or wrong. Waits grow, are as long as a Retry-After asks, and never longer than
    `max_wait`; while a request waits, others have its turn. Never raises for one bad request. May be called from
    several threads.
    """
    return network.run(_fetch_all(requests, stage))


async def _fetch_all(requests: Sequence[Request], stage: str) -> list[bytes | Failure]:
    async def one(request: Request) -> bytes | Failure:
        limits, attempt = request.limits, 1
        while True:
            async with network.pool(limits).turns:
                got = await _attempt(request)
            if isinstance(got, bytes):
                return got
            if not (isinstance(got, FetchError) and got.transient and attempt < limits.attempts):
                return Failure.of(stage, got, attempt)
            retries.add()
            await asyncio.sleep(_wait(attempt, got.retry_after, limits.max_wait))
            attempt += 1

    return await asyncio.gather(*(one(request) for request in requests))


async def _attempt(request: Request) -> bytes | Exception:
    """The file, or what went wrong."""
    try:
        async with asyncio.timeout(request.limits.timeout):
            return await _fetch(request)
    except TimeoutError:
        return FetchError(f"not complete within {request.limits.timeout:g} s", transient=True)
    except Exception as exc:  # a fault of ours or of a library is this record's alone too
        return exc


def _wait(attempt: int, retry_after: float, max_wait: float) -> float:
    """Seconds to wait after attempt number `attempt`."""
    # the largest wait any recipe may ask for comes long before the power is large
    grown: float = BACK_OFF * 2 ** min(attempt - 1, 16) * random.uniform(0.5, 1)
    return min(max(grown, retry_after), max_wait)


async def _fetch(request: Request) -> bytes:
    """The file, redirects followed. Cookies live in the handle, so along this chain of redirects only."""
    limits = request.limits
    url = _parse(request.url)
    curl = _handle()
    for _ in range(MAX_REDIRECTS + 1):
        answer = await _get(curl, url, limits)
        body, fields = bytes(answer.body), answer.fields
        if answer.status in _REDIRECTS:
            url = _parse(fields["location"], url)
        elif codings := fields.get("content-encoding"):
            return await _unpacked(body, codings, fields.get("content-type", ""), limits.max_bytes)
        else:
            return body
    raise FetchError(f"redirected more than {MAX_REDIRECTS} times")


async def _unpacked(body: bytes, codings: str, content_type: str, max_bytes: int) -> bytes:
    """The file in a body, made in a thread, so that the transfers of others go on."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(decoded, body, codings, content_type, max_bytes, stop)
    finally:
        stop.set()  # nobody waits any more where the time is up, but for the end of the process


def _handle() -> pycurl.Curl:
    curl = pycurl.Curl()
    network.trust(curl)
    for option, value in (
        (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
        (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
        (pycurl.HTTP200ALIASES, ["ICY"]),  # SHOUTcast's status line
        (pycurl.TRANSFER_ENCODING, 1),  # gzip is undone where it is sent; the empty TE below asks for none
        (pycurl.COOKIEFILE, ""),  # cookies, of no file
        (pycurl.PATH_AS_IS, 1),
        (pycurl.NOSIGNAL, 1),
    ):
        curl.setopt(option, value)
    return curl


class _Answer:
    """What came of one request.

    Attributes:
        status: of the last head that came; 0 before.
        fields: names in lower case; of a repeated one the first, of Content-Encoding all.
        body: decoded from its transfer coding only.
        refused: done as soon as the head says that no file follows.
    """

    def __init__(self, limit: int) -> None:
        self.status = 0
        self.fields: dict[str, str] = {}
        self.body = bytearray()
        self.refused = asyncio.get_running_loop().create_future()
        self._limit = limit
        self._ended = True

    @property
    def length(self) -> int:
        """Content-Length, where it governs the body; else 0."""
        text = self.fields.get("content-length", "")
        return int(text) if text.isascii() and text.isdigit() and "transfer-encoding" not in self.fields else 0

    def head(self, line: bytes) -> int | None:
        """One line of a head, or of the trailer, which is ignored; anything but None ends the transfer."""
        if self._ended:  # the first head, or what came before was interim (1xx) or a proxy's
            if status := re.match(rb"(?:HTTP/|ICY)\S*\s+(\d{3})", line, re.IGNORECASE):
                self.status, self.fields, self._ended = int(status[1]), {}, False
            return None
        name, _, value = line.decode("latin-1").partition(":")
        name, value = name.strip().lower(), value.strip()
        if not line.strip():
            self._ended = True
            if self.status >= 300 and not self.refused.done():
                self.refused.set_result(None)
            elif self.status in (200, 203) and self.length > self._limit:
                return -1
        elif name == "content-encoding" and name in self.fields:
            self.fields[name] += f",{value}"
        else:
            self.fields.setdefault(name, value)
        return None

    def write(self, data: bytes) -> int | None:
        """A piece of the body; anything but None ends the transfer."""
        if self.status < 300:
            self.body += data
        return -1 if len(self.body) > self._limit else None


async def _get(curl: pycurl.Curl, url: ada_url.URL, limits: Fetch) -> _Answer:
    """An answer that holds a file or leads to another place.

    Raises:
        FetchError: it does neither.
    """
    pool = network.pool(limits)
    await pool.route(curl, url)
    headers = [
        f"User-Agent: {limits.user_agent.encode('ascii', 'replace').decode()}",
        "Accept: */*",
        "Accept-Encoding: identity",
        "TE:",
    ]
    if url.username or url.password:
        pair = unquote_to_bytes(url.username) + b":" + unquote_to_bytes(url.password)
        headers.append(f"Authorization: Basic {base64.b64encode(pair).decode()}")
    curl.setopt(pycurl.HTTPHEADER, headers)
    curl.setopt(pycurl.URL, ada_url.replace_url(url.href.partition("#")[0], username="", password=""))
    curl.setopt(pycurl.FRESH_CONNECT, 0)
    curl.setopt(pycurl.IGNORE_CONTENT_LENGTH, 0)
    for _ in range(3):
        answer = _Answer(limits.max_bytes)
        curl.setopt(pycurl.HEADERFUNCTION, answer.head)
        curl.setopt(pycurl.WRITEFUNCTION, answer.write)
        failed = await _transferred(pool.start(curl), answer.refused)
        is_closed = (failed and not answer.status) or answer.status == 408  # which some say before (RFC 9110, 15.5.9)
        if is_closed and not curl.getinfo(pycurl.NUM_CONNECTS):
            curl.setopt(pycurl.FRESH_CONNECT, 1)  # the server had closed a connection that was kept: no attempt
        elif failed and "Invalid Content-Length" in str(failed) and "content-length" not in answer.fields:
            curl.setopt(pycurl.IGNORE_CONTENT_LENGTH, 1)  # it is no number: the file ends with the connection
        else:
            break
    _check(curl, answer, failed, limits)
    return answer


async def _transferred(transfer: asyncio.Future[pycurl.Curl], refused: asyncio.Future[None]) -> BaseException | None:
    """What ended a transfer early, if anything did."""
    try:
        await asyncio.wait((transfer, refused), return_when=asyncio.FIRST_COMPLETED)
        if refused.done():
            await asyncio.wait((transfer,), timeout=_SETTLE)
    finally:
        transfer.cancel()
    await asyncio.sleep(0)  # so that the handle is let go
    return None if transfer.cancelled() else transfer.exception()


def _check(curl: pycurl.Curl, answer: _Answer, failed: BaseException | None, limits: Fetch) -> None:
    """Refuse what is neither a whole file nor leads to another place.

    Raises:
        FetchError: with the reason.
    """
    through = curl.getinfo(pycurl.HTTP_CONNECTCODE)
    if through >= 300:
        raise FetchError(f"the proxy of the environment answers status {through}", through in _TRANSIENT)
    if answer.refused.done():
        if answer.status in _REDIRECTS and answer.fields.get("location"):
            return
        passing = answer.status in _TRANSIENT
        raise FetchError(f"status {answer.status}", passing, retry_after(answer.fields) if passing else 0.0)
    if failed is not None:
        raise _translated(curl, answer, failed, limits) from failed
    size = len(answer.body)
    if answer.status == 206 and answer.fields.get("content-range", "").lower() != f"bytes 0-{size - 1}/{size}":
        raise FetchError("status 206: a part, which was not asked for")
    if answer.status not in (200, 203) and not size:
        raise FetchError(f"status {answer.status}")


def retry_after(answer: Mapping[str, str]) -> float:
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


def _parse(address: str, base: ada_url.URL | None = None) -> ada_url.URL:
    """An address as browsers read it (WHATWG URL). Bytes of a Location beyond ASCII are sent back as they came."""
    if base is not None:
        address = re.sub(r"[\x80-\xff]", lambda byte: f"%{ord(byte[0]):02X}", address)
    try:
        url = ada_url.URL(address, base=base.href if base else None)
    except ValueError as exc:
        raise FetchError("its address is not valid") from exc
    if url.protocol not in ("http:", "https:"):
        raise FetchError(f"{'it is redirected to ' if base else ''}a {url.protocol[:-1]} address: not fetched")
    return url


def _translated(curl: pycurl.Curl, answer: _Answer, exc: BaseException, limits: Fetch) -> FetchError:
    """What an error of the transfer means."""
    code, said = exc.args
    if answer.length > limits.max_bytes:
        return FetchError(f"it has {answer.length} bytes, more than {limits.max_bytes}")
    if len(answer.body) > limits.max_bytes:
        return FetchError(f"it has more than {limits.max_bytes} bytes")
    if code == pycurl.E_PEER_FAILED_VERIFICATION:
        return FetchError(f"its certificate is not trusted: {re.sub('^SSL[^:]*: ', '', said)}")
    if code == pycurl.E_URL_MALFORMAT:
        return FetchError("its address is not valid")
    if code == _TOO_LARGE or "Too large response headers" in said:
        return FetchError("its headers are too long")
    if code == pycurl.E_COULDNT_CONNECT and curl.getinfo(pycurl.USED_PROXY):
        return FetchError("the proxy of the environment cannot be connected to", transient=True)
    if code == pycurl.E_PARTIAL_FILE or answer.body:
        return FetchError("it was cut off: the connection ended before the file did", transient=True)
    return FetchError(_TRANSLATED.get(code, "the connection was lost"), transient=True)

"""The socket level of fetching: kept connections, to addresses that were checked only.

A host is resolved here and the connection goes to the very address that was checked, so that a name which answers
differently the second time (DNS rebinding) gains nothing. TLS still verifies the host's name. One thread of the process
runs all transfers; a process that was forked starts one of its own.
"""

from __future__ import annotations

import asyncio
import atexit
import ipaddress
import os
import socket
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import ada_url
import certifi
import pycurl

from curate.schema.errors import FetchError
from curate.schema.recipe import Fetch
from curate.sources.proxies import literal, proxy_of

T = TypeVar("T")

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_KNOWN = 60.0
"""Seconds for which an answer of the resolver is taken, as browsers do where its time to live is not told."""
_HOSTS = 10_000
"""Hosts whose addresses are kept; all are forgotten when there are more."""
_IDLE = 4
"""Open connections of a pool for each request that it makes at once: idle ones beyond are closed, oldest first."""


def is_public(address: str) -> bool:
    """True if an IP address is on the public internet, by IANA's special-purpose registries.

    Loopback, private, link-local, shared (100.64/10), reserved, multicast and unspecified addresses are not; IPv6
    addresses that carry an IPv4 one (mapped, 6to4, Teredo, NAT64) are as that one is.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip.is_site_local:
            return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host, in the resolver's order.

    Raises:
        FetchError: there is none; transient where the resolver says "try again".
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except socket.gaierror as exc:
        raise FetchError("its host has no address", transient=exc.errno == socket.EAI_AGAIN) from exc
    except UnicodeError as exc:
        raise FetchError("its host is not a valid name") from exc
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class Pool:
    """The connections of this process under one set of limits, kept open between requests.

    They are not shared with other limits: what one recipe may reach, another may not. To be used on the loop of `run`.

    Attributes:
        turns: how many requests may be under way at once.
    """

    def __init__(self, limits: Fetch) -> None:
        self.turns = asyncio.Semaphore(limits.concurrency)
        self._allow_private = limits.allow_private
        self._multi = pycurl.AsyncCurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, _IDLE * limits.concurrency)
        self._known: dict[tuple[str, int], tuple[float, list[str]]] = {}

    def start(self, curl: pycurl.Curl) -> asyncio.Future[pycurl.Curl]:
        """Begin a transfer, whose way was set with `route`. A future that is cancelled ends it."""
        transfer: asyncio.Future[pycurl.Curl] = self._multi.add_handle(curl)
        return transfer

    async def close(self) -> None:
        """Close all connections."""
        await self._multi.aclose()

    async def route(self, curl: pycurl.Curl, url: ada_url.URL) -> None:
        """Set where a transfer connects to: to the environment's proxy, or to an address that was checked.

        Behind a proxy, names are resolved by the proxy, and only what the address itself spells out can be refused.

        Raises:
            FetchError: the host has no address, or only such as are refused.
        """
        host, port = url.hostname, int(url.port or (443 if url.protocol == "https:" else 80))
        proxy = proxy_of(url.protocol[:-1], host, port)
        curl.setopt(pycurl.PROXY, proxy or "")  # empty, so that the library does not read the environment itself
        curl.setopt(pycurl.NOPROXY, "")
        curl.setopt(pycurl.OPENSOCKETFUNCTION, _open if proxy or self._allow_private else _open_public)
        if address := literal(host):
            self._allowed([address])
        elif not proxy:
            addresses = self._allowed(await self._addresses(host, port))
            listed = ",".join(f"[{a}]" if ":" in a else a for a in addresses)
            # of several addresses the next is tried when one is silent for 0.2 s (RFC 8305)
            curl.setopt(pycurl.RESOLVE, [f"+{host}:{port}:{listed}"])
        elif not self._allow_private and f".{host.rstrip('.')}".endswith(".localhost"):  # RFC 6761, 6.3
            raise FetchError(f"{host} is not a public address: refused (fetch.allow_private allows it)")

    async def _addresses(self, host: str, port: int) -> list[str]:
        now = time.monotonic()
        until, addresses = self._known.get((host, port), (0.0, []))
        if until < now:
            addresses = await resolve(host, port)
            if len(self._known) >= _HOSTS:
                self._known.clear()
            self._known[host, port] = (now + _KNOWN, addresses)
        return addresses

    def _allowed(self, addresses: list[str]) -> list[str]:
        allowed = [a for a in addresses if self._allow_private or is_public(a)]
        if not allowed:
            # which of several comes first is chance; the smallest is always the same
            raise FetchError(f"{min(addresses)} is not a public address: refused (fetch.allow_private allows it)")
        return allowed


def _open(purpose: int, address: Any) -> socket.socket:
    return socket.socket(address.family, address.socktype, address.protocol)


def _open_public(purpose: int, address: Any) -> socket.socket | int:
    """The second lock: whatever led here, what is connected to is public."""
    return _open(purpose, address) if is_public(address.addr[0]) else pycurl.SOCKET_BAD


class _Process:
    """The loop of this process and its pools."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pools: dict[Fetch, Pool] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="fetch", daemon=True).start()
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # an interrupt of the caller ends its transfers
            raise

    def pool(self, limits: Fetch) -> Pool:
        if limits not in self._pools:
            self._pools[limits] = Pool(limits)
        return self._pools[limits]

    def close(self) -> None:
        if self._loop is not None:
            self.run(self._close())
            self._loop.call_soon_threadsafe(self._loop.stop)

    async def _close(self) -> None:
        for pool in self._pools.values():
            await pool.close()


_process = _Process()
_parents: list[_Process] = []
"""What a forked process has of its parent: never touched, since closing it would end the parent's TLS sessions."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine on the loop of this process, from any thread but that loop's own."""
    return _process.run(work)


def pool(limits: Fetch) -> Pool:
    """This process's pool for these limits. Must be called on the loop of `run`."""
    return _process.pool(limits)


def trust(curl: pycurl.Curl) -> None:
    """Set the certificate authorities: of `SSL_CERT_FILE` and `SSL_CERT_DIR`, else certifi's."""
    file, folder = os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR")
    for option, path in (
        (pycurl.CAINFO, file or certifi.where()),
        (pycurl.PROXY_CAINFO, file or certifi.where()),
        (pycurl.CAPATH, folder),
        (pycurl.PROXY_CAPATH, folder),
    ):
        if path:
            curl.setopt(option, path)


def _after_fork() -> None:
    global _process
    _parents.append(_process)
    _process = _Process()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _process.close())

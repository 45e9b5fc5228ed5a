"""The socket level of fetching: only to addresses that were checked, and every byte counted.

The host is resolved here and the connection goes to the very address that was checked, so that a name which answers
differently the second time (DNS rebinding) gains nothing. TLS still verifies the host's name.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable
from ssl import SSLContext
from typing import Any

import httpcore

from curate.schema.errors import FetchError

_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052
_LONGEST_HEAD = 256 << 10


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet, by IANA's special-purpose registries.

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


class Backend(httpcore.AsyncNetworkBackend):
    """Connects to checked addresses only.

    Args:
        allow_private: allow addresses that are not public.
    """

    def __init__(self, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection to the first address of `host` that answers.

        Raises:
            FetchError: the host has no address, or only such as are refused.
            httpcore.ConnectError, httpcore.ConnectTimeout: no address answers.
        """
        addresses = await resolve(host, port)
        allowed = [a for a in addresses if self._allow_private or is_public(a)]
        if not allowed:
            # which of several comes first is chance; the smallest is always the same
            raise FetchError(f"{min(addresses)} is not a public address: refused (fetch.allow_private allows it)")
        for i, address in enumerate(allowed):
            try:
                stream = await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
                return CountedStream(stream)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if i + 1 == len(allowed):
                    raise
        raise AssertionError("unreachable: the last address returns or raises")

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.AsyncNetworkStream:
        """Refused: no uri means a socket of this machine."""
        raise FetchError("unix sockets are not read")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await self._inner.sleep(seconds)


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


class CountedStream(httpcore.AsyncNetworkStream):
    """A connection that carries one response and knows how many bytes of body came, beyond what its headers admit.

    HTTP clients stop at Content-Length and never see what a server sends after it.
    """

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner
        self._head: bytes | None = b""  # None once the body has begun
        self.body_bytes = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """As the inner stream, counted."""
        data = await self._inner.read(max_bytes, timeout)
        self._count(data)
        return data

    def _count(self, data: bytes) -> None:
        if self._head is None:
            self.body_bytes += len(data)
            return
        self._head += data
        while self._head is not None:
            head, end, rest = self._head.partition(b"\r\n\r\n")
            if not end:
                if len(head) > _LONGEST_HEAD:
                    raise FetchError("its answer does not end its headers")
                return
            # an interim answer (1xx) is followed by another head
            interim = head.partition(b" ")[2][:1] == b"1"
            self._head = rest if interim else None
            if not interim:
                self.body_bytes = len(rest)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """As the inner stream."""
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        """As the inner stream."""
        await self._inner.aclose()

    async def start_tls(
        self, ssl_context: SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        """The encrypted stream, counted after decryption."""
        return CountedStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        """As the inner stream."""
        return self._inner.get_extra_info(info)

"""A real HTTP server whose answers are written byte by byte, so that each can be wrong in its own way."""

from __future__ import annotations

import http.server
import socket
import socketserver
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

BODY = bytes(range(256)) * 40

LOOPBACK = Path(__file__).parent / "loopback.pem"
"""A key and a certificate that it signed itself, of media.example.test and 127.0.0.1, valid until 2125."""


class Faults(http.server.BaseHTTPRequestHandler):
    """Answers by path; keeps what was asked in `seen` as (path, headers)."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, dict[str, str]]]

    def do_GET(self) -> None:
        self.seen.append((self.path, dict(self.headers)))
        self.close_connection = True
        try:
            getattr(self, "answer_" + self.path[1:].partition("?")[0].partition("/")[0])()
        except (BrokenPipeError, ConnectionResetError):
            return

    def raw(self, head: str, body: bytes = b"") -> None:
        self.wfile.write(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)

    def answer_good(self) -> None:
        self.raw(f"HTTP/1.1 200 OK\nContent-Length: {len(BODY)}", BODY)

    def answer_unsized(self) -> None:
        self.raw("HTTP/1.1 200 OK\nConnection: close", BODY)

    def answer_chunked(self) -> None:
        self.raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

    def answer_chunked_cut(self) -> None:
        self.raw("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"5\r\nhello\r\n6\r\n wo")

    def answer_early(self) -> None:
        self.raw("HTTP/1.1 103 Early Hints\nLink: </x>")
        self.answer_good()

    def answer_fewer(self) -> None:
        self.raw(f"HTTP/1.1 200 OK\nContent-Length: {len(BODY) * 2}", BODY)

    def answer_more(self) -> None:
        self.raw(f"HTTP/1.1 200 OK\nContent-Length: {len(BODY) // 2}", BODY)

    def answer_more_later(self) -> None:
        self.raw(f"HTTP/1.1 200 OK\nContent-Length: {len(BODY)}", BODY)
        self.wfile.flush()
        time.sleep(0.05)
        self.wfile.write(b"and on")

    def answer_status(self) -> None:
        self.raw(f"HTTP/1.1 {self.path.rpartition('/')[2]} Said So\nContent-Length: 0")

    def answer_then_good(self) -> None:
        """`/then_good/FAULT/N[/VALUE]`: so many bad answers, then the good one; VALUE is that of a Retry-After."""
        _, _, fault, count, *value = unquote(self.path).split("/", 4)
        if len([path for path, _ in self.seen if path == self.path]) > int(count):
            self.answer_good()
        elif fault.isdigit():
            later = f"\nRetry-After: {value[0]}" if value else ""
            self.raw(f"HTTP/1.1 {fault} Later\nContent-Length: 0{later}")
        else:
            getattr(self, f"answer_{fault}")()

    def answer_reset(self) -> None:
        """The connection is reset in the middle of the body."""
        self.raw(f"HTTP/1.1 200 OK\nContent-Length: {len(BODY)}", BODY[:100])
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def answer_drip(self) -> None:
        self.raw(f"HTTP/1.1 200 OK\nContent-Length: {len(BODY)}")
        for i in range(100):
            self.wfile.write(BODY[i : i + 1])
            time.sleep(0.1)

    def answer_silent(self) -> None:
        time.sleep(3)

    def answer_gzip(self) -> None:
        self.raw("HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 5", b"\x1f\x8babc")

    def answer_nonsense(self) -> None:
        self.wfile.write(b"220 this is another protocol\r\n\r\n")

    def answer_redirect(self) -> None:
        """`/redirect/N/TARGET`: N more redirects, then TARGET."""
        _, _, left, target = self.path.split("/", 3)
        self.raw(f"HTTP/1.1 302 Found\nContent-Length: 0\nLocation: {self._next(int(left), target)}")

    def _next(self, left: int, target: str) -> str:
        if left > 1:
            return f"/redirect/{left - 1}/{target}"
        return target if "://" in target else f"/{target}"

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def fault_server() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    """The base url and what was asked."""
    asked: list[tuple[str, dict[str, str]]] = []
    handler = type("Handler", (Faults,), {"seen": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Wire:
    """What a `wire` server saw.

    Attributes:
        port: where it listens.
        heads: requests, each as it came up to the empty line.
        connections: how many were made.
    """

    port: int = 0
    heads: list[str] = field(default_factory=list)
    connections: int = 0

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def targets(self) -> list[str]:
        return [head.split(" ")[1] for head in self.heads]


def head_of(file: BinaryIO) -> str:
    """A request up to its empty line; nothing at the end."""
    lines = []
    while (line := file.readline()) not in (b"\r\n", b""):
        lines.append(line)
    return b"".join(lines).decode()


@contextmanager
def wire(
    answer: Callable[[str], bytes], keep: bool = False, host: str = "127.0.0.1", port: int = 0, tls: bool = False
) -> Iterator[Wire]:
    """A server that sends the very bytes that `answer` gives for a request's head, and then closes, unless `keep`."""
    seen = Wire()
    tunnel = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tunnel.load_cert_chain(LOOPBACK)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError, ssl.SSLError):
                self.talk(tunnel.wrap_socket(self.request, server_side=True) if tls else self.request)

        def talk(self, connection: socket.socket) -> None:
            seen.connections += 1
            file = connection.makefile("rb")
            while head := head_of(file):
                seen.heads.append(head)
                connection.sendall(answer(head))
                if head.startswith("CONNECT"):  # a proxy: from here on this plays the origin, in TLS
                    return self.talk(tunnel.wrap_socket(connection, server_side=True))
                if not keep:
                    return connection.shutdown(socket.SHUT_WR)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads, block_on_close, allow_reuse_address = True, False, True
        request_queue_size = 64

    with Server((host, port), Handler) as server:
        seen.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        try:
            yield seen
        finally:
            server.shutdown()

"""A TCP proxy that can be cut, shut, and made deaf, to stand between a client and a server."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress


class Proxy:
    """Forwards connections to `port` on loopback. Use as a context manager.

    Attributes:
        address: for the client.
    """

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._shut = self._closed = False
        self._hearing = threading.Event()
        self._hearing.set()
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self.open()
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection there is."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with suppress(OSError):
                    # a reset, not an orderly end
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
                    end.shutdown(socket.SHUT_RDWR)
                with suppress(OSError):
                    end.close()

    def shut(self) -> None:
        """Cut, and reset whoever comes next."""
        self._shut = True
        self.cut()

    def deafen(self) -> None:
        """Take connections and bytes, and pass nothing on: a network that drops packets."""
        self._hearing.clear()

    def open(self) -> None:
        """Be a good proxy again."""
        self._shut = False
        self._hearing.set()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._shut:
                client.close()
                continue
            try:
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                client.close()
                continue
            with self._lock:
                self._pairs.append((client, server))
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with selectors.DefaultSelector() as ready, suppress(OSError, ValueError, KeyError):
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select(timeout=0.2):
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    self._hearing.wait()
                    if not data:
                        client.close()
                        server.close()
                        return
                    key.data.sendall(data)

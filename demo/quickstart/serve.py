"""A web server on loopback for the quickstart: good answers, and the bad ones that the web gives."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

_DRIP_SECONDS = 30.0
_TOO_LARGE = 8_000_000


@dataclass(frozen=True)
class Trouble:
    """An address that answers badly, or in a roundabout way.

    Attributes:
        about: what it does.
        caption: its text in the table; that of the file that it leads to where it leads to one.
        leads_to: the good file that it redirects to, empty otherwise.
    """

    about: str
    caption: str = ""
    leads_to: str = ""


TROUBLES = {
    "missing.jpg": Trouble("status 404", "A picture that is no longer there."),
    "slow.jpg": Trouble("drips for half a minute", "A picture that comes too slowly."),
    "wrong_length.jpg": Trouble("sends half of what its Content-Length promises", "A picture that is cut off."),
    "too_large.jpg": Trouble(f"has {_TOO_LARGE} bytes", "A picture that is too large."),
    "moved.jpg": Trouble("redirects to fall.jpg", leads_to="fall.jpg"),
}


@contextmanager
def serve(folder: Path) -> Iterator[str]:
    """Serve the files of `folder/served` on 127.0.0.1, and TROUBLES beside them; gives the base url, without a slash.

    Only files that lie in the folder now are served, by their names.
    """
    files = {path.name: path for path in sorted((folder / "served").iterdir()) if path.is_file()}
    stopping = threading.Event()

    class Handler(_Handler):
        served = files
        stop = stopping

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    served: dict[str, Path]
    stop: threading.Event

    def do_GET(self) -> None:
        """Answer one request."""
        name = unquote(urlsplit(self.path).path).removeprefix("/")
        try:
            if name == "slow.jpg":
                self._drip()
            elif name == "wrong_length.jpg":
                data = self.served["lake.jpg"].read_bytes()
                self._send(data[: len(data) // 2], len(data))
            elif name == "too_large.jpg":
                self._send(bytes(_TOO_LARGE))
            elif name == "moved.jpg":
                self.send_response(HTTPStatus.FOUND)
                self.send_header("Location", "/" + TROUBLES[name].leads_to)
                self.send_header("Content-Length", "0")
                self.end_headers()
            elif name in self.served:
                self._send(self.served[name].read_bytes())
            else:
                self.send_error(HTTPStatus.NOT_FOUND)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has seen enough

    def _send(self, data: bytes, length: int | None = None) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)

    def _drip(self) -> None:
        data = self.served["lake.jpg"].read_bytes()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        end = time.monotonic() + _DRIP_SECONDS
        for at in range(0, len(data), 1024):
            if self.stop.wait(0.2) or time.monotonic() > end:
                return
            self.wfile.write(data[at : at + 1024])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the run's own output says what came of each."""

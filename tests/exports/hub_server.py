"""As much of the Hugging Face Hub as an upload of small files needs, on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What the server holds.

    Attributes:
        files: of the one data set, by path.
        visibility: what its maker asked for.
        commits: paths that each commit wrote.
        refuse: how many commits are still to be refused.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.visibility = ""
        self.commits: list[list[str]] = []
        self.refuse = 0
        self.url = ""

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        place = path.partition("?")[0]
        if place == "/api/repos/create":
            said = json.loads(body)
            self.visibility = said["visibility"]
            return 200, {"url": f"{self.url}/datasets/{said.get('organization', 'me')}/{said['name']}"}
        if "/preupload/" in place:
            asked = [one["path"] for one in json.loads(body)["files"]]
            files = [{"path": p, "uploadMode": "regular", "shouldIgnore": False, "oid": self._oid(p)} for p in asked]
            return 200, {"files": files}
        if "/commit/" in place:
            if self.refuse:
                self.refuse -= 1
                return 403, {"error": "no room left"}
            lines = [json.loads(line) for line in body.splitlines()]
            added = {one["value"]["path"]: one["value"]["content"] for one in lines if one["key"] == "file"}
            self.files |= {name: base64.b64decode(content) for name, content in added.items()}
            self.commits.append(sorted(added))
            return 200, {"success": True, "commitOid": "0" * 40, "commitUrl": f"{self.url}/datasets/me/tokens/commit/0"}
        return 200, {"id": "me/tokens", "sha": "0" * 40, "siblings": []}

    def _oid(self, path: str) -> str | None:
        """Git's number of a blob."""
        data = self.files.get(path)
        return None if data is None else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def running_hub() -> Iterator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _answered(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, said = hub.answer(self.path, body)
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _answered

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()

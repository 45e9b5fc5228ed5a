"""How fast many small files are fetched, beside plain `http.client` connections that are kept open.

    python benchmarks/fetch.py [--files 2000] [--bytes 10000] [--concurrency 8]

A server in a process of its own sends the same bytes for every path. Ours is `fetch_all` in batches of `concurrency`,
as ingest calls it; bare are as many threads, each with one connection and no limits, guards, redirects or retries.
"""

from __future__ import annotations

import argparse
import http.client
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection

from curate.schema.recipe import Fetch
from curate.sources.fetch import Request, fetch_all


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    body = b""
    opened = 0

    def setup(self) -> None:
        super().setup()
        Handler.opened += 1

    def do_GET(self) -> None:
        body = b"%d" % Handler.opened if self.path == "/opened" else self.body
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.wfile.write(head + body)

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""


def serve(size: int, port: Connection) -> None:
    Handler.body = bytes(size)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    port.send(server.server_port)
    server.serve_forever()


def timed(work: Callable[[], None], port: int) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds of this process, connections opened."""

    def opened() -> int:
        link = http.client.HTTPConnection("127.0.0.1", port)
        link.request("GET", "/opened", headers={"Connection": "close"})
        return int(link.getresponse().read())

    before, wall, cpu = opened(), time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu, opened() - before - 1


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--files", type=int, default=2000)
    options.add_argument("--bytes", type=int, default=10_000)
    options.add_argument("--concurrency", type=int, default=8)
    args = options.parse_args()
    ours_end, its_end = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(args.bytes, its_end), daemon=True)
    server.start()
    port = ours_end.recv()
    limits = Fetch(allow_private=True, concurrency=args.concurrency)

    def ours() -> None:
        for start in range(0, args.files, args.concurrency):
            some = range(start, min(start + args.concurrency, args.files))
            got = fetch_all([Request(f"http://127.0.0.1:{port}/{i}.jpg", limits) for i in some])
            assert all(isinstance(body, bytes) and len(body) == args.bytes for body in got)

    def bare() -> None:
        def some(first: int) -> None:
            link = http.client.HTTPConnection("127.0.0.1", port)
            for i in range(first, args.files, args.concurrency):
                link.request("GET", f"/{i}.jpg")
                assert len(link.getresponse().read()) == args.bytes

        with ThreadPoolExecutor(args.concurrency) as pool:
            list(pool.map(some, range(args.concurrency)))

    best: dict[str, tuple[float, float, int]] = {}
    for _ in range(3):
        for name, work in (("bare", bare), ("ours", ours)):
            best[name] = min(best.get(name, (1e9, 0, 0)), timed(work, port))
    for name, (wall, cpu, opened) in best.items():
        print(f"{name}: {args.files / wall:.0f} files/s, {cpu:.2f} CPU s, {opened} connections opened")
    print(f"ratio of files/s, ours to bare: {best['bare'][0] / best['ours'][0]:.2f}")
    server.terminate()


if __name__ == "__main__":
    main()

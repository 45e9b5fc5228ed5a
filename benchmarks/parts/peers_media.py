"""Media that `peers.py` gives to all alike, and a web server for them on loopback."""

from __future__ import annotations

import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_VERSION = 1
_SEED = 9
COPIES = 50
"""Every so many pictures one is an earlier one, encoded again at another quality."""


def texture(number: int, height: int, width: int) -> NDArray[np.uint8]:
    """Coloured noise of three sizes: as smooth and as detailed as a photograph; uint8 `(height, width, 3)`."""
    import cv2

    rng = np.random.default_rng([_SEED, number])
    out = np.full((height, width, 3), 128, np.float32)
    for cells, strength in ((3, 90.0), (12, 45.0), (96, 9.0)):
        coarse = rng.standard_normal((cells, cells * 4 // 3, 3)).astype(np.float32)
        out += strength * cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(out, 0, 255).astype(np.uint8)


def is_copy(i: int) -> bool:
    return i % COPIES == COPIES - 1


def _jpeg(folder: Path, i: int) -> None:
    from PIL import Image

    shown, quality = (i - COPIES // 2, 84) if is_copy(i) else (i, 88)
    Image.fromarray(texture(shown, 384, 512)).save(folder / f"{i:06d}.jpg", quality=quality)
    (folder / f"{i:06d}.txt").write_text(f"a picture of coloured clouds, number {i}")


def make_pictures(cache: Path, count: int) -> Path:
    """A folder of `count` JPEGs of 512 x 384, each with a caption."""
    return _made(cache / f"peers-{_VERSION}" / f"jpegs-{count}", _jpeg, count)


def _clip(folder: Path, i: int) -> None:
    """Five seconds of 640 x 360 at 25 frames a second: two shots, in each a slow pan."""
    import av

    fps, seconds, height, width = 25, 5, 360, 640
    with av.open(str(folder / f"{i:06d}.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        half = fps * seconds // 2
        for n in range(fps * seconds):
            if n in (0, half):
                wide = texture(10_000_000 + 2 * i + (n > 0), height + 80, width + 300)
            at = n if n < half else n - half
            shown = wide[at // 2 : at // 2 + height, 4 * at : 4 * at + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shown), format="rgb24")
            frame.pts, frame.time_base = n, Fraction(1, fps)
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    (folder / f"{i:06d}.txt").write_text(f"a clip of drifting clouds, number {i}")


def make_clips(cache: Path, count: int) -> Path:
    """A folder of `count` clips, each with a caption."""
    return _made(cache / f"peers-{_VERSION}" / f"clips-{count}", _clip, count)


def _made(folder: Path, make: Callable[[Path, int], None], count: int) -> Path:
    """The folder, made by `make(folder, i)` where it is not there; it gets its name when it is whole."""
    if not folder.exists():
        print(f"making {count:,} files in {folder}", file=sys.stderr, flush=True)
        unfinished = folder.with_name(f"{folder.name}.{os.getpid()}")
        unfinished.mkdir(parents=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(functools.partial(make, unfinished), range(count), chunksize=8))
        unfinished.rename(folder)
    return folder


def sample_list(folder: Path, key: str, mark: str) -> str:
    """What data-juicer reads: a line of JSON a file, with its caption."""
    lines = []
    for path in sorted(p for p in folder.iterdir() if p.suffix != ".txt"):
        text = path.with_suffix(".txt").read_text()
        lines.append(json.dumps({"text": f"{mark} {text} <|__dj__eoc|>", key: [str(path)]}))
    return "\n".join(lines) + "\n"


NGINX = """\
daemon off;
%(user)s
worker_processes 1;
pid %(work)s/pid;
error_log %(work)s/errors;
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  types { image/jpeg jpg; }
  client_body_temp_path %(work)s/1; proxy_temp_path %(work)s/2; fastcgi_temp_path %(work)s/3;
  uwsgi_temp_path %(work)s/4; scgi_temp_path %(work)s/5;
  server { listen 127.0.0.1:%(port)d backlog=1024; root %(folder)s; }
}
"""


@contextmanager
def served(folder: Path, work: Path) -> Iterator[tuple[str, str]]:
    """The folder over http on loopback, by nginx where there is one; its address, and what serves it."""
    work.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx:
        user = "user root;" if os.geteuid() == 0 else ""
        config = work / "nginx.conf"
        config.write_text(NGINX % {"user": user, "work": work, "port": port, "folder": folder})
        command = [nginx, "-p", str(work), "-e", str(work / "errors"), "-c", str(config)]
    else:
        command = [sys.executable, __file__, str(folder), str(port)]
    server = subprocess.Popen(command)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None:
                raise SystemExit(f"the web server ended with {server.returncode}: {' '.join(command)}")
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}", "nginx" if nginx else "a Python server"
    finally:
        server.terminate()
        server.wait()


class _Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def copyfile(self, source: Any, outputfile: Any) -> None:
        self.wfile.flush()
        self.connection.sendfile(source)

    def log_message(self, *args: object) -> None:
        """Nothing is logged."""


def _serve(folder: str, port: int) -> None:
    ThreadingHTTPServer.request_queue_size = 1024
    handler = functools.partial(_Handler, directory=folder)
    ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))

"""Media for a middle-sized run: thousands of small images, clips and sounds of known truth, made in seconds."""

from __future__ import annotations

import csv
import functools
import http.server
import io
import subprocess
import tarfile
import threading
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imageio_ffmpeg
import numpy as np
from PIL import Image

TAR_IMAGES = 1000
"""Images of one tar."""


@dataclass(frozen=True)
class Truth:
    """What was put in on purpose."""

    records: int
    broken: int
    exact: int
    near: int


def image(seed: int, quality: int = 85) -> bytes:
    """A JPEG of 96 x 96 px whose 8 x 8 random colours no other seed comes near to."""
    colours = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(colours).resize((96, 96), Image.Resampling.BICUBIC).save(out, "JPEG", quality=quality)
    return out.getvalue()


def images(count: int) -> Iterator[tuple[str, bytes]]:
    """Names and bytes; in each hundred one exact copy, one near copy and one broken file."""
    for i in range(count):
        match i % 100:
            case 97:
                data = image(i - 1)
            case 98:
                data = image(i - 3, quality=60)
            case 99:
                data = image(i)[:300]
            case _:
                data = image(i)
        yield f"{i:06d}", data


def make_tars(folder: Path, count: int) -> Truth:
    """WebDataset tars of images, each with a caption beside it."""
    folder.mkdir(parents=True)
    tar: tarfile.TarFile | None = None
    for i, (key, data) in enumerate(images(count)):
        if i % TAR_IMAGES == 0:
            if tar is not None:
                tar.close()
            tar = tarfile.open(folder / f"images-{i // TAR_IMAGES:03d}.tar", "w")  # noqa: SIM115 - closed in turn
        assert tar is not None
        for name, content in ((f"{key}.jpg", data), (f"{key}.txt", f"coloured squares, number {i}".encode())):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert tar is not None
    tar.close()
    return Truth(count, count // 100, count // 100, count // 100)


def make_folder(folder: Path, clips: int, recordings: int) -> Truth:
    """Clips of 2 s with sound, at 160 x 120, and sounds of 2 s; the last clip is cut off, the last sound is a copy."""
    folder.mkdir(parents=True)
    still = folder.parent / "still.jpg"
    for i in range(clips):
        tone = f"sine=f={200 + 20 * i}:r=16000"
        sources = ["-loop", "1", "-framerate", "10", "-i", still, "-f", "lavfi", "-i", tone, "-t", "2"]
        codecs = ["-vf", "scale=160:120,hue=h=10*t", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"]
        made = folder / f"clip-{i:03d}.mp4"
        still.write_bytes(image(2_000_000 + i))
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *sources, *codecs, "-c:a", "aac", made]
        subprocess.run(command, check=True)
    whole = made.read_bytes()
    made.write_bytes(whole[: len(whole) // 2])
    for i in range(recordings):
        heard = np.random.default_rng(i).normal(0, 3000, 32000).astype("<i2")
        with wave.open(str(folder / f"sound-{i:03d}.wav"), "wb") as file:
            file.setparams((1, 2, 16000, len(heard), "NONE", ""))
            file.writeframes(
                (
                    heard if i < recordings - 1 else np.random.default_rng(0).normal(0, 3000, 32000).astype("<i2")
                ).tobytes()
            )
    return Truth(clips + recordings, 1, 1, 0)


def make_table(folder: Path, count: int) -> Truth:
    """A CSV of urls relative to a web server over the same folder; the last one is missing there."""
    folder.mkdir(parents=True)
    with (folder / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "text"])
        for i in range(count):
            if i < count - 1:
                (folder / f"web-{i:03d}.jpg").write_bytes(image(1_000_000 + i))
            rows.writerow([f"web-{i:03d}.jpg", f"from the web, number {i}"])
    return Truth(count, 1, 0, 0)


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A web server on loopback over a folder; its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *said: Any) -> None:
            """Nothing: pytest shows what a failing test needs."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()

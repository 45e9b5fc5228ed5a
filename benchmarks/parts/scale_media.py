"""Tars of tiny captioned images with planted duplicates and broken files, whose truth is known.

Record number g is the same in every set: its role follows from g, its pixels from the tar it lies in, and copies are of
earlier records. So sets of all sizes share their tars.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PER_TAR = 1024
_VERSION = 1
_SEED = 16
_CELLS = 8
_WORDS = (
    *("red", "small", "old", "quiet", "bright", "river", "stone", "garden"),
    *("window", "boat", "field", "horse", "lamp", "paper", "tower", "bridge"),
)
Role = str
"""`plain`, `exact` (the bytes of an earlier one), `near` (an earlier one, changed a little), `dark` (mean below 12,
which the rule drops) or `broken`."""


def role_of(g: int) -> Role:
    """1 % exact and 1 % near copies, 2 % dark, 0.5 % broken."""
    if g % 200 == 0:
        return "broken"
    return {25: "near", 50: "exact", 10: "dark", 60: "dark"}.get(g % 100, "plain")


@dataclass(frozen=True)
class Truth:
    """Records of each role among the first `total`."""

    total: int
    exact: int
    near: int
    dark: int
    broken: int

    @classmethod
    def of(cls, total: int) -> Truth:
        def count(at: int, every: int) -> int:
            return max(0, (total - at + every - 1) // every)

        return cls(total, count(50, 100), count(25, 100), count(10, 100) + count(60, 100), count(0, 200))

    def problems(self, records: dict[str, int], samples: dict[str, int]) -> list[str]:
        """What a run's counts say that is not so. A broken file may fail as a record or as its sample; of the near
        copies 99.9 % are to be found."""
        found = []
        lost = records.get("failed", 0)

        def check(what: str, want: int, got: int) -> None:
            if want != got:
                found.append(f"{what}: {got:,}, planted {want:,}")

        check("records", self.total, records["total"])
        check("exact duplicates", self.exact, records.get("duplicate", 0))
        check("records dropped", 0, records.get("dropped", 0))
        check("broken", self.broken, lost + samples.get("failed", 0))
        check("samples", self.total - self.exact - lost, samples["total"])
        check("dark", self.dark, samples.get("dropped", 0))
        near = samples.get("duplicate", 0)
        if not 0.999 * self.near <= near <= self.near:
            check("near duplicates", self.near, near)
        check("kept", self.total - self.exact - self.broken - self.dark - near, samples.get("kept", 0))
        return found


def original_of(g: int) -> int:
    """The plain record that g is a copy of: an earlier one, drawn from g."""
    found = int(np.random.default_rng([_SEED, 1, g]).integers(g))
    while role_of(found) != "plain":
        found = found - 1 if found else 1
    return found


@lru_cache(maxsize=2)
def _noise() -> NDArray[np.uint8]:
    return np.random.default_rng([_SEED, 2]).integers(0, 4, 1 << 20, np.uint8)


@lru_cache(maxsize=64)
def _tar_values(tar: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Colours `(PER_TAR, 8, 8, 3)` from 40 to 251, and sides of 32 to 64 pixels."""
    rng = np.random.default_rng([_SEED, 3, tar])
    colours = rng.integers(40, 252, (PER_TAR, _CELLS, _CELLS, 3), np.uint8)
    return colours, rng.integers(4, 9, PER_TAR) * _CELLS


def image(g: int) -> NDArray[np.uint8]:
    """Pixels of a record that is not broken: uint8 `(side, side, 3)`, side 32, 40, ... 64."""
    role = role_of(g)
    shown = original_of(g) if role in ("exact", "near") else g
    colours, sides = _tar_values(shown // PER_TAR)
    cells, side = colours[shown % PER_TAR], int(sides[shown % PER_TAR])
    if role == "dark":
        cells = cells // 32
    elif role == "near":
        cells = cells + np.uint8(1)
    grain = g if role == "near" else shown
    start = grain * 7919 % ((1 << 20) - side * side * 3)
    times = side // _CELLS
    noise = _noise()[start : start + side * side * 3].reshape(side, side, 3)
    return np.asarray(np.minimum(cells, 252).repeat(times, 0).repeat(times, 1) + noise, np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG of uint8 `(height, width, 3)`: no filter, fast compression."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows.data, 1)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(d, zlib.crc32(n))) for n, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def file_of(g: int) -> bytes:
    """The bytes of record g."""
    if role_of(g) != "broken":
        return png(image(g))
    whole = png(image(g + 1))
    return (whole[: len(whole) // 2], b"", b"<html>not found: %d</html>" % g)[g // 200 % 3]


def caption_of(g: int) -> str:
    """A caption of its own."""
    first, second, third = (_WORDS[g // 16**i % 16] for i in range(3))
    return f"a {first} {second} by the {third}, number {g}"


def _member(name: str, data: bytes) -> bytes:
    """A file of a tar (ustar): header, data, zeros up to 512 bytes."""
    head = bytearray(512)
    head[0 : len(name)] = name.encode()
    head[100:148] = b"0000644\0" + b"0000000\0" * 2 + b"%011o\0" % len(data) + b"00000000000\0"
    head[148:157] = b"        0"
    head[257:265] = b"ustar\x0000"
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head) + data + bytes(-len(data) % 512)


def write_tar(path: Path, tar: int, count: int) -> None:
    """The first `count` records of tar number `tar`; nothing where the file is there."""
    if path.exists():
        return
    unfinished = path.with_suffix(f".{os.getpid()}")
    with unfinished.open("wb", buffering=1 << 20) as file:
        for g in range(tar * PER_TAR, tar * PER_TAR + count):
            file.write(_member(f"{g:09d}.png", file_of(g)))
            file.write(_member(f"{g:09d}.txt", caption_of(g).encode()))
        file.write(bytes(10240))
    unfinished.replace(path)


def make_set(cache: Path, total: int, say: Callable[[str], None] = print) -> Path:
    """A folder of the tars of the first `total` records, made where they are not in the cache."""
    store = cache / f"scale-{_VERSION}"
    folder = store / f"first-{total}"
    folder.mkdir(parents=True, exist_ok=True)
    tars = [(t, min(PER_TAR, total - t * PER_TAR)) for t in range(-(-total // PER_TAR))]
    paths = [store / f"{t:06d}-{count:04d}.tar" for t, count in tars]
    missing = [(path, t, count) for path, (t, count) in zip(paths, tars, strict=True) if not path.exists()]
    if missing:
        say(f"making {len(missing):,} tars of {total:,} images in {store}")
        with ProcessPoolExecutor() as pool:
            for done in [pool.submit(write_tar, *one) for one in missing]:
                done.result()
    for path in paths:
        (folder / path.name).unlink(missing_ok=True)
        (folder / path.name).hardlink_to(path)
    return folder

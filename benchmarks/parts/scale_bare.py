"""The bare loop of `scale.py`: what a script without Ray, limits, resume or ledger would do with the same libraries.

`python scale_bare.py TARS OUT WORKERS`. In plain processes, a tar each: read, hash, decode (once), signals, embedding,
ids of text and grid, a Parquet file and an Arrow file. Exact duplicates are found by a dict of all hashes. Near
duplicates are not looked for. Prints counts as JSON.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3
from colour_grid import SIDE, ColourGrid
from PIL import Image

from curate.media.requests import DecodeRequest, Frames
from curate.signals.base import Batch, Signal
from curate.signals.brightness import Brightness
from curate.signals.tiny_image import VIEW as SMALL
from curate.signals.tiny_image import TinyImage
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer

MIN_BRIGHTNESS = 20
_AT_ONCE = 64
_VIEW = Frames(size=224)


@cache
def _tools() -> tuple[Signal, Signal, Tokenizer, Tokenizer]:
    return Brightness(), TinyImage(), ColourGrid(), zoo.load("text-bpe-8k")


def _view(
    picture: Image.Image, size: int, how: Image.Resampling = Image.Resampling.LANCZOS
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((size, size), how, box, 3.0))[None]


def _columns(some: list[tuple[str, str, str, Image.Image]]) -> dict[str, list[Any]]:
    brightness, tiny, grid, text = _tools()
    pictures = [picture for *_, picture in some]
    captions = [caption for _, _, caption, _ in some]
    views: dict[DecodeRequest, Any] = {
        _VIEW: [_view(p, _VIEW.size) for p in pictures],
        SMALL: [_view(p, SMALL.size, Image.Resampling.BOX) for p in pictures],
    }
    batch = Batch([d for d, *_ in some], ["image"] * len(some), list(captions), views)
    light: list[Any] = brightness(batch)
    vectors: list[Any] = tiny(batch)
    return {
        "digest": [d for d, *_ in some],
        "key": [k for _, k, *_ in some],
        "text": captions,
        "brightness": [row["brightness"] for row in light],
        "contrast": [row["contrast"] for row in light],
        "tiny_image": [row["tiny_image"] for row in vectors],
        "tok_grid": [ids.ravel() for ids in grid.encode([_view(p, SIDE) for p in pictures])],
        "caption": text.encode(captions),
    }


def one_tar(path: Path, out: Path) -> tuple[int, list[str], list[float]]:
    """How many are broken; hashes and brightness of the others."""
    members: dict[str, dict[str, bytes]] = {}
    with tarfile.open(path) as tar:
        for info in tar:
            key, _, ending = info.name.partition(".")
            file = tar.extractfile(info)
            members.setdefault(key, {})[ending] = file.read() if file else b""
    good, broken = [], 0
    for key, parts in members.items():
        digest = blake3(parts["png"]).hexdigest()
        try:
            picture = Image.open(io.BytesIO(parts["png"])).convert("RGB")
        except (OSError, SyntaxError):
            broken += 1
            continue
        good.append((digest, key, parts["txt"].decode(), picture))
    columns: dict[str, list[Any]] = {}
    for start in range(0, len(good), _AT_ONCE):
        for name, values in _columns(good[start : start + _AT_ONCE]).items():
            columns.setdefault(name, []).extend(values)
    signals = pa.table({n: columns[n] for n in ("digest", "key", "text", "brightness", "contrast", "tiny_image")})
    pq.write_table(signals, out / f"{path.stem}.parquet")
    tokens = pa.table({n: columns[n] for n in ("digest", "tok_grid", "caption")})
    with pa.ipc.new_file(out / f"{path.stem}.arrow", tokens.schema) as file:
        file.write_table(tokens)
    return broken, columns["digest"], columns["brightness"]


def main(tars: Path, out: Path, workers: int) -> None:
    out.mkdir(parents=True)
    counts: Counter[str] = Counter()
    seen: dict[str, str] = {}
    paths = sorted(tars.glob("*.tar"))
    with ProcessPoolExecutor(workers) as pool:
        found = pool.map(one_tar, paths, [out] * len(paths))
        for path, (broken, digests, brightness) in zip(paths, found, strict=True):
            counts["broken"] += broken
            for digest, value in zip(digests, brightness, strict=True):
                if digest in seen:
                    counts["exact"] += 1
                else:
                    seen[digest] = path.name
                    counts["dark"] += value < MIN_BRIGHTNESS
    print(json.dumps({"bare": dict(counts)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

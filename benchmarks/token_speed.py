"""How much of a tokenizer's bare forward pass is left when media are decoded and ids are checked.

Bare: the encoder and its quantiser, `--batch` at a time, one thread, nothing else at work; of pictures and sounds on
tensors that are ready, of clips our own `ids_of` on uint8 frames, one by one. `best bare` is the fastest of BATCHES.
Ours: the same media as encoded files (JPEG, MPEG-4 video, FLAC), decoded by the helper process ahead of the tokenizer's
own helper process, as a worker does it, ids checked and copied back. The ratio is ours by bare, items by second; 1.00
means that decoding and transport hide behind the model. Rounds alternate, and the best of each is taken.

    python benchmarks/tokenize.py --items 192 --batch 16
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import av
import numpy as np
import soundfile
import torch
from PIL import Image

from curate.media import guarded
from curate.media.requests import DecodeRequest
from curate.pipeline.models import models
from curate.shards.schema import StreamSpec
from curate.tokenizers import zoo
from curate.tokenizers.codecs.audio_rvq import mdct
from curate.tokenizers.quantisers.beam import residual_search
from curate.tokenizers.views import items_of, view_of

ROUNDS = 3
BATCHES = (1, 4, 16)
"""Sizes that bare is also measured at: on one thread of a CPU the largest need not be the fastest."""


def pictures(count: int) -> list[bytes]:
    """JPEGs of crops of scikit-image's photographs, 320 pixels wide."""
    from skimage import data

    sources = [Image.fromarray(f()).convert("RGB") for f in (data.astronaut, data.chelsea, data.coffee, data.rocket)]
    rng = np.random.default_rng(0)
    out = []
    for i in range(count):
        picture = sources[i % len(sources)]
        left, top = (int(rng.integers(0, max(1, n - 300))) for n in picture.size)
        held = io.BytesIO()
        picture.crop((left, top, left + 300, top + 300)).resize((320, 320)).save(held, "JPEG", quality=90)
        out.append(held.getvalue())
    return out


def clips(count: int) -> list[bytes]:
    """Pans over the same photographs: 17 frames of 320 x 256 at 8 frames a second."""
    from skimage import data

    source = data.astronaut()
    out = []
    for i in range(count):
        held = io.BytesIO()
        with av.open(held, "w", format="mp4") as container:
            track = container.add_stream("mpeg4", rate=8)
            track.width, track.height, track.pix_fmt = 320, 256, "yuv420p"
            for t in range(17):
                top = i % 100
                frame = av.VideoFrame.from_ndarray(source[top : top + 256, 4 * t : 4 * t + 320], format="rgb24")
                container.mux(track.encode(frame))
            container.mux(track.encode())
        out.append(held.getvalue())
    return out


def sounds(count: int, rate: int) -> list[bytes]:
    """Four seconds of chirps in noise."""
    time_axis = np.arange(4 * rate) / rate
    out = []
    for i in range(count):
        rng = np.random.default_rng(i)
        wave = 0.4 * np.sin(2 * np.pi * (200 + 10 * i + 150 * time_axis) * time_axis) + rng.normal(
            0, 0.02, len(time_axis)
        )
        held = io.BytesIO()
        soundfile.write(held, wave.astype(np.float32), rate, format="FLAC")
        out.append(held.getvalue())
    return out


def bare_forward(tokenizer: Any) -> Callable[[Sequence[Any]], None]:
    """Encoder and quantiser of a batch of items that are tensors already."""
    net = tokenizer.net if hasattr(tokenizer, "net") else None
    match tokenizer.card.modality:
        case "image":
            return lambda batch: net.quantise(net.latent(torch.cat(list(batch))))
        case "video":
            return lambda batch: [tokenizer.ids_of(clip) for clip in batch]
        case _:

            def sound(batch: Sequence[torch.Tensor]) -> None:
                for one in batch:  # all at once is slower: the search among codes leaves the cache
                    residual_search(tokenizer._encoder(one)[0], tokenizer._codebooks, tokenizer.beam)

            return sound


def ready(tokenizer: Any, items: Sequence[Any]) -> list[Any]:
    """Items as the net takes them."""
    match tokenizer.card.modality:
        case "image":
            return [torch.from_numpy(np.array(i)).permute(0, 3, 1, 2).float() / 127.5 - 1 for i in items]
        case "video":
            return list(items)  # its first step, to floats, is part of each of its steps in time
        case _:
            return [mdct(torch.from_numpy(i)[None], tokenizer.config.hop) for i in items]


def batches(given: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for i in range(0, len(given), size):
        yield given[i : i + size]


def ours(name: str, card: Any, files: Sequence[bytes], kind: str, view: DecodeRequest, size: int) -> int:
    """Files to checked ids; how many ids."""
    spec = StreamSpec.of("it", card)

    def decoded(part: Sequence[bytes]) -> list[Any]:
        arrays = [guarded.decode(data, kind, [view]).views.get(view) for data in part]
        return items_of(card, arrays)

    count = 0
    with ThreadPoolExecutor(1) as thread:
        waiting = [thread.submit(decoded, part) for part in batches(files, size)]
        for done in waiting:
            for ids in models().encode(name, "bench", done.result()):
                assert isinstance(ids, np.ndarray), ids
                count += spec.check(ids).size
    return count


def measure(name: str, files: Sequence[bytes], kind: str, size: int) -> tuple[float, dict[int, float]]:
    """Items a second: ours at `size`; bare at `size` and at each of BATCHES."""
    torch.set_num_threads(1)
    tokenizer = zoo.load(name)
    card = tokenizer.card
    view = view_of(card)
    assert view is not None
    arrays = [guarded.decode(data, kind, [view]).views[view] for data in files]
    tensors = ready(tokenizer, items_of(card, arrays))
    forward = bare_forward(tokenizer)
    models().load_tokenizer(name, card)
    ours(name, card, files[:size], kind, view, size)
    bare = dict.fromkeys(sorted({size, *BATCHES}), 0.0)
    mine = 0.0
    for _ in range(ROUNDS):
        for at_once in bare:
            started = time.perf_counter()
            with torch.inference_mode():
                for part in batches(tensors, at_once):
                    forward(part)
            bare[at_once] = max(bare[at_once], len(files) / (time.perf_counter() - started))
        started = time.perf_counter()
        ours(name, card, files, kind, view, size)
        mine = max(mine, len(files) / (time.perf_counter() - started))
    return mine, bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--items", type=int, default=192, help="pictures; an eighth as many clips, a half as many sounds"
    )
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, torch {torch.__version__}, one thread, batch {args.batch}")
    print(
        f"{'tokenizer':20} {'items':>6} {'bare/s':>8} {'ours/s':>8} {'ratio':>6} "
        f"{'best bare/s':>12} {'its batch':>9} {'ratio':>6}"
    )
    work = [
        ("image-fsq-64k", pictures(args.items), "image"),
        ("video-fsq-64k", clips(max(args.batch, args.items // 8)), "video"),
        ("audio-rvq-4kbps", sounds(args.items // 2, 16000), "audio"),
    ]
    for name, files, kind in work:
        mine, every = measure(name, files, kind, args.batch)
        bare = every[args.batch]
        at_once = max(every, key=lambda size: every[size])
        print(
            f"{name:20} {len(files):6} {bare:8.2f} {mine:8.2f} {mine / bare:6.2f} "
            f"{every[at_once]:12.2f} {at_once:9} {mine / every[at_once]:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()

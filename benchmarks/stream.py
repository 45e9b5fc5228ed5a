"""Streaming beside a raw memory-mapped read of the same shards, in the same run.

    python benchmarks/stream.py                     # 50,000 synthetic samples in a temporary folder
    python benchmarks/stream.py --build build/quickstart

The synthetic samples are those of a picture with sound and caption: 196 ids of 16,384, 256 audio frames of one id of
1,024, and 20 to 60 text ids of 50,257. What is compared is said in `curate.shards.bench`: shuffled batches with
`RawView`, and raw reads of the same files, shuffled by rows and from start to end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np

from curate.schema.codec import CodecCard
from curate.schema.ids import content_id
from curate.schema.manifest import MANIFEST, Counts, Manifest
from curate.shards.bench import bench
from curate.shards.commit import write_manifest
from curate.shards.masked import MaskedView
from curate.shards.order import final_order
from curate.shards.pack import splits_of, stream_entries, write_shard
from curate.shards.pieces import Tokens, index_pieces, write_piece
from curate.shards.schema import StreamSpec
from curate.shards.stream import stream
from curate.storage import Folder

PIECE = 4096


def card(name: str, modality: str, vocabulary: int, grid: tuple[int, int] | None = None) -> CodecCard:
    """A codec card of ids that were drawn, not encoded."""
    return CodecCard.model_validate(
        {
            "name": name,
            "modality": modality,
            "stream": name,
            "quantiser": {"image": "fsq", "audio": "rvq", "text": "bpe"}[modality],
            "index_order": "drawn at random",
            "vocabulary": vocabulary,
            "dtype": "uint16",
            "grid": grid,
            "input": "none",
            "weights_digest": "0" * 64,
            "trained_on": "nothing",
            "licence": "Apache-2.0",
            "special_tokens": {f"[S_{i}]": i for i in range(32)} if modality == "text" else {},
        }
    )


def synthesise(build: Path, samples: int) -> None:
    """A build of random ids, written by the functions of the pipeline."""
    store = Folder(build)
    cards = [
        card("tok_rgb", "image", 16384, (14, 14)),
        card("tok_audio", "audio", 1024),
        card("caption", "text", 50257),
    ]
    streams = [StreamSpec.of(c.name, c) for c in cards]
    rng = np.random.default_rng(0)
    pieces = []
    for start in range(0, samples, PIECE):
        rows = []
        for i in range(start, min(start + PIECE, samples)):
            ids = {
                "tok_rgb": rng.integers(0, 16384, (1, 14, 14)),
                "tok_audio": rng.integers(0, 1024, (256, 1)),
                "caption": rng.integers(32, 50257, rng.integers(20, 61)),
            }
            name = content_id(str(i).encode())
            rows.append(Tokens(name, name, "video", 0, 5_120_000, ids))
        pieces.append(f"pieces/piece-{start:08d}.arrow")
        write_piece(store, pieces[-1], streams, rows)
    places = index_pieces(store, pieces)
    plans = final_order([(s, s) for s in places], seed=0, splits={"train": 1.0}, shard_samples=10240)
    files = [write_shard(plan, places, store) for plan in plans]
    store.remove(pieces)
    nothing = Counts(records={}, samples={})
    manifest = Manifest(
        name="synthetic",
        recipe={},
        seed=0,
        counts=nothing,
        splits=splits_of(["train"], plans),
        streams=stream_entries(store, plans, streams, {c.name: (c.name, c.modality) for c in cards}),
        signals=[],
        codecs={c.name: c for c in cards},
        versions={},
        hardware="",
        files=files,
    )
    with store.held(MANIFEST) as hold:
        write_manifest(hold, manifest)


def masked_rate(build: Path) -> float:
    """Samples per second of `MaskedView(256, 256)`, one process."""
    tokens = stream(build, view=MaskedView(256, 256), batch=256)
    begun, seen = perf_counter(), 0
    for batch in tokens:
        seen += len(batch["sample_id"])
        if perf_counter() - begun > 3:
            break
    return seen / (perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, help="a finished build, instead of synthetic samples")
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=256)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        build = args.build or Path(folder) / "build"
        if args.build is None:
            synthesise(build, args.samples)
        figures = bench(build, args.seconds, batch=args.batch)
        figures["masked_view_samples_per_s"] = masked_rate(build)
    print(json.dumps({k: round(v, 4) for k, v in figures.items()}, indent=1))


if __name__ == "__main__":
    main()

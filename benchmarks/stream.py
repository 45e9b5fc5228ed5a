"""Streaming beside a raw memory-mapped read of the same shards, in the same run.

    python benchmarks/stream.py                     # 50,000 synthetic samples in a temporary folder
    python benchmarks/stream.py --build build/quickstart

The synthetic samples are those of a picture with sound and caption: 196 ids of 16,384, 256 audio frames of one id of
1,024, and 20 to 60 text ids of 50,257. What is compared is said in `curate.cli.stream_speed`: shuffled batches with
`RawView`, and raw reads of the same files, shuffled by rows and from start to end.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa

from curate.cli.stream_speed import stream_speed
from curate.schema.codec import CodecCard
from curate.schema.ids import content_id
from curate.schema.manifest import MANIFEST, Counts, Manifest
from curate.schema.recipe import Pack
from curate.shards.commit import write_manifest
from curate.shards.fragments import write_fragment
from curate.shards.lists import write_lists
from curate.shards.masked import MaskedView
from curate.shards.pack import Tokenized, count_kept, pack_range, plan_pack, splits_of, stream_entries
from curate.shards.schema import StreamSpec
from curate.shards.stream import stream
from curate.storage import Folder
from curate.storage.tables import write_table

PARTITION = 4096
PACK = Pack(shard_samples=10240)


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
    partitions = []
    for start in range(0, samples, PARTITION):
        n = min(PARTITION, samples - start)
        names = [content_id(str(i).encode()) for i in range(start, start + n)]
        keys = pa.table(
            {"sample_id": names, "content_id": names, "kind": ["video"] * n}
            | {"start_us": [0] * n, "end_us": [5_120_000] * n}
        )
        ids = {
            "tok_rgb": [rng.integers(0, 16384, (1, 14, 14)) for _ in names],
            "tok_audio": [rng.integers(0, 1024, (256, 1)) for _ in names],
            "caption": [rng.integers(32, 50257, rng.integers(20, 61)) for _ in names],
        }
        one = Tokenized(
            f"synthetic-{start}",
            f"verdicts/synthetic-{start}.parquet",
            {spec.name: [f"tokenized/{spec.name}/synthetic-{start}.arrow"] for spec in streams},
        )
        for spec in streams:
            write_fragment(store, one.fragments[spec.name][0], spec, keys, ids[spec.name], [None] * n)
        write_table(store, one.verdicts, pa.table({"id": names, "level": ["sample"] * n, "outcome": ["kept"] * n}))
        partitions.append(one)
    plans = plan_pack([count_kept(store, one, 0, PACK.splits) for one in partitions], PACK)
    shards = [shard for plan in plans for shard in pack_range(store, partitions, plan, streams, 0)]
    store.remove(path for one in partitions for path in (one.verdicts, *one.paths))
    nothing = Counts(records={}, samples={})
    manifest = Manifest(
        name="synthetic",
        recipe={},
        seed=0,
        counts=nothing,
        splits=splits_of(["train"], plans, shards),
        streams=stream_entries(shards, streams, {c.name: (c.name, c.modality) for c in cards}),
        signals=[],
        codecs={c.name: c for c in cards},
        versions={},
        hardware="",
        lists=write_lists(store, [shard.file for shard in shards]),
    )
    with store.acquire(MANIFEST) as lease:
        write_manifest(lease, manifest)


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
        figures = stream_speed(build, args.seconds, batch=args.batch)
        figures["masked_view_samples_per_s"] = masked_rate(build)
    print(json.dumps({k: round(v, 4) for k, v in figures.items()}, indent=1))


if __name__ == "__main__":
    main()

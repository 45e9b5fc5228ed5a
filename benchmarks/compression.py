"""What `pack: {compression: zstd}` costs and saves: the same synthetic build with shards of both kinds, in turns.

    python benchmarks/compression.py                # 50,000 samples, as of benchmarks/stream.py

An epoch is all samples once, shuffled, as `RawView` batches of 256, in one process. In the first one shards are opened,
and compressed ones unpacked. Ids are drawn evenly from their vocabularies, which no compression likes: those of real
media take less.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path
from time import perf_counter

import pyarrow as pa
from stream import synthesise

from curate.schema.manifest import MANIFEST
from curate.shards.commit import describe_file, read_manifest, write_manifest
from curate.shards.ipc import open_ipc
from curate.shards.lists import write_lists
from curate.shards.stream import stream
from curate.shards.token_stream import TokenStream
from curate.storage import Folder


def compress(build: Path) -> None:
    """Write the shards of a build anew, as packing with zstd does, and commit them."""
    store, manifest = Folder(build), read_manifest(build)
    files = []
    for split in manifest.splits:
        for path, rows in zip(split.shards, split.shard_rows, strict=True):
            schema, batches = open_ipc(build / path)
            sink = pa.BufferOutputStream()
            with pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
                for batch in batches:
                    writer.write_batch(batch)
            store.write(path, sink.getvalue().to_pybytes())
            files.append(describe_file(store, path, rows))
    with store.acquire(MANIFEST) as lease:
        write_manifest(lease, manifest.model_copy(update={"lists": write_lists(store, files)}))


def rate(tokens: TokenStream) -> float:
    """Samples per second of the rest of an epoch."""
    begun = perf_counter()
    return sum(len(batch["sample_id"]) for batch in tokens) / (perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        builds = {name: Path(folder) / name for name in ("none", "zstd")}
        synthesise(builds["none"], args.samples)
        shutil.copytree(builds["none"], builds["zstd"])
        compress(builds["zstd"])
        first, later = dict.fromkeys(builds, 0.0), dict.fromkeys(builds, 0.0)
        for _ in range(args.rounds):
            for name, build in builds.items():
                tokens = stream(build, batch=256)
                first[name] = max(first[name], rate(tokens))
                later[name] = max(later[name], rate(tokens))
        print("| compression | MB | first epoch, samples/s | later ones |\n| --- | --- | --- | --- |")
        for name, build in builds.items():
            size = sum(file.stat().st_size for file in build.rglob("*.arrow")) / 1e6
            print(f"| {name} | {size:.1f} | {first[name]:,.0f} | {later[name]:,.0f} |")


if __name__ == "__main__":
    main()

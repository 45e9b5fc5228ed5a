"""Shards into a trainer: our views beside other loaders and a raw memory-mapped gather, in one run.

The samples are those of an image with sound and caption: 196 ids of 16,384, 256 of 1,024, and 20 to 60 text ids of
50,257. All read them one process, shuffled, in batches of 256 as torch tensors, from a warm page cache.

    python benchmarks/stream.py                                  # 200,000 samples
    python benchmarks/stream.py --install                        # makes the peers' environment, once
    python benchmarks/stream.py --samples 20000 --json           # the last line is one JSON object of samples/s
    CURATE_ML4M_PATH=ml-4m python benchmarks/stream.py           # 4M's own masking too, from a checkout of it
    python benchmarks/stream.py --s3 s3://bucket/prefix          # and ours from a bucket (AWS_ENDPOINT_URL and so on)

`memmap` is the limit: of arrays that are mapped, rows of one size each and a ragged one with its offsets, the rows of a
batch are copied in an order drawn at random. Ours reads shards, in an order drawn over all of them. Each is timed in
turns, and the best counts: other work on the machine can only slow one down.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from parts.torchvision_cpu import mend_torchvision

from curate.schema.codec import CodecCard
from curate.schema.ids import content_id
from curate.schema.manifest import MANIFEST, Counts, Manifest
from curate.schema.recipe import Pack
from curate.shards.commit import read_manifest, write_manifest
from curate.shards.fragments import write_fragment
from curate.shards.lists import write_lists
from curate.shards.mix import mix
from curate.shards.pack import Tokenized, count_kept, pack_range, plan_pack, splits_of, stream_entries
from curate.shards.reader import Reader
from curate.shards.schema import StreamSpec
from curate.shards.shuffle import Permutation
from curate.shards.stream import stream
from curate.shards.views import MaskedView, RawView, SequenceView, View
from curate.storage import Folder, open_store
from curate.storage.copies import cache_folder
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


FIXED = {"tok_rgb": 196, "tok_audio": 256}
BATCH = 256
PEERS = ("webdataset_npz", "webdataset_raw", "mds", "litdata", "grain", "energon")
PACKAGES = ("webdataset", "mosaicml-streaming", "litdata", "grain")
ML4M_PACKAGES = ("einops", "albumentations", "diffusers", "opencv-python-headless", "scikit-image", "datasets", "boto3")
OURS: dict[str, View] = {
    "ours": RawView(),
    "ours_masked": MaskedView(256, 256),
    "ours_sequence": SequenceView(["caption", "tok_rgb", "tok_audio"]),
}
TURNS = 5


def write_arrays(build: Path, folder: Path) -> None:
    """The build's samples as plain arrays, for those that do not read shards."""
    reader = Reader(build, read_manifest(Folder(build)), "train")
    rows = reader.take(np.arange(len(reader)), ()).streams
    for name, size in FIXED.items():
        np.save(folder / f"{name}.npy", rows[name].values.reshape(-1, size))
    np.save(folder / "caption.npy", rows["caption"].values)
    np.save(folder / "ends.npy", rows["caption"].offsets[1:])


class Gather:
    """The limit: rows of mapped arrays, a batch at a time, in an order drawn at random."""

    def __init__(self, folder: Path) -> None:
        self.fixed = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FIXED}
        self.caption = np.load(folder / "caption.npy", mmap_mode="r")
        self.offsets = np.concatenate(([0], np.load(folder / "ends.npy")))
        self.order = Permutation(len(self.offsets) - 1, "gather")(np.arange(len(self.offsets) - 1))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self.order), BATCH):
            rows = self.order[start : start + BATCH]
            batch = {name: torch.from_numpy(table[rows]) for name, table in self.fixed.items()}
            first, lengths = self.offsets[rows], self.offsets[rows + 1] - self.offsets[rows]
            offsets = np.concatenate(([0], np.cumsum(lengths)))
            at = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], lengths)
            yield {**batch, "caption": torch.from_numpy(self.caption[at]), "offsets": torch.from_numpy(offsets)}


def rate(batches: Iterable[dict[str, Any]], key: str, seconds: float) -> float:
    """Samples a second; what comes before the second batch is not counted."""
    seen, begun = 0, perf_counter()
    for number, batch in enumerate(batches):
        if number == 0:
            begun = perf_counter()
            continue
        seen += len(batch[key])
        if perf_counter() - begun > seconds:
            break
    return seen / (perf_counter() - begun)


def ours_and_the_limit(build: Path, arrays: Path, seconds: float) -> dict[str, float]:
    """Samples a second of our views and of the raw gather, in turns."""
    streams: dict[str, Iterable[dict[str, Any]]] = {
        name: stream(build, view=view, batch=BATCH, tensors=True) for name, view in OURS.items()
    }
    streams["ours_mixed"] = mix({"one": (build, 0.7), "other": (build, 0.3)}, batch=BATCH, tensors=True)
    for tokens in streams.values():
        next(iter(tokens))  # maps the shards, and compiles what is compiled at the first call
    gather = Gather(arrays)
    best = dict.fromkeys(("memmap", *streams), 0.0)
    for _ in range(TURNS):
        best["memmap"] = max(best["memmap"], rate(gather, "tok_rgb", seconds / TURNS))
        for name, tokens in streams.items():
            best[name] = max(best[name], rate(tokens, "sample_id", seconds / TURNS))
    return best


def environment() -> Path:
    return cache_folder() / "bench" / "stream-peers"


def install() -> None:
    """The peers, in an environment of their own."""
    folder = environment()
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, f"torch=={torch.__version__.partition('+')[0]}", *PACKAGES, *ML4M_PACKAGES], check=True)
    subprocess.run([*pip, "megatron-energon"], check=True)  # together pip finds no versions of all in minutes
    mend_torchvision(folder / "bin")


def peers(arrays: Path, work: Path, seconds: float) -> dict[str, float]:
    """Samples a second of other loaders, one after the other."""
    python = environment() / "bin" / "python"
    if not python.exists():
        print("no other loaders: python benchmarks/stream.py --install")
        return {}
    script = Path(__file__).parent / "parts" / "stream_peers.py"
    ml4m = os.environ.get("CURATE_ML4M_PATH")
    names = [*PEERS, *(["ml4m_masking"] if ml4m else [])]
    found = {}
    for name in names:
        done = subprocess.run(
            [python, script, arrays, work, str(seconds), name],
            env={**os.environ, "PYTHONPATH": ml4m or ""},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            print(f"{name}: {done.stderr.strip().splitlines()[-1]}")
        else:
            said = json.loads(done.stdout.splitlines()[-1])
            found[name] = said["samples_per_s"]
            print(f"{name}: written in {said['write_s']} s, {said['mb']} MB", flush=True)
        shutil.rmtree(work / name, ignore_errors=True)
    return found


class Clock:
    """Seconds, and CPU seconds of this process and of all on the machine, since it was made."""

    def __init__(self) -> None:
        self._begun = self._now()

    def since(self) -> dict[str, float]:
        return {name: now - self._begun[name] for name, now in self._now().items()}

    @staticmethod
    def _now() -> dict[str, float]:
        ticks = [int(ticks) for ticks in Path("/proc/stat").read_text().splitlines()[0].split()[1:8]]
        busy = sum(ticks) - ticks[3] - ticks[4]  # all but idle and waiting for a disk
        return {"wall": perf_counter(), "own": process_time(), "machine": busy / os.sysconf("SC_CLK_TCK")}


def from_bucket(build: Path, uri: str) -> dict[str, float]:
    """MB a second of shards from a bucket, with an empty cache: ours, shuffled by blocks, and a plain download."""
    store, here = open_store(uri), Folder(build)
    for file in here.files():
        store.write(file.path, here.read(file.path))
    shards = here.files("tokens")
    size = sum(file.bytes for file in shards) / 1e6

    def download() -> None:
        for file in shards:
            store.read(file.path)

    def ours() -> None:
        with tempfile.TemporaryDirectory() as os.environ["CURATE_CACHE"]:
            for _ in stream(uri, shuffle="blocks", batch=BATCH, tensors=True):
                pass
        del os.environ["CURATE_CACHE"]

    best: dict[str, dict[str, float]] = {}
    for _ in range(TURNS):
        for name, read in (("s3_download_mb", download), ("ours_s3_mb", ours)):
            clock = Clock()
            read()
            took = clock.since()
            if name not in best or took["wall"] < best[name]["wall"]:
                best[name] = took
    for name, took in best.items():
        said = ", ".join(f"{kind} {1e3 * seconds / size:.1f}" for kind, seconds in took.items())
        print(f"{name}: {size:.0f} MB in {took['wall']:.2f} s; ms a MB: {said}")
    return {name: size / took["wall"] for name, took in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--seconds", type=float, default=10.0, help="each is read for so long")
    parser.add_argument("--install", action="store_true", help="make the peers' environment, and no more")
    parser.add_argument("--no-peers", action="store_true", help="ours and the limit only")
    parser.add_argument("--s3", metavar="URI", help="an empty prefix of a bucket, to read from too")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    args = parser.parse_args()
    if args.install:
        return install()
    with tempfile.TemporaryDirectory() as folder:
        build, arrays = Path(folder) / "build", Path(folder) / "arrays"
        arrays.mkdir()
        synthesise(build, args.samples)
        write_arrays(build, arrays)
        figures = ours_and_the_limit(build, arrays, args.seconds)
        if not args.no_peers:
            figures |= peers(arrays, Path(folder), args.seconds)
        bucket = from_bucket(build, args.s3) if args.s3 else {}
    print("| loader | samples/s | of memmap | ours is so many times as fast |\n| --- | --- | --- | --- |")
    for name, found in sorted(figures.items(), key=lambda one: -one[1]):
        print(f"| {name} | {found:,.0f} | {found / figures['memmap']:.4f} | {figures['ours'] / found:.1f} |")
    for name, found in bucket.items():
        print(f"{name}: {found:.0f} MB/s")
    if args.json:
        print(json.dumps({k: round(v, 1) for k, v in (figures | bucket).items()}))


if __name__ == "__main__":
    main()

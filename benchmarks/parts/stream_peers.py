"""Other loaders over the samples of `benchmarks/stream.py`; run by an environment that has them, not by curate's.

    python stream_peers.py ARRAYS WORK SECONDS NAME...

ARRAYS has `tok_rgb.npy` and `tok_audio.npy`, uint16 `(n, 196)` and `(n, 256)`, `caption.npy`, uint16, all captions one
after the other, and `ends.npy`, int64 `(n,)`, where each ends. Each loader's own format is written into WORK, then read
for that many seconds, one process, shuffled as the loader does, in batches of 256 as torch tensors; one line of JSON a
loader. `ml4m_masking` needs ml-4m's checkout on PYTHONPATH.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch

BATCH = 256
SHARD = 10_000
FIXED = {"tok_rgb": 196, "tok_audio": 256}


class Samples:
    """The arrays as samples, mapped."""

    def __init__(self, folder: Path) -> None:
        self.fixed = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in FIXED}
        self.caption = np.load(folder / "caption.npy", mmap_mode="r")
        self.ends = np.load(folder / "ends.npy")

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> dict[str, Any]:
        start = int(self.ends[i - 1]) if i else 0
        words = np.array(self.caption[start : int(self.ends[i])])
        return {name: np.array(rows[i]) for name, rows in self.fixed.items()} | {"caption": words}


def batches(samples: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """256 samples as tensors: grids stacked, captions joined, with their offsets."""
    source = iter(samples)
    while some := list(islice(source, BATCH)):
        batch = {name: torch.from_numpy(np.stack([s[name] for s in some])) for name in FIXED}
        batch["caption"] = torch.from_numpy(np.concatenate([s["caption"] for s in some]))
        batch["offsets"] = torch.from_numpy(np.cumsum([0, *(len(s["caption"]) for s in some)]))
        yield batch


def raw_bytes(sample: dict[str, Any]) -> bytes:
    return b"".join(sample[name].tobytes() for name in (*FIXED, "caption"))


def of_bytes(data: bytes) -> dict[str, Any]:
    ids = np.frombuffer(data, np.uint16)
    return {"tok_rgb": ids[:196], "tok_audio": ids[196:452], "caption": ids[452:].copy()}


def of_npz(data: bytes) -> dict[str, Any]:
    with np.load(io.BytesIO(data)) as arrays:
        return {name: arrays[name] for name in arrays.files}


def npz_bytes(sample: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    np.savez(out, **sample)
    return out.getvalue()


def write_tars(samples: Samples, work: Path, suffix: str, to_bytes: Callable[[Any], bytes]) -> list[Path]:
    import webdataset as wds

    work.mkdir()
    for number, first in enumerate(range(0, len(samples), SHARD)):
        with wds.TarWriter(str(work / f"{number:05d}.tar"), mtime=0) as tar:
            for i in range(first, min(first + SHARD, len(samples))):
                tar.write({"__key__": f"{i:09d}", suffix: to_bytes(samples[i])})
    return sorted(work.glob("*.tar"))


def webdataset(
    samples: Samples, work: Path, suffix: str, to_bytes: Callable[[Any], bytes], of: Callable[[bytes], Any]
) -> Callable[[], Iterator[dict[str, Any]]]:
    import webdataset as wds

    urls = [str(tar) for tar in write_tars(samples, work, suffix, to_bytes)]

    def read() -> Iterator[dict[str, Any]]:
        tars = wds.WebDataset(urls, shardshuffle=len(urls), empty_check=False).shuffle(1000)
        yield from batches(of(s[suffix]) for s in tars)

    return read


def energon(samples: Samples, work: Path) -> Callable[[], Iterator[dict[str, Any]]]:
    """One raw member a sample, indexed by its own `energon prepare`, and given as it is to a cooker."""
    from megatron.energon import (
        Cooker,
        DefaultTaskEncoder,
        WorkerConfig,
        get_savable_loader,
        get_train_dataset,
        stateless,
    )

    write_tars(samples, work, "bin", raw_bytes)
    how = "--non-interactive --split-ratio 1,0,0 --sample-type CrudeWebdataset --num-workers 1"
    energon = Path(sys.executable).with_name("energon")
    subprocess.run([energon, "prepare", work, *how.split()], check=True, stdout=subprocess.DEVNULL)

    @stateless
    def cook(sample: Any) -> Any:
        return of_bytes(sample["bin"])

    class Tasks(DefaultTaskEncoder):
        cookers = (Cooker(cook),)

        def batch(self, samples: list[Any]) -> Any:
            return next(batches(samples))

    def read() -> Iterator[dict[str, Any]]:
        one = WorkerConfig(rank=0, world_size=1, num_workers=0)
        data = get_train_dataset(
            work,
            worker_config=one,
            batch_size=BATCH,
            shuffle_buffer_size=1000,
            max_samples_per_sequence=None,
            task_encoder=Tasks(),
            repeat=False,
        )
        yield from get_savable_loader(data)

    return read


def mds(samples: Samples, work: Path) -> Callable[[], Iterator[dict[str, Any]]]:
    from streaming import MDSWriter, StreamingDataset

    columns = {name: f"ndarray:uint16:{size}" for name, size in FIXED.items()} | {"caption": "ndarray:uint16"}
    with MDSWriter(out=str(work), columns=columns, size_limit=1 << 23) as out:
        for i in range(len(samples)):
            out.write(samples[i])

    def read() -> Iterator[dict[str, Any]]:
        yield from batches(StreamingDataset(local=str(work), shuffle=True, batch_size=BATCH))

    return read


def litdata(samples: Samples, work: Path) -> Callable[[], Iterator[dict[str, Any]]]:
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    work.mkdir()
    writer = BinaryWriter(str(work), chunk_bytes="8MB")
    for i in range(len(samples)):
        writer.add_item(i, samples[i])
    writer.done()
    writer.merge()

    def read() -> Iterator[dict[str, Any]]:
        yield from batches(StreamingDataset(str(work), shuffle=True))

    return read


def grain(samples: Samples, work: Path) -> Callable[[], Iterator[dict[str, Any]]]:
    import grain

    def read() -> Iterator[dict[str, Any]]:
        yield from batches(iter(grain.MapDataset.source(samples).shuffle(seed=0)))

    return read


def ml4m_masking(samples: Samples, work: Path) -> Callable[[], Iterator[dict[str, Any]]]:
    """4M's own masking of samples that lie in memory, nothing read: 256 tokens in, 256 out."""
    import fourm.utils.tokenizer
    from fourm.data.masking import UnifiedMasking

    from tokenizers import Tokenizer

    trained = Path(fourm.utils.tokenizer.__file__).parent / "trained" / "text_tokenizer_4m_wordpiece_30k.json"
    even = {"min_tokens": 0, "input_alphas": [1.0], "target_alphas": [1.0]}
    about = {name: {"type": "img", "max_tokens": size, **even} for name, size in FIXED.items()}
    about["caption"] = {"type": "seq_token", "max_tokens": 256, **even}
    masking = UnifiedMasking(about, Tokenizer.from_file(str(trained)), 256, 256)
    some = [samples[i] for i in range(min(len(samples), 2048))]
    held = [
        {k: torch.from_numpy(v.astype(np.int64)) if k in FIXED else v.astype(np.int64) for k, v in s.items()}
        for s in some
    ]

    def read() -> Iterator[dict[str, Any]]:
        while True:
            for start in range(0, len(held), BATCH):
                yield {"tok_rgb": [masking(dict(sample)) for sample in held[start : start + BATCH]]}

    return read


LOADERS: dict[str, Callable[[Samples, Path], Callable[[], Iterator[dict[str, Any]]]]] = {
    "webdataset_npz": lambda samples, work: webdataset(samples, work, "npz", npz_bytes, of_npz),
    "webdataset_raw": lambda samples, work: webdataset(samples, work, "bin", raw_bytes, of_bytes),
    "mds": mds,
    "litdata": litdata,
    "grain": grain,
    "energon": energon,
    "ml4m_masking": ml4m_masking,
}


def rate(read: Callable[[], Iterator[dict[str, Any]]], seconds: float) -> float:
    """Samples a second, from the second batch on: what opening takes is not of a sample."""
    seen = 0
    begun = perf_counter()
    for number, batch in enumerate(read()):
        if number == 0:
            begun = perf_counter()
            continue
        seen += len(batch["tok_rgb"])
        if perf_counter() - begun > seconds:
            break
    return seen / (perf_counter() - begun)


def main() -> None:
    folder, work, seconds = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
    warnings.simplefilter("ignore")  # read-only arrays as tensors
    samples = Samples(folder)
    for name in sys.argv[4:]:
        begun = perf_counter()
        read = LOADERS[name](samples, work / name)
        written = perf_counter() - begun
        size = sum(path.stat().st_size for path in (work / name).rglob("*") if path.is_file())
        figures = {
            "samples_per_s": max(rate(read, seconds / 2) for _ in range(2)),
            "write_s": written,
            "mb": size / 1e6,
        }
        print(json.dumps({"name": name} | {k: round(v, 1) for k, v in figures.items()}), flush=True)


if __name__ == "__main__":
    main()

"""How much faster is a GPU than one thread of a CPU, model by model, and how full is it?

Each model is handed the same media as in a run: a group of samples at once, as `pipeline.flow.handed` makes them for a
pool on GPUs; on the CPU fewer. One process, one CPU thread. Rounds are timed after one that warms up; the best counts.
While a model is at work on the GPU, `nvidia-smi` says every 100 ms how busy it is and how much of its memory is used.

CLIP, the audio codec and the captioner have random weights where none are named: speed does not depend on them, except
that a captioner with random weights always says as many tokens as it may (32 here).

    python benchmarks/gpu.py
    python benchmarks/gpu.py --models clip image --json     # on the GPU in each of the numbers that a model can
    python benchmarks/gpu.py --cpu                          # the CPU's figures alone, where no GPU is
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage import data

from curate.models.torchvision_shim import ensure_torchvision
from curate.pipeline.flow import HANDED_BATCHES
from curate.schema.fields import Resources, RunsOn
from curate.schema.recipe import CaptionerUse, SignalUse
from curate.schema.verdict import Failure
from curate.signals import registry
from curate.signals.base import Batch, Signal
from curate.signals.captions import CaptionerOptions, CaptionerSignal
from curate.tokenizers import zoo

ROUNDS = 3
RATE = 16000

Work = Callable[[int], None]
"""Computes so many items."""


@dataclass(frozen=True)
class Row:
    """One model on one device.

    Attributes:
        rate: items a second.
        busy: percent of the time in which the GPU computed something; mean while the model was at work.
        memory: MiB that were in use on the GPU at most.
    """

    model: str
    items: str
    device: str
    dtype: str
    batch: int
    count: int
    rate: float
    busy: float | None = None
    memory: int | None = None


def images(count: int, size: int) -> list[NDArray[np.uint8]]:
    """Crops of photographs, uint8 `(size, size, 3)`."""
    sources = [f() for f in (data.astronaut, data.chelsea, data.coffee)]
    rng = np.random.default_rng(0)
    out = []
    for i in range(count):
        source = sources[i % len(sources)]
        side = min(size, *source.shape[:2])
        top, left = (int(rng.integers(0, n - side + 1)) for n in source.shape[:2])
        crop = source[top : top + side, left : left + side, :3]
        times = -(-size // side)
        out.append(np.ascontiguousarray(np.tile(crop, (times, times, 1))[:size, :size]))
    return out


def sounds(count: int, seconds: float) -> list[NDArray[np.float32]]:
    """Chirps in noise at 16 kHz, float32 in [-1, 1]."""
    axis = np.arange(int(seconds * RATE)) / RATE
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.02, (count, len(axis)))
    waves = [0.4 * np.sin(2 * np.pi * (200 + 10 * i + 150 * axis) * axis) for i in range(count)]
    return [(wave + noise[i]).astype(np.float32) for i, wave in enumerate(waves)]


def clip(folder: Path, on: RunsOn) -> tuple[Work, str]:
    """ViT-B-32 of open_clip."""
    ensure_torchvision()
    import open_clip
    from safetensors.torch import save_file

    weights = folder / "clip.safetensors"
    if not weights.exists():
        torch.manual_seed(0)
        save_file(open_clip.create_model("ViT-B-32", pretrained=None).state_dict(), weights)
    signal = registry.build(SignalUse.model_validate({"name": "clip", "model": "ViT-B-32", "pretrained": str(weights)}))
    return of_signal(signal, on, images), "images of 224"


def image(folder: Path, on: RunsOn) -> tuple[Work, str]:
    """The grid tokenizer of images that ships."""
    return of_tokenizer(zoo.DEFAULTS["image"], on, lambda count: [i[None] for i in images(count, 256)]), "images of 256"


def audio(folder: Path, on: RunsOn) -> tuple[Work, str]:
    """The audio codec that ships."""
    return of_tokenizer(zoo.DEFAULTS["audio"], on, lambda count: sounds(count, 4)), "audio of 4 s"


def captioner(folder: Path, on: RunsOn) -> tuple[Work, str]:
    """BLIP of base size, of random weights."""
    ensure_torchvision()
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    where = folder / "blip"
    if not where.exists():
        torch.manual_seed(0)
        config = BlipConfig()
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        words += [f"w{i}" for i in range(config.text_config.vocab_size - len(words))]
        BlipForConditionalGeneration(config).save_pretrained(where)
        tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
        BlipProcessor(BlipImageProcessor(size={"height": 384, "width": 384}), tokenizer).save_pretrained(where)
    use = CaptionerUse(name="blip", model=str(where), sampling={"max_tokens": 32})
    return of_signal(CaptionerSignal(CaptionerOptions(use=use)), on, images), "images"


def asr(folder: Path, on: RunsOn) -> tuple[Work, str]:
    """Whisper tiny.en, on what is no speech; every window is decoded all the same."""
    signal = registry.build(SignalUse(name="asr"))

    def pcm(count: int, _: int) -> list[NDArray[np.int16]]:
        return [(one * 32767).astype(np.int16) for one in sounds(count, 10)]

    return of_signal(signal, on, pcm, {"speech_ratio": 1.0}), "audio of 10 s"


MODELS = {"clip": clip, "image": image, "audio": audio, "captioner": captioner, "asr": asr}


def cost_of(name: str) -> Resources:
    """What the model says it takes."""
    match name:
        case "image" | "audio":
            return zoo.cost(zoo.DEFAULTS[name])
        case "captioner":
            return CaptionerSignal(CaptionerOptions(use=CaptionerUse(name="a", model="a/b"))).cost
    return registry.get(name).cost


def of_signal(
    signal: Signal,
    on: RunsOn,
    make: Callable[[int, int], Sequence[NDArray[Any]]],
    columns: dict[str, Any] | None = None,
) -> Work:
    """A signal, loaded; it is handed all items at once."""
    signal.on = on
    signal.load()
    [view] = signal.needs
    size = getattr(view, "size", 0)
    made = make(64, size)

    def work(count: int) -> None:
        given = [made[i % len(made)] for i in range(count)]
        arrays = [one[None] if one.ndim == 3 else one for one in given]
        kind = "image" if size else "audio"
        names = [str(i) for i in range(count)]
        batch = Batch(names, [kind] * count, ["an image"] * count, {view: arrays}, {})
        batch.columns.update({name: [value] * count for name, value in (columns or {}).items()})
        for result in signal(batch):
            if isinstance(result, Failure):
                raise RuntimeError(f"{signal.name}: {result.error}: {result.message}")

    return work


def of_tokenizer(name: str, on: RunsOn, make: Callable[[int], Sequence[NDArray[Any]]]) -> Work:
    """A tokenizer, loaded; it is handed all items at once."""
    tokenizer = zoo.load_on_one_thread(name, on.device, on.dtype, None if on.device == "cpu" else on.batch)
    made = make(64)

    def work(count: int) -> None:
        tokenizer.encode([made[i % len(made)] for i in range(count)])

    return work


@contextmanager
def watched() -> Iterator[list[tuple[float, int]]]:
    """Percent of time in which the first visible GPU computes, and MiB in use, every 100 ms while the block runs."""
    seen: list[tuple[float, int]] = []
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    command = ["nvidia-smi", "-i", first, "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
    if shutil.which("nvidia-smi") is None:
        yield seen
        return
    with subprocess.Popen([*command, "-lms", "100"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None

        def read(lines: Any) -> None:
            for line in lines:
                busy, _, memory = line.partition(",")
                seen.append((float(busy), int(memory)))

        thread = threading.Thread(target=read, args=(process.stdout,), daemon=True)
        thread.start()
        try:
            yield seen
        finally:
            process.terminate()
            thread.join()


def measure(name: str, device: str, dtype: str, seconds: float) -> Row:
    """Items a second of a model on a device: as many hand-overs as take some seconds."""
    cost = cost_of(name)
    on = RunsOn(device, dtype, cost.batch)
    with tempfile.TemporaryDirectory(prefix="curate-gpu-") as folder:
        work, items = MODELS[name](Path(folder), on)
    count = max(1, HANDED_BATCHES * cost.batch if device != "cpu" else 2)
    work(count)  # warms up
    best, seen = 0.0, list[tuple[float, int]]()
    for _ in range(ROUNDS):
        done, started = 0, time.perf_counter()
        with watched() if device != "cpu" else nullcontext([]) as these:
            while (took := time.perf_counter() - started) < seconds:
                work(count)
                done += count
        best = max(best, done / took)
        seen += these
    row = Row(name, items, device, on.dtype, on.batch if device != "cpu" else 1, count, best)
    if not seen:
        return row
    return replace(row, busy=statistics.mean(b for b, _ in seen), memory=max(m for _, m in seen))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--seconds", type=float, default=5, help="of each round")
    parser.add_argument("--cpu", action="store_true", help="measure on the CPU where there is no GPU, too")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    has_gpu = torch.cuda.is_available()
    if not has_gpu and not args.cpu:
        print("there is no GPU that PyTorch can use: nothing was measured (--cpu measures the CPU alone)")
        return
    torch.set_num_threads(1)
    rows = []
    for name in args.models:
        dtypes = cost_of(name).dtypes
        rows.append(measure(name, "cpu", dtypes[0], args.seconds))
        if has_gpu and cost_of(name).gpus:
            rows += [measure(name, "cuda", dtype, args.seconds) for dtype in dtypes]
    if args.json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    print(f"{platform.machine()}, {torch.cuda.get_device_name() if has_gpu else 'no GPU'}, torch {torch.__version__}")
    print("| model | items | device | dtype | batch | items/s | by one CPU thread | GPU busy | GPU memory |")
    print("| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |")
    slow = {row.model: row.rate for row in rows if row.device == "cpu"}
    for row in rows:
        busy = "" if row.busy is None else f"{row.busy:.0f} %"
        memory = "" if row.memory is None else f"{row.memory} MiB"
        print(
            f"| {row.model} | {row.items} | {row.device} | {row.dtype} | {row.batch} | {row.rate:.1f} "
            f"| {row.rate / slow[row.model]:.1f} | {busy} | {memory} |"
        )


if __name__ == "__main__":
    main()

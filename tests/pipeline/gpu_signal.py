"""Models that ask for a share of a GPU and note what they got, and a light signal that reads one: what a model on GPUs
means for a plan."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.media.requests import Frames
from curate.schema.fields import Resources, RunsOn, SignalField
from curate.signals.base import Batch, Result, Signal
from curate.tokenizers import custom_card

NOTES = "GPU_SIGNAL_NOTES"
"""Names the folder that notes are written to, a file a process."""


def note(name: str, on: RunsOn, items: int) -> None:
    """What a model runs on, the GPUs that it sees and its share of one as Ray counts, and how much it was handed."""
    folder, ray = os.environ.get(NOTES), sys.modules.get("ray")
    if folder is not None:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        is_worker = ray is not None and ray.is_initialized()
        share = ray.get_runtime_context().get_assigned_resources().get("GPU", 0) if is_worker else 0
        with (Path(folder) / f"{os.getpid()}").open("a") as file:
            file.write(f"{name} {on.device} {on.dtype} {on.batch} [{seen}] {share:g} {items}\n")


class Redness(Signal):
    """Mean of the red channel, as a model on half a GPU would give it."""

    name = "redness"
    needs = (Frames(size=32),)
    gives = (SignalField("redness", pa.float32(), "0-255", (0, 255), ("image",)),)
    cost = Resources(cpus=1, gpus=0.5, batch=4, dtypes=("float32", "bfloat16"), model=True)

    def __call__(self, batch: Batch) -> list[Result]:
        note(self.name, self.on, len(batch))
        return [{"redness": None if f is None else float(np.mean(f[..., 0]))} for f in batch.views[self.needs[0]]]


class Place(Signal):
    """A sample's place in its batch, which is what may move a network's last bits."""

    name = "place"
    needs = (Frames(size=32),)
    gives = (SignalField("place", pa.float32(), "place", (0, None), ("image",)),)
    cost = Resources(cpus=1, gpus=0.5, batch=4, model=True)

    def __call__(self, batch: Batch) -> list[Result]:
        note(self.name, self.on, len(batch))
        return [{"place": float(i % self.on.batch)} for i in range(len(batch))]


class Halved(Signal):
    """Half of the redness: it has no model, and comes after one."""

    name = "halved"
    after = ("redness",)
    gives = (SignalField("halved", pa.float32(), "0-255", (0, 255), ("image",)),)

    def __call__(self, batch: Batch) -> list[Result]:
        return [{"halved": None if r is None else r / 2} for r in batch.columns["redness"]]


class Greys:
    """Images of 32 x 32 to 4 x 4 shades of grey, as a network on a quarter of a GPU would give them. A white one kills
    the process."""

    cost = Resources(cpus=1, gpus=0.25, batch=8, model=True)

    def __init__(self, device: str = "cpu", dtype: str = "float32", batch: int = 8) -> None:
        self.card = custom_card("greys", modality="image", size=32, vocabulary=256, grid=(4, 4), made_of="1")
        self._on = RunsOn(device, dtype, batch)

    def encode(self, items: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.generic]]:
        note("greys", self._on, len(items))
        if any(item.min() == 255 for item in items):
            os.kill(os.getpid(), signal.SIGKILL)
        return [item.reshape(-1, 4, 8, 4, 8, 3).mean(axis=(2, 4, 5)).astype(np.uint8) for item in items]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        return [one[..., None].repeat(8, 1).repeat(8, 2).repeat(3, 3) for one in ids]

"""What the trainers here share: a loop that goes on where it was killed, and a picture of its loss.

A checkpoint is one file, put in place whole: the model, the optimiser, the losses so far, and where the stream
stands, which is a few integers. So a run that is killed gives the losses that it would have given.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

import curate
from curate.shards.token_stream import TokenStream

CHECKPOINT = "checkpoint.safetensors"


def train(
    model: nn.Module,
    tokens: TokenStream,
    loss_of: Callable[[dict[str, Any]], Tensor | None],
    steps: int,
    folder: Path,
    every: int = 20,
) -> list[float]:
    """Train until so many steps are done, with those of an earlier run in this folder; the loss of each step.

    Args:
        tokens: gives batches, epoch after epoch.
        loss_of: the loss of a batch; None where nothing is to be predicted.
        every: steps between checkpoints.
    """
    if not tokens.samples:
        raise SystemExit("the build has no samples to train on")
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = load(folder / CHECKPOINT, model, optimiser, tokens)
    if losses:
        print(f"goes on after step {len(losses)}", flush=True)
    batches = chain.from_iterable(repeat(tokens))
    begun = perf_counter()
    while len(losses) < steps:
        loss = loss_of(next(batches))
        if loss is not None:
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
        losses.append(loss.item() if loss is not None else float("nan"))
        if len(losses) % every == 0 or len(losses) == steps:
            save(folder / CHECKPOINT, model, optimiser, tokens, losses)
            (folder / "losses.json").write_text(json.dumps(losses))
            curve(losses, folder / "loss.png")
            mean = np.nanmean(losses[-every:])
            print(f"step {len(losses)}, {perf_counter() - begun:.0f} s: {mean:.3f} nats a token", flush=True)
    return losses


def save(
    place: Path, model: nn.Module, optimiser: torch.optim.Optimizer, tokens: TokenStream, losses: list[float]
) -> None:
    """Write a checkpoint, whole or not at all; tensors and JSON, no pickle."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for number, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in moments.items()}
    said = {"losses": losses, "stream": tokens.state()}
    beside = place.with_suffix(".part")
    save_file(tensors, beside, {"said": json.dumps(said)})
    beside.replace(place)


def load(place: Path, model: nn.Module, optimiser: torch.optim.Optimizer, tokens: TokenStream) -> list[float]:
    """Go to where a checkpoint was written: the losses until then; none where there is no checkpoint."""
    if not place.exists():
        return []
    with safe_open(place, "pt") as file:
        said = json.loads(file.metadata()["said"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model.load_state_dict({n.removeprefix("model."): v for n, v in tensors.items() if n.startswith("model.")})
    whole = optimiser.state_dict()
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, number, moment = name.split(".")
            whole["state"].setdefault(int(number), {})[moment] = value
    optimiser.load_state_dict(whole)
    tokens.resume(said["stream"])
    losses: list[float] = said["losses"]
    return losses


def curve(losses: list[float], place: Path) -> None:
    """Draw the loss of each step, and its mean over the last 20."""
    mean = [np.nanmean(losses[max(0, i - 19) : i + 1]) for i in range(len(losses))]
    axes = (figure := Figure(figsize=(6, 3), layout="constrained")).subplots()
    axes.plot(range(1, len(losses) + 1), losses, alpha=0.3, label="step")
    axes.plot(range(1, len(losses) + 1), mean, label="mean of 20")
    axes.set(xlabel="step", ylabel="nats a token")
    axes.legend()
    figure.savefig(place, dpi=120)


def first_with(build: Path, split: str, names: Sequence[str]) -> dict[str, Any] | None:
    """The first stored sample that has all of these streams."""
    samples = curate.stream(build, split, view=curate.RawView(only=names), shuffle=False)
    return next((s for s in samples if all(s[name] is not None and s[name].size for name in names)), None)

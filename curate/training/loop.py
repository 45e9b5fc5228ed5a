"""What all that train by gradient share: the state of a run and its checkpoint, and the loop."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from curate.schema.errors import CurateError, first_line
from curate.training.session import Session

CHECKPOINT, LOG = "checkpoint.safetensors", "log.jsonl"

# What may differ between the sessions of one run: it tells of the weights, or of the pace, but does not make them.
_NOT_COMPARED = {
    *("media", "videos", "trained_on", "licence", "beam", "fill", "log_every", "checkpoint_every", "strip_every"),
}


class RunConfig(BaseModel, ABC):
    """What decides how a run goes; the rest is each tokenizer's to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, ge=0)
    steps: int = Field(gt=0, description="of the optimiser; the schedule of the learning rate spans them")
    learning_rate: float = Field(gt=0, description="the highest")
    clip: float = Field(gt=0, description="most norm of a gradient")
    log_every: int = Field(100, gt=0, description="steps from one entry of the log to the next")
    checkpoint_every: int = Field(gt=0, description="steps from one checkpoint to the next")

    @abstractmethod
    def rate_at(self, step: int) -> float:
        """The learning rate of a step."""


Config = TypeVar("Config", bound=RunConfig)


class Run(ABC, Generic[Config]):
    """The state of training: net, its moving average and Adam's moments; saved as safetensors, never as a pickle.

    Attributes:
        figures: what `advance` gives, by its names in the log; the first is the loss.
        ema: how much of the moving average of the weights a step keeps; 0: the average is the weights.
        built_on: digests of the weights of tokenizers that stay as they are, by what they are.
        step: the next one.
    """

    figures: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        config: Config,
        net: nn.Module,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        ema: float = 0.0,
        built_on: dict[str, str] | None = None,
    ) -> None:
        self.config, self.device, self.optimizer = config, device, optimizer
        self.ema, self.built_on, self.step = ema, built_on or {}, 0
        every = dict(net.named_parameters())
        self.names = [name for name, p in every.items() if p.requires_grad]
        self.parameters = [every[name] for name in self.names]
        self.buffers = {name: t for name, t in net.state_dict().items() if name not in every}
        self.mean = [p.detach().clone() for p in self.parameters]

    @abstractmethod
    def batch(self, step: int) -> Tensor:
        """The batch of a step, a function of (seed, step) and of the media."""

    @abstractmethod
    def advance(self, batch: Tensor) -> Tensor:
        """One step; its `figures`, float32 on the CPU."""

    def begin(self) -> None:
        """Sets the weights that training starts from."""

    def show(self, out: Path) -> None:
        """Writes to `out` what shows how far the run is, where it is time to."""

    def start_step(self) -> None:
        """No gradients, and this step's learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate_at(self.step)
        self.optimizer.zero_grad(set_to_none=True)

    def end_step(self) -> None:
        """Moves weights and their average by the gradients that were gathered."""
        nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.optimizer.step()
        self.step += 1
        # The average forgets its start quickly at first, or the untrained net would linger in it.
        keep = min(self.ema, self.step / (self.step + 10))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], 1 - keep)

    def averaged(self) -> dict[str, Tensor]:
        """The moving average of what is trained, and buffers, by name."""
        return dict(zip(self.names, self.mean, strict=True)) | self.buffers

    def save(self, path: Path) -> None:
        tensors: dict[str, Tensor] = {f"buffer.{name}": t for name, t in self.buffers.items()}
        for name, p, mean in zip(self.names, self.parameters, self.mean, strict=True):
            state = self.optimizer.state[p]
            tensors |= {f"net.{name}": p.detach(), f"mean.{name}": mean}
            tensors |= {f"first.{name}": state["exp_avg"], f"second.{name}": state["exp_avg_sq"]}
        said = {"step": str(self.step), "config": self.config.model_dump_json()} | self.built_on
        part = path.with_suffix(".part")
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, said)
        part.replace(path)  # law 7: in place whole, or not at all

    def load(self, path: Path) -> None:
        """CurateError where it is no whole checkpoint, of another config, or was built on other tokenizers."""
        try:
            self._load(path)
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CurateError(
                f"{path.name} is no checkpoint of this training: {first_line(error)}",
                "Give another output folder, or remove it to begin anew.",
            ) from error

    def _load(self, path: Path) -> None:
        with safe_open(path, "pt", device=str(self.device)) as file:
            said = file.metadata()
            then, now = json.loads(said["config"]), json.loads(self.config.model_dump_json())
            then = {key: field.default for key, field in type(self.config).model_fields.items()} | then
            different = any(then[key] != now[key] for key in now.keys() - _NOT_COMPARED)
            if different or any(said.get(kind) != found for kind, found in self.built_on.items()):
                of = " or ".join(["config", *(f"{kind} tokenizer" for kind in self.built_on)])
                raise CurateError(
                    f"{path.name} was made with another {of}", "Give another output folder, or the config of then."
                )
            self.step = int(said["step"])
            counts_on = self.device if self.optimizer.defaults.get("fused") else "cpu"
            self.mean = [file.get_tensor(f"mean.{name}") for name in self.names]
            with torch.no_grad():
                for name, t in self.buffers.items():
                    t.copy_(file.get_tensor(f"buffer.{name}"))
                for name, p in zip(self.names, self.parameters, strict=True):
                    p.copy_(file.get_tensor(f"net.{name}"))
                    self.optimizer.state[p] = {
                        "step": torch.tensor(float(self.step), device=counts_on),
                        "exp_avg": file.get_tensor(f"first.{name}"),
                        "exp_avg_sq": file.get_tensor(f"second.{name}"),
                    }


def fit(run: Run[Any], out: Path, session: Session) -> None:
    """Trains, or carries on from the checkpoint in `out`, to the last step of the session.

    The batch of step t is a function of (seed, t) and of the media alone, and a checkpoint holds everything else, so a
    run that was stopped and resumed sees the same batches as one that was not. `out` gets checkpoint and log.

    Raises:
        CurateError: the checkpoint is not of this training, or the loss is not finite.
    """
    checkpoint = out / CHECKPOINT
    if checkpoint.exists():
        run.load(checkpoint)
    else:
        run.begin()
        run.mean = [p.detach().clone() for p in run.parameters]
    end = min(run.config.steps, session.stop_at or run.config.steps)
    _forget_after(out / LOG, run.step)
    sums, count = torch.zeros(len(run.figures)), 0
    finite, begun, first = True, time.monotonic(), run.step
    with (out / LOG).open("a") as log:
        while run.step < end:
            figures = run.advance(run.batch(run.step).to(run.device))
            sums += figures
            finite = finite and math.isfinite(figures[0])  # once it was not, no more
            count += 1
            logs, saves = (
                run.step % every == 0 or run.step == end
                for every in (run.config.log_every, run.config.checkpoint_every)
            )
            if not finite and (logs or saves):  # before anything takes the place of what was good
                raise CurateError(
                    f"training diverged before step {run.step}: the loss is not finite; the checkpoint, if any, is "
                    "from before",
                    "Lower learning_rate or clip, and begin in a fresh --out: a checkpoint goes on with its own config "
                    "only.",
                )
            if logs:
                means = dict(zip(run.figures, (sums / count).tolist(), strict=True))
                log.write(json.dumps({"step": run.step} | means) + "\n")
                log.flush()
                told = " ".join(f"{name} {value:.4g}" for name, value in means.items())
                pace = (time.monotonic() - begun) / (run.step - first)
                session.say(f"{run.step}/{run.config.steps} {told}, {pace:.3f} s a step")
                sums, count = torch.zeros(len(run.figures)), 0
            run.show(out)
            if saves:
                run.save(checkpoint)


def _forget_after(log: Path, step: int) -> None:
    """Takes out of a log what a run wrote after its last checkpoint: those steps are done again."""
    if log.exists():
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(x for x in lines if x.endswith("\n") and json.loads(x)["step"] <= step))

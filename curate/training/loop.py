"""What training a picture tokenizer and a video tokenizer share: schedule, state and its checkpoint, the loop."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from curate.schema.errors import CurateError, first_line
from curate.tokenizers.folders import header
from curate.training.config import read_config

# What may differ between the two sessions of one run: it tells of the weights, or of the pace, but does not make them.
_NOT_COMPARED = {"media", "videos", "trained_on", "licence", "log_every", "checkpoint_every", "strip_every"}


class RunConfig(BaseModel):
    """What decides how a run goes, and the words of its card; those without a default are each tokenizer's to set.

    Attributes:
        warmup: share of the steps in which the rate rises.
        ema: how much of the moving average of the weights a step keeps.
        gradient_weight: weight of the L1 of the differences of neighbours.
        saturation_weight: weight of the square of |latent| beyond 2.
        clip: most norm of a gradient.
        log_every, checkpoint_every, strip_every: steps from one entry, checkpoint, picture strip to the next.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    warmup: float = Field(ge=0, lt=1)
    ema: float = Field(default=0.999, ge=0, lt=1)
    gradient_weight: float = Field(default=0.1, ge=0)
    saturation_weight: float = Field(default=0.05, ge=0)
    clip: float = Field(default=0.3, gt=0)
    bf16: bool = True
    log_every: int = Field(default=100, gt=0)
    checkpoint_every: int = Field(gt=0)
    strip_every: int = Field(gt=0)
    trained_on: str = "media of the user"
    licence: str = "unknown"

    @classmethod
    def read(cls, path: Path) -> Self:
        """The configuration in a `train.yaml`; CurateError where it is none."""
        return read_config(cls, path)

    def rate_at(self, step: int) -> float:
        """One cycle: a linear rise, then a cosine fall to a hundredth (after Smith and Topin 2017)."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        way = (step - rise) / max(1, self.steps - rise)
        return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * way)) / 2)

    def words(self, shape: Mapping[str, Any], own_media: bool, absent: Sequence[str]) -> dict[str, Any]:
        """What the header of the weights says.

        Args:
            own_media: the config's words are about the config's media; of other media nothing is known here but that
                they are others.
            absent: of the config's media, what was not on this machine.
        """
        if not own_media:
            return {"shape": dict(shape), "trained_on": "media of the user", "licence": "unknown"}
        lacking = f" Of these not on the machine, so not trained on: {', '.join(absent)}." if absent else ""
        return {"shape": dict(shape), "trained_on": self.trained_on + lacking, "licence": self.licence}


Config = TypeVar("Config", bound=RunConfig)


class Run(ABC, Generic[Config]):
    """The state of training: net, its moving average and Adam's moments; saved as safetensors, never as a pickle.

    Attributes:
        figures: what `advance` gives, by its names in the log; the first is the loss, the others are in dB.
        step: steps done.
        names, parameters, mean: of what is trained, in one order; `mean` is empty until `begin` or `load`.
        built_on: digests of trained tokenizers that are part of the net and stay as they are, by kind.
    """

    figures: ClassVar[tuple[str, ...]]

    def __init__(self, config: Config, net: nn.Module, built_on: Mapping[str, str] | None = None) -> None:
        self.config, self.step, self.built_on = config, 0, dict(built_on or {})
        trained = [(name, p) for name, p in net.named_parameters() if p.requires_grad]
        self.names, self.parameters = zip(*trained, strict=True)
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate, betas=(0.9, 0.99))
        self.mean: list[Tensor] = []

    @abstractmethod
    def advance(self, batch: Tensor) -> Tensor:
        """One step; its `figures`, float32 on the CPU."""

    def begin(self) -> None:
        """Starts the moving average at the weights as they are."""
        self.mean = [p.detach().clone() for p in self.parameters]

    def cast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)

    def saturation(self, z: Tensor) -> Tensor:
        """A penalty on latents: behind tanh one that went too far gets no gradient to come back by; this is one."""
        return self.config.saturation_weight * functional.relu(z.abs() - 2).square().mean()

    def start_step(self) -> None:
        """No gradients, and this step's learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate_at(self.step)
        self.optimizer.zero_grad(set_to_none=True)

    def end_step(self) -> None:
        """Moves weights and their average by the gradients that were gathered."""
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.optimizer.step()
        self.step += 1
        # The average forgets its start quickly at first, or the untrained net would linger in it.
        keep = min(self.config.ema, self.step / (self.step + 10))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], 1 - keep)

    def averaged(self) -> dict[str, Tensor]:
        return dict(zip(self.names, self.mean, strict=True))

    def save(self, path: Path) -> None:
        tensors: dict[str, Tensor] = {}
        for name, p, mean in zip(self.names, self.parameters, self.mean, strict=True):
            state = self.optimizer.state[p]
            tensors |= {f"net.{name}": p.detach(), f"mean.{name}": mean}
            tensors |= {f"first.{name}": state["exp_avg"], f"second.{name}": state["exp_avg_sq"]}
        said = {"step": str(self.step), "config": self.config.model_dump_json()} | self.built_on
        part = path.with_suffix(".part")
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, said)
        part.replace(path)

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
            self.mean = [file.get_tensor(f"mean.{name}") for name in self.names]
            with torch.no_grad():
                for name, p in zip(self.names, self.parameters, strict=True):
                    p.copy_(file.get_tensor(f"net.{name}"))
                    self.optimizer.state[p] = {
                        "step": torch.tensor(float(self.step)),
                        "exp_avg": file.get_tensor(f"first.{name}"),
                        "exp_avg_sq": file.get_tensor(f"second.{name}"),
                    }


def train(
    run: Run[Any],
    batch: Callable[[int], Tensor],
    end: int,
    out: Path,
    say: Callable[[str], None],
    strip: Callable[[int], None],
) -> None:
    """Advances a run to step `end`, and writes `log.jsonl`, `checkpoint.safetensors` and strips to `out` on the way.

    Args:
        batch: the batch of a step.
        say: gets one line of progress for each log entry.
        strip: writes the picture strip of a step.

    Raises:
        CurateError: the loss is not finite.
    """
    config, begun, first = run.config, time.monotonic(), run.step
    _forget_after(out / "log.jsonl", run.step)
    sums, count = torch.zeros(len(run.figures)), 0
    finite = True  # once it was not, no more
    with (out / "log.jsonl").open("a") as log:
        while run.step < end:
            figures = run.advance(batch(run.step).to(run.device))
            sums += figures
            finite = finite and math.isfinite(figures[0])
            count += 1
            logs, shows, saves = (
                run.step % every == 0 or run.step == end
                for every in (config.log_every, config.strip_every, config.checkpoint_every)
            )
            if not finite and (logs or saves):  # before anything takes the place of what was good
                raise CurateError(
                    f"training diverged before step {run.step}; the checkpoint, if any, is from before",
                    "Lower learning_rate or clip, and begin in a fresh --out: a checkpoint goes on with its own config "
                    "only.",
                )
            if logs:
                means = dict(zip(run.figures, (sums / count).tolist(), strict=True))
                loss, *others = means.items()
                log.write(json.dumps({"step": run.step} | means) + "\n")
                log.flush()
                told = " ".join(f"{name.removesuffix('_psnr')} {value:.2f}" for name, value in others)
                pace = (time.monotonic() - begun) / (run.step - first)
                say(f"{run.step} loss {loss[1]:.4f} {told} dB, {pace:.3f} s a step")
                sums, count = torch.zeros(len(run.figures)), 0
            if shows:
                strip(run.step)
            if saves:
                run.save(out / "checkpoint.safetensors")


def _forget_after(log: Path, step: int) -> None:
    """Takes out of a log what a run wrote after its last checkpoint: those steps are done again."""
    if log.exists():
        lines = log.read_text().splitlines(keepends=True)
        log.write_text("".join(x for x in lines if x.endswith("\n") and json.loads(x)["step"] <= step))


def write_halves(tensors: Mapping[str, Tensor], words: Mapping[str, Any], path: Path) -> None:
    """Weights as fp16, because its rounding costs nothing that can be measured here and halves the file."""
    halves = {name: t.cpu().half().contiguous() for name, t in sorted(tensors.items())}
    save_file(halves, path, header(words))

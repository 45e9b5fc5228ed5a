"""Sampling from a diffusion model that decodes ids: DDIM (Song et al. 2020, arXiv 2010.02502) without noise on the way.

`a[t]` is the share of the signal's power that is left at time `t`: `x_t = sqrt(a[t]) x_0 + sqrt(1 - a[t]) e`. What
comes out depends on the ids and on one noise, seeded and the same for every item: equal ids give equal items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.schema.errors import CurateError

SEED = 0
PREDICTIONS = ("sample", "v_prediction")
BETAS = ("linear", "squaredcos_cap_v2")


@dataclass(frozen=True)
class Diffusion:
    """How a diffusion model was trained, in the words of diffusers' and ml-4m's `config.json`.

    Attributes:
        num_train_timesteps: T.
        beta_schedule: `linear`, from 1e-4 to 0.02 (Ho et al. 2020, arXiv 2006.11239, section 4), or
            `squaredcos_cap_v2` (Nichol and Dhariwal 2021, arXiv 2102.09672, equation 17).
        zero_terminal_snr: no signal is left at the last time (Lin et al. 2023, arXiv 2305.08891, algorithm 1).
        prediction_type: what the model gives: `sample`, x_0, or `v_prediction`, sqrt(a) e - sqrt(1 - a) x_0
            (Salimans and Ho 2022, arXiv 2202.00512, appendix D).
        clip: whether each x_0 is clipped to [-1, 1].
    """

    num_train_timesteps: int = 1000
    beta_schedule: str = "linear"
    zero_terminal_snr: bool = True
    prediction_type: str = "sample"
    clip: bool = True

    @classmethod
    def of_config(cls, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Diffusion:
        """From a `config.json`; `thresholding` with a greatest value of 1, as everywhere in ml-4m, is clipping.

        Raises:
            CurateError: a schedule or prediction that is not known here.
        """
        said = {**defaults, **config}
        for key, known in (("beta_schedule", BETAS), ("prediction_type", PREDICTIONS)):
            if said[key] not in known:
                raise CurateError(f"config.json has {key} {said[key]!r}", f"known are {' and '.join(known)}")
        return cls(
            num_train_timesteps=int(said["num_train_timesteps"]),
            beta_schedule=said["beta_schedule"],
            zero_terminal_snr=bool(said["zero_terminal_snr"]),
            prediction_type=said["prediction_type"],
            clip=bool(said["thresholding"] or said["clip_sample"]),
        )

    def signal(self) -> NDArray[np.float64]:
        """`a`, float64 `(T,)`, falling."""
        times = self.num_train_timesteps
        if self.beta_schedule == "linear":
            betas = np.linspace(1e-4, 0.02, times)
        else:
            bar = np.cos((np.arange(times + 1) / times + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = np.minimum(1 - bar[1:] / bar[:-1], 0.999)
        kept: NDArray[np.float64] = np.cumprod(1 - betas, dtype=np.float64)
        if not self.zero_terminal_snr:
            return kept
        root = np.sqrt(kept)
        done: NDArray[np.float64] = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        return done

    def sample(
        self, model: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...], steps: int, to: Tensor
    ) -> Tensor:
        """`steps` calls of the model from noise to items.

        Args:
            model: fp32 `(n, *shape)` at time `(n,)`, int64, to its prediction of the same shape.
            shape: of one item; to: a tensor `(n, ...)` of as many items, on their device.
            steps: evenly spaced and ending at the first time ("trailing", arXiv 2305.08891, section 3.3).

        Returns:
            fp32 `(n, *shape)`.
        """
        kept, stride = self.signal(), max(1, self.num_train_timesteps // steps)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).to(to.device)
        x = noise.expand(len(to), *shape)
        for t in range(self.num_train_timesteps - 1, -1, -stride):
            signal, before = float(kept[t]), float(kept[t - stride]) if t >= stride else 1.0
            said = model(x, torch.full((len(to),), t, device=to.device))
            if self.prediction_type == "sample":
                clean, noisy = said, (x - signal**0.5 * said) / (1 - signal) ** 0.5
            else:
                clean = signal**0.5 * x - (1 - signal) ** 0.5 * said
                noisy = signal**0.5 * said + (1 - signal) ** 0.5 * x
            # The noise stays that of the prediction as it was: so did ml-4m evaluate its models.
            clean = clean.clamp(-1, 1) if self.clip else clean
            x = before**0.5 * clean + (1 - before) ** 0.5 * noisy
        return x

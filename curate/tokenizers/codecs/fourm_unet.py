"""The decoder of 4M's DiVAEs: a diffusion UNet over patches, told the codes (ml-4m, `unet_patched`), and its sampling.

The UNet is that of Dhariwal and Nichol 2021 (arXiv 2105.05233) without scale-shift norms, here `diffusers`'
`UNet2DModel`; patches before and after it as in arXiv 2207.04316; the codes, enlarged to the grid of patches, are more
channels of its input (Shi et al. 2022, arXiv 2206.00386). Names of tensors are those of the published weights.

Sampling is DDIM (Song et al. 2020, arXiv 2010.02502) without noise on the way, `diffusers`' `DDIMScheduler`. What comes
out depends on the ids and on one noise, seeded and the same for every item: equal ids give equal items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import infer_depth, sizes_of
from curate.schema.errors import CurateError

SEED = 0
KNOWN = {
    "beta_schedule": ("linear", "squaredcos_cap_v2"),
    "prediction_type": ("sample", "v_prediction"),
}
_RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "middle_block.0": "mid_block.resnets.0",
    "middle_block.1": "mid_block.attentions.0",
    "middle_block.2": "mid_block.resnets.1",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def unet_shape(state: Mapping[str, Tensor], prefix: str, channels: int, code_width: int, path: Path) -> dict[str, Any]:
    """Sizes that `PatchedUNet` takes, from the names and shapes of tensors.

    Raises:
        CurateError: a tensor that every such file has is missing; it says which.
    """
    levels: list[int] = []
    attends: list[bool] = []
    down = f"{prefix}input_blocks."
    blocks = 0
    for i in range(1, infer_depth(state, down)):
        if f"{down}{i}.0.op.weight" in state:
            blocks = 0
            continue
        if blocks == 0:
            levels.append(sizes_of(state, f"{down}{i}.0.in_layers.2.weight", 4, path)[0])
            attends.append(f"{down}{i}.1.qkv.weight" in state)
        blocks += 1
    taken = sizes_of(state, f"{down}0.0.weight", 4, path)[1] - code_width
    return {
        "width": sizes_of(state, f"{prefix}time_embed.0.weight", 2, path)[1],
        "levels": levels,
        "blocks": blocks,
        "attends": attends,
        "patch": math.isqrt(max(1, taken // channels)),
        "channels": channels,
        "code_width": code_width,
    }


class PatchedUNet(nn.Module):
    """Noisy items, their time and their codes to a prediction.

    Args:
        width: of the sinusoids of time, and so of the first level; four times that, of their embedding.
        levels: channels at each level, the finest first; each level but the last halves the grid.
        blocks: residual blocks of a level on the way down; one more on the way up.
        attends: True if a level's blocks are followed by attention, of one head.
        patch: pixels of a patch's side; channels: of the items; code_width: of the codes.
    """

    def __init__(
        self,
        width: int,
        levels: Sequence[int],
        blocks: int,
        attends: Sequence[bool],
        patch: int,
        channels: int,
        code_width: int,
    ) -> None:
        super().__init__()
        if width != levels[0]:
            raise CurateError(f"a UNet with sinusoids of {width} and a first level of {levels[0]} does not fit")
        ensure_torchvision()
        from diffusers.models.unets.unet_2d import UNet2DModel

        self.patch, self.multiple = patch, patch * 2 ** (len(levels) - 1)
        """What an item's side is a multiple of."""
        pixels = channels * patch**2
        self.unet: Any = UNet2DModel(
            in_channels=pixels + code_width,
            out_channels=pixels,
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
            block_out_channels=tuple(levels),
            layers_per_block=blocks,
            attention_head_dim=None,
        )
        _use_published_names(self, _published_names(len(levels), blocks, attends))

    def forward(self, x: Tensor, time: Tensor, codes: Tensor) -> Tensor:
        """fp32 `(n, channels, H, W)`, int64 `(n,)` and fp32 `(n, code_width, h, w)` to fp32 `(n, channels, H, W)`.

        Raises:
            CurateError: H or W is not a multiple of `self.multiple`.
        """
        if any(side % self.multiple for side in x.shape[2:]):
            raise CurateError(
                f"this decoder gives images whose sides are multiples of {self.multiple}, "
                f"not {x.shape[2]} x {x.shape[3]}",
                "import the tokenizer with such a `size`",
            )
        patches = functional.pixel_unshuffle(x, self.patch)
        told = functional.interpolate(codes, patches.shape[2:], mode="nearest")
        said = self.unet(torch.cat([patches, told], 1), time).sample
        return functional.pixel_shuffle(said, self.patch)


def _use_published_names(net: PatchedUNet, names: Mapping[str, str]) -> None:
    """Lets the net read and write its state dict under ml-4m's names.

    An attention's three linear maps are one 1x1 convolution there.
    """
    pairs = [(own, theirs, kind) for own, theirs in names.items() for kind in ("weight", "bias")]

    def to_published(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        for own, theirs, kind in pairs:
            at, to = f"{prefix}unet.{own}.", f"{prefix}{theirs}."
            if f"{at}to_q.{kind}" in state:
                parts = [state.pop(f"{at}to_{part}.{kind}") for part in "qkv"]
                state[f"{to}qkv.{kind}"] = _convolution(torch.cat(parts))
                state[f"{to}proj_out.{kind}"] = _convolution(state.pop(f"{at}to_out.0.{kind}"))
                state[f"{to}norm.{kind}"] = state.pop(f"{at}group_norm.{kind}")
            elif f"{at}{kind}" in state:
                state[f"{to}{kind}"] = state.pop(f"{at}{kind}")

    def to_own(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
        for own, theirs, kind in pairs:
            at, to = f"{prefix}unet.{own}.", f"{prefix}{theirs}."
            if f"{to}qkv.{kind}" in state:
                parts = _linear(state.pop(f"{to}qkv.{kind}")).chunk(3)
                state |= {f"{at}to_{part}.{kind}": value for part, value in zip("qkv", parts, strict=True)}
                state[f"{at}to_out.0.{kind}"] = _linear(state.pop(f"{to}proj_out.{kind}"))
                state[f"{at}group_norm.{kind}"] = state.pop(f"{to}norm.{kind}")
            elif f"{to}{kind}" in state:
                state[f"{at}{kind}"] = state.pop(f"{to}{kind}")

    net.register_state_dict_post_hook(to_published)  # type: ignore[no-untyped-call]
    net.register_load_state_dict_pre_hook(to_own)  # type: ignore[no-untyped-call]


def _linear(value: Tensor) -> Tensor:
    return value[..., 0] if value.ndim == 3 else value


def _convolution(value: Tensor) -> Tensor:
    return value[..., None] if value.ndim == 2 else value


def _published_names(levels: int, blocks: int, attends: Sequence[bool]) -> dict[str, str]:
    """Modules of `UNet2DModel` and of ml-4m, one to one."""
    names = {own: theirs for theirs, own in _ENDS.items() if not theirs.startswith("middle_block")}
    modules = {own: theirs for theirs, own in _ENDS.items() if theirs.startswith("middle_block")}
    down, up = 1, 0
    for level in range(levels):
        for i in range(blocks):
            modules[f"down_blocks.{level}.resnets.{i}"] = f"input_blocks.{down}.0"
            modules[f"down_blocks.{level}.attentions.{i}"] = f"input_blocks.{down}.1"
            down += 1
        names[f"down_blocks.{level}.downsamplers.0.conv"] = f"input_blocks.{down}.0.op"
        down += 1
        for i in range(blocks + 1):
            modules[f"up_blocks.{level}.resnets.{i}"] = f"output_blocks.{up}.0"
            modules[f"up_blocks.{level}.attentions.{i}"] = f"output_blocks.{up}.1"
            up += 1
        last = 2 if attends[levels - 1 - level] else 1
        names[f"up_blocks.{level}.upsamplers.0.conv"] = f"output_blocks.{up - 1}.{last}.conv"
    for own, theirs in modules.items():
        if "attentions" in own:
            names[own] = theirs
        else:
            names |= {f"{own}.{new}": f"{theirs}.{old}" for old, new in _RESIDUAL.items()}
    return names


def diffusion_of(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """What `sample` takes, from a `config.json` in the words of diffusers and ml-4m.

    `thresholding` with a greatest value of 1, as everywhere in ml-4m, is clipping.

    Raises:
        CurateError: a schedule or prediction that is not known here.
    """
    said = {**defaults, **config}
    for key, known in KNOWN.items():
        if said[key] not in known:
            raise CurateError(f"config.json has {key} {said[key]!r}", f"known are {' and '.join(known)}")
    return {
        "num_train_timesteps": int(said["num_train_timesteps"]),
        "beta_schedule": said["beta_schedule"],
        "zero_terminal_snr": bool(said["zero_terminal_snr"]),
        "prediction_type": said["prediction_type"],
        "clip": bool(said["thresholding"] or said["clip_sample"]),
    }


def scheduler_of(
    num_train_timesteps: int = 1000,
    beta_schedule: str = "linear",
    zero_terminal_snr: bool = True,
    prediction_type: str = "sample",
    clip: bool = True,
) -> Any:
    """A `DDIMScheduler` whose steps are evenly spaced and end at the first time ("trailing", arXiv 2305.08891, 3.3).

    Args:
        beta_schedule: `linear`, from 1e-4 to 0.02 (Ho et al. 2020, arXiv 2006.11239, section 4), or
            `squaredcos_cap_v2` (Nichol and Dhariwal 2021, arXiv 2102.09672, equation 17).
        zero_terminal_snr: True if no signal is left at the last time (Lin et al. 2023, arXiv 2305.08891, algorithm 1).
        prediction_type: what the model gives: `sample`, x_0, or `v_prediction` (Salimans and Ho 2022, arXiv
            2202.00512, appendix D).
        clip: True if each x_0 is clipped to [-1, 1]; the noise stays that of the prediction as it was.
    """
    from diffusers.schedulers.scheduling_ddim import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=num_train_timesteps,
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule=beta_schedule,
        rescale_betas_zero_snr=zero_terminal_snr,
        prediction_type=prediction_type,
        clip_sample=clip,
        timestep_spacing="trailing",
    )


def sample(
    scheduler: Any, model: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...], steps: int, to: Tensor
) -> Tensor:
    """`steps` calls of the model from noise to items.

    Args:
        model: fp32 `(n, *shape)` at time `(n,)`, int64, to its prediction of the same shape.
        shape: of one item; to: a tensor `(n, ...)` of as many items, on their device.

    Returns:
        fp32 `(n, *shape)`.
    """
    scheduler.set_timesteps(steps)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(SEED)).to(to.device)
    x = noise.expand(len(to), *shape)
    for time in scheduler.timesteps.tolist():
        said = model(x, torch.full((len(to),), time, device=to.device))
        x = cast(Tensor, scheduler.step(said, time, x).prev_sample)
    return x

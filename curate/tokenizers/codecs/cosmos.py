"""NVIDIA's discrete Cosmos tokenizers (arXiv 2501.03575, section 4): images (DI8x8, DI16x16), clips (DV4x8x8, ...).

Published as two TorchScript archives, `encoder.jit` and `decoder.jit`; see `torchscript` for what running them means.
The encoder takes [-1, 1] and gives `(ids int32, codes, ...)`, FSQ of levels (8, 8, 8, 5, 5, 5); the decoder takes ids.
The README says that ids are 1 to 64000; the archives give 0 to 63999.

Both are run in float32. An archive that was traced in bfloat16 may work in bfloat16 only; importing finds out, and the
card says so. FSQ lies inside the archive: its arithmetic is float32 there too (its constants are), on latents that are
as the encoder computed them.

A folder holds `encoder.jit`, `decoder.jit`, `config.json` (the two number formats) and `card.json`, whose
`weights_digest` is BLAKE3 of the text `BLAKE3(encoder.jit) BLAKE3(decoder.jit)`, hex digits with one space between.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.models.batches import exact
from curate.models.passes import fitting
from curate.models.torchscript import load_script
from curate.models.weights import locate, read_config
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.fields import RunsOn
from curate.schema.ids import digest
from curate.tokenizers.folders import (
    LICENCE,
    TRAINED_ON,
    check_digest,
    code_version,
    read_card,
    read_files,
    write_folder,
)
from curate.tokenizers.grid import ClipTokenizer, GridNet, GridTokenizer, batch_difference, card_of, probes, square_grid
from curate.tokenizers.quantisers.fsq import fsq_codes

FILES = ("encoder.jit", "decoder.jit")
LEVELS = (8, 8, 8, 5, 5, 5)
PROBE_FRAMES = 9  # 1 + 8: two latent frames at stride 8, three at stride 4
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class _Fails(CurateError):
    """An archive fails on what it was given."""


class Scripts(GridNet):
    """The two archives.

    Args:
        raw: their bytes, by file name.
        formats: number format that each computes in, `float32` or `bfloat16`, by file name.
        stride: pixels on a side that an id covers; temporal: frames of a step of a clip, None for images.
    """

    def __init__(
        self,
        raw: Mapping[str, bytes],
        formats: Mapping[str, str],
        stride: int = 8,
        temporal: int | None = None,
        device: str = "cpu",
    ) -> None:
        super().__init__()
        if set(formats) != set(FILES) or not set(formats.values()) <= set(FORMATS):
            raise CurateError(f"number formats {dict(formats)}: each of {', '.join(FILES)} is float32 or bfloat16")
        self.formats, self.stride, self.temporal = dict(formats), stride, temporal
        for name in FILES:
            self.add_module(name.split(".")[0], load_script(raw[name], name, device).to(FORMATS[formats[name]]))

    def card_fields(self, size: int | None) -> dict[str, Any]:
        size = 256 if size is None else size
        of_clips = {} if self.temporal is None else {"temporal_stride": self.temporal}
        return of_clips | {
            "quantiser": "fsq",
            "levels": list(LEVELS),
            "index_order": (
                "little-endian mixed radix: id = sum of digit_i times the product of the levels before i; "
                "channel 0 is the least significant digit; cells in row-major order"
            ),
            "vocabulary": int(np.prod(LEVELS)),
            "grid": square_grid("this Cosmos tokenizer", size, self.stride),
            "input_size": size,
        }

    def ids(self, x: Tensor) -> Tensor:
        if self.temporal is None:
            return self.encode(x)[0]
        return self.encode(x.transpose(0, 1)[None])[0][0]

    def images(self, ids: Tensor) -> Tensor:
        return self.decode(ids) if self.temporal is None else self.decode(ids[None])[0].transpose(0, 1)

    def encode(self, media: Tensor) -> tuple[Tensor, Tensor | None]:
        """float `(n, 3, [T,] H, W)` to ids `(n, [t,] h, w)`, and the codes that the archive gives with them."""
        out = self._run("encoder.jit", media.to(FORMATS[self.formats["encoder.jit"]]))
        first = out[0] if isinstance(out, tuple | list) and out else out
        if not isinstance(first, Tensor) or first.dtype not in (torch.int32, torch.int64):
            raise CurateError(
                "encoder.jit gives no integer ids",
                "is it a continuous tokenizer (CI, CV)? Those give latents; the discrete ones are DI and DV",
            )
        codes = out[1] if isinstance(out, tuple | list) and len(out) > 1 and isinstance(out[1], Tensor) else None
        return first, codes

    def decode(self, ids: Tensor) -> Tensor:
        """The other way."""
        out = self._run("decoder.jit", ids.to(torch.int32))
        return cast(Tensor, out[0] if isinstance(out, tuple | list) else out).float()

    def _run(self, name: str, given: Tensor) -> Any:
        try:
            return self.get_submodule(name.split(".")[0])(given)
        except RuntimeError as error:
            last = [line for line in str(error).splitlines() if line.strip()][-1]
            raise _Fails(f"{name} fails on {given.dtype} {tuple(given.shape)}: {last.strip()}") from error


class CosmosDI(GridTokenizer):
    """Cosmos DI: uint8 sRGB images of the card's size to ids and back."""

    architecture = "cosmos-di"
    runs_program = True
    frames = 0
    """Of the probe: none but one image."""

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", dtype: str = "float32", batch: int | None = None) -> Self:
        """Reads the folder. What the archives compute in is of their own: `dtype` is `float32`, which changes nothing.

        Raises:
            CurateError: the archives are not those of the card, or do not fit the device; another dtype.
        """
        if dtype != "float32":
            raise CurateError("Cosmos' archives compute in what they were made for", "leave `dtype` out")
        card = read_card(folder)
        raw = dict(zip(FILES, read_files(folder, FILES), strict=True))
        check_digest(folder, card, _digest(raw))
        if not card.input_size or not card.grid:
            raise CurateError(f"the card of {card.name} lacks a grid or an input size")
        formats, stride = read_config(folder / "config.json"), card.input_size // card.grid[0]
        with fitting(card.name, RunsOn(device)):
            scripts = Scripts(raw, formats, stride, card.temporal_stride, device)
        return cls(card, scripts, device, batch=batch)

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, size: int = 256) -> CodecCard:
        """Makes published archives into a folder of the zoo; strides are found by running them.

        Args:
            source: a folder with `encoder.jit` and `decoder.jit`, or a hub id (`nvidia/Cosmos-0.1-Tokenizer-DI8x8`,
                `nvidia/Cosmos-0.1-Tokenizer-DV8x16x16`).
            folder: where to; its name becomes the tokenizer's.
            size: side of the images in pixels, a multiple of the stride.

        Raises:
            CurateError: the archives cannot be had, are pickles, are not what is said above, or fail.
        """
        found = {path.name: path for path in reversed(locate(source, FILES))}
        if missing := [name for name in FILES if name not in found]:
            raise CurateError(f"{source} lacks {' and '.join(missing)}", "give a folder that holds both archives")
        raw = {name: found[name].read_bytes() for name in FILES}
        media = _probe(probes(1, size, cls.frames or 1)[0], bool(cls.frames))
        formats = _working_formats(raw, media)
        stride, temporal = _strides(Scripts(raw, formats), media, size)
        net = Scripts(raw, formats, stride, temporal)
        fields = {
            "name": folder.name,
            "architecture": cls.architecture,
            "weights_digest": _digest(raw),
            "code_version": code_version("torch"),
            "parameters": sum(p.numel() for p in net.parameters()),
            "trained_on": TRAINED_ON,
            "licence": LICENCE,
        }
        card = card_of(net, size, fields)
        said = f". The encoder computes in {formats['encoder.jit']}, the decoder in {formats['decoder.jit']}"
        card = card.model_copy(update={"input": card.input + said})
        measured = {"batch_invariance": batch_difference(cls(card, net))} | _rounded(raw, net, size)
        card = card.model_copy(update=measured)
        config = json.dumps(formats, indent=2, sort_keys=True) + "\n"
        write_folder(folder, card, {**raw, "config.json": config.encode()})
        return card


class CosmosDV(ClipTokenizer, CosmosDI):
    """Cosmos DV: uint8 sRGB clips `(1 + stride k, H, W, 3)` to ids `(1 + k, h, w)` and back."""

    architecture = "cosmos-dv"
    frames = PROBE_FRAMES


def _rounded(raw: Mapping[str, bytes], net: Scripts, size: int) -> dict[str, float]:
    """The share of ids that bfloat16 changes, where the encoder runs in both."""
    if net.formats["encoder.jit"] != "float32":
        return {}
    rough, shares = Scripts(raw, {**net.formats, "encoder.jit": "bfloat16"}), []
    with exact(torch.device("cpu")):
        for clip in probes(4, size, 1 + (net.temporal or 0)):
            media = _probe(clip, net.temporal is not None)
            shares.append(float((rough.encode(media)[0] != net.encode(media)[0]).float().mean()))
    return {"bf16_difference": float(np.mean(shares))}


def _digest(raw: Mapping[str, bytes]) -> str:
    return digest(" ".join(digest(raw[name]) for name in FILES).encode())


def _probe(clip: NDArray[np.uint8], is_clip: bool) -> Tensor:
    """uint8 `(T, H, W, 3)` to float32 in [-1, 1]: `(1, 3, T, H, W)`, or its first frame as `(1, 3, H, W)`."""
    media = torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
    return media if is_clip else media[:, :, 0]


def _working_formats(raw: Mapping[str, bytes], media: Tensor) -> dict[str, str]:
    """float32 for each archive, or bfloat16 where one runs in nothing else."""
    formats = dict.fromkeys(FILES, "float32")
    with exact(media.device):
        for name in FILES:
            scripts = Scripts(raw, formats)
            try:
                ids, _ = scripts.encode(media)
                if name == "decoder.jit":
                    scripts.decode(ids)
            except _Fails:
                formats[name] = "bfloat16"
    return formats


def _strides(scripts: Scripts, media: Tensor, size: int) -> tuple[int, int | None]:
    """Pixels and, of clips, frames that an id covers, after what the card will say was checked on a probe's ids."""
    with exact(media.device):
        ids, codes = scripts.encode(media)
        back = scripts.decode(ids)
    if ids.ndim != media.ndim - 1 or len(ids) != 1 or ids.shape[-1] != ids.shape[-2] or size % ids.shape[-1]:
        raise CurateError(f"encoder.jit gives ids {tuple(ids.shape)} for media {tuple(media.shape)}")
    vocabulary = int(np.prod(LEVELS))
    if int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
        raise CurateError(f"encoder.jit gives ids {int(ids.min())} .. {int(ids.max())}, not 0 .. {vocabulary - 1}")
    if codes is not None and codes.shape == (1, len(LEVELS), *ids.shape[1:]):
        want = fsq_codes(ids[0].cpu().numpy(), LEVELS)
        got = codes[0].float().movedim(0, -1).cpu().numpy()
        if not np.allclose(got, want, atol=0.01):  # bfloat16 keeps eighths and halves exactly; this is for rounding
            raise CurateError(f"the ids of encoder.jit are not the mixed radix of its codes with levels {LEVELS}")
    if back.shape != media.shape:
        raise CurateError(f"decoder.jit gives {tuple(back.shape)}, not {tuple(media.shape)}")
    stride = size // ids.shape[-1]
    if media.ndim == 4:
        return stride, None
    frames, steps = media.shape[2], ids.shape[1] - 1
    if steps < 1 or (frames - 1) % steps:
        raise CurateError(f"encoder.jit gives {ids.shape[1]} latent frames for {frames} frames")
    return stride, (frames - 1) // steps

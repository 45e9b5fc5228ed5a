"""NVIDIA's discrete Cosmos tokenizers (arXiv 2501.03575, section 4): pictures (DI8x8, DI16x16), clips (DV4x8x8, ...).

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
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.models.batches import exact
from curate.models.torchscript import load_script
from curate.models.weights import locate, read_config
from curate.schema.codec import CodecCard, Preprocessing, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.checkpoints import LICENCE, TRAINED_ON
from curate.tokenizers.folders import check_digest, code_version, read_card, read_files, write_folder
from curate.tokenizers.grids import Clips, Pictures, batch_difference, probes
from curate.tokenizers.inputs import PICTURES
from curate.tokenizers.quantisers.fsq import fsq_codes

FILES = ("encoder.jit", "decoder.jit")
LEVELS = (8, 8, 8, 5, 5, 5)
PROBE_FRAMES = 9  # 1 + 8: two latent frames at stride 8, three at stride 4
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class _Fails(CurateError):
    """An archive fails on what it was given."""


class Scripts:
    """The two archives: `encode` float `(n, 3, [T,] H, W)` to ids `(n, [t,] h, w)`, `decode` the other way.

    Attributes:
        formats: number format that each computes in, `float32` or `bfloat16`, by file name.
    """

    def __init__(self, raw: Mapping[str, bytes], formats: Mapping[str, str], device: str = "cpu") -> None:
        if set(formats) != set(FILES) or not set(formats.values()) <= set(FORMATS):
            raise CurateError(f"number formats {dict(formats)}: each of {', '.join(FILES)} is float32 or bfloat16")
        self.formats = dict(formats)
        self._modules = {name: load_script(raw[name], name, device).to(FORMATS[formats[name]]) for name in FILES}

    def encode(self, media: Tensor) -> tuple[Tensor, Tensor | None]:
        """Ids, and the codes that the archive gives with them."""
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
        out = self._run("decoder.jit", ids.to(torch.int32))
        return cast(Tensor, out[0] if isinstance(out, tuple | list) else out).float()

    def parameters(self) -> int:
        return sum(p.numel() for module in self._modules.values() for p in module.parameters())

    def _run(self, name: str, given: Tensor) -> Any:
        try:
            return self._modules[name](given)
        except RuntimeError as error:
            last = [line for line in str(error).splitlines() if line.strip()][-1]
            raise _Fails(f"{name} fails on {given.dtype} {tuple(given.shape)}: {last.strip()}") from error


class CosmosDI(Pictures):
    """uint8 sRGB pictures of the card's size to ids and back."""

    runs_program = True

    def __init__(self, card: CodecCard, scripts: Scripts, device: str = "cpu") -> None:
        super().__init__(card, device)
        self.scripts = scripts

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> CosmosDI:
        """Reads the folder; CurateError where the archives are not those of the card."""
        return cls(*_load(folder, device), device)

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, size: int = 256) -> CodecCard:
        """Makes published archives into a folder of the zoo; strides are found by running them.

        Args:
            source: a folder with `encoder.jit` and `decoder.jit`, or a hub id (`nvidia/Cosmos-0.1-Tokenizer-DI8x8`).
            folder: where to; its name becomes the tokenizer's.
            size: side of the pictures in pixels, a multiple of the stride.

        Raises:
            CurateError: the archives cannot be had, are pickles, are not what is said above, or fail.
        """
        raw = _read(source)
        media = _tensor(probes(1, size)[0])
        scripts = _working(raw, media[:, :, 0])
        ids, _ = _checked(scripts, media[:, :, 0], size)
        card = _card(folder.name, raw, scripts, ids, size, temporal=None)
        card = _measured(card, cls(card, scripts), raw)
        _write(folder, raw, scripts, card)
        return card

    def ids_of(self, pictures: Tensor) -> Tensor:
        return self.scripts.encode(pictures)[0]

    def pixels_of(self, ids: Tensor) -> Tensor:
        return self.scripts.decode(ids)


class CosmosDV(Clips):
    """uint8 sRGB clips `(1 + stride k, H, W, 3)` to ids `(1 + k, h, w)` and back."""

    runs_program = True

    def __init__(self, card: CodecCard, scripts: Scripts, device: str = "cpu") -> None:
        super().__init__(card, device)
        self.scripts = scripts

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> CosmosDV:
        """Reads the folder; CurateError where the archives are not those of the card."""
        return cls(*_load(folder, device), device)

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, size: int = 256) -> CodecCard:
        """As `CosmosDI.import_checkpoint`, for clips (`nvidia/Cosmos-0.1-Tokenizer-DV8x16x16`)."""
        raw = _read(source)
        media = _tensor(probes(1, size, PROBE_FRAMES)[0])
        scripts = _working(raw, media)
        ids, _ = _checked(scripts, media, size)
        steps = ids.shape[1] - 1
        if steps < 1 or (PROBE_FRAMES - 1) % steps:
            raise CurateError(f"encoder.jit gives {ids.shape[1]} latent frames for {PROBE_FRAMES} frames")
        card = _card(folder.name, raw, scripts, ids, size, temporal=(PROBE_FRAMES - 1) // steps)
        card = _measured(card, cls(card, scripts), raw)
        _write(folder, raw, scripts, card)
        return card

    def ids_of(self, clip: Tensor) -> Tensor:
        return self.scripts.encode(clip.transpose(0, 1)[None])[0][0]

    def pixels_of(self, ids: Tensor) -> Tensor:
        return self.scripts.decode(ids[None])[0].transpose(0, 1)


def _read(source: str) -> dict[str, bytes]:
    found = {path.name: path for path in reversed(locate(source, FILES))}
    if missing := [name for name in FILES if name not in found]:
        raise CurateError(f"{source} lacks {' and '.join(missing)}", "give a folder that holds both archives")
    return {name: found[name].read_bytes() for name in FILES}


def _load(folder: Path, device: str) -> tuple[CodecCard, Scripts]:
    card = read_card(folder)
    raw = dict(zip(FILES, read_files(folder, FILES), strict=True))
    check_digest(folder, card, _digest(raw))
    return card, Scripts(raw, read_config(folder / "config.json"), device)


def _digest(raw: Mapping[str, bytes]) -> str:
    return digest(" ".join(digest(raw[name]) for name in FILES).encode())


def _write(folder: Path, raw: Mapping[str, bytes], scripts: Scripts, card: CodecCard) -> None:
    config = json.dumps(scripts.formats, indent=2, sort_keys=True) + "\n"
    write_folder(folder, card, {**raw, "config.json": config.encode()})


def _tensor(clip: NDArray[np.uint8]) -> Tensor:
    """uint8 `(T, H, W, 3)` to float32 `(1, 3, T, H, W)` in [-1, 1]."""
    return torch.from_numpy(clip).permute(3, 0, 1, 2)[None].float() / 127.5 - 1


def _working(raw: Mapping[str, bytes], media: Tensor) -> Scripts:
    """The archives in float32 each, or in bfloat16 where one runs in nothing else."""
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
    return Scripts(raw, formats)


def _checked(scripts: Scripts, media: Tensor, size: int) -> tuple[Tensor, Tensor | None]:
    """Ids of a probe, after what the card will say was checked on them."""
    with exact(media.device):
        ids, codes = scripts.encode(media)
        back = scripts.decode(ids)
    frames = media.shape[2:-2]
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
        raise CurateError(f"decoder.jit gives {tuple(back.shape)}, not {(1, 3, *frames, size, size)}")
    return ids, codes


def _card(
    name: str, raw: Mapping[str, bytes], scripts: Scripts, ids: Tensor, size: int, temporal: int | None
) -> CodecCard:
    vocabulary = int(np.prod(LEVELS))
    shape = f"({size}, {size}, 3) or (N, {size}, {size}, 3)"
    if temporal is not None:
        shape = f"(T, {size}, {size}, 3), T = 1 + {temporal} k"
    return CodecCard(
        name=name,
        architecture="cosmos-di" if temporal is None else "cosmos-dv",
        modality="image" if temporal is None else "video",
        stream=f"tok_rgb@{size}" if temporal is None else f"tok_video@{size}",
        quantiser="fsq",
        levels=list(LEVELS),
        index_order=(
            "little-endian mixed radix: id = sum of digit_i times the product of the levels before i; "
            "channel 0 is the least significant digit; cells in row-major order"
        ),
        vocabulary=vocabulary,
        dtype=smallest_unsigned(vocabulary),
        grid=(ids.shape[-2], ids.shape[-1]),
        temporal_stride=temporal,
        input_size=size,
        channels=3,
        input=(
            f"uint8 sRGB {shape}{PICTURES}. The encoder computes in {scripts.formats['encoder.jit']}, the decoder in "
            f"{scripts.formats['decoder.jit']}"
        ),
        preprocessing=Preprocessing(
            resize="short_side", resample="lanczos", crop="centre", mean=[0.5] * 3, std=[0.5] * 3
        ),
        chunking="" if temporal is None else "a clip is encoded whole: ids of its parts would differ at the seams",
        weights_digest=_digest(raw),
        code_version=code_version("torch"),
        parameters=scripts.parameters(),
        trained_on=TRAINED_ON,
        licence=LICENCE,
    )


def _measured(card: CodecCard, tokenizer: CosmosDI | CosmosDV, raw: Mapping[str, bytes]) -> CodecCard:
    """Batch invariance; and the share of ids that bfloat16 changes, where the encoder runs in both."""
    found: dict[str, float] = {"batch_invariance": batch_difference(tokenizer)}
    formats = tokenizer.scripts.formats
    if formats["encoder.jit"] == "float32":
        rough = Scripts(raw, {**formats, "encoder.jit": "bfloat16"})
        shares = []
        with exact(tokenizer.device):
            for clip in probes(4, tokenizer.picture[0], 1 + (card.temporal_stride or 0)):
                media = _tensor(clip) if card.temporal_stride else _tensor(clip)[:, :, 0]
                shares.append(float((rough.encode(media)[0] != tokenizer.scripts.encode(media)[0]).float().mean()))
        found["bf16_difference"] = float(np.mean(shares))
    return card.model_copy(update=found)

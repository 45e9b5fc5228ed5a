"""Batches whose samples have one shape: clips of as many steps, and samples with the same modalities."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curate.shards.draw import Draw, check_names
from curate.shards.grouped import GroupedStream
from curate.shards.memory import Ints
from curate.shards.views import View
from curate.storage import Store


class BucketedStream(GroupedStream):
    """Iterates over batches of one shape of one split of a build; see `bucketed`. One iterator at a time."""

    window: ClassVar[int] = 1 << 14

    def __init__(
        self, build: Store | Path | str, view: View, batch: int, split: str, *, by: Sequence[str] | None, **options: Any
    ) -> None:
        super().__init__(build, view, split, size=batch, batch=1, **options)
        check_names(self.manifest, list(by or ()), "by")
        text = {s.name for s in self.manifest.streams if s.modality == "text"}
        self._by = [i for i, s in enumerate(self._bound.streams) if (s not in text if by is None else s in by)]

    def _grouped(self, epoch: int, index: Ints) -> list[Ints]:
        steps = self._open().rows.steps(index)[self._by]
        _, bucket = np.unique(steps, axis=1, return_inverse=True)
        groups = []
        for one in range(int(bucket.max()) + 1):
            mine = index[bucket == one]
            if self._tail == "repeat":
                mine = np.resize(mine, -(-len(mine) // self._size) * self._size)
            whole = [mine[at : at + self._size] for at in range(0, len(mine), self._size)]
            groups += [group for group in whole if len(group) == self._size or self._tail != "drop"]
        return groups

    def _made(self, groups: Sequence[Ints], draw: Draw) -> dict[str, Any]:
        return self._bound.batch(self._open().rows.take(groups[0]), draw)

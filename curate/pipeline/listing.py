"""What earlier runs have committed: one listing of a folder, shared by all tasks without a copy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import ray


class Listing:
    """Paths of a build below some folders, sorted, in the object store: 100 bytes a fragment, once a node.

    Looking up a name is a binary search, so that a task's share does not grow with the build.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._ref: Any = ray.put(pa.array(sorted(paths), pa.string()))
        self._paths: pa.StringArray | None = None

    def __getstate__(self) -> Any:
        return self._ref  # a task maps the paths, it does not get a copy of them

    def __setstate__(self, ref: Any) -> None:
        self._ref, self._paths = ref, None

    @property
    def paths(self) -> pa.StringArray:
        """All of them."""
        if self._paths is None:
            self._paths = ray.get(self._ref)
        return self._paths

    def holds(self, path: str) -> bool:
        """Whether a file is there."""
        at = self._place(path)
        return at < len(self.paths) and self.paths[at].as_py() == path

    def below(self, prefix: str) -> list[str]:
        """All paths that begin so."""
        found = []
        for at in range(self._place(prefix), len(self.paths)):
            path = self.paths[at].as_py()
            if not path.startswith(prefix):
                break
            found.append(path)
        return found

    def _place(self, path: str) -> int:
        low, high = 0, len(self.paths)
        while low < high:
            middle = (low + high) // 2
            if self.paths[middle].as_py() < path:
                low = middle + 1
            else:
                high = middle
        return low

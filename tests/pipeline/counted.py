"""A store that notes each request in a file, and runs of recipes on it: `counted.py FOLDER ...`, each of which holds
`images.yaml` and gets `build` and `log`. Prints the driver's process id."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from curate.storage import Folder, Stat, Store
from curate.storage.base import Lease


@dataclass(frozen=True)
class Counted(Store):
    """A folder; every request of any process is a line `PID METHOD PATH` of the log."""

    inner: Folder
    log: Path

    def _note(self, method: str, path: str) -> None:
        with self.log.open("a") as file:  # one short write to the end of a file is not split
            file.write(f"{os.getpid()} {method} {path}\n")

    @property
    def remote(self) -> bool:
        return False

    def __str__(self) -> str:
        return str(self.inner)

    def read(self, path: str) -> bytes:
        self._note("read", path)
        return self.inner.read(path)

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        self._note("read_range", path)
        return self.inner.read_range(path, offset, size)

    def chunks(self, path: str, size: int = 1 << 24) -> Iterator[bytes]:
        self._note("chunks", path)
        return self.inner.chunks(path, size)

    def stat(self, path: str) -> Stat | None:
        self._note("stat", path)
        return self.inner.stat(path)

    def files(self, folder: str = "") -> list[Stat]:
        self._note("files", folder or ".")
        return self.inner.files(folder)

    def write(self, path: str, data: bytes) -> None:
        self._note("write", path)
        self.inner.write(path, data)

    def atomic_write(self, path: str) -> AbstractContextManager[Path]:
        self._note("atomic_write", path)
        return self.inner.atomic_write(path)

    def remove(self, paths: Iterable[str]) -> None:
        self.inner.remove(paths)

    def local(self, path: str) -> Path:
        self._note("local", path)
        return self.inner.local(path)

    def acquire(self, commit_point: str) -> AbstractContextManager[Lease]:
        return self.inner.acquire(commit_point)


def main(*folders: str) -> None:
    from curate.card.write import write_card
    from curate.pipeline.cluster import connect
    from curate.pipeline.plan import make_plan, open_sources
    from curate.pipeline.progress import console
    from curate.pipeline.run import run
    from curate.schema.recipe_file import RecipeFile

    with connect(None, 1) as cluster:  # one worker a stage is quickest to start
        for folder in map(Path, folders):
            file = RecipeFile.load(str(folder / "images.yaml"))
            build = Counted(Folder(folder / "build"), folder / "log")
            run(make_plan(file), open_sources(file, {}), build, cluster, console(quiet=True), write_card)
    print(os.getpid())


if __name__ == "__main__":
    from counted import main as importable  # workers import the class by the module's name, not from __main__

    importable(*sys.argv[1:])

"""What can be tried before any work is: files of models and tokenizers, endpoints, the place of the build and its room.

Nothing is loaded and nothing is fetched. What is wrong is an error with its line of the recipe; what could not be
tried is said.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from curate.pipeline.plan import Plan
from curate.schema.errors import CurateError
from curate.sources.base import Source, Unit
from curate.storage import Folder, Store

ROOM = 1.25
"""A build is taken to weigh so many times its media, with its tokens, tables and what is written beside its place."""


class Preflight:
    """Tries things, each once.

    Args:
        plan: the recipe's.
        build: where it goes.
        is_here: True where all workers are this machine's; what another lacks cannot be seen from here.
        say: takes a sentence for people.
    """

    def __init__(self, plan: Plan, build: Store, is_here: bool, say: Callable[[str], None]) -> None:
        self._plan, self._build, self._is_here, self._say = plan, build, is_here, say
        self._tried: set[str] = set()

    def signals(self, names: Iterable[str]) -> None:
        """Look for what signals and captioners load, and ask endpoints whether they are there.

        Raises:
            CurateError: something is missing, or an endpoint does not answer.
        """
        wanted = set(names) - self._tried
        self._tried |= wanted
        for signal in self._plan.signals:
            if signal.name in wanted:
                self._look(signal.check_files, signal.name, self._plan.places.get(signal.name, ("annotate",)))

    def streams(self) -> None:
        """Look for the files of tokenizers.

        Raises:
            CurateError: one is missing.
        """
        from curate.tokenizers import zoo

        for i, stream in enumerate(self._plan.streams):
            if stream.tokenizer not in self._tried:
                self._tried.add(stream.tokenizer)
                at = ("tokenize", "streams", i, "tokenizer")
                self._look(partial(zoo.check_files, stream.tokenizer), stream.name, at)

    def _look(self, check: Callable[[], str | None], name: str, at: Sequence[str | int]) -> None:
        try:
            told = check()
        except CurateError as exc:
            if self._is_here:
                raise self._plan.file.error(at, exc.message, exc.hint) from exc
            told = f"seen from this machine, {exc.message}; from the cluster's nodes that was not tried"
        if told:
            self._say(f"{name}: {told}")

    def write(self) -> None:
        """Write a small file to the build's place, and remove it.

        Raises:
            CurateError: the place cannot be written.
        """
        path = f".curate/tried-{secrets.token_hex(8)}"
        self._build.write(path, b"tried")
        self._build.remove([path])

    def writable(self) -> None:
        """As `write`, but that no folder is made.

        Raises:
            CurateError: the place cannot be written.
        """
        if not isinstance(self._build, Folder):
            self.write()
            return
        place = _nearest(self._build.root)
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            what = "is not a folder" if not place.is_dir() else "cannot be written"
            raise CurateError(f"cannot make the build in {self._build}: {place} {what}", "choose another --out")

    def room(self, sources: Sequence[Source], units: Iterable[Unit], listed: Store, told: bool = False) -> None:
        """Compare what the media of some units weigh with what is free on the build's disk.

        Args:
            listed: store that the units were listed to.
            told: say both also where there is room.

        Raises:
            CurateError: the media alone do not fit.
        """
        if not isinstance(self._build, Folder):
            return
        by_source: dict[str, list[Unit]] = {source.name: [] for source in sources}
        for unit in units:
            by_source[unit.source].append(unit)
        weights = {source.name: source.weight(by_source[source.name], listed) for source in sources}
        unknown = [name for name, weight in weights.items() if weight is None]
        there = sum(stat.bytes for stat in self._build.files("media"))  # of an earlier run
        media = max(0, sum(weight for weight in weights.values() if weight is not None) - there)
        place = _nearest(self._build.root)
        free = shutil.disk_usage(place).free
        if media > free:
            raise CurateError(
                f"the media weigh about {_size(media)}, and {_size(free)} are free on the disk of {place}",
                "a build holds its media as they came: choose another --out, or s3://bucket/prefix; or try --limit",
            )
        is_tight = ROOM * media > free
        if (told and len(unknown) < len(weights)) or is_tight:
            more = f"{_size(media)} more" if there else _size(media)
            self._say(f"room: the media weigh about {more}; {_size(free)} are free on the disk of {place}")
        if told and unknown:
            self._say(f"room: what the media of {', '.join(unknown)} weigh is not known before they are fetched")


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest above it that is there."""
    return next(place for place in (path, *path.parents) if place.exists())


def _size(count: float) -> str:
    """Bytes in decimal units."""
    from rich.filesize import decimal

    return decimal(round(count))

"""When the whole run will end: by what the stages still to come took in the last run, or trial, of the same recipe.

That is noted in the user's cache, and not in the build: what a build holds does not depend on time. Where no run of the
recipe on as many CPUs and GPUs has ended, nothing is known: then it is said which of them are still to come.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from curate.pipeline.placement import Capacity
from curate.schema.errors import CurateError
from curate.schema.ids import key_of
from curate.schema.recipe import Recipe
from curate.storage.copies import CACHE_HINT, cache_folder
from curate.storage.place import atomic_write

SAMPLES = "annotate"
"""The stage whose new inputs are what the work of later ones grows with."""

GROWS = ("look", "tokenize")
"""Those that it does. Others read columns, and take little longer of a hundred times the samples."""

SAID = {"sources", "media", "compute", "cut", "annotate", "caption", "tokenize"}
"""Sections of the recipe that say what stages do."""


class Pace:
    """What stages took, in the last run and in this one: seconds before their first inputs were through, or all of them
    where they do not grow; and seconds for each new sample of the run.

    Args:
        path: of the note on the last run.
        stages: of this run, in order, those whose work grows with samples.
    """

    def __init__(self, path: Path, stages: Sequence[str] = (SAMPLES, *GROWS)) -> None:
        self._path, self._stages = path, stages
        self._known: dict[str, tuple[float, float]] = {}
        with suppress(OSError, ValueError, TypeError):  # there is none, or one of another version
            self._known = {name: (float(start), float(each)) for name, start, each in json.loads(path.read_text())}
        self._now: dict[str, tuple[float, float]] = {}
        self._new = 0
        self._is_told = True

    def after(self, stage: str, new: int) -> float | None:
        """Seconds from the end of a stage to that of the run; None where they are not known.

        Args:
            new: inputs of the stage that no earlier run has committed.
        """
        names = list(self._known)
        if stage not in names:
            return None
        samples = new if stage == SAMPLES else self._new
        later = (self._known[name] for name in names[names.index(stage) + 1 :])
        return sum(start + each * samples for start, each in later)

    def unknown(self, stage: str) -> list[str]:
        """Stages after one that grow with samples, where no run has told how long they take."""
        if stage in self._known or stage not in self._stages:
            return []
        return list(self._stages[self._stages.index(stage) + 1 :])

    def ended(self, stage: str, new: int, seconds: float, steady: tuple[float, float] | None) -> None:
        """Note what a stage took.

        Args:
            new: as above.
            seconds: all that it took.
            steady: seconds until its first inputs were through, and how many came a second from then on; None where it
                was too short to tell.
        """
        if stage == SAMPLES:
            self._new = new
        start, each = seconds, 0.0
        if stage in GROWS:
            if steady is not None and new and self._new:
                start, each = steady[0], new / self._new / steady[1]
            elif stage in self._known:
                start, each = self._known[stage]
            else:
                self._is_told = False
        before = self._now.get(stage, (0.0, 0.0))  # deciding and looking go on until nothing new is kept
        self._now[stage] = before[0] + start, before[1] + each

    def write(self) -> None:
        """Leave a note for the next run; none where it cannot be written: a forecast is not worth a run."""
        if not self._is_told:
            return
        with suppress(CurateError), atomic_write(self._path, CACHE_HINT) as unfinished:
            unfinished.write_text(json.dumps([[name, *took] for name, took in self._now.items()]))


def pace_of(recipe: Recipe, has: Capacity, stages: Sequence[str] = (SAMPLES, *GROWS)) -> Pace:
    """The pace of a recipe on what there is to run on.

    Args:
        stages: see `Pace`.
    """
    said = recipe.model_dump(mode="json", include=SAID)
    return Pace(cache_folder() / "pace" / f"{key_of([said, has.cpus, has.gpus])}.json", stages)

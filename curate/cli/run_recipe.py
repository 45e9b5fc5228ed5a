"""`curate run`: from a recipe's name to a finished build, and what is said on the way."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from curate.pipeline.plan import Plan, list_all, make_plan
from curate.pipeline.progress import console as progress_console
from curate.schema.manifest import Manifest
from curate.schema.recipe import Recipe
from curate.schema.recipe_file import RecipeFile
from curate.sources.entry import Entry
from curate.storage import Store, open_store


def run_recipe(
    name: str, out: str | None, *, workers: int | None, address: str | None, dry_run: bool, quiet: bool
) -> None:
    """Run the recipe and print the result: counts, the card's path, the command that streams it.

    Raises:
        CurateError: whatever the user can mend, before or while it runs.
    """
    from curate.card.write import write_card
    from curate.pipeline.cluster import connect
    from curate.pipeline.run import run

    progress = progress_console(quiet)
    file = RecipeFile.load(name)
    plan = make_plan(file)
    build = open_store(out if out is not None else Path("build") / file.recipe.name)
    with demo_env(file.recipe, progress) as env:
        entries = list_all(plan.file, env)
        if dry_run:
            _describe(plan, entries)
            return
        with connect(address, workers) as cluster:
            manifest = run(plan, entries, build, cluster, progress, write_card)
    _summary(build, out or str(Path("build") / file.recipe.name), manifest)


@contextmanager
def demo_env(recipe: Recipe, progress: Console) -> Iterator[Mapping[str, str]]:
    """The environment that `${NAME}` in a recipe is taken from; a demonstration's media are made and served first."""
    if recipe.demo is None:
        yield os.environ
        return
    progress.print("demo       preparing media from installed packages")
    from curate.demo import quickstart_media

    with quickstart_media() as env:
        yield {**os.environ, **env}


def _describe(plan: Plan, entries: Sequence[Entry]) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for source, count in Counter(e.source for e in entries).items():
        console.print(f"source {source}: {count} records")
    console.print(f"signals: {', '.join(s.name for s in plan.signals)}")
    for rule in plan.rules:
        console.print(f"rule: {rule.model_dump(exclude_none=True, exclude_defaults=True)}")
    for stream in plan.streams:
        console.print(
            f"stream {stream.use.name}: {stream.use.tokenizer}, {stream.card.vocabulary} ids, {stream.card.dtype}"
        )
    console.print("the recipe is sound; nothing was run")


def _summary(build: Store, said: str, manifest: Manifest) -> None:
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for level, counts in (("records", manifest.counts.records), ("samples", manifest.counts.samples)):
        parts = " + ".join(f"{n} {name}" for name, n in counts.items() if name != "total")
        console.print(f"{level}: {counts['total']} = {parts}")
    shards = sum(len(s.shards) for s in manifest.splits)
    ids = ", ".join(f"{s.name} {s.ids:,}" for s in manifest.streams)
    console.print(f"{shards} shards; ids: {ids}")
    console.print(f"card:   {build.name('card/index.html')}")
    console.print(f"stream: {_command()} stream {said} --bench")


def _command() -> str:
    """How this shell calls `curate`: by its name, or by the path it was started with when that is not on the PATH."""
    return "curate" if shutil.which("curate") else os.path.relpath(sys.argv[0])

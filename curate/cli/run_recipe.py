"""`curate run`: from a recipe's name to a finished build, and what is said on the way."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from curate.api import draw_of, execute
from curate.cli.crash_notice import crash_notice
from curate.cli.output import console
from curate.cli.placement_table import say_placement, settled_pools
from curate.cli.summary import say_forecast, say_outcomes, say_summary, summarise
from curate.pipeline.cluster import connect
from curate.pipeline.plan import Plan, make_plan, open_sources
from curate.pipeline.progress import console as progress_console
from curate.schema.recipe import Recipe
from curate.schema.recipe_file import RecipeFile
from curate.sources.base import Source, Unit
from curate.sources.entry import Entry
from curate.storage import Store, open_store

DIED = "it was killed, or Ray's server on this machine died. The same command goes on where it stopped"


COUNTED_UNITS = 16
"""Units of a source whose records `--dry-run` counts."""


def run_recipe(
    name: str,
    out: str | None,
    *,
    workers: int | None,
    address: str | None,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
    dashboard: bool,
    retry_failed: bool,
    until: str | None,
    limit: int | None = None,
    sample: float | None = None,
) -> int:
    """Run the recipe and print the result: counts, the card's path, the command that streams it.

    Returns:
        The exit code: 0, or 3 where more failed than the recipe allows.

    Raises:
        CurateError: a user error, before or while it runs.
    """
    progress = progress_console(quiet, as_json)
    draw = draw_of(limit, sample)
    file = RecipeFile.load(name)
    plan = make_plan(file)
    said = out if out is not None else str(Path("build") / file.recipe.name)
    said = draw.beside(said) if draw is not None else said
    build = open_store(said)
    with demo_env(file.recipe, progress) as env:
        sources: Sequence[Source] = open_sources(plan.file, env)
        if draw is not None:
            sources = draw.of(sources, file.recipe.partition)
            progress.print(f"trial      of a part of the sources, drawn by id, in {said}")
        if dry_run:
            _describe(plan, sources, build, address is None, progress if as_json else console())
            with connect(address, workers) as cluster:
                say_placement({file.recipe.name: settled_pools(plan, cluster.capacity)}, progress if as_json else None)
            return 0

        # stdout is kept for the result
        with crash_notice(f"curate: the run ended abruptly; {DIED}"), redirect_stdout(_Stderr()):
            made = execute(
                plan,
                sources,
                build,
                progress,
                workers=workers,
                address=address,
                dashboard=dashboard,
                retry_failed=retry_failed,
                until=until,
            )
    result = progress if as_json else console()
    if made.manifest is None:
        if made.outcomes:
            say_outcomes(made.outcomes, result)
        progress.print(f"ended after {until}, as asked; the same command without --until goes on")
        return 0
    if made.forecast is not None:
        say_forecast(made.forecast, result)
    summary = summarise(build, made.manifest, file.recipe.max_failed, made.decodes)
    say_summary(summary, said, result, console(errors=True))
    return summary.exit_code


class _Stderr(io.TextIOBase):
    """Whatever stderr is when something is written: while there is a bar, it writes above it."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


@contextmanager
def demo_env(recipe: Recipe, progress: Console) -> Iterator[Mapping[str, str]]:
    """The environment that `${NAME}` in a recipe is taken from; a demonstration's media are made and served first."""
    if recipe.demo is None:
        yield os.environ
        return
    progress.print("demo       preparing media from installed packages")
    from curate.cli.demo import demo_media

    with demo_media(recipe.demo) as env:
        yield {**os.environ, **env}


def _describe(plan: Plan, sources: Sequence[Source], build: Store, is_here: bool, out: Console) -> None:
    from curate.pipeline.preflight import Preflight

    preflight = Preflight(plan, build, is_here, lambda said: out.print(f"check: {said}", markup=False))
    preflight.writable()
    preflight.signals(signal.name for signal in plan.signals)
    preflight.streams()
    with TemporaryDirectory(prefix="curate-") as folder:
        store, units = open_store(folder), list[Unit]()
        for i, source in enumerate(sources):
            records = 0
            said: Entry | None = None
            listed = list(source.units(store))
            for unit in listed[:COUNTED_UNITS]:
                for entry in source.read(unit, store):
                    records += not entry.is_whole
                    said = said or (entry if entry.is_whole else None)
            if not records and len(listed) <= COUNTED_UNITS:
                wrong = source.nothing(said)
                raise plan.file.error(("sources", i, "path"), wrong.message, wrong.hint)
            more = f" in the first {COUNTED_UNITS} of {len(listed)} units" if len(listed) > COUNTED_UNITS else ""
            out.print(f"source {source.name}: {records} records{more}")
            units += listed
        preflight.room(sources, units, store, told=True)
    out.print(f"signals: {', '.join(s.name for s in plan.signals)}")
    for rule in plan.file.recipe.sample_rules:
        out.print(f"rule: {rule.model_dump(exclude_none=True, exclude_defaults=True)}")
    for stream in plan.streams:
        card = stream.card
        each = f"{card.vocabulary} ids" if card.vocabulary else f"vectors of {card.features} values"
        out.print(f"stream {stream.use.name}: {stream.use.tokenizer}, {each}, {card.dtype}")
    out.print("not tried: loading models, fetching media" + "".join(_asked(plan)))
    out.print("the recipe is valid; nothing was run")


def _asked(plan: Plan) -> Iterator[str]:
    for use in plan.file.recipe.caption.uses:
        if use.is_asked:
            yield f", asking {use.name} for a caption"

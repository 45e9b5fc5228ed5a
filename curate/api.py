"""The Python API: what the command `curate` does, for programs. `curate.run`, `curate.open` and `curate.stream`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from curate.pipeline.plan import Plan, make_plan, open_sources
from curate.pipeline.progress import console as progress_console
from curate.pipeline.progress import say_dashboard
from curate.pipeline.trial import Draw, Drawn
from curate.schema.manifest import Manifest
from curate.schema.recipe_file import RecipeFile
from curate.shards.commit import read_manifest
from curate.sources.base import Source
from curate.storage import Store, open_store

if TYPE_CHECKING:
    from curate.exports import Written
    from curate.pipeline.cluster import Cluster
    from curate.pipeline.run import Result
    from curate.shards.report import Report
    from curate.shards.token_stream import TokenStream


@dataclass(frozen=True)
class Build:
    """A finished build.

    Attributes:
        store: where it lies.
        manifest: what it is made of.
    """

    store: Store
    manifest: Manifest

    def stream(self, split: str = "train", **options: Any) -> TokenStream:
        """Its samples, for a trainer; options as of `curate.stream`."""
        from curate.shards.stream import stream

        return stream(self.store, split, **options)

    def verify(self) -> Report:
        """What `curate verify` finds: digests, counts, alignment, ranges of ids."""
        from curate.shards.verify import verify

        return verify(self.store)

    def explain(self, what: str) -> dict[str, Any]:
        """The whole story of one input, by a sample id, a record id or a uri, as `curate explain --json` has it.

        Raises:
            CurateError: nothing, or more than one thing, is called so.
        """
        from curate.card.explain import explain

        return explain(self.store, what).data

    def export(self, name: str, out: Store | Path | str, splits: Sequence[str] = ()) -> Iterator[Written]:
        """Write it in another format, file by file; see `curate.exports.export`."""
        from curate.exports import export

        return export(self.store, name, out, splits)


def open_build(build: Store | Path | str) -> Build:
    """A finished build: `curate.open("build/quickstart")`.

    Args:
        build: its folder, or its `s3://` uri.

    Raises:
        CurateError: no build is there, an unfinished one, or one of another format.
    """
    store = open_store(build)
    return Build(store, read_manifest(store))


def run(
    recipe: str | Path,
    out: Store | Path | str | None = None,
    *,
    workers: int | None = None,
    address: str | None = None,
    retry_failed: bool = False,
    until: str | None = None,
    env: Mapping[str, str] | None = None,
    console: Console | None = None,
    limit: int | None = None,
    sample: float | None = None,
) -> Build | None:
    """Run a recipe, or go on with it: `curate.run("my.yaml", "build/mine")`.

    Args:
        recipe: a file, or the name of a built-in recipe whose media are not made for it.
        out: where the build goes; `build/NAME` of the recipe where absent.
        workers: CPUs of a fresh local Ray; all where absent.
        address: an existing Ray cluster instead, `auto` or `host:6379`.
        retry_failed: try again what failed before.
        until: `ingest` or `decide`: end there; the same call without it goes on.
        env: what stands for `${NAME}` in the recipe; this process's environment where absent.
        console: where progress goes; nowhere where absent.
        limit: a trial of at most so many records, drawn by id, into a folder beside `out` (`OUT-limit-N`).
        sample: a trial of about this share of the records, above 0 and below 1, likewise (`OUT-sample-P`).

    Returns:
        The finished build; None where `until` ended it before.

    Raises:
        CurateError: whatever a user can mend, before or while it runs.
    """
    plan = make_plan(RecipeFile.load(recipe))
    draw = draw_of(limit, sample)
    place = out if out is not None else Path("build") / plan.file.recipe.name
    store = open_store(draw.beside(str(place)) if draw is not None else place)
    sources: Sequence[Source] = open_sources(plan.file, os.environ if env is None else env)
    sources = draw.of(sources, plan.file.recipe.partition) if draw is not None else sources
    console = console or progress_console(quiet=True)
    how = partial(execute, workers=workers, address=address, dashboard=False)
    manifest = how(plan, sources, store, console, retry_failed=retry_failed, until=until).manifest
    return Build(store, manifest) if manifest is not None else None


def draw_of(limit: int | None, sample: float | None) -> Draw | None:
    """What is drawn for a trial; None where everything is run.

    Raises:
        CurateError: both are given, or one out of its range.
    """
    return None if limit is None and sample is None else Draw(limit, sample)


def execute(
    plan: Plan,
    sources: Sequence[Source],
    build: Store,
    console: Console,
    *,
    workers: int | None,
    address: str | None,
    dashboard: bool,
    retry_failed: bool,
    until: str | None,
) -> Result:
    """Connect to Ray and run a plan; see `curate.pipeline.run.run`. Of a trial's sources, the result has a forecast."""
    from curate.card import write_card
    from curate.pipeline.cluster import connect
    from curate.pipeline.ray_log import ray_log
    from curate.pipeline.run import run as run_plan

    begun = time.monotonic()
    is_fresh = any(isinstance(source, Drawn) for source in sources) and not build.files("fetched")

    def started(cluster: Cluster) -> None:
        from curate.pipeline.nodes import check_nodes

        take_log()
        say_dashboard(console, cluster.dashboard)
        check_nodes(build, sources, console)

    with ray_log(console) as take_log, connect(address, workers, dashboard, started) as cluster:
        done = run_plan(plan, sources, build, cluster, console, write_card, retry_failed=retry_failed, until=until)
        if done.manifest is None or done.manifest.trial is None:
            return done
        from curate.pipeline.forecast import Took, forecast
        from curate.pipeline.ingest import requests_at_once

        took = None
        if is_fresh:
            seconds, has = time.monotonic() - begun, cluster.capacity
            requests = requests_at_once(plan.file.recipe)
            took = Took(seconds, done.columns_s, done.spent, done.pools, has.cpus, has.gpus, requests)
        return replace(done, forecast=forecast(build, done.manifest, done.manifest.trial, took))

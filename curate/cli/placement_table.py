"""Pools of workers as people and programs read them: of `curate placement` and `curate run --dry-run`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console

from curate.cli.output import console
from curate.pipeline.json_console import JsonConsole
from curate.pipeline.placement import Capacity, Pool
from curate.pipeline.plan import Plan, pools, settle
from curate.schema.events import Placement

GIB = 1 << 30

HEADINGS = ("recipe", "stage", "models", "device", "dtype", "batch", "CPUs", "GPU", "GiB", "workers")


def settled_pools(plan: Plan, has: Capacity) -> list[Pool]:
    """The pools of a plan's run on what there is."""
    return pools(settle(plan, has), has)


def say_placement(found: Mapping[str, Sequence[Pool]], out: Console | None) -> None:
    """Print the pools of some recipes.

    Args:
        found: pools by recipe.
        out: for a program; None for people: a table, in Markdown.
    """
    if isinstance(out, JsonConsole):
        out.emit(Placement(pools=[pool.told() for some in found.values() for pool in some]))
        return
    rows = [_row(name if len(found) > 1 else "", pool) for name, some in found.items() for pool in some]
    for line in _table(
        ("recipe", "stage", "models", "device", "dtype", "batch", "CPUs", "GPU", "GiB", "workers"), rows
    ):
        console().print(line)
    for name, some in found.items():
        console().print(_wish(name, some))


def _wish(recipe: str, pools: Iterable[Pool]) -> str:
    """How many GPUs hold the first worker of each model, in a sentence."""
    shares: dict[str, float] = {}
    for pool in pools:
        shares[pool.stage] = shares.get(pool.stage, 0) + pool.gpus * pool.workers[0]
    if not any(shares.values()):
        return f"{recipe}: no GPU is used."
    whole = math.ceil(max(shares.values()) - 1e-9)
    said = " and ".join(f"{share:g} of a GPU in {stage}" for stage, share in shares.items() if share)
    return f"{recipe}: one worker of each model takes {said}; {whole} {'is' if whole == 1 else 'are'} enough."


def _row(recipe: str, pool: Pool) -> list[str]:
    told = pool.told()
    return [
        recipe,
        told.stage,
        ", ".join(["decoding"] * told.decodes + told.models),
        told.device,
        ", ".join(told.dtypes) or "-",
        ", ".join(map(str, told.batches)) or "-",
        f"{told.cpus:g}",
        f"{told.gpus:g}" if told.gpus else "-",
        f"{told.memory / GIB:g}" if told.memory else "-",
        "-".join(map(str, dict.fromkeys(told.workers))),
    ]


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Lines of a table in Markdown, without columns that say nothing."""
    every = [headings, *rows]
    shown = [i for i in range(len(headings)) if any(row[i] for row in rows)]
    wide = [max(len(row[i]) for row in every) for i in shown]
    for n, row in enumerate(every):
        yield "| " + " | ".join(row[i].ljust(width) for i, width in zip(shown, wide, strict=True)) + " |"
        if n == 0:
            yield "| " + " | ".join("-" * width for width in wide) + " |"

"""`curate placement`: which workers would hold the models of a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from curate.cli.options import Json
from curate.schema.errors import CurateError


def placement(
    recipes: Annotated[list[str], typer.Argument(help="Recipe files, or names of built-in recipes.")],
    address: Annotated[str | None, typer.Option(help="A Ray cluster: `auto`, or the `host:6379` of its head.")] = None,
    nodes: Annotated[
        int | None, typer.Option(min=1, help="A cluster of so many nodes, which need not be there.")
    ] = None,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs of each of these nodes.")] = 16,
    gpus: Annotated[int, typer.Option(min=0, help="GPUs of each of these nodes.")] = 0,
    memory: Annotated[int, typer.Option(min=1, help="GiB of memory of each of these nodes.")] = 64,
    as_json: Json = False,
) -> None:
    """Which workers of which size would hold the models of a recipe: here, on a cluster, or on nodes to be had.

    A row is a pool of workers. Those that decode hold all that has no row of its own. `GPU` is the share of one that a
    worker takes, `workers` how few and how many there are.

    **Examples**

        curate placement my.yaml

        curate placement my.yaml --address auto

        curate placement quickstart captions --nodes 2 --cpus 16 --gpus 1
    """
    from curate.cli.placement_table import say_placement, settled_pools
    from curate.pipeline.cluster import connect
    from curate.pipeline.placement import Capacity, Node
    from curate.pipeline.plan import make_plan
    from curate.pipeline.progress import console as progress_console
    from curate.schema.recipe_file import RecipeFile

    if nodes is not None and address is not None:
        raise CurateError("--nodes makes up a cluster, and --address names one", "leave one of them out")
    if nodes is not None:
        has = Capacity((Node(cpus, gpus, memory << 30),) * nodes, grows=True)
    else:
        with connect(address, None) as cluster:
            has = cluster.capacity
    plans = [make_plan(RecipeFile.load(recipe)) for recipe in recipes]
    found = {plan.file.recipe.name: settled_pools(plan, has) for plan in plans}
    say_placement(found, progress_console(as_json=True) if as_json else None)

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
        int | None, typer.Option(min=1, help="A cluster of so many nodes, which need not be there: 1.")
    ] = None,
    cpus: Annotated[int | None, typer.Option(min=1, help="CPUs of each of these nodes: 16.")] = None,
    gpus: Annotated[int | None, typer.Option(min=0, help="GPUs of each of these nodes: none.")] = None,
    memory: Annotated[int | None, typer.Option(min=1, help="GiB of memory of each of these nodes: 64.")] = None,
    as_json: Json = False,
) -> None:
    """Which workers of which size would hold the models of a recipe: here, on a cluster, or on nodes to be had.

    A row is a pool of workers. Those that decode hold all that has no row of its own. `GPU` is the share of one that a
    worker takes, `workers` how few and how many there are.

    **Examples**

    ```sh
    curate placement my.yaml
    curate placement my.yaml --address auto
    curate placement quickstart captions --nodes 2 --cpus 16 --gpus 1
    ```
    """
    from curate.cli.placement_table import say_placement, settled_pools
    from curate.pipeline.cluster import connect
    from curate.pipeline.placement import Capacity, Node
    from curate.pipeline.plan import make_plan
    from curate.pipeline.progress import console as progress_console
    from curate.schema.recipe_file import RecipeFile

    is_made_up = any(size is not None for size in (nodes, cpus, gpus, memory))
    if is_made_up and address is not None:
        raise CurateError("--address names a cluster, and sizes of nodes make one up", "leave one of them out")
    if is_made_up:
        has = Capacity((Node(cpus or 16, gpus or 0, (memory or 64) << 30),) * (nodes or 1), grows=True)
    else:
        with connect(address, None) as cluster:
            has = cluster.capacity
    plans = [make_plan(RecipeFile.load(recipe)) for recipe in recipes]
    found = {plan.file.recipe.name: settled_pools(plan, has) for plan in plans}
    say_placement(found, progress_console(as_json=True) if as_json else None)

"""`curate init`: a recipe to begin with, for the data that are there; and `curate run` of data without one."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from curate.cli.options import Json
from curate.cli.output import console
from curate.schema.errors import CurateError
from curate.schema.text import escape_controls
from curate.storage import open_store

if TYPE_CHECKING:
    from curate.pipeline.looked import Looked
    from curate.pipeline.starter import Starter


def init(
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR|TAR|TABLE...",
            help="A folder of media or of tars, a .tar, a pattern in quotes, a .parquet, .csv or .jsonl; also s3://.",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The recipe's file. Default: NAME.yaml of the data, here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Look at your data and write a short recipe for it, that runs as it is; then change whatever you like.

    It looks at names and texts of some records of each source, never at all of a large one, and at no media. Columns of
    a table are recognised by their names (url, path, caption, text, license, ...) and by what stands in them. The
    recipe needs no download. Nothing is overwritten.

    **Examples**

    ```sh
    curate init photos/           # media, with .txt or .json beside them
    curate init 'shards/*.tar'    # WebDataset
    curate init laion.parquet --out laion-part.yaml
    curate init clips/ table.csv s3://bucket/more --out all.yaml
    ```
    """
    from curate.pipeline.starter import write_starter

    path = _recipe_path(data, out)
    if path.exists():
        raise CurateError(f"{path} is there already: nothing was written", "give another file with --out")
    starter = _starter(data, path)
    write_starter(starter, path)
    run = f"curate run {shlex.quote(str(path))}"
    if as_json:
        typer.echo(json.dumps(_as_json(starter, path, run), indent=1))
        return
    said = console()
    said.print(f"wrote {path}")
    for line in _lines(starter):
        said.print(f"  {line}")
    said.print(f"next: {run} --dry-run   # checks it; without --dry-run it runs")


def recipe_for(said: str, quiet: bool, as_json: bool) -> str:
    """What `curate run` runs where `said` may be data in place of a recipe: `said`, or the recipe that is made for it.

    Args:
        quiet, as_json: as of `curate run`, whose progress says what was made.

    Raises:
        CurateError: nothing can be read there; a recipe of other data is in the way.
    """
    if said.lower().endswith((".yaml", ".yml")):
        return said
    from curate.pipeline.looked import is_media_path
    from curate.schema.package_data import data_folder

    if not is_media_path(said) or (data_folder("pipelines") / f"{said}.yaml").is_file():
        return said
    from curate.pipeline.progress import console as progress_console
    from curate.pipeline.starter import reads_the_same, write_starter

    path = _recipe_path([said], None)
    starter = _starter([said], path)
    progress = progress_console(quiet, as_json)
    if path.exists():
        if not reads_the_same(path, starter):
            raise CurateError(
                f"{path} is there already, and is no recipe of {said}",
                f"run it by its name, or make another: curate init {shlex.quote(said)} --out other.yaml",
            )
        progress.print(f"recipe     {path}, which was there, for {said}")
        return str(path)
    write_starter(starter, path)
    progress.print(f"recipe     wrote {path}; change it, and the same command runs what it then says")
    for line in _lines(starter):
        progress.print(f"           {line}")
    return str(path)


def _recipe_path(data: list[str], out: Path | None) -> Path:
    if out is None:
        from curate.pipeline.looked import name_of

        return Path(f"{name_of(data[0])}.yaml")
    if out.suffix not in (".yaml", ".yml"):
        raise CurateError(f"--out {out}: a recipe's name ends in .yaml")
    return out


def _starter(data: list[str], path: Path) -> Starter:
    from curate.pipeline.starter import starter_of

    with TemporaryDirectory(prefix="curate-") as folder:
        return starter_of(data, path.absolute(), open_store(folder))


def _lines(starter: Starter) -> list[str]:
    from curate.pipeline.starter import said_of

    return [
        *(f"{one.spec.kind} {one.spec.path}: {said_of(one)}" for one in starter.found.sources),
        f"streams: {', '.join(starter.streams)}",
        *(f"note: {escape_controls(note)}" for note in starter.found.notes),
    ]


def _as_json(starter: Starter, path: Path, run: str) -> dict[str, Any]:
    return {
        "recipe": str(path),
        "sources": [_source_as_json(one) for one in starter.found.sources],
        "signals": list(starter.signals),
        "streams": list(starter.streams),
        "notes": list(starter.found.notes),
        "next": run,
    }


def _source_as_json(one: Looked) -> dict[str, Any]:
    columns = one.columns
    return {
        **one.spec.model_dump(include={"kind", "name", "path"}),
        "records": one.records,
        "is_all": one.is_all,
        "kinds": dict(one.kinds),
        "broken": one.broken,
        "texts": one.texts,
        "licences": list(one.licences),
        "bytes": one.bytes,
        "columns": {
            "uri": columns.uri,
            "text": columns.text,
            "licence": columns.licence,
            "others": list(columns.others),
        }
        if columns is not None
        else None,
    }

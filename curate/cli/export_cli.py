"""`curate export`: a finished build in a format that others read."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from curate.cli.inspect_build import Build
from curate.cli.options import Json, options_of
from curate.schema.errors import CurateError


def export(
    build: Build,
    out: Annotated[str, typer.Option("--out", "-o", help="A folder, or s3://bucket/prefix.")],
    format: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            help="`webdataset` or `webdataset-media`, `mds`, `litdata`, `energon`, `parquet`, `croissant`, `megatron`, "
            "`ml-4m`, or package.module:Class of one of your own.",
        ),
    ] = "webdataset",
    split: Annotated[list[str] | None, typer.Option(help="Which split; may be given again. Default: all.")] = None,
    stream: Annotated[list[str] | None, typer.Option(help="Which stream; may be given again. Default: all.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", help="NAME=VALUE, of the format; VALUE as in YAML; may be given again."),
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Then upload the folder to this data set of the Hugging Face Hub, NAME/DATASET.")
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result.")] = False,
    as_json: Json = False,
) -> None:
    """Write a finished build in another format, shard by shard. Broken off, the same command goes on.

    `docs/exports.md` says what each format holds and how it is read.

    **Examples**

    ```sh
    curate export build/quickstart --format parquet --out exports/quickstart
    curate export build/quickstart --format mds \\
        --out s3://bucket/quickstart --split train
    curate export build/quickstart --format megatron --out exports/tokens \\
        --stream caption --stream tok_rgb@256
    curate export build/quickstart --format webdataset-media \\
        --out exports/media --option clips=copy
    ```
    """
    from curate.exports.base import export as write
    from curate.exports.hub import push as upload
    from curate.shards.commit import read_manifest
    from curate.shards.reader import find_split
    from curate.storage import is_remote

    if push is not None and is_remote(out):
        raise CurateError(f"{out} is not on this machine, and the Hub takes files from it", "export to a folder")
    manifest = read_manifest(build)
    asked = [find_split(manifest, name) for name in split or []] or manifest.splits
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(file=sys.stderr, quiet=quiet or as_json)
    files = samples = there = 0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("export", total=sum(one.samples for one in asked))
        for written in write(build, format, out, split or (), stream or (), options_of(option or ())):
            samples += written.samples
            files, there = files + len(written.paths), there + len(written.paths) * written.was_there
            progress.update(task, advance=written.samples)
    page = None if push is None else upload(Path(out), push)
    if as_json:
        said = {"out": out, "format": format, "samples": samples, "files": files, "were_there": there, "pushed": page}
        typer.echo(json.dumps(said))
        return
    before = f", {there} of them from before" if there else ""
    typer.echo(f"{samples} samples in {files} files{before}: {out}{f', {page}' if page else ''}")

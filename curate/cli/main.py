"""The command `curate`. Each subcommand's help teaches by example; errors say what is wrong and the way out."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from enum import StrEnum
from typing import Annotated

import typer

from curate.cli import browse_cli, export_cli, init_cli, inspect_build, jobs_cli, placement_cli, tokenizers_cli
from curate.cli.output import console
from curate.schema.errors import CurateError

_debug = False

app = typer.Typer(
    name="curate",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Raw video, image-text and audio in; aligned discrete token shards, a ledger of every verdict and a card out.

**The usual way**

```sh
curate run quickstart                  # the built-in recipe
curate init photos/                    # looks, and writes photos.yaml
curate run photos.yaml                 # again: goes on after a crash
curate verify build/mine               # digests, counts, id ranges
curate explain build/mine clip.mp4     # what became of one input, why
curate browse build/mine               # look through it in a browser
curate stream build/mine --bench       # into a trainer
curate export build/mine --out tars    # for others: WebDataset
```

The help of each command has more examples.""",
)


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an unexpected error.")] = False,
) -> None:
    """What holds for all commands."""
    global _debug
    _debug = debug


app.add_typer(tokenizers_cli.app, name="tokenizers")

Out = Annotated[
    str | None,
    typer.Option("--out", "-o", help="Folder of the build, or s3://bucket/prefix. Default: build/NAME of the recipe."),
]


class Stop(StrEnum):
    """Where a run may be asked to end."""

    INGEST = "ingest"
    DECIDE = "decide"
    LOOK = "look"


@app.command()
def run(
    recipe: Annotated[
        str,
        typer.Argument(
            help="A recipe file, or the name of a built-in recipe; or a folder of media, a tar, a table: then a recipe "
            "is written for it first, as `curate init` does."
        ),
    ],
    out: Out = None,
    workers: Annotated[
        int | None, typer.Option("--workers", "-w", min=1, help="CPUs of the fresh local Ray. Default: all.")
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="An existing Ray cluster: `auto`, or the `host:6379` of its head.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe, list sources, say where models would run; run nothing.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try what failed again, in a finished build too; the rest is reused.")
    ] = False,
    until: Annotated[
        Stop | None,
        typer.Option(
            help="End after fetching, with the first verdicts, or with those after the second look; the same command "
            "without it goes on from there."
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            help="Try on at most so many records, drawn by id, in a folder beside the build (OUT-limit-N); with a "
            "forecast of the whole.",
            metavar="N",
        ),
    ] = None,
    sample: Annotated[
        float | None,
        typer.Option(help="Try on about this share of the records, 0 to 1, likewise (OUT-sample-P).", metavar="P"),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress; only the result.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="For machines: progress and result as JSON, one object a line on stdout.")
    ] = False,
    dashboard: Annotated[
        bool, typer.Option("--dashboard/--no-dashboard", help="Ray's dashboard beside a fresh local Ray.")
    ] = True,
) -> None:
    """Run a recipe: ingest, annotate, decide, tokenize, pack, card.

    A run that was interrupted goes on where it stopped when the same command is given again. A run with a changed
    recipe recomputes only what the change touches; a moved threshold recomputes no model.

    **Examples**

    ```sh
    curate run quickstart
    curate run pipelines/quickstart.yaml --out build/quickstart --workers 2
    curate run photos/                   # writes photos.yaml, and runs it
    curate run my.yaml --address auto --out s3://bucket/mine
    curate run my.yaml --limit 100       # try on a part, with a forecast
    curate run my.yaml --until ingest    # fetch now, decode and score later
    curate run my.yaml --retry-failed    # after the network was mended
    ```

    **Exit codes**: 0 all well; 1 an unexpected error, said in one sentence, with the file that holds its traceback;
    2 a user error, said in one sentence; a source of which all records fail is one; 3 the build is made, and more
    inputs failed, of all or of one source, than the recipe's `max_failed`; 130 interrupted.
    """
    from curate.cli.run_recipe import run_recipe

    code = run_recipe(
        init_cli.recipe_for(recipe, quiet, as_json),
        out,
        workers=workers,
        address=address,
        dry_run=dry_run,
        quiet=quiet,
        as_json=as_json,
        dashboard=dashboard,
        retry_failed=retry_failed,
        until=until,
        limit=limit,
        sample=sample,
    )
    if code:
        raise typer.Exit(code)


app.command("init")(init_cli.init)
app.command("placement")(placement_cli.placement)
app.command("submit")(jobs_cli.submit)
app.command("status")(jobs_cli.status)
app.command("stop")(jobs_cli.stop)
app.command("verify")(inspect_build.verify)
app.command("explain")(inspect_build.explain)
app.command("card")(inspect_build.card)
app.command("browse")(browse_cli.browse)
app.command("stream")(inspect_build.stream)
app.command("export")(export_cli.export)
app.command("signals")(inspect_build.signals)
app.command("schema")(inspect_build.schema)


def main() -> None:
    """Run the command line. No error ends in a bare traceback: a user error exits with 2, the rest with 1."""
    try:
        app()
    except CurateError as exc:
        out = console(errors=True)
        out.print(f"curate: {exc.message}", style="red")
        if exc.hint:
            out.print(f"  {exc.hint}")
        raise SystemExit(2) from exc
    except Exception as exc:
        from curate.cli.unexpected import EXIT, say_unexpected

        say_unexpected(exc, _debug)
        raise SystemExit(EXIT) from None
    except KeyboardInterrupt:
        sys.stderr.write("curate: interrupted; the same command goes on where it stopped\n")
        raise SystemExit(130) from None


def command() -> None:
    """What the shell calls: `main`, and then the end of the process.

    Python would first wait for threads, which nobody waits for any more (thumbnails that a page had asked for), and
    take its heap apart object by object: a second of a CPU, once Ray Data is in it.
    """
    code: str | int | None = 0
    try:
        main()
    except SystemExit as exc:
        code = exc.code
    if isinstance(code, int | None):
        with suppress(OSError):  # which Python tells of in its own way
            sys.stdout.flush()
            sys.stderr.flush()
            atexit._run_exitfuncs()
            os._exit(code or 0)
    sys.exit(code)


if __name__ == "__main__":
    command()

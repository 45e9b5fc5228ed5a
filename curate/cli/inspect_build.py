"""Commands that look at a finished build, and those that print what there is."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from curate.cli.options import Json
from curate.cli.output import console, print_table, sum_line
from curate.schema.errors import CurateError
from curate.storage import open_store

Build = Annotated[str, typer.Argument(help="Folder of a build, or its s3:// uri.")]


def verify(build: Build, as_json: Json = False) -> None:
    """Check a build: digests, counts, alignment of streams, id ranges. Exits with 1 when something is wrong.

    **Examples**

    ```sh
    curate verify build/quickstart
    curate verify build/quickstart --json
    ```
    """
    from curate.shards.verify import verify as check

    report = check(build)
    if as_json:
        typer.echo(report.model_dump_json(indent=1))
    else:
        out = console()
        for level, counts in (("records", report.records), ("samples", report.samples)):
            out.print(sum_line(level, counts))
        for entry in report.streams:
            each = f"ids of {entry.vocabulary}" if entry.vocabulary else "values"
            out.print(f"stream {entry.name}: {entry.ids} {each}, {entry.dtype}")
        for problem in report.problems:
            out.print(f"WRONG: {problem}", style="red")
        out.print("ok" if report.ok else f"{len(report.problems)} problems")
    if not report.ok:
        raise typer.Exit(1)


def explain(
    build: Build,
    what: Annotated[str, typer.Argument(metavar="SAMPLE_OR_URI", help="A sample id, a record id, or a uri.")],
    as_json: Json = False,
) -> None:
    """The whole story of one input: signals, verdict with rule, value and threshold, duplicates, tokens, or the error.

    The beginning of an id or the end of a uri is enough where it names one thing.

    **Examples**

    ```sh
    curate explain build/quickstart coffee.png
    curate explain build/quickstart 3f0c9a
    ```
    """
    from curate.card.explain import explain as tell

    story = tell(build, what)
    typer.echo(json.dumps(story.data, indent=1, sort_keys=True) if as_json else story.text())


def card(build: Build) -> None:
    """The counts of a build, and where its card is: one HTML page to open in a browser.

    **Example**

    ```sh
    curate card build/quickstart
    ```
    """
    from curate.shards.commit import read_manifest

    manifest = read_manifest(build)
    out = console()
    for level, counts in (("records", manifest.counts.records), ("samples", manifest.counts.samples)):
        out.print(sum_line(level, counts))
    out.print(open_store(build).name("card/index.html"))


def stream(
    build: Build,
    split: Annotated[str, typer.Option(help="Which split.")] = "train",
    bench: Annotated[
        bool, typer.Option("--bench", help="Measure reading beside a raw memory-mapped read of the same files.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="With --bench: how long.")] = 5.0,
    step_ms: Annotated[
        float | None,
        typer.Option(help="With --bench: milliseconds of a training step; says how long it would wait for batches."),
    ] = None,
    batch: Annotated[int, typer.Option(help="With --bench: samples of a batch.")] = 256,
    count: Annotated[int, typer.Option("--count", "-n", help="Without --bench: samples to print.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the order.")] = 0,
    view: Annotated[
        str, typer.Option(help="What a sample looks like: `raw`, or package.module:View of your own.")
    ] = "raw",
    as_json: Json = False,
) -> None:
    """Read samples as a trainer would: print some, or measure.

    **Examples**

    ```sh
    curate stream build/quickstart --count 3
    curate stream build/quickstart --view my_package.views:Pairs
    curate stream build/quickstart --bench --step-ms 50
    ```

    In a trainer: `for sample in curate.stream("build/quickstart", split="train"): ...`
    """
    if bench:
        from curate.cli.stream_speed import stream_speed

        figures = stream_speed(build, seconds, split, batch, step_ms)
        typer.echo(json.dumps(figures, indent=1) if as_json else _bench_text(figures))
        return
    import curate
    from curate.shards.views import view_of

    for i, sample in enumerate(curate.stream(build, split=split, view=view_of(view), seed=seed)):
        if i >= count:
            break
        typer.echo(json.dumps({k: _brief(v) for k, v in sample.items()}))


_RATES = {"samples_per_s": "samples/s", "tokens_per_s": "tokens/s", "mb_per_s": "MB/s"}


def _bench_text(of: dict[str, float]) -> str:
    rates = (f"{of[name]:,.0f} {said}" for name, said in _RATES.items())
    lines = [
        f"{', '.join(rates)}, shuffled",
        f"{of['ratio']:.2f} of the {of['raw_samples_per_s']:,.0f} samples/s of a raw memory-mapped gather here; "
        f"from start to end the files are read at {of['sequential_mb_per_s']:,.0f} MB/s",
        f"a batch of {of['batch']} takes {of['batch_ms']:.2f} ms: a step that takes longer need not wait for a "
        "DataLoader with one worker",
    ]
    if "step_ms" in of:
        lines.append(
            f"at {of['step_ms']:g} ms a step a trainer waits {of['wait_worker']:.1%} of its time with one worker, "
            f"{of['wait_alone']:.1%} where it makes batches itself"
        )
    return "\n".join(lines)


def _brief(value: Any) -> Any:
    return f"{value.dtype}{list(value.shape)}" if hasattr(value, "shape") else value


def signals(as_json: Json = False) -> None:
    """What signals there are: fields, units, ranges and options.

    **Examples**

    ```sh
    curate signals
    curate signals --json
    ```
    """
    from curate.signals import registry

    found = [registry.get(name) for name in registry.names()]
    if as_json:
        rows = [
            {"name": s.name, "options": s.Options.model_json_schema().get("properties", {}), "about": s.__doc__}
            for s in found
        ]
        typer.echo(json.dumps(rows, indent=1))
        return
    lines = list[tuple[str, ...]]()
    for cls in found:
        options = list(cls.Options.model_fields)
        try:
            fields = cls().gives
        except (CurateError, ValueError):  # needs options
            fields = cls.gives
        lines.append((cls.name, "", "", "", f"options: {', '.join(options)}" if options else ""))
        for f in fields:
            said = f.type_text()
            lines.append(("", f.name, said, ", ".join(f.kinds), f.about))
    print_table(("signal", "field", "range", "kinds", "meaning"), lines)


def schema(what: Annotated[str, typer.Argument(help="recipe, manifest, codec-card or progress.")]) -> None:
    """Print the JSON Schema of a recipe, a manifest, a codec card, or of what `run --json` says.

    **Example**

    ```sh
    curate schema recipe
    ```
    """
    from curate.schema.json_schemas import SCHEMAS, schema_text

    if what not in SCHEMAS:
        raise CurateError(f"no schema {what!r}", f"there are: {', '.join(SCHEMAS)}")
    typer.echo(schema_text(what), nl=False)

"""The end of `curate run`: what became of every input, the causes of failure, and the exit code that tells."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal

from rich.console import Console
from rich.filesize import decimal

from curate.cli.output import sum_line
from curate.decide.causes import causes_of, failed_by_source
from curate.media.decodes import Decodes
from curate.pipeline.causes import cause_lines
from curate.pipeline.json_console import JsonConsole
from curate.schema.events import Forecast, Funnel, Outcomes, SplitShare, Summary
from curate.schema.ledger_laws import counts_of
from curate.schema.manifest import Manifest
from curate.schema.text import escape_controls
from curate.shards.lists import files_below
from curate.storage import Store

SEEN_CROWD = 1.2
"""How many times as long a trial has to take for other work on its CPUs, for that to be said."""

FAR_OFF = 0.02
"""A share of a split that misses what was asked by more is explained."""

TOO_MANY_FAILED = 3
"""Exit code of a run whose failure rate, of all or of one source, is above the recipe's `max_failed`."""


def summarise(build: Store, manifest: Manifest, max_failed: float, decodes: Decodes) -> Summary:
    """The summary of a finished build.

    Args:
        build, manifest: the build.
        max_failed: of the recipe, 0 to 1.
        decodes: what the run decoded.

    Raises:
        RuntimeError: the counts do not add up (law 1). It is a bug of ours.
    """
    verdicts = [file.path for file in files_below(build, manifest, "verdicts/")]
    found = causes_of(build, verdicts)
    counts: dict[Literal["records", "samples"], dict[str, int]] = {
        "records": counts_of("record", manifest.counts.records),
        "samples": counts_of("sample", manifest.counts.samples),
    }
    for level, sums in counts.items():
        by_cause = sum(c.count for c in found if f"{c.level}s" == level)
        if sums != getattr(manifest.counts, level) or by_cause != sums["failed"]:
            raise RuntimeError(
                f"the {level} do not add up: {sums}, {by_cause} with a cause of failure; this is a bug of curate"
            )
    rates = {level: sums["failed"] / sums["total"] if sums["total"] else 0.0 for level, sums in counts.items()}
    over = [level for level, rate in rates.items() if rate > max_failed]
    # a source that is all there is has been counted
    by_source = [s for s in failed_by_source(build, verdicts, max_failed) if s.total < counts[s.level]["total"]]
    return Summary(
        name=manifest.name,
        build=str(build),
        card=build.name("card/index.html"),
        records=counts["records"],
        samples=counts["samples"],
        shards=sum(len(split.shards) for split in manifest.splits),
        splits=_shares(manifest),
        ids={stream.name: stream.ids for stream in manifest.streams if stream.vocabulary},
        values={stream.name: stream.ids for stream in manifest.streams if not stream.vocabulary},
        causes=found,
        failure_rate=rates,
        max_failed=max_failed,
        over=over,
        sources_over=by_source,
        decodes=asdict(decodes),
        calls_saved=_calls_saved(manifest),
        exit_code=TOO_MANY_FAILED if over or by_source else 0,
    )


def say_outcomes(found: Sequence[Outcomes], result: Console) -> None:
    """Print what was decided and why, a line each: `result` is stdout, for people or a `JsonConsole`."""
    if isinstance(result, JsonConsole):
        result.emit(Funnel(rows=list(found)))
        return
    for one in found:
        what = f"{one.count:,} {one.level}{'s' if one.count > 1 else ''}"
        result.print(f"{what:>20}  {one.outcome:<9}  {escape_controls(one.cause or '')}".rstrip())


def say_forecast(found: Forecast, result: Console) -> None:
    """Print what a trial tells of the whole: `result` is stdout, for people or a `JsonConsole`."""
    if isinstance(result, JsonConsole):
        result.emit(found)
        return
    lines = (
        f"forecast of the whole, from {found.drawn:,} of about {found.records:,} records:",
        f"  kept: {_percent(found.kept_share)} of about {found.samples:,} samples (95 %: {_percent(found.kept_low)} to "
        f"{_percent(found.kept_high)}); in the whole more samples have duplicates, so fewer stay",
        f"  size: about {decimal(found.bytes)}",
        f"  time: {_time(found)}",
    )
    for line in lines:
        result.print(line, markup=False)


def _time(found: Forecast) -> str:
    if found.seconds_low is None or found.seconds_high is None or found.work_seconds is None:
        return "not known, since this trial took over work of an earlier one; another --limit, or no folder, tells it"
    low, high = duration(found.seconds_low), duration(found.seconds_high)
    span = high if low == high else f"{low} to {high}"
    if found.draw_records is not None:
        more = f"--limit {found.draw_records} tells more" if found.draw_records < found.records else "run the whole"
        return f"this trial is too small to tell: somewhere in {span}; {more}"
    crowd = ""
    if found.crowded is not None and found.crowded >= SEEN_CROWD:
        crowd = f" with no other work; with what there was while the trial ran, {found.crowded:.1f} times that"
    return (
        f"about {span} on {found.cpus} CPUs like these{crowd}; "
        f"{duration(found.work_seconds)} of work to share among workers"
    )


def duration(seconds: float) -> str:
    """A time with its unit: `45 s`, `2.4 min`, `12 min`, `3.4 h`, `2.1 days`."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.{int(seconds < 10 * size)}f} {unit}"
    return f"{seconds:.0f} s"


def say_summary(summary: Summary, said: str, result: Console, errors: Console) -> None:
    """Print a summary: the result on `result`, and on `errors` what makes the exit code 3.

    Args:
        summary: of `summarise`.
        said: the build as the user wrote it, for the commands that are proposed.
        result: stdout, for people or a `JsonConsole`.
        errors: stderr.
    """
    if isinstance(result, JsonConsole):
        result.emit(summary)
    else:
        for level, sums in (("records", summary.records), ("samples", summary.samples)):
            result.print(sum_line(level, sums), markup=False)
        stored = "".join(
            f"; {what}: {', '.join(f'{name} {count:,}' for name, count in counts.items())}"
            for what, counts in (("ids", summary.ids), ("values", summary.values))
            if counts
        )
        result.print(f"{summary.shards} shard{'' if summary.shards == 1 else 's'}{stored}", markup=False)
        if len(summary.splits) > 1:
            result.print(_splits_line(summary), markup=False)
        if summary.calls_saved:
            by_model = ", ".join(f"{name} {count:,}" for name, count in summary.calls_saved.items())
            result.print(f"second look: samples that models were not asked of: {by_model}", markup=False)
        if summary.causes and not summary.exit_code:
            _say_causes(summary, result)
        result.print(f"card:   {summary.card}", markup=False)
        result.print(f"stream: {_command()} stream {shlex.quote(said)} --bench", markup=False)
    for level in summary.over:
        sums = {"records": summary.records, "samples": summary.samples}[level]
        errors.print(
            f"curate: {sums['failed']} of {sums['total']} {level} failed, {_percent(summary.failure_rate[level])}: "
            f"more than max_failed of the recipe, {_percent(summary.max_failed)}",
            style="red",
            markup=False,
        )
    for source in summary.sources_over:
        errors.print(
            f"curate: {source.failed} of {source.total} {source.level} of source {source.name!r} failed, "
            f"{_percent(source.failed / source.total)}: more than max_failed of the recipe, "
            f"{_percent(summary.max_failed)}; mostly:",
            style="red",
            markup=False,
        )
        errors.print(*cause_lines([source.cause]), markup=False)
    if summary.exit_code:
        _say_causes(summary, errors)
        errors.print(
            f"  the build is whole; `{_command()} explain {shlex.quote(said)} URI` tells more of one input",
            markup=False,
        )


def _calls_saved(manifest: Manifest) -> dict[str, int]:
    second = manifest.second_look
    return {} if second is None else dict.fromkeys(second.models, manifest.counts.samples["total"] - second.samples)


def _shares(manifest: Manifest) -> list[SplitShare]:
    asked, kept = manifest.recipe["pack"]["splits"], sum(split.samples for split in manifest.splits)
    return [
        SplitShare(name=s.name, samples=s.samples, share=s.samples / kept if kept else 0, asked=asked[s.name])
        for s in manifest.splits
    ]


def _splits_line(summary: Summary) -> str:
    """`splits: train 89 (78 %, 90 % asked), ...`, with the reason where the two are far apart."""
    parts = [f"{s.name} {s.samples:,} ({_percent(s.share)}, {_percent(s.asked)} asked)" for s in summary.splits]
    is_off = any(abs(s.share - s.asked) > FAR_OFF for s in summary.splits)
    return f"splits: {', '.join(parts)}" + ("; all samples of a record go to one split" if is_off else "")


def _say_causes(summary: Summary, console: Console) -> None:
    console.print("failed, by cause, with an example each:", markup=False)
    for line in cause_lines(summary.causes):
        console.print(line, markup=False)


def _percent(rate: float) -> str:
    return f"{100 * rate:.3g} %"


def _command() -> str:
    """How this shell calls `curate`: by its name, or by the path it was started with when that is not on the PATH."""
    return "curate" if shutil.which("curate") else shlex.quote(os.path.relpath(sys.argv[0]))

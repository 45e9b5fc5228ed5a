"""What `curate run --json` says: one JSON object a line. `schemas/progress.schema.json` is made from these classes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

Count = Annotated[int, Field(ge=0)]


class _Event(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Counts(_Event):
    """Inputs of a stage, counted. At the end of a stage that ran to its end:

    total = reused + passed + kept + dropped + duplicate + failed

    A stage that only works on its inputs (ingest, annotate, tokenize) says `passed`, one that decides on them says
    `kept`, `dropped` and `duplicate`.
    """

    stage: str = Field(description="ingest, annotate, decide, look, tokenize, pack or card")
    unit: str = Field(description="what is counted: records, samples, looks (one group at one sample)")
    total: Count = Field(description="inputs, as far as they are known: a stage that streams learns of more as it goes")
    reused: Count = Field(0, description="of these, committed by an earlier run")
    passed: Count = Field(0, description="came through, nothing was decided on them")
    kept: Count = Field(0, description="stay in")
    dropped: Count = Field(0, description="broke a rule")
    duplicate: Count = Field(0, description="are the same as another, or nearly")
    failed: Count = Field(0, description="could not be processed; the ledger says why")
    retries: Count = Field(0, description="further tries; no part of the sum")

    @property
    def done(self) -> int:
        """Inputs that are accounted for."""
        return self.reused + self.passed + self.kept + self.dropped + self.duplicate + self.failed


class StageStart(Counts):
    """A stage begins."""

    event: Literal["stage_start"] = Field("stage_start", description="what this line is")


class StageProgress(Counts):
    """Where a stage is, a second after it began and every ten seconds."""

    event: Literal["progress"] = Field("progress", description="what this line is")
    seconds: float = Field(ge=0, description="since the stage began")
    expected: Count | None = Field(
        None, description="inputs with those that are not known yet, about; null where nothing tells how many there are"
    )
    rate: float | None = Field(None, ge=0, description="inputs a second over the last minute; null until it is known")
    eta_seconds: float | None = Field(
        None, ge=0, description="until all that is expected is done at that rate; null where one of both is not known"
    )
    run_eta_seconds: float | None = Field(
        None,
        ge=0,
        description="to the end of the whole run, with what later stages took in the last run or trial of the recipe; "
        "null where there was none",
    )
    then: list[str] = Field(
        [],
        description="later stages that grow with samples and of which no run or trial of the recipe has told how long "
        "they take: the run ends after `eta_seconds` and these",
    )
    decoded: Count = Field(0, description="inputs that are decoded and not done; no part of the sum")
    queued: Count = Field(0, description="partitions that wait for a worker of this stage, of those known by now")


class StageEnd(Counts):
    """A stage ended."""

    event: Literal["stage_end"] = Field("stage_end", description="what this line is")
    seconds: float = Field(ge=0, description="since the stage began")
    complete: bool = Field(description="false where an error ended it; what it committed is reused by the next run")


class Note(_Event):
    """A sentence for people."""

    event: Literal["note"] = Field("note", description="what this line is")
    text: str = Field(description="one or more lines")


class Dashboard(_Event):
    """Where Ray shows its insides."""

    event: Literal["dashboard"] = Field("dashboard", description="what this line is")
    url: str = Field(description="http address of Ray's dashboard")


class Cause(_Event):
    """Failures of one stage with one class of error, and one of them as an example."""

    level: Literal["record", "sample"] = Field(description="what failed")
    stage: str = Field(description="where, e.g. ingest or annotate:ocr")
    error: str = Field(description="class of the error")
    count: int = Field(ge=1, description="failures of this kind")
    uri: str = Field(description="of the example")
    message: str = Field(description="of the example")


class SourceFailures(_Event):
    """A source of which a greater share failed than the recipe's max_failed."""

    name: str = Field(description="of the source")
    level: Literal["records", "samples"] = Field(description="what is counted")
    failed: int = Field(ge=1, description="of these")
    total: int = Field(ge=1, description="that the source has")
    cause: Cause = Field(description="the most frequent")


class Outcomes(_Event):
    """Records or samples of one outcome, and why."""

    level: Literal["record", "sample"] = Field(description="what is counted")
    outcome: str = Field(description="sampled, kept, dropped, duplicate or failed")
    cause: str | None = Field(
        description="dropped: the rule; duplicate: exact or near; failed: stage and class of error; else null"
    )
    count: int = Field(ge=1, description="how many")


class Funnel(_Event):
    """What a run that ends with `decide` decided; all rows of a level add up to its inputs."""

    event: Literal["funnel"] = Field("funnel", description="what this line is")
    rows: list[Outcomes] = Field(description="by level, outcome and cause, the most frequent first")


class PoolOfWorkers(_Event):
    """Workers that hold the same models."""

    stage: str = Field(description="annotate or tokenize")
    decodes: bool = Field(description="true of the workers that decode, and hold what has no pool of its own")
    models: list[str] = Field(description="what they hold: signals, `light` for all that have no model, or streams")
    device: Literal["cpu", "cuda"] = Field(description="what the models run on")
    dtypes: list[str] = Field(description="numbers that networks compute in; none where there is no network")
    batches: list[Annotated[int, Field(ge=1)]] = Field(description="items of one pass through a network; 1 on CPUs")
    cpus: float = Field(gt=0, description="that Ray reserves for one worker")
    gpus: float = Field(ge=0, le=1, description="share of a GPU that Ray reserves for one worker")
    memory: Count = Field(description="bytes that Ray reserves for one worker; 0 for none")
    workers: tuple[Count, Count] = Field(description="fewest and most")


class Placement(_Event):
    """What `run --dry-run` says of where models would run."""

    event: Literal["placement"] = Field("placement", description="what this line is")
    pools: list[PoolOfWorkers] = Field(description="in the order in which samples pass them")


class Forecast(_Event):
    """What a trial (`--limit`, `--sample`) tells of a run over everything."""

    event: Literal["forecast"] = Field("forecast", description="what this line is")
    drawn: Count = Field(description="records of the trial")
    records: Count = Field(description="of all sources; estimated")
    samples: Count = Field(description="of all sources; estimated")
    kept_share: float = Field(ge=0, le=1, description="of the samples, kept; duplicates grow with the whole")
    kept_low: float = Field(ge=0, le=1, description="lower end of its 95 % interval")
    kept_high: float = Field(ge=0, le=1, description="upper end of its 95 % interval")
    bytes: Count = Field(description="of the whole build, media and shards together")
    seconds_low: float | None = Field(
        ge=0,
        description="wall clock on what the trial ran on, idle, at least; null where it took over earlier work",
    )
    seconds_high: float | None = Field(ge=0, description="at most; null likewise")
    work_seconds: float | None = Field(ge=0, description="of all workers together, without their start; null likewise")
    crowded: float | None = Field(
        ge=1,
        description="how many times as long all this takes where other work takes the CPUs as it did while the trial "
        "ran; null likewise",
    )
    cpus: int | None = Field(ge=1, description="that the trial had; null likewise")
    draw_records: Count | None = Field(
        description="how many to draw for a time that is known better, where the range is too wide to tell; else null"
    )


class SplitShare(_Event):
    """How much of what is kept a split holds. All samples of a record go to one, so few records may miss the shares."""

    name: str = Field(description="of the split")
    samples: Count = Field(description="that it holds")
    share: float = Field(ge=0, le=1, description="of all that is kept")
    asked: float = Field(ge=0, le=1, description="by the recipe's pack: {splits: ...}")


class Summary(_Event):
    """The last line of a run that made its build. A run that could not make it ends without one."""

    event: Literal["summary"] = Field("summary", description="what this line is")
    name: str = Field(description="of the recipe")
    build: str = Field(description="folder or uri of the build")
    card: str = Field(description="address of the dataset card")
    records: dict[str, Count] = Field(description="total = sampled + dropped + duplicate + failed")
    samples: dict[str, Count] = Field(description="total = kept + dropped + duplicate + failed")
    shards: Count = Field(description="of all splits")
    splits: list[SplitShare] = Field(description="in the recipe's order")
    ids: dict[str, Count] = Field(description="of each token stream, over all shards")
    values: dict[str, Count] = Field(description="of each stream of features, over all shards")
    causes: list[Cause] = Field(description="of failure, the most frequent first; they add up to what failed")
    failure_rate: dict[Literal["records", "samples"], Annotated[float, Field(ge=0, le=1)]] = Field(
        description="failed / total of each"
    )
    max_failed: float = Field(ge=0, le=1, description="of the recipe")
    over: list[Literal["records", "samples"]] = Field(description="what failed at a rate above max_failed")
    sources_over: list[SourceFailures] = Field(
        [], description="sources that failed at a rate above max_failed, where there are several sources"
    )
    decodes: dict[str, Annotated[float, Field(ge=0)]] = Field(
        description="what this run decoded: images, files of video and audio, seconds of video and of audio, and clips "
        "that were decoded once more on their own; nothing where all was committed before"
    )
    calls_saved: dict[str, Count] = Field(
        {},
        description="by model of the second look, samples that it was not asked of since rules or duplicates had "
        "decided on them",
    )
    exit_code: Literal[0, 3] = Field(
        description="3 where a failure rate, of all or of one source, is above max_failed; the build is whole"
    )


class Event(
    RootModel[
        Annotated[
            StageStart | StageProgress | StageEnd | Note | Dashboard | Funnel | Placement | Forecast | Summary,
            Field(discriminator="event"),
        ]
    ]
):
    """One line of `curate run --json`."""

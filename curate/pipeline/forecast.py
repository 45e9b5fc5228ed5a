"""What a trial tells of the whole: records, samples that would be kept, bytes, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

from curate.pipeline.placement import Pool
from curate.pipeline.spent import Spent
from curate.schema.events import Forecast
from curate.schema.manifest import Manifest, Trial, TrialSource
from curate.shards.lists import files_below, read_files
from curate.storage import Store
from curate.storage.sql import connect, scan

Z = 1.959964
"""Standard normal deviates on each side of a 95 % interval."""

FETCH = "fetch"
"""The stage of the ingest plan that the board knows without a pool."""

PLANS = {FETCH: "ingest", "annotate": "ingest", "look": "look", "tokenize": "tokenize"}
"""By stage, the plan that its tasks are of."""

TELLING = 4.0
"""A time whose upper end is so many times its lower one tells too little: more should be drawn."""

CROWDED, MOST_CROWDED = 1.5, 20.0
"""Work that takes so many times as long as it would without waiting for a CPU shares the CPUs with others; more than
the second cannot be told."""

_FILES = 256
"""Fragments that one query reads."""

_SUMS = """
    WITH clusters AS (
        SELECT source, {by} AS cluster,
            count(*) FILTER (level = 'record') AS records,
            count(*) FILTER (level = 'sample') AS n,
            count(*) FILTER (level = 'sample' AND outcome = 'kept') AS k
        FROM {table} GROUP BY ALL
    )
    SELECT source, sum(records), count(*), sum(n), sum(k), sum(n * n), sum(n * k), sum(k * k)
    FROM clusters GROUP BY source
"""
_NAMES = ("records", "clusters", "n", "k", "nn", "nk", "kk")

Sums = dict[str, Counter[str]]
"""By source, sums over clusters of samples (n), and of those that are kept (k)."""


@dataclass(frozen=True)
class Took:
    """What a trial's run took.

    Attributes:
        seconds: from its command's start to the commit.
        columns_s: of these, of stages that read columns alone.
        spent: where the time of tasks went.
        pools: workers of its plans.
        cpus, gpus: of the cluster.
        requests: at once, by source that may be fetched from the web.
    """

    seconds: float
    columns_s: float
    spent: Spent
    pools: Sequence[Pool]
    cpus: int
    gpus: int
    requests: Mapping[str, int]


@dataclass(frozen=True)
class Time:
    """Seconds of the whole: a range, and of all workers together; and how many times as long it takes where other work
    takes the CPUs as it did while the trial ran."""

    low: float
    high: float
    work: float
    crowded: float


def forecast(build: Store, manifest: Manifest, trial: Trial, took: Took | None) -> Forecast:
    """The forecast of the whole build from a trial's.

    Args:
        build, manifest: the trial's.
        took: None where a part of its work was there before.
    """
    verdicts = [file.path for file in files_below(build, manifest, "verdicts/")]
    by_record = _sums(build, verdicts, "record_id")
    by_fragment = _sums(build, verdicts, "filename")
    weights = {one.name: _growth(one) for one in trial.sources if one.name in by_record}
    samples = sum(weight * by_record[name]["n"] for name, weight in weights.items())
    kept = sum(weight * by_record[name]["k"] for name, weight in weights.items())
    share = kept / samples if samples else 0.0
    low, high = interval(share, effective(share, weights, by_record, by_fragment))
    growth = trial.of_records / max(1, trial.records)
    size = sum(
        file.bytes * (weights.get(_source(file.path), growth) if file.path.startswith("media/") else growth)
        for file in read_files(build, manifest)
        if not file.path.startswith("card/")
    )
    time = None if took is None else time_of(trial, took)
    tells = time is not None and time.high < TELLING * time.low
    return Forecast(
        drawn=trial.records,
        records=trial.of_records,
        samples=round(samples),
        kept_share=share,
        kept_low=low,
        kept_high=high,
        bytes=round(size),
        seconds_low=None if time is None else time.low,
        seconds_high=None if time is None else time.high,
        work_seconds=None if time is None else time.work,
        crowded=None if time is None else time.crowded,
        cpus=None if took is None else took.cpus,
        draw_records=None if time is None or tells else min(4 * trial.records, trial.of_records),
    )


def time_of(trial: Trial, took: Took) -> Time:
    """The time of the whole on what the trial ran on.

    What the trial took beside its tasks' work stays as it is: Ray's and its workers' start, loading, the card. The work
    grows, by stage and source: for its records with the source's records, the rest of a task with its partitions. At
    the lower end all workers of a plan are busy at all times, its stages work beside each other, and what reads columns
    takes no longer than in the trial. At the upper end stages follow each other, one worker ends last with a partition
    of its own, and what reads columns grows with the partitions. In both ends is how the work differs from task to task
    (95 %).

    Tasks that stood in the queue for a CPU much of their time shared it with other work than the trial's: then times
    are told as they were without that.
    """
    sources = {source.name: source for source in trial.sources}
    workers = {FETCH: took.cpus, **{_stage(pool): _at_once(pool, took) for pool in took.pools}}
    beside: dict[str, dict[str, float]] = {plan: {} for plan in PLANS.values()}
    in_turn = work = now = now_at_once = alone = variance = last = 0.0
    for (stage, name), sums in took.spent.items():
        source, at_once, done = sources[name], workers[stage], sums["partition"] + sums["records"]
        crowd = _crowd(done, sums["queued"])
        now, now_at_once, alone = now + done, now_at_once + done / at_once, alone + done / crowd
        of_tasks = sums["partition"] / crowd * source.of_partitions / max(1, source.partitions)
        of_records = fewest = sums["records"] / crowd * _growth(source)
        if stage == FETCH and name in took.requests:  # the more records a partition has, the more wait at once
            fewest = sums["records"] / crowd * _rounds_growth(source, took.requests[name])
        plan = beside[PLANS[stage.partition(":")[0]]]
        plan[stage] = plan.get(stage, 0.0) + (of_tasks + fewest) / at_once
        in_turn += (of_tasks + of_records) / at_once
        work += of_tasks + of_records
        variance += (of_records / at_once) ** 2 * _spread(sums)
        last = max(last, (of_tasks + of_records) / max(1, source.of_partitions))
    crowded, off = now / alone if alone else 1.0, Z * sqrt(variance)
    columns = max(source.of_partitions / max(1, source.partitions) for source in trial.sources)
    least = sum(max(stages.values(), default=0.0) for stages in beside.values())
    low = max(0.0, took.seconds - now) / crowded + max(0.0, least - off)
    high = max(0.0, took.seconds - now_at_once) / crowded + in_turn + off + last
    return Time(low, high + took.columns_s / crowded * max(0.0, columns - 1), work, crowded)


def _crowd(done: float, queued: float) -> float:
    """How many times as long work took as it does where no other takes the CPUs; a run's own processes wait for each
    other too, so a short queue is none."""
    times = done / max(done - queued, done / MOST_CROWDED) if done else 1.0
    return times if times > CROWDED else 1.0


def _growth(source: TrialSource) -> float:
    return source.of_records / max(1, source.records)


def _rounds_growth(source: TrialSource, requests: int) -> float:
    """How many times as many rounds of so many requests at once the partitions of the whole source take."""
    rounds = source.partitions * ceil(source.records / max(1, source.partitions) / requests)
    return source.of_partitions * ceil(source.of_records / max(1, source.of_partitions) / requests) / max(1, rounds)


def _spread(sums: Mapping[str, float]) -> float:
    """Variance of the seconds of a record on average, as a part of their square: as between tasks (a ratio, Cochran
    6.3), and at least that of records as different as those of an exponential distribution."""
    tasks, n, s = sums["tasks"], sums["n"], sums["records"]
    if not n or not s:
        return 0.0
    between = sums["ss"] - 2 * s / n * sums["ns"] + (s / n) ** 2 * sums["nn"]
    return max(1 / n, tasks / (tasks - 1) * between / s**2 if tasks > 1 else 0.0)


def _at_once(pool: Pool, took: Took) -> int:
    """Workers of a pool that there is room for on what the trial ran on."""
    room = took.gpus / pool.gpus if pool.gpus else took.cpus / pool.cpus
    return max(1, min(pool.workers[1], int(room + 1e-6)))


def _stage(pool: Pool) -> str:
    """What the board calls the workers of a pool."""
    return pool.stage if pool.decodes and pool.stage != "look" else f"{pool.stage}:{','.join(pool.names)}"


def effective(share: float, weights: dict[str, float], *sums: Sums) -> float:
    """How many independent samples the drawn ones are worth.

    The variance of the ratio of weighted totals over clusters (Cochran, Sampling Techniques, 3rd ed., 6.3 and 9A.1),
    the largest of some clusterings: samples of a record are alike, and so are records of a partition.
    """
    counts = [(weights[name], of) for name, of in sums[0].items()]
    total = sum(w * of["n"] for w, of in counts)
    squares = sum(w * w * of["n"] for w, of in counts)
    worth = total * total / squares if squares else 0.0
    for clustering in sums:
        clusters = sum(of["clusters"] for of in clustering.values())
        if clusters < 2 or not 0 < share < 1:
            continue
        spread = sum(
            weights[name] ** 2 * (of["kk"] - 2 * share * of["nk"] + share * share * of["nn"])
            for name, of in clustering.items()
        )
        variance = clusters / (clusters - 1) * spread / (total * total)
        if variance > 0:
            worth = min(worth, share * (1 - share) / variance)
    return worth


def interval(share: float, n: float) -> tuple[float, float]:
    """Wilson's 95 % interval of a share seen in n independent samples (Wilson 1927, JASA 22, 209-212)."""
    if n <= 0:
        return 0.0, 1.0
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _sums(build: Store, verdicts: Sequence[str], by: str) -> Sums:
    found: Sums = {}
    with connect() as con:
        for start in range(0, len(verdicts), _FILES):
            with build.pinned(verdicts[start : start + _FILES]) as local:
                table = scan([str(path) for path in local])
                for source, *row in con.execute(_SUMS.format(by=by, table=table)).fetchall():
                    found.setdefault(source, Counter()).update(dict(zip(_NAMES, map(int, row), strict=True)))
    return found


def _source(path: str) -> str:
    """The source of a fragment, whose name is `SOURCE-PARTITION-MADE_BY`."""
    return path.rpartition("/")[2].rsplit("-", 2)[0]

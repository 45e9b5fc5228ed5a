"""What a trial tells of the whole: records, samples that would be kept, bytes, time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import sqrt

from curate.pipeline.trial import Drawn
from curate.schema.events import Forecast
from curate.schema.manifest import Manifest
from curate.shards.lists import files_below, read_files
from curate.storage import Store
from curate.storage.sql import connect, scan

Z = 1.959964
"""Standard normal deviates on each side of a 95 % interval."""

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


def forecast(build: Store, manifest: Manifest, sources: Sequence[Drawn], seconds: float | None, cpus: int) -> Forecast:
    """The forecast of the whole build from a trial's.

    Args:
        build, manifest: the trial's.
        seconds: that its work took; None where a part of it was there before.
        cpus: that it had.
    """
    verdicts = [file.path for file in files_below(build, manifest, "verdicts/")]
    by_record = _sums(build, verdicts, "record_id")
    by_fragment = _sums(build, verdicts, "filename")
    whole = {s.name: s.whole(build, by_record[s.name]["records"]) for s in sources if s.name in by_record}
    weights = {name: whole[name] / max(1, sums["records"]) for name, sums in by_record.items()}
    drawn = sum(sums["records"] for sums in by_record.values())
    records = sum(whole.values())
    samples = sum(weights[name] * sums["n"] for name, sums in by_record.items())
    kept = sum(weights[name] * sums["k"] for name, sums in by_record.items())
    share = kept / samples if samples else 0.0
    low, high = interval(share, effective(share, weights, by_record, by_fragment))
    growth = records / max(1, drawn)
    size = sum(
        file.bytes * (weights.get(_source(file.path), growth) if file.path.startswith("media/") else growth)
        for file in read_files(build, manifest)
        if not file.path.startswith("card/")
    )
    wall = None if seconds is None else seconds * growth
    return Forecast(
        drawn=drawn,
        records=round(records),
        samples=round(samples),
        kept_share=share,
        kept_low=low,
        kept_high=high,
        bytes=round(size),
        seconds=wall,
        cpu_seconds=None if wall is None else wall * cpus,
        cpus=cpus,
    )


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

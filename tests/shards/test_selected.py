"""Samples that a condition is true of, chosen where they are read."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import Tokens, finish, make_ledger, make_samples, rewrite_files

from curate.schema.errors import CurateError
from curate.shards.epoch import Shuffle
from curate.shards.lists import read_files
from curate.shards.stream import stream
from curate.shards.views import RawView
from curate.storage import Folder
from curate.storage.tables import write_named_table

SAMPLES = make_samples(101)
CLIP = {s.sample_id: None if i % 5 == 0 else i / 100 for i, s in enumerate(SAMPLES)}
"""A score of each sample; some have none."""


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build with a signal `clip_score`, in two partitions."""
    build = tmp_path_factory.mktemp("scored") / "build"
    manifest = finish(build, SAMPLES, splits={"train": 1.0})
    store = Folder(build)
    files = [f for f in read_files(store, manifest) if f.path.startswith("tokens/")]
    table = pq.read_table(build / "samples/here-0.parquet")
    for name, some in (("one", slice(0, 40)), ("two", slice(40, 101))):
        part = table.slice(some.start, some.stop - some.start)
        ids = part["sample_id"].to_pylist()
        scores = pa.table({"sample_id": ids, "clip_score": pa.array([CLIP[i] for i in ids], pa.float64())})
        files.append(write_named_table(store, f"samples/{name}", part))
        files.append(write_named_table(store, f"signals/clip/{name}", scores))
        files.append(write_named_table(store, f"verdicts/{name}", make_ledger(SAMPLES[some])))
    rewrite_files(build, manifest, files)
    return build


def names(build: Path, where: str, **options: Any) -> set[str]:
    tokens = stream(build, view=RawView(only=[]), where=where, **options)
    found = [item["sample_id"] for item in tokens]
    assert len(found) == tokens.samples == len(set(found))
    return set(found)


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ("clip_score > 0.28", lambda s: CLIP[s.sample_id] is not None and CLIP[s.sample_id] > 0.28),
        ("kind = 'image'", lambda s: s.kind == "image"),
        (
            "clip_score IS NULL OR kind IN ('audio', 'video') -- a remark",
            lambda s: CLIP[s.sample_id] is None or s.kind != "image",
        ),
        (
            "start_us >= 5e6 AND has_audio AND source = 'here'",
            lambda s: s.start_us >= 5e6 and s.ids.get("tok_audio@16k") is not None,
        ),
        ("true", lambda s: True),
        ("false", lambda s: False),
    ],
)
@pytest.mark.parametrize("shuffle", [True, "blocks", False])
def test_each_sample_that_fits_comes_once(
    scored: Path, where: str, fits: Callable[[Tokens], bool], shuffle: Shuffle
) -> None:
    assert names(scored, where, shuffle=shuffle) == {s.sample_id for s in SAMPLES if fits(s)}


def test_it_is_resumed_on_other_ranks(scored: Path) -> None:
    where = "kind = 'image'"
    whole = [item["sample_id"] for item in stream(scored, view=RawView(only=[]), where=where)]
    tokens = stream(scored, view=RawView(only=[]), where=where)
    begun = [item["sample_id"] for item in islice(tokens, 2)]
    rest: list[list[str]] = []
    for rank in range(3):
        one = stream(scored, view=RawView(only=[]), where=where, rank=rank, world=3)
        one.resume(tokens.state())
        rest.append([item["sample_id"] for item in one])
    assert sorted(begun + [name for names in rest for name in names]) == sorted(whole)
    with pytest.raises(CurateError, match="selection"):
        stream(scored, where="kind = 'video'").resume(tokens.state())


@pytest.mark.parametrize("where", ["clip_scor > 3", "clip_score >", "kind = 'image'; DROP TABLE samples", "1) OR (1"])
def test_a_condition_that_is_none_is_refused_with_the_fields_there_are(scored: Path, where: str) -> None:
    with pytest.raises(CurateError) as caught:
        stream(scored, where=where)
    assert "clip_score" in str(caught.value)
    assert where in str(caught.value)

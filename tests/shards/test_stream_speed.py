"""`curate stream --bench` counts what it times."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from tiny import TinyBuild
from typer.testing import CliRunner

from curate.cli.main import app
from curate.cli.stream_speed import stream_speed, wait_alone, wait_worker
from curate.schema.errors import CurateError
from curate.shards.stream import stream


def test_figures_agree_with_each_other(shared_build: Path) -> None:
    figures = stream_speed(shared_build, seconds=0.3, batch=32, step_ms=1.0)
    assert figures["samples"] == 101
    size = sum(p.stat().st_size for p in shared_build.rglob("tokens/**/*.arrow")) / 1e6
    bytes_of = {n: figures[f"{n}mb_per_s"] / figures[f"{n}samples_per_s"] * 101 for n in ("", "raw_", "sequential_")}
    assert bytes_of["sequential_"] == pytest.approx(size, rel=0.02)  # samples of a file are rounded
    assert 0 < bytes_of["raw_"] <= size
    assert 0 < bytes_of[""] < size  # ids and offsets, without keys and Arrow's own
    assert figures["ratio"] == pytest.approx(figures["samples_per_s"] / figures["raw_samples_per_s"])
    ids = sum(v.size for s in stream(shared_build) for v in s.values() if isinstance(v, np.ndarray))
    assert figures["tokens_per_s"] / figures["samples_per_s"] == pytest.approx(ids / 101)
    assert figures["wait_alone"] == pytest.approx(figures["batch_ms"] / (figures["batch_ms"] + 1))
    assert 0 <= figures["wait_worker"] <= figures["wait_alone"]


def test_who_waits_how_long() -> None:
    assert wait_alone([1.0, 3.0], 2.0) == 0.5
    assert wait_worker([2.0] * 100, 3.0) == 0  # a worker is done before the step is
    assert wait_worker([2.0] * 100, 1.0) == pytest.approx(0.5)
    bursts = [8.0, 0.0, 0.0, 0.0] * 100  # one batch of four takes all the time, two are ahead
    assert wait_worker(bursts, 2.0) == pytest.approx(0.2, abs=0.01)
    assert wait_worker(bursts, 2.0, ahead=4) < 0.01


def test_what_people_read(shared_build: Path) -> None:
    done = CliRunner().invoke(app, ["stream", str(shared_build), "--bench", "--seconds", "0.1", "--step-ms", "50"])
    said = done.stdout.splitlines()
    assert re.fullmatch(r"[\d,]+ samples/s, [\d,]+ tokens/s, [\d,]+ MB/s, shuffled", said[0])
    assert re.search(r"^at 50 ms a step a trainer waits 0\.0% of its time with one worker, \d", said[-1])


def test_an_empty_split_is_refused(tiny_build: TinyBuild) -> None:
    with pytest.raises(CurateError, match="no samples"):
        stream_speed(tiny_build(4, splits={"train": 1 - 1e-9, "never": 1e-9}), 0.1, "never")

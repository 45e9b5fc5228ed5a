"""`curate stream --bench` counts what it times."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import TinyBuild

from curate.cli.stream_speed import stream_speed
from curate.schema.errors import CurateError


def test_figures_agree_with_each_other(shared_build: Path) -> None:
    figures = stream_speed(shared_build, seconds=0.3, batch=32)
    assert figures["samples"] == 101
    size = sum(p.stat().st_size for p in shared_build.rglob("tokens/**/*.arrow")) / 1e6
    bytes_of = {n: figures[f"{n}mb_per_s"] / figures[f"{n}samples_per_s"] * 101 for n in ("", "raw_", "sequential_")}
    assert bytes_of["sequential_"] == pytest.approx(size, rel=0.02)  # samples of a file are rounded
    assert 0 < bytes_of["raw_"] <= size
    assert 0 < bytes_of[""] < size  # ids and offsets, without keys and Arrow's own
    assert figures["ratio"] == pytest.approx(figures["samples_per_s"] / figures["raw_samples_per_s"])


def test_an_empty_split_is_refused(tiny_build: TinyBuild) -> None:
    with pytest.raises(CurateError, match="no samples"):
        stream_speed(tiny_build(4, splits={"train": 1 - 1e-9, "never": 1e-9}), 0.1, "never")

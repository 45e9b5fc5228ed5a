from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from card_build import Builder, image_item, items, opened, photo
from hypothesis import given
from hypothesis import strategies as st

from curate.card.axis import Axis
from curate.card.facts import gather
from curate.card.flow import flow
from curate.card.funnel import Funnel, Level, funnel
from curate.card.media import loudest_line, spectrogram, wave
from curate.card.signals import numbers, others
from curate.card.thresholds import Column, thresholds
from curate.schema.errors import CurateError
from curate.schema.manifest import Split
from curate.schema.recipe import Recipe, Rule
from curate.shards.tables import open_tables
from curate.storage import Folder


@pytest.fixture(scope="module")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(tmp_path_factory.mktemp("build"), items())


def test_histograms_hold_every_value_and_colour_what_is_outside(builder: Builder) -> None:
    manifest = builder.manifest()
    with opened(builder) as tables:
        found = {n.name: n for n in numbers(tables, Recipe.model_validate(manifest.recipe))}
    assert list(found) == ["sharpness", "brightness", "loudness", "pixels", "duration"]
    values = {n: [s[n] for s in builder.signals if s[n] is not None] for n in ("sharpness", "brightness", "loudness")}
    for name, v in values.items():
        spread = found[name].spread
        assert spread.count == len(v)
        assert (spread.lowest, spread.median, spread.highest) == pytest.approx((min(v), np.median(v), max(v)))
    assert found["sharpness"].spread.outside == sum(v < 20 for v in values["sharpness"]) == 2
    assert found["brightness"].spread.outside == sum(not 16 <= v <= 250 for v in values["brightness"]) == 1
    assert [(b.bound.name, b.value, b.dropped) for b in found["brightness"].bounds] == [
        ("brightness >= 16", 16.0, 1),
        ("brightness <= 250", 250.0, 0),
    ]


def test_a_percentile_is_drawn_at_the_value_it_came_to(builder: Builder) -> None:
    manifest = builder.manifest()
    recipe = Recipe.model_validate(manifest.recipe)
    with opened(builder) as tables:
        loudness = next(n for n in numbers(tables, recipe) if n.name == "loudness")
    [bound] = loudness.bounds
    assert bound.value == -14.0
    assert bound.dropped == 1
    assert loudness.spread.outside == 1  # the clips of the film are videos, which this rule is not for
    assert loudness.spread.chart is not None
    assert [line.label for line in loudness.spread.chart.lines] == ["≥ p25 = -14"]


@pytest.mark.parametrize("percent", [0, 7.5, 50, 100])
def test_a_percentile_that_dropped_nothing_is_that_of_all_values(builder: Builder, percent: float) -> None:
    rule = Rule(field="sharpness", min_percentile=percent, kinds=["image"])
    with opened(builder) as tables:
        [bound] = thresholds(tables, [rule], Column("sample", "sharpness", "signal:sharpness"))
    verdicts = {r["id"]: r for r in builder.ledger if r["level"] == "sample"}
    values = [
        s["sharpness"]
        for s in builder.signals
        if s["sharpness"] is not None and verdicts[s["sample_id"]]["kind"] == "image"
    ]
    assert bound.value == pytest.approx(np.percentile(np.float32(values), percent), rel=1e-6)


def test_chunks_of_partitions_give_the_same_sums(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(builder) as tables:
        together = others(tables), funnel(tables)
    monkeypatch.setattr("curate.card.sweep.CHUNK_ROWS", 1)
    with opened(builder) as tables:
        assert (others(tables), funnel(tables)) == together


def test_failed_samples_are_in_no_histogram(builder: Builder) -> None:
    manifest = builder.manifest()
    with opened(builder) as tables:
        found = numbers(tables, Recipe.model_validate(manifest.recipe))
    pixels = next(n for n in found if n.name == "pixels")
    pictured = [r for r in builder.ledger if r["level"] == "sample" and r["kind"] in ("image", "video")]
    assert pixels.spread.count == len([r for r in pictured if r["outcome"] != "failed"]) == len(pictured) - 1


@pytest.mark.parametrize(("stage", "count"), [("annotate", 1), ("decide", 2), ("tokenize", 2)])
def test_what_a_rule_failed_or_failed_after_rules_is_in_them(tmp_path: Path, stage: str, count: int) -> None:
    why = {"stage": stage, "error": "MissingValue", "message": "there is no caption", "attempt": 1}
    failed = image_item("rocket.jpg", photo("rocket.jpg"), None, outcome="failed", why=why)
    builder = Builder(tmp_path, [image_item("coffee.png", photo("coffee.png"), "a cup"), failed])
    with opened(builder) as tables:
        found = numbers(tables, Recipe.model_validate(builder.manifest().recipe))
    assert next(n for n in found if n.name == "pixels").spread.count == count


@given(
    st.floats(-1e6, 1e6),
    st.floats(1e-3, 1e6),
    st.booleans(),
)
def test_ticks_lie_on_the_axis(low: float, width: float, log: bool) -> None:
    axis = Axis(abs(low) + 1e-3 if log else low, (abs(low) + 1e-3 if log else low) + width, 8, 392, log)
    ticks = axis.ticks()
    assert len(ticks) <= 12
    assert all(8 <= x <= 392 for x, _ in ticks)
    assert [x for x, _ in ticks] == sorted(x for x, _ in ticks)
    edges = axis.edges(10)
    assert edges == sorted(edges)
    assert (edges[0], edges[-1]) == (axis.low, axis.high)


counts = st.tuples(*[st.integers(0, 10_000)] * 4)


@given(counts, counts)
def test_the_drawing_of_any_funnel_has_no_overlaps(records: tuple[int, ...], samples: tuple[int, ...]) -> None:
    levels = [
        Level(name, sum(n), dict(zip((first, "dropped", "duplicate", "failed"), n, strict=True)), [])
        for name, first, n in (("record", "sampled", records), ("sample", "kept", samples))
    ]
    split = Split(name="train", samples=samples[0], shards=["a"], shard_rows=[samples[0]])
    drawn = flow(Funnel(levels[0], levels[1], [split], {"train": 1.0}, []))
    assert all(n.y + n.height <= drawn.height for n in drawn.nodes)
    for x in {n.x for n in drawn.nodes}:
        column = sorted((n.y, n.height) for n in drawn.nodes if n.x == x)
        assert all(y + h <= below for (y, h), (below, _) in itertools.pairwise(column))


def test_a_ledger_that_does_not_add_up_gives_no_card(builder: Builder) -> None:
    manifest = builder.manifest()
    manifest.counts.samples["kept"] += 1
    with (
        open_tables(Folder(builder.build), manifest, builder.files) as tables,
        pytest.raises(CurateError, match="the ledger counts"),
    ):
        gather(tables)


def test_files_outside_the_build_or_unlisted_are_not_read(builder: Builder) -> None:
    with opened(builder) as tables:
        for path in ("../secret.tar", "records/other.parquet", "/etc/passwd"):
            with pytest.raises(CurateError, match="not a file of this build"):
                tables.path(path)


def test_a_wave_form_follows_the_audio() -> None:
    audio = np.concatenate([np.zeros(480, np.int16), np.full(480, 16384, np.int16)])
    path = wave(audio, columns=4, height=40)
    assert path == "M0 19.6L1 19.6L2 10.0L3 10.0L3 20.4L2 20.4L1 20.4L0 20.4Z"
    assert wave(np.zeros(0, np.int16), 4) == "M0 20H4"


def test_a_tone_is_a_bright_line_at_its_frequency() -> None:
    t = np.arange(16000) / 16000
    tone = np.sin(2 * np.pi * 2000 * t).astype(np.float32)
    image = spectrogram(tone, loudest_line(tone), width=40, height=80).astype(int).sum(axis=2)
    row = int(image[:, 20].argmax())
    assert abs((79.5 - row) / 80 * 8000 - 2000) < 110
    assert (image[:20, 2:-2] < 60).all()  # nothing above 6 kHz

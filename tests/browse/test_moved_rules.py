"""What the page says of moved rules is what `curate.decide` decides."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest

from curate.browse.columns import Columns, axis_of
from curate.browse.histograms import count
from curate.browse.labels import Labels
from curate.browse.moving import Moving
from curate.browse.table import Browsed, open_table
from curate.decide.decide import decide
from curate.decide.engine import LocalEngine
from curate.decide.ledger import checked_counts
from curate.decide.partitions import PartitionFiles
from curate.schema.errors import CurateError
from curate.schema.recipe import Recipe
from curate.storage import Folder, open_store


@pytest.fixture(scope="module")
def browsed(browsed_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browsed]:
    with open_table(open_store(browsed_build), tmp_path_factory.mktemp("cache")) as found:
        yield found


@pytest.fixture(scope="module")
def moving(browsed: Browsed) -> Moving:
    columns = Columns(browsed)
    return Moving(browsed, columns, Labels(browsed, columns), None)


def decided(browsed: Browsed, copy: Path, asked: dict[str, Any]) -> tuple[dict[str, int], set[str]]:
    """Sums, and ids of what is kept, by the rules that a question names."""
    recipe = Recipe.model_validate(browsed.tables.manifest.recipe)
    rules = [rule.model_dump() for rule in recipe.decide.rules]
    for change in asked.get("changes", []):
        rules[change["rule"]][change["key"]] = change["value"]
    rules += [{"field": one["field"], one["key"]: one["value"]} for one in asked.get("added", [])]
    options = recipe.model_validate(
        {**recipe.model_dump(by_alias=True), "decide": {**recipe.decide.model_dump(by_alias=True), "rules": rules}}
    )
    tables, store = browsed.tables, Folder(copy)
    names = {
        stage: {p.rpartition("/")[2].rpartition("-")[0]: p for p in tables.named(f"{stage}/", ".parquet")}
        for stage in ("records", "samples", *tables.groups)
    }
    parts = [
        PartitionFiles(n, names["records"][n], names["samples"][n], {g: names[g][n] for g in tables.groups})
        for n in tables.partitions
    ]
    found = decide(
        store,
        parts,
        options.decide.model_copy(update={"rules": options.sample_rules}),
        browsed.fields,
        tables.fields,
        tables.failures,
        recipe.seed,
        LocalEngine(),
    )
    kept: set[str] = set()
    for fragment in found.fragments:
        rows = pq.read_table(copy / fragment.path, columns=["level", "id", "outcome"]).to_pylist()
        kept |= {row["id"] for row in rows if row["level"] == "sample" and row["outcome"] == "kept"}
    return checked_counts(f.counts for f in found.fragments)["samples"], kept


def test_rules_as_they_were_give_the_ledger(browsed: Browsed, moving: Moving) -> None:
    found = moving.judge({})
    assert found["counts"] == browsed.tables.manifest.counts.samples
    assert found["falls"]["count"] == found["back"]["count"] == 0
    assert found["counts"]["duplicate"] > 0
    assert moving.about()["groups"]


def test_any_rules_give_what_a_run_would_decide(
    browsed: Browsed, moving: Moving, browsed_build: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "build"
    shutil.copytree(browsed_build, copy)
    random = Random(0)
    columns = Columns(browsed)
    ids = columns.arrow(["id"])["id"].to_pylist()
    for _ in range(12):
        changes: list[dict[str, Any]] = [
            {"rule": 0, "key": "max", "value": round(random.uniform(30, 230), 1)},
            {"rule": 1, "key": "min_percentile", "value": round(random.uniform(0, 60), 1)},
            {"rule": 3, "key": "max", "value": float(random.randint(1, 3))},
        ]
        added = [
            {"field": "contrast", "key": random.choice(["min", "max"]), "value": round(random.uniform(20, 80), 1)},
            {"field": "pixels", "key": "min", "value": float(random.choice([1, 60_000, 200_000]))},
        ]
        asked = {"changes": changes[: random.randint(0, 3)], "added": added[: random.randint(0, 2)]}
        sums, kept = decided(browsed, copy, asked)
        found = moving.judge(asked)
        assert found["counts"] == sums, asked
        judged = moving._judged
        mask = judged.judge(judged.bounds([rule for _, rule in moving._moved(asked).rules])).kept
        assert {ids[row] for row in mask.nonzero()[0]} == kept, asked


def test_a_duplicate_comes_back_where_its_keeper_falls(moving: Moving) -> None:
    """Of two that are alike the one with more pixels is kept; a rule on pixels drops it."""
    before = moving.judge({})["counts"]
    found = moving.judge({"added": [{"field": "pixels", "key": "max", "value": 100_000.0}]})
    assert found["counts"]["duplicate"] < before["duplicate"]
    assert found["back"]["count"] > 0


def test_neighbours_of_a_line_lie_on_their_sides_and_histograms_add_up(moving: Moving) -> None:
    asked = {"changes": [{"rule": 0, "key": "max", "value": 100.0}]}
    names = [bound["name"] for bound in moving.judge(asked)["bounds"]]
    found = moving.judge({**asked, "line": names.index("brightness <= 100"), "fields": ["brightness", "pixels"]})
    near = found["near"]
    assert near["drops"] == "above"
    below, above = ([row["value"] for row in near[side]] for side in ("below", "above"))
    assert below == sorted(below)
    assert above == sorted(above)
    assert below[-1] <= 100 < above[0]
    for told in found["histograms"].values():
        assert all(kept <= rest for kept, rest in zip(told["kept"], told["rest"], strict=True))
        assert sum(told["kept"]) <= found["counts"]["kept"]
    images = sum(found["histograms"]["pixels"]["kept"])
    assert images == sum(found["histograms"]["brightness"]["kept"]) > 0


def test_a_percentile_is_set_by_where_its_line_is_put(moving: Moving) -> None:
    [value] = [b["value"] for b in moving.judge({})["bounds"] if b["key"] == "min_percentile"]
    moved = moving.judge({"changes": [{"rule": 1, "key": "min_percentile", "at": value * 2}]})
    [bound] = [b for b in moved["bounds"] if b["key"] == "min_percentile"]
    assert 5 < bound["percentile"] < 100
    assert bound["value"] > value


def test_the_strip_shows_a_sample_where_there_is_one(moving: Moving) -> None:
    [field] = [one for one in moving.about()["fields"] if one["name"] == "brightness"]
    values = [row["value"] for row in moving.strip({"field": "brightness"})]
    assert values == sorted(values)
    assert all(field["edges"][0] <= value <= field["edges"][-1] for value in values)


@pytest.mark.parametrize(
    "asked",
    [
        {"changes": [{"rule": 9, "key": "max", "value": 1}]},
        {"changes": [{"rule": -1, "key": "min", "value": 1}]},
        {"changes": [{"rule": 0, "key": "field", "value": 1}]},
        {"changes": [{"rule": 0, "key": "max", "value": "1; DROP"}]},
        {"changes": [{"rule": 0, "key": "max", "value": -5}]},
        {"changes": "x"},
        {"added": [{"field": "nothing", "key": "max", "value": 1}]},
        {"added": [{"field": "brightness", "key": "max", "value": 1}] * 1000},
        {"fields": ["caption"]},
        {"fields": 3},
    ],
)
def test_what_is_no_rule_is_refused(moving: Moving, asked: dict[str, Any]) -> None:
    with pytest.raises(CurateError):
        moving.judge(asked)


def test_an_answer_does_not_depend_on_what_was_asked_before(browsed: Browsed, moving: Moving) -> None:
    """A line is dragged past a sample or two, a rule on the smallest ones begins and ends, another field comes into
    view."""
    columns = Columns(browsed)
    random = Random(1)
    asked: dict[str, Any] = {"changes": [], "added": [], "fields": ["brightness", "pixels", "height"], "line": 0}
    value = 150.0
    for _ in range(60):
        value = min(250.0, max(5.0, value + random.uniform(-20, 20)))
        asked["changes"] = [{"rule": 0, "key": "max", "value": round(value, 1)}]
        if random.random() < 0.2:
            asked["changes"].append({"rule": 3, "key": "max", "value": float(random.randint(1, 3))})
        if random.random() < 0.4:
            field = random.choice(["pixels", "height"])
            limit = float(columns.order(field)[1][random.randint(1, 4)])
            asked["added"] = random.choice([[], [{"field": field, "key": "min", "value": limit}]])
        if random.random() < 0.2:
            asked["fields"] = random.sample(["brightness", "pixels", "height", "sharpness"], 3)
        assert moving.judge(asked) == Moving(browsed, columns, moving._labels, None).judge(asked), asked


def test_two_codes_are_counted_as_one_number() -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    for size in (0, 1, 2, 1001):
        codes = rng.integers(256, size=size, dtype=np.uint8)
        assert count(codes).tolist() == np.bincount(codes, minlength=256).tolist()


def test_a_value_far_from_all_others_does_not_stretch_an_axis() -> None:
    import numpy as np

    values = np.r_[np.linspace(0, 1, 10_000), 1e9].astype(np.float32)
    axis = axis_of(values)
    assert (axis.low, axis.log) == (0, False)
    assert 0.9 < axis.high <= 1
    assert axis_of(values, [3.0]).high == 3
    assert axis_of(np.array([np.nan], np.float32)).high == 1
    assert axis_of(np.full(3, 5, np.float32)).low < 5 < axis_of(np.full(3, 5, np.float32)).high

"""A recipe that keeps nothing: the rule that dropped most is named, with its line."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.pipeline.nothing_kept import nothing_kept
from curate.schema.errors import CurateError
from curate.schema.manifest import Counts
from curate.schema.recipe_file import RecipeFile
from curate.schema.tables import LEDGER
from curate.storage import Folder
from curate.storage.tables import write_table

RECIPE = """\
name: dark
sources: [{kind: folder, name: here, path: media}]
annotate: [{name: brightness}, {name: sharpness}]
decide:
  records:
    - {field: width, min: 64}
  rules:
    - {field: sharpness, min: 10}
    - {field: brightness, min: 20, max: 200}
tokenize: {streams: [{name: rgb, tokenizer: image-fsq-64k}]}
"""


def said(folder: Path, *rows: tuple[str, str, dict[str, Any]]) -> CurateError:
    """What is said of a ledger of such levels, outcomes and other columns."""
    (folder / "dark.yaml").write_text(RECIPE)
    build = Folder(folder / "build")
    table = pa.Table.from_pylist(
        [
            dict.fromkeys(LEDGER.names)
            | {"level": level, "id": f"{i}", "record_id": f"{i}", "source": "here", "uri": f"{i}.jpg"}
            | {"outcome": outcome, **more}
            for i, (level, outcome, more) in enumerate(rows)
        ],
        schema=LEDGER,
    )
    paths = [f"verdicts/here-{i}.parquet" for i in range(2)]
    write_table(build, paths[0], table.slice(0, 2))
    write_table(build, paths[1], table.slice(2))
    sums = Counter((level, outcome) for level, outcome, _ in rows)
    outcomes = {"record": "sampled", "sample": "kept"}
    counts = {
        f"{level}s": {outcome: sums[level, outcome] for outcome in (passed, "dropped", "failed")}
        for level, passed in outcomes.items()
    }
    return nothing_kept(RecipeFile.load(folder / "dark.yaml"), build, Counts(**counts), paths)


def drop(rule: str, value: float, level: str = "sample") -> tuple[str, str, dict[str, Any]]:
    return level, "dropped", {"rule": rule, "value": value}


FAILED = ("sample", "failed", {"stage": "annotate", "error": "MediaError", "message": "torn", "attempt": 1})
SAMPLED: tuple[str, str, dict[str, Any]] = ("record", "sampled", {})


def test_the_rule_that_dropped_most_is_named_with_its_line_its_values_and_the_way_out(tmp_path: Path) -> None:
    bright = [drop("brightness <= 200", value) for value in (231.25, 254.0, 201.5)]
    found = said(tmp_path, SAMPLED, drop("sharpness >= 10", 3.5), *bright, FAILED)
    first, cause = found.message.splitlines()
    assert first == (
        f"{tmp_path}/dark.yaml:9: no sample was kept: 4 dropped, 1 failed; "
        "`brightness <= 200` dropped 3, whose values are 201.5 to 254"
    )
    assert cause.split() == ["1", "sample", "annotate", "MediaError", "5.jpg:", "torn"]
    assert "loosen this rule, or take it out, and run the same command again" in found.hint


@pytest.mark.parametrize(
    ("rows", "line", "what"),
    [
        (
            [drop("width >= 64", 3, "record")],
            6,
            "no record could be sampled: 1 dropped; `width >= 64` dropped 1, whose values are 3",
        ),
        ([SAMPLED, drop("duration >= 1", 0.2)], 1, "no sample was kept: 1 dropped; `duration >= 1` dropped 1"),
    ],
)
def test_rules_of_records_and_of_the_cut_have_a_line_too(tmp_path: Path, rows: Any, line: int, what: str) -> None:
    assert said(tmp_path, *rows).message.startswith(f"{tmp_path}/dark.yaml:{line}: {what}")


def test_where_all_failed_no_rule_is_named(tmp_path: Path) -> None:
    found = said(tmp_path, SAMPLED, FAILED)
    assert found.message.startswith("no sample was kept: 1 failed\n")
    assert "change the recipe" in found.hint

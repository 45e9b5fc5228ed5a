"""The ledger adds up, or says what does not."""

from __future__ import annotations

import pyarrow as pa
import pytest

from curate.decide.ledger import assemble, conserve, override, problems
from curate.schema.errors import CurateError
from curate.schema.manifest import Counts
from curate.schema.tables import LEDGER
from curate.schema.verdict import Failure

FAILED = {"outcome": "failed", "stage": "annotate", "error": "E", "message": "m", "attempt": 1}
DROPPED = {"outcome": "dropped", "rule": "sharpness >= 20", "value": 1.0, "threshold": 20.0}


def row(level, key, outcome="", **more):
    about = {"level": level, "id": key, "record_id": key if level == "record" else "r1", "source": "s", "uri": "u"}
    return {**about, "outcome": outcome or ("sampled" if level == "record" else "kept"), **more}


SOUND = [
    row("record", "r1"),
    row("record", "r2", "duplicate", duplicate_of="r1", match="exact"),
    row("record", "r3", **DROPPED),
    row("record", "r4", **FAILED),
    row("sample", "a"),
    row("sample", "b", "duplicate", duplicate_of="a", match="near", similarity=0.97),
    row("sample", "c", **DROPPED),
    row("sample", "d", **FAILED),
]


def ledger(rows):
    return pa.Table.from_pylist(list(rows), LEDGER)


def changed(key, **more):
    return ledger({**r, **more} if r["id"] == key else r for r in SOUND)


def test_a_sound_ledger_is_summed_up():
    counts = conserve(ledger(SOUND), records=4, samples=4)
    assert counts == {
        "records": {"total": 4, "sampled": 1, "dropped": 1, "duplicate": 1, "failed": 1},
        "samples": {"total": 4, "kept": 1, "dropped": 1, "duplicate": 1, "failed": 1},
    }
    Counts(**counts)


def test_an_empty_ledger_adds_up():
    assert conserve(LEDGER.empty_table(), 0, 0)["records"]["total"] == 0


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (ledger([*SOUND, SOUND[4]]), "ids that occur twice: 1, the first a"),
        (ledger(SOUND[1:]), "samples whose record was not sampled: 4, the first a"),
        (ledger([*SOUND, row("record", "r9")]), "sampled records without a sample: 1, the first r9"),
        (changed("a", outcome="sampled"), "outcomes that their level does not have: 1, the first a"),
        (changed("r1", outcome="lost"), "outcomes that their level does not have: 1, the first r1"),
        (changed("r1", record_id="r2"), "records whose id is not their record_id: 1, the first r1"),
        (changed("b", duplicate_of="zzz"), "duplicates whose keeper was not kept: 1, the first b"),
        (changed("b", duplicate_of="b"), "duplicates whose keeper was not kept: 1, the first b"),
        (changed("b", duplicate_of="c"), "duplicates whose keeper was not kept: 1, the first b"),
        (changed("b", duplicate_of="d"), "duplicates whose keeper was not kept: 1, the first b"),
        (changed("b", duplicate_of="r1"), "duplicates whose keeper was not kept: 1, the first b"),
        (changed("b", similarity=None), "verdicts that lack a column or carry one of another verdict: 1, the first b"),
        (changed("b", match=None), "verdicts that lack a column or carry one of another verdict: 1, the first b"),
        (changed("c", threshold=None), "verdicts that lack a column or carry one of another verdict: 1, the first c"),
        (changed("c", error="E"), "verdicts that lack a column or carry one of another verdict: 1, the first c"),
        (changed("d", attempt=None), "verdicts that lack a column or carry one of another verdict: 1, the first d"),
        (changed("d", rule="x"), "verdicts that lack a column or carry one of another verdict: 1, the first d"),
        (changed("a", rule="x"), "verdicts that lack a column or carry one of another verdict: 1, the first a"),
    ],
)
def test_what_is_wrong_is_named_with_an_example(broken, problem):
    assert problem in problems(broken)
    with pytest.raises(CurateError, match="the ledger does not add up"):
        conserve(broken)


def test_a_row_less_than_went_in_is_a_problem():
    assert problems(ledger(SOUND), records=5, samples=4) == ["4 records in the ledger, 5 in the build"]
    assert problems(ledger(SOUND), samples=3) == ["4 samples in the ledger, 3 in the build"]


def test_a_table_that_is_no_ledger():
    assert problems(pa.table({"id": ["a"]})) == ["its columns are not those of a ledger"]


def test_records_that_could_not_be_cut_may_keep_their_duplicates():
    """The same bytes fail the same way; the ledger says why once, at the keeper."""
    uncut = {**FAILED, "stage": "cut"}
    rows = [row("record", "r1", **uncut), row("record", "r2", "duplicate", duplicate_of="r1", match="exact")]
    assert problems(ledger(rows)) == []
    rows[0]["stage"] = "ingest"
    assert problems(ledger(rows)) == ["duplicates whose keeper was not kept: 1, the first r2"]


def test_a_later_failure_replaces_the_verdict_and_nothing_else():
    records = ledger(r for r in SOUND if r["level"] == "record")
    after = override(records, [("r1", Failure("cut", "MediaError", "no frames", 2))])
    assert after.schema.equals(LEDGER)
    assert after.slice(1).equals(records.slice(1))
    got = {k: v for k, v in after.to_pylist()[0].items() if v is not None}
    assert got == row("record", "r1", "failed", stage="cut", error="MediaError", message="no frames", attempt=2)
    assert override(records, []).equals(records)


@pytest.mark.parametrize(("key", "why"), [("r3", "was dropped before"), ("nobody", "is not in the ledger")])
def test_a_later_failure_of_what_no_later_stage_saw_is_refused(key, why):
    with pytest.raises(CurateError, match=why):
        override(ledger(SOUND), [(key, Failure("cut", "E", "m"))])
    twice = [("r1", Failure("cut", "E", "m"))] * 2
    with pytest.raises(CurateError, match="r1 failed twice"):
        override(ledger(SOUND), twice)


def test_the_ledger_is_sorted_by_level_and_id_however_it_came():
    want = assemble(ledger(SOUND))
    assert [(r["level"], r["id"]) for r in want.to_pylist()] == sorted((r["level"], r["id"]) for r in SOUND)
    assert assemble(ledger(SOUND[5:]), ledger(SOUND[:5][::-1])).equals(want)
    assert assemble().equals(LEDGER.empty_table())

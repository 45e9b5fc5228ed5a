"""The sums of the ledger add up, or say what does not."""

from __future__ import annotations

import pytest

from curate.decide.ledger import checked_counts
from curate.schema.errors import CurateError
from curate.schema.manifest import Counts

ONE = {
    "record": {"sampled": 1, "dropped": 1, "duplicate": 0, "failed": 2},
    "sample": {"kept": 2, "dropped": 0, "duplicate": 1, "failed": 0},
}
OTHER = {
    "record": {"sampled": 3, "dropped": 0, "duplicate": 1, "failed": 0},
    "sample": {"kept": 1, "dropped": 1, "duplicate": 0, "failed": 1},
}


def test_fragments_are_summed_up():
    counts = checked_counts([ONE, OTHER], records=8, samples=6)
    assert counts == {
        "records": {"total": 8, "sampled": 4, "dropped": 1, "duplicate": 1, "failed": 2},
        "samples": {"total": 6, "kept": 3, "dropped": 1, "duplicate": 1, "failed": 1},
    }
    Counts(**counts)


def test_an_empty_ledger_adds_up():
    assert checked_counts([], 0, 0)["records"]["total"] == 0


@pytest.mark.parametrize(
    ("counts", "independent", "problem"),
    [
        ([ONE], {"records": 5}, "4 records in the ledger, 5 in the build"),
        ([ONE], {"samples": 4}, "3 samples in the ledger, 4 in the build"),
        ([{"record": {"lost": 1}, "sample": {}}], {}, "no record is lost"),
        ([{"record": {}, "sample": {"sampled": 1}}], {}, "no sample is sampled"),
        ([{"record": {"sampled": 2}, "sample": {}}], {}, "2 sampled records have 0 samples"),
        ([{"record": {}, "sample": {"kept": 2}}], {}, "0 sampled records have 2 samples"),
    ],
)
def test_what_does_not_add_up_is_named(counts, independent, problem):
    with pytest.raises(CurateError) as caught:
        checked_counts(counts, **independent)
    assert caught.value.message == f"the ledger does not add up: {problem}"

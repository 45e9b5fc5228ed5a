"""Samples: failed, dropped, near duplicate or kept, in that order; nothing lost, whatever comes in."""

from __future__ import annotations

import math
import resource
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.decide.ledger import assemble, conserve
from curate.decide.records import decide_records
from curate.decide.samples import decide_samples
from curate.schema.errors import CurateError
from curate.schema.ids import content_id
from curate.schema.recipe import Decide, NearDuplicates, Rule
from curate.schema.tables import FAILURE, LEDGER, SAMPLES


def axis(i, d=8):
    """A unit vector that is like no other axis."""
    return [float(i == j) for j in range(d)]


def decide(tables, samples, signals, rules=(), near=(), parts=1, **more):
    spec = Decide(rules=list(rules), near_duplicates=list(near))
    files = {"all": tables.signals(signals, parts)}
    return decide_samples(tables.samples(samples, parts), files, spec, tables.fields, seed=0, **more)


def test_what_becomes_of_each_sample(tables, by_id):
    samples = [{"sample_id": i, "width": 100, "height": w} for w, i in enumerate("abcdef", start=1)]
    signals = [
        {
            "sample_id": "a",
            "sharpness": 1.0,
            "look": axis(0),
            **tables.failed,
        },  # failed, though it would break the rule
        {"sample_id": "b", "sharpness": 19.5, "look": axis(0)},  # dropped, though it looks like c
        {"sample_id": "c", "sharpness": 20.0, "look": axis(0)},  # like d, which has more pixels
        {"sample_id": "d", "sharpness": 50.0, "look": axis(0)},
        {"sample_id": "e", "sharpness": None, "look": axis(1)},  # no sharpness: not evaluated, so not dropped
        {"sample_id": "f", "sharpness": 30.0, "look": None},
    ]
    ledger = decide(tables, samples, signals, [Rule(field="sharpness", min=20)], [NearDuplicates(embedding="look")])
    assert ledger.schema.equals(LEDGER)
    rows = by_id(ledger)
    said = {
        i: {k: r[k] for k in r.keys() - {"level", "id", "record_id", "source", "uri", "kind"}} for i, r in rows.items()
    }
    span = {"start_us": 0, "end_us": 0}
    assert said == {
        "a": {"outcome": "failed", **tables.failed, **span},
        "b": {"outcome": "dropped", "rule": "sharpness >= 20", "value": 19.5, "threshold": 20.0, **span},
        "c": {"outcome": "duplicate", "duplicate_of": "d", "match": "near", "similarity": 1.0, **span},
        "d": {"outcome": "kept", **span},
        "e": {"outcome": "kept", **span},
        "f": {"outcome": "kept", **span},
    }
    assert rows["d"]["record_id"] == "r-d"


def test_the_first_broken_rule_of_the_recipe_is_the_one_that_is_recorded(tables, by_id):
    def rule_of(*rules):
        signals = [{"sample_id": "a", "sharpness": 5.0, "aesthetic": 2.0}]
        return by_id(decide(tables, [{"sample_id": "a"}], signals, rules))["a"]["rule"]

    sharp, fine = Rule(field="sharpness", min=20), Rule(field="aesthetic", min=4)
    assert rule_of(sharp, fine) == "sharpness >= 20"
    assert rule_of(fine, sharp) == "aesthetic >= 4"
    assert rule_of(Rule(field="sharpness", min=5, max=4.5 + 0.5), fine) == "aesthetic >= 4"  # bounds are closed


def test_a_rule_looks_only_at_its_kinds(tables, by_id):
    samples = [{"sample_id": kind, "kind": kind} for kind in ("image", "video")]
    signals = [{"sample_id": kind, "sharpness": 1.0} for kind in ("image", "video")]
    rows = by_id(decide(tables, samples, signals, [Rule(field="sharpness", min=20, kinds=["video"])]))
    assert {i: r["outcome"] for i, r in rows.items()} == {"image": "kept", "video": "dropped"}


def test_value_and_threshold_are_the_numbers_that_were_compared(tables, by_id):
    """The signal's 0.7 is the float32 0.699999988..., which is below the recipe's 0.7; the ledger shows it."""
    rows = by_id(
        decide(tables, [{"sample_id": "a"}], [{"sample_id": "a", "motion": 0.7}], [Rule(field="motion", min=0.7)])
    )
    assert (rows["a"]["value"], rows["a"]["threshold"]) == (float(np.float32(0.7)), 0.7)
    assert rows["a"]["value"] < 0.7


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 100, width=32)), min_size=1, max_size=40),
    st.sampled_from([0, 1, 5, 33.3, 50, 95, 100]),
)
def test_percentiles_are_numpys(tables, by_id, values, percentile):
    ids = [f"{i:03d}" for i in range(len(values))]
    rules = [Rule(field="sharpness", min_percentile=percentile)]
    rows = by_id(
        decide(
            tables,
            [{"sample_id": i} for i in [*ids, "failed", "sound"]],
            [{"sample_id": i, "sharpness": v} for i, v in zip(ids, values, strict=True)]
            # neither a failed sample nor one of another kind moves the percentile
            + [{"sample_id": "failed", "sharpness": 1e6, **tables.failed}, {"sample_id": "sound", "sharpness": None}],
            rules,
        )
    )
    present = np.array([v for v in values if v is not None], np.float64)
    dropped = {i for i, r in rows.items() if r["outcome"] == "dropped"}
    if not len(present):
        assert not dropped
        return
    threshold = np.percentile(present, percentile)
    assert all(math.isclose(rows[i]["threshold"], threshold, rel_tol=1e-12, abs_tol=1e-12) for i in dropped)
    below = {i for i, v in zip(ids, values, strict=True) if v is not None and v < threshold}
    # the two interpolations may differ in the last bit, and then on the value that is the percentile itself
    assert all(math.isclose(dict(zip(ids, values, strict=True))[i], threshold) for i in below ^ dropped)


def test_percentiles_do_not_depend_on_the_rules_before_them(tables, by_id):
    ids = [f"{i:03d}" for i in range(101)]
    samples = [{"sample_id": i} for i in ids]
    signals = [{"sample_id": i, "sharpness": float(n), "aesthetic": 1 + n / 20} for n, i in enumerate(ids)]
    percentile, absolute = Rule(field="sharpness", min_percentile=10), Rule(field="aesthetic", min=4)
    one = by_id(decide(tables, samples, signals, [percentile, absolute]))
    other = by_id(decide(tables, samples, signals, [absolute, percentile]))
    assert one["005"]["threshold"] == 10.0
    assert {i for i in one if one[i]["outcome"] == "dropped"} == {i for i in other if other[i]["outcome"] == "dropped"}


def test_percentiles_among_infinite_values(tables, by_id):
    """Silence is -inf LUFS; below a percentile that comes out as -inf lies nothing."""
    loudness = [-math.inf, -math.inf, -20.0, -10.0]
    samples = [{"sample_id": f"{i}", "kind": "audio"} for i in range(4)]
    signals = [{"sample_id": f"{i}", "loudness": v} for i, v in enumerate(loudness)]
    for percentile, dropped in ((10, set()), (60, set()), (70, {"0", "1", "2"}), (100, {"0", "1", "2"})):
        rows = by_id(decide(tables, samples, signals, [Rule(field="loudness", min_percentile=percentile)]))
        assert {i for i, r in rows.items() if r["outcome"] == "dropped"} == dropped, percentile


def test_a_percentile_that_is_no_number_is_refused(tables):
    samples = [{"sample_id": i, "kind": "audio"} for i in "ab"]
    signals = [{"sample_id": "a", "loudness": -math.inf}, {"sample_id": "b", "loudness": math.inf}]
    with pytest.raises(CurateError, match="loudness >= p50 lies between -inf and inf"):
        decide(tables, samples, signals, [Rule(field="loudness", min_percentile=50)])


def test_nan_is_refused_unless_the_sample_failed(tables, by_id):
    rule = Rule(field="sharpness", min=20)
    with pytest.raises(CurateError, match="sharpness is NaN for 1 samples, the first a"):
        decide(tables, [{"sample_id": "a"}], [{"sample_id": "a", "sharpness": math.nan}], [rule])
    failed = [{"sample_id": "a", "sharpness": math.nan, **tables.failed}]
    assert by_id(decide(tables, [{"sample_id": "a"}], failed, [rule]))["a"]["outcome"] == "failed"


def test_rules_may_use_probed_fields(tables, by_id):
    samples = [{"sample_id": "a", "width": 10, "height": 10}, {"sample_id": "b", "width": 100, "height": 100}]
    rows = by_id(decide(tables, samples, [{"sample_id": "a"}, {"sample_id": "b"}], [Rule(field="pixels", min=101)]))
    assert (rows["a"]["outcome"], rows["a"]["value"]) == ("dropped", 100.0)
    assert rows["b"]["outcome"] == "kept"


def test_pictures_and_videos_are_not_duplicates_of_each_other(tables, by_id):
    samples = [{"sample_id": i, "kind": kind} for i, kind in zip("abcd", ["image", "video"] * 2, strict=True)]
    signals = [{"sample_id": i, "look": axis(3)} for i in "abcd"]
    rows = by_id(decide(tables, samples, signals, near=[NearDuplicates(embedding="look")]))
    assert {i: r.get("duplicate_of") for i, r in rows.items()} == {"a": None, "b": None, "c": "a", "d": "b"}


def test_a_keeper_that_a_later_embedding_takes_away_hands_its_duplicates_on(tables, by_id):
    c = [math.cos(0.2), math.sin(0.2), 0.0, 0.0]  # cosine 0.98 with a's sound
    samples = [{"sample_id": i, "kind": "video", "duration": d} for i, d in zip("abc", [2.0, 1.0, 3.0], strict=True)]
    signals = [
        {"sample_id": "a", "look": axis(0), "sound": axis(0, 4)},
        {"sample_id": "b", "look": axis(0), "sound": axis(1, 4)},
        {"sample_id": "c", "look": axis(5), "sound": c},
    ]
    near = [NearDuplicates(embedding="look", keep=["duration"]), NearDuplicates(embedding="sound", keep=["duration"])]
    rows = by_id(decide(tables, samples, signals, near=near))
    assert {i: r.get("duplicate_of") for i, r in rows.items()} == {"a": "c", "b": "c", "c": None}
    assert rows["b"]["similarity"] == rows["a"]["similarity"] == pytest.approx(math.cos(0.2))


def test_signals_in_files_of_their_own_and_the_failure_of_the_first(tables, by_id):
    samples = tables.samples({"sample_id": i} for i in "abc")
    other = {"stage": "annotate:two", "error": "ValueError", "message": "no", "attempt": 1}
    schema = [pa.field("sample_id", pa.string()), *FAILURE]
    one = tables.write(
        [
            {"sample_id": "a", "sharpness": 50.0},
            {"sample_id": "b", **tables.failed},
            {"sample_id": "c", "sharpness": 1.0},
        ],
        pa.schema([*schema, pa.field("sharpness", pa.float32())]),
    )
    two = tables.write(
        [{"sample_id": "c", "faces": 0}, {"sample_id": "a", **other}, {"sample_id": "b", **other}],
        pa.schema([*schema, pa.field("faces", pa.int32())]),
        parts=2,
    )
    rules = [Rule(field="faces", min=1), Rule(field="sharpness", min=20)]
    rows = by_id(decide_samples(samples, {"one": one, "two": two}, Decide(rules=rules), tables.fields, seed=0))
    assert [rows[i]["outcome"] for i in "abc"] == ["failed", "failed", "dropped"]
    assert [rows[i]["stage"] for i in "ab"] == ["annotate:two", "annotate"]
    assert rows["c"]["rule"] == "faces >= 1"


def test_what_failed_later_is_failed_keeps_nothing_and_moves_no_percentile(tables, by_id):
    samples = [{"sample_id": i, "width": w, "height": 1} for i, w in zip("abcde", [9, 8, 7, 6, 5], strict=True)]
    signals = [{"sample_id": i, "sharpness": s, "look": axis(0)} for i, s in zip("abcde", [9, 8, 7, 6, 5], strict=True)]
    rules, near = [Rule(field="sharpness", min_percentile=25)], [NearDuplicates(embedding="look")]
    before = by_id(decide(tables, samples, signals, rules, near))
    assert {i: r.get("duplicate_of") for i, r in before.items()} == {"a": None, "b": "a", "c": "a", "d": "a", "e": None}
    assert (before["e"]["rule"], before["e"]["threshold"]) == ("sharpness >= p25", 6.0)

    failed = {"stage": "tokenize", "error": "MediaError", "message": "cannot decode", "attempt": 1}
    receipts = tables.write([{"sample_id": "a", **failed}, {"sample_id": "b"}], pa.schema([SAMPLES.field(0), *FAILURE]))
    after = by_id(decide(tables, samples, signals, rules, near, failures=receipts))
    assert {i: r["outcome"] for i, r in after.items()} == {
        "a": "failed",
        "b": "kept",
        "c": "duplicate",
        "d": "duplicate",
        "e": "dropped",
    }
    assert after["c"]["duplicate_of"] == "b"
    assert after["e"] == before["e"]
    assert after["a"]["stage"] == "tokenize"


@pytest.mark.parametrize(
    ("samples", "signals", "sentence"),
    [
        ("ab", "a", "1 samples lack the signal all, the first b"),
        ("a", "abc", "2 rows of the signal all have no sample, the first b"),
        ("a", "aa", "1 samples have several rows of signal all, the first a"),
        ("aa", "a", "1 samples are listed more than once, the first a"),
    ],
)
def test_samples_and_signals_must_match_one_to_one(tables, samples, signals, sentence):
    with pytest.raises(CurateError, match=sentence):
        decide(tables, [{"sample_id": i} for i in samples], [{"sample_id": i} for i in signals])


def test_a_field_that_no_signal_gave_is_named(tables):
    files = tables.write([{"sample_id": "a"}], pa.schema([pa.field("sample_id", pa.string()), *FAILURE]))
    rules = Decide(rules=[Rule(field="sharpness", min=1)])
    with pytest.raises(CurateError, match="no signal of this build has the field sharpness"):
        decide_samples(tables.samples([{"sample_id": "a"}]), {"one": files}, rules, tables.fields, seed=0)


def test_no_samples(tables):
    assert decide_samples([], {}, Decide(), tables.fields, seed=0).equals(LEDGER.empty_table())


member = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["image", "video", "audio"]),
        "failed": st.sampled_from([False, False, False, True]),
        "sharpness": st.one_of(st.none(), st.floats(0, 100, width=32)),
        "motion": st.one_of(st.none(), st.floats(0, 4, width=32)),
        "look": st.one_of(st.none(), st.integers(0, 3)),
        "record": st.integers(0, 5),
    }
)


@settings(max_examples=12, deadline=None)
@given(st.lists(member, max_size=14), st.booleans(), st.randoms())
def test_nothing_is_lost_and_the_order_of_rows_changes_nothing(tables, members, percentile, random):
    """Records to samples to ledger: in = kept + dropped + duplicate + failed, and no byte depends on the order."""
    records = [{"record_id": f"r{i}"} for i in sorted({m["record"] for m in members})]
    records += [{"record_id": "broken", **tables.failed}, {"record_id": "small", "width": 1}]
    records += [{"record_id": f"s{r['record_id']}", "content_id": r["record_id"]} for r in records[:2] if len(r) == 1]
    samples, signals = [], []
    for i, m in enumerate(members):
        samples.append(
            {"sample_id": f"{i:02d}", "record_id": f"r{m['record']}", "kind": m["kind"], "duration": i % 3 + 1.0}
        )
        values = {k: m[k] for k in ("sharpness", "motion")}
        look = None if m["look"] is None else axis(m["look"])
        signals.append({"sample_id": f"{i:02d}", **values, "look": look, **(tables.failed if m["failed"] else {})})
    bound = {"min_percentile": 30} if percentile else {"min": 40}
    rules = [Rule(field="motion", max=3), Rule(field="sharpness", **bound)]
    near = [NearDuplicates(embedding="look", keep=["duration"])]

    ledgers = []
    for parts in (1, 3):
        ledger = assemble(
            decide(tables, samples, signals, rules, near, parts),
            decide_records(tables.records(records, parts), [Rule(field="width", min=2)]),
        )
        counts = conserve(ledger, records=len(records), samples=len(samples))
        assert counts["samples"]["failed"] == sum(m["failed"] for m in members)
        for sums in counts.values():
            assert sums["total"] == sum(n for outcome, n in sums.items() if outcome != "total")
        ledgers.append(ledger)
        for rows in (samples, signals, records):
            random.shuffle(rows)
    assert ledgers[0].equals(ledgers[1])


@pytest.mark.long
def test_a_hundred_thousand_samples_in_bounded_time(tmp_path, tables):
    """64-d embeddings with 2,000 planted copies, two rules; seconds and memory are printed with -s."""
    n, d = 100_000, 64
    rng = np.random.default_rng(0)
    ids = sorted(content_id(str(i).encode()) for i in range(n))
    look = rng.standard_normal((n, d)).astype(np.float32)
    look += 2 * rng.standard_normal((500, d)).astype(np.float32)[rng.integers(500, size=n)]
    copies = rng.permutation(n)[:4000].reshape(2, -1)
    look[copies[1]] = look[copies[0]] * 3 + 0.02 * rng.standard_normal((2000, d)).astype(np.float32)
    sharpness = rng.uniform(0, 100, n).astype(np.float32)
    sharpness[copies.ravel()] = 90
    failed = pa.array([None] * (n - 1) + ["annotate"], pa.string())
    blank = {f.name: pa.nulls(n, f.type) for f in SAMPLES}
    same = {
        k: pa.array([v]).take(pa.array(np.zeros(n, int))) for k, v in tables.sample("x").items() if k != "sample_id"
    }
    pq.write_table(
        pa.table(blank | same | {"sample_id": ids, "record_id": ids}).cast(SAMPLES), tmp_path / "samples.parquet"
    )
    signals = {
        "sample_id": ids,
        "sharpness": sharpness,
        "look": pa.FixedSizeListArray.from_arrays(look.ravel(), d),
        **{f.name: failed if f.name != "attempt" else pa.nulls(n, pa.int32()) for f in FAILURE},
    }
    pq.write_table(pa.table(signals), tmp_path / "signals.parquet")
    fields = {**tables.fields, "look": type(tables.fields["look"])("look", pa.list_(pa.float32(), d))}
    spec = Decide(
        rules=[Rule(field="sharpness", min=5), Rule(field="sharpness", max_percentile=99)],
        near_duplicates=[NearDuplicates(embedding="look", threshold=0.98)],
    )

    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ledger = decide_samples(
        [str(tmp_path / "samples.parquet")], {"all": [str(tmp_path / "signals.parquet")]}, spec, fields, seed=0
    )
    seconds = time.perf_counter() - start
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"\n{n:,} samples decided in {seconds:.1f} s, peak memory grew by {grown:.0f} MiB")

    assert ledger.num_rows == n
    outcome = dict(zip(ledger["id"].to_pylist(), ledger["outcome"].to_pylist(), strict=True))
    alive = [(a, b) for a, b in copies.T if n - 1 not in (a, b)]
    found = sum("duplicate" in (outcome[ids[a]], outcome[ids[b]]) for a, b in alive)
    assert found >= 0.99 * len(alive)
    assert seconds < 120
    assert grown < 1500

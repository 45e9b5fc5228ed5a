"""Samples: failed, dropped, near duplicate or kept, in that order; nothing lost, whatever comes in."""

from __future__ import annotations

import math
import os
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.decide import ledger, near
from curate.decide.engine import LocalEngine
from curate.schema.recipe import NearDuplicates, Rule


def axis(i, d=8):
    """A unit vector that is like no other axis."""
    return [float(i == j) for j in range(d)]


def decide(tables, samples, signals, rules=(), near=(), parts=1, **more):
    return tables.build(samples, signals, parts=parts).verdicts(rules, near, **more)


LOOK = [NearDuplicates(embedding="look")]


def test_what_becomes_of_each_sample(tables):
    samples = [{"sample_id": i, "width": 100, "height": w} for w, i in enumerate("abcdef", start=1)]
    signals = [
        # failed, though it would break the rule
        {"sample_id": "a", "sharpness": 1.0, "look": axis(0), "one": tables.failed},
        {"sample_id": "b", "sharpness": 19.5, "look": axis(0)},  # dropped, though it looks like c
        {"sample_id": "c", "sharpness": 20.0, "look": axis(0)},  # like d, which has more pixels
        {"sample_id": "d", "sharpness": 50.0, "look": axis(0)},
        {"sample_id": "e", "sharpness": None, "look": axis(1)},  # no sharpness: not evaluated, so not dropped
        {"sample_id": "f", "sharpness": 30.0, "look": None},
    ]
    rows = decide(tables, samples, signals, [Rule(field="sharpness", min=20)], LOOK)
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


def test_fragments_say_how_many_of_each_kind_are_kept(tables):
    samples = [{"sample_id": i, "kind": kind} for i, kind in zip("abc", ["image", "video", "image"], strict=True)]
    build = tables.build(samples, [{"sample_id": i} for i in "abc"], parts=2)
    decided = build.decide()
    assert [f.kept for f in decided.fragments] == [{"image": 1, "video": 1}, {"image": 1}]
    assert [f.path.startswith(f"verdicts/{p.name}-") for f, p in zip(decided.fragments, build.files, strict=True)]


def test_samples_of_records_that_are_not_sampled_have_no_verdict_and_move_no_percentile(tables):
    records = [{"record_id": "r1"}, {"record_id": "r2", "content_id": "r1"}, {"record_id": "small", "width": 1}]
    records += [{"record_id": "r3"}]
    samples = [{"sample_id": "a", "record_id": r} for r in ("r1", "r2")]  # the same bytes: the same id
    samples += [{"sample_id": "b", "record_id": "small"}, {"sample_id": "c", "record_id": "r3"}]
    signals = [{"sample_id": i, "sharpness": v} for i, v in zip("aabc", [10, 10, 0, 20], strict=True)]
    build = tables.build(samples, signals, records)
    rules = [Rule(field="sharpness", min_percentile=50)]
    rows = build.verdicts(rules, records=[Rule(field="width", min=2)])
    assert {i: (r["outcome"], r.get("threshold")) for i, r in rows.items()} == {
        "a": ("dropped", 15.0),
        "c": ("kept", None),
    }
    (bound,) = build.decide(rules, records=[Rule(field="width", min=2)]).samples
    assert bound.value == 15.0


def test_the_first_broken_rule_of_the_recipe_is_the_one_that_is_recorded(tables):
    def rule_of(*rules):
        signals = [{"sample_id": "a", "sharpness": 5.0, "aesthetic": 2.0}]
        return decide(tables, [{"sample_id": "a"}], signals, rules)["a"]["rule"]

    sharp, fine = Rule(field="sharpness", min=20), Rule(field="aesthetic", min=4)
    assert rule_of(sharp, fine) == "sharpness >= 20"
    assert rule_of(fine, sharp) == "aesthetic >= 4"
    assert rule_of(Rule(field="sharpness", min=5, max=4.5 + 0.5), fine) == "aesthetic >= 4"  # bounds are closed


def test_a_rule_looks_only_at_its_kinds(tables):
    samples = [{"sample_id": kind, "kind": kind} for kind in ("image", "video")]
    signals = [{"sample_id": kind, "sharpness": 1.0} for kind in ("image", "video")]
    rows = decide(tables, samples, signals, [Rule(field="sharpness", min=20, kinds=["video"])])
    assert {i: r["outcome"] for i, r in rows.items()} == {"image": "kept", "video": "dropped"}


def test_value_and_threshold_are_the_numbers_that_were_compared(tables):
    """The signal's 0.7 is the float32 0.699999988..., which is below the recipe's 0.7; the ledger shows it."""
    rows = decide(tables, [{"sample_id": "a"}], [{"sample_id": "a", "motion": 0.7}], [Rule(field="motion", min=0.7)])
    assert (rows["a"]["value"], rows["a"]["threshold"]) == (float(np.float32(0.7)), 0.7)
    assert rows["a"]["value"] < 0.7


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(0, 100, width=32)), min_size=1, max_size=40),
    st.sampled_from([0, 1, 5, 33.3, 50, 95, 100]),
    st.integers(1, 4),
)
def test_percentiles_are_numpys(tables, values, percentile, parts):
    ids = [f"{i:03d}" for i in range(len(values))]
    build = tables.build(
        [{"sample_id": i} for i in [*ids, "failed", "sound"]],
        [{"sample_id": i, "sharpness": v} for i, v in zip(ids, values, strict=True)]
        # neither a failed sample nor one of another kind moves the percentile
        + [{"sample_id": "failed", "sharpness": 1e6, "one": tables.failed}, {"sample_id": "sound", "sharpness": None}],
        parts=parts,
    )
    rows = build.verdicts([Rule(field="sharpness", min_percentile=percentile)], per_task=1)
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


def test_percentiles_do_not_depend_on_the_rules_before_them(tables):
    ids = [f"{i:03d}" for i in range(101)]
    samples = [{"sample_id": i} for i in ids]
    signals = [{"sample_id": i, "sharpness": float(n), "aesthetic": 1 + n / 20} for n, i in enumerate(ids)]
    percentile, absolute = Rule(field="sharpness", min_percentile=10), Rule(field="aesthetic", min=4)
    one = decide(tables, samples, signals, [percentile, absolute])
    other = decide(tables, samples, signals, [absolute, percentile])
    assert one["005"]["threshold"] == 10.0
    assert {i for i in one if one[i]["outcome"] == "dropped"} == {i for i in other if other[i]["outcome"] == "dropped"}


def test_percentiles_among_infinite_values(tables):
    """Silence is -inf LUFS; below a percentile that comes out as -inf lies nothing."""
    loudness = [-math.inf, -math.inf, -20.0, -10.0]
    samples = [{"sample_id": f"{i}", "kind": "audio"} for i in range(4)]
    signals = [{"sample_id": f"{i}", "loudness": v} for i, v in enumerate(loudness)]
    for percentile, dropped in ((10, set()), (60, set()), (70, {"0", "1", "2"}), (100, {"0", "1", "2"})):
        rows = decide(tables, samples, signals, [Rule(field="loudness", min_percentile=percentile)])
        assert {i for i, r in rows.items() if r["outcome"] == "dropped"} == dropped, percentile


def test_a_percentile_that_is_no_number_is_refused(tables, refused):
    samples = [{"sample_id": i, "kind": "audio"} for i in "ab"]
    signals = [{"sample_id": "a", "loudness": -math.inf}, {"sample_id": "b", "loudness": math.inf}]
    said = refused(tables.build(samples, signals), [Rule(field="loudness", min_percentile=50)])
    assert said == "loudness >= p50 lies between -inf and inf, so it is no number"


def test_nan_is_refused_unless_the_sample_failed(tables, refused):
    rule = Rule(field="sharpness", min=20)
    nan = [{"sample_id": "a", "sharpness": math.nan}]
    said = refused(tables.build([{"sample_id": "a"}], nan), [rule])
    assert said.startswith("sharpness is NaN for 1 samples, the first 61000")
    failed = [{"sample_id": "a", "sharpness": math.nan, "one": tables.failed}]
    assert decide(tables, [{"sample_id": "a"}], failed, [rule])["a"]["outcome"] == "failed"


def test_rules_may_use_probed_fields(tables):
    samples = [{"sample_id": "a", "width": 10, "height": 10}, {"sample_id": "b", "width": 100, "height": 100}]
    rows = decide(tables, samples, [{"sample_id": "a"}, {"sample_id": "b"}], [Rule(field="pixels", min=101)])
    assert (rows["a"]["outcome"], rows["a"]["value"]) == ("dropped", 100.0)
    assert rows["b"]["outcome"] == "kept"


def test_pictures_and_videos_are_not_duplicates_of_each_other(tables):
    samples = [{"sample_id": i, "kind": kind} for i, kind in zip("abcd", ["image", "video"] * 2, strict=True)]
    signals = [{"sample_id": i, "look": axis(3)} for i in "abcd"]
    rows = decide(tables, samples, signals, near=LOOK)
    assert {i: r.get("duplicate_of") for i, r in rows.items()} == {"a": None, "b": None, "c": "a", "d": "b"}


def test_links_of_several_embeddings_count_together(tables):
    c = [math.cos(0.2), math.sin(0.2), 0.0, 0.0]  # cosine 0.98 with a's sound
    samples = [{"sample_id": i, "kind": "video", "duration": d} for i, d in zip("abc", [2.0, 1.0, 3.0], strict=True)]
    signals = [
        {"sample_id": "a", "look": axis(0), "sound": axis(0, 4)},
        {"sample_id": "b", "look": axis(0), "sound": axis(1, 4)},
        {"sample_id": "c", "look": axis(5), "sound": c},
    ]
    near = [NearDuplicates(embedding="look", keep=["duration"]), NearDuplicates(embedding="sound", keep=["duration"])]
    rows = decide(tables, samples, signals, near=near)
    assert {i: r.get("duplicate_of") for i, r in rows.items()} == {"a": "c", "b": "c", "c": None}
    assert rows["a"]["similarity"] == pytest.approx(math.cos(0.2))
    assert rows["b"]["similarity"] == pytest.approx(math.sin(0.2))  # the larger of its cosines with the keeper


def test_a_dropped_sample_may_connect_two_others(tables):
    """a - b - c is a chain of cosines 0.966; its ends have 0.866. Which of them are kept does not move the group."""
    turned = [[math.cos(t), math.sin(t), *[0.0] * 6] for t in np.deg2rad([0, 15, 30])]
    samples = [{"sample_id": i} for i in "abc"]
    signals = [{"sample_id": i, "look": v, "sharpness": s} for i, v, s in zip("abc", turned, [9, 1, 9], strict=True)]
    rows = decide(tables, samples, signals, [Rule(field="sharpness", min=5)], LOOK)
    assert [rows[i]["outcome"] for i in "abc"] == ["kept", "dropped", "duplicate"]
    assert rows["c"]["similarity"] == pytest.approx(math.cos(math.radians(30)))
    rows = decide(tables, samples, signals, near=LOOK)
    assert [rows[i].get("duplicate_of") for i in "abc"] == [None, "a", "a"]
    assert rows["b"]["similarity"] == pytest.approx(math.cos(math.radians(15)))


def test_the_failure_of_the_first_signal_counts(tables):
    other = {"stage": "annotate:two", "error": "ValueError", "message": "no", "attempt": 1}
    signals = [
        {"sample_id": "a", "sharpness": 50.0, "two": other},
        {"sample_id": "b", "one": tables.failed, "two": other},
        {"sample_id": "c", "sharpness": 1.0, "faces": 0},
    ]
    rules = [Rule(field="faces", min=1), Rule(field="sharpness", min=20)]
    rows = decide(tables, [{"sample_id": i} for i in "abc"], signals, rules)
    assert [rows[i]["outcome"] for i in "abc"] == ["failed", "failed", "dropped"]
    assert [rows[i]["stage"] for i in "ab"] == ["annotate:two", "annotate"]
    assert rows["c"]["rule"] == "faces >= 1"


TOKENIZE = {"stage": "tokenize", "error": "MediaError", "message": "cannot decode", "attempt": 1}


def alike(tables, **more):
    samples = [{"sample_id": i, "width": w, "height": 1} for i, w in zip("abcde", [9, 8, 7, 6, 5], strict=True)]
    signals = [{"sample_id": i, "sharpness": s, "look": axis(0)} for i, s in zip("abcde", [9, 8, 7, 6, 5], strict=True)]
    return tables.build(samples, signals, **more)


def test_what_failed_later_is_failed_keeps_nothing_and_moves_no_percentile(tables):
    build, rules = alike(tables), [Rule(field="sharpness", min_percentile=25)]
    before = build.verdicts(rules, LOOK)
    assert {i: r.get("duplicate_of") for i, r in before.items()} == {"a": None, "b": "a", "c": "a", "d": "a", "e": None}
    assert (before["e"]["rule"], before["e"]["threshold"]) == ("sharpness >= p25", 6.0)

    build.tokenize({"a": TOKENIZE, "b": None})
    after = build.verdicts(rules, LOOK)
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
    build.tokenize({"b": TOKENIZE})
    again = build.verdicts(rules, LOOK)
    assert [again[i]["outcome"] for i in "abcd"] == ["failed", "failed", "kept", "duplicate"]


def test_a_failure_of_an_earlier_run_says_nothing_about_what_is_not_tokenized_now(tables):
    """Else a build that is decided on again would differ from one that is made afresh."""
    build = alike(tables)
    build.tokenize({"c": TOKENIZE, "e": TOKENIZE})
    rows = build.verdicts([Rule(field="sharpness", min=6)], LOOK)
    assert [rows[i]["outcome"] for i in "abcde"] == ["kept", "duplicate", "duplicate", "duplicate", "dropped"]
    rows = build.verdicts()
    assert [rows[i]["outcome"] for i in "abcde"] == ["kept", "kept", "failed", "kept", "failed"]


def test_a_group_that_cannot_be_tokenized_at_all_is_failed(tables):
    build = alike(tables)
    build.tokenize(dict.fromkeys("abcde", TOKENIZE))
    assert {r["outcome"] for r in build.verdicts(near=LOOK).values()} == {"failed"}


def test_a_failure_of_tokenizing_of_no_sample_is_refused(tables, refused):
    build = alike(tables)
    build.tokenize({"zz": TOKENIZE})
    assert "1 failures of tokenizing are of no sample, the first 7a7a" in refused(build)


@pytest.mark.parametrize(
    ("samples", "signals", "sentence"),
    [
        ("ab", "a", "1 samples lack the signals one, the first 62"),
        ("a", "abc", "2 rows of the signals one have no sample, the first 62"),
        ("a", "aa", "1 samples have several rows of the signals one, the first 61"),
        ("aa", "aa", "1 samples are listed more than once, the first 61"),
    ],
)
def test_samples_and_signals_must_match_one_to_one(tables, refused, samples, signals, sentence):
    build = tables.build([{"sample_id": i} for i in samples], [{"sample_id": i} for i in signals])
    assert sentence in refused(build)


def test_signals_in_another_order_are_those_of_their_samples(tables):
    samples, signals = [{"sample_id": i} for i in "abc"], [{"sample_id": i, "sharpness": ord(i)} for i in "cab"]
    rows = decide(tables, samples, signals, [Rule(field="sharpness", min=98)])
    assert [rows[i]["outcome"] for i in "abc"] == ["dropped", "kept", "kept"]


def test_an_id_that_is_none_is_refused(tables, refused):
    build = tables.build([{"sample_id": "a"}], [{"sample_id": "a"}])
    path = build.store.root / build.files[0].samples
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, table.schema.field(0), pa.array(["a"])), path)
    assert refused(build) == "the id 'a' is not 32 hex digits"


def test_a_field_or_signals_that_are_not_there_are_named(tables, refused):
    build = tables.build([{"sample_id": "a"}], [{"sample_id": "a"}])
    assert "s-0000 has no signals two" in refused(build.without("two"))
    path = build.store.root / build.files[0].signals["one"]
    pq.write_table(pq.read_table(path).drop(["sharpness"]), path)
    assert "sharpness" in refused(build, [Rule(field="sharpness", min=1)])


def test_no_samples(tables):
    rows = tables.build(records=[{"record_id": "a", **tables.failed}]).verdicts([Rule(field="pixels", min=1)], LOOK)
    assert rows == {}


member = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["image", "video", "audio"]),
        "failed": st.sampled_from([False, False, False, True]),
        "untokenized": st.sampled_from([False, False, True]),
        "sharpness": st.one_of(st.none(), st.floats(0, 100, width=32)),
        "motion": st.one_of(st.none(), st.floats(0, 4, width=32)),
        "look": st.one_of(st.none(), st.integers(0, 3)),
        "record": st.integers(0, 5),
    }
)


@settings(max_examples=25, deadline=None)
@given(st.lists(member, max_size=14), st.booleans(), st.data())
def test_any_split_and_any_grouping_give_the_same_verdicts(tables, members, percentile, data):
    """Nothing is lost either: in = kept + dropped + duplicate + failed, which `ledger` checks."""
    used = sorted({m["record"] for m in members})
    records = [{"record_id": f"r{i}"} for i in used]
    records += [{"record_id": "broken", **tables.failed}]
    samples, signals, failures = [], [], {}
    for i, m in enumerate(members):
        sample = {"sample_id": f"{i:02d}", "record_id": f"r{m['record']}", "kind": m["kind"], "duration": i % 3 + 1.0}
        samples.append(sample)
        values = {k: m[k] for k in ("sharpness", "motion")}
        look = None if m["look"] is None else axis(m["look"])
        why = {"one": tables.failed} if m["failed"] else {}
        signals.append({"sample_id": f"{i:02d}", **values, "look": look, **why})
        failures[f"{i:02d}"] = TOKENIZE if m["untokenized"] else None
    for i in used[:2]:  # the same bytes once more, so the same samples
        records.append({"record_id": f"s{i}", "content_id": f"r{i}"})
        samples += [{**s, "record_id": f"s{i}"} for s in samples if s["record_id"] == f"r{i}"]
    bound = {"min_percentile": 30} if percentile else {"min": 40}
    rules = [Rule(field="motion", max=3), Rule(field="sharpness", **bound)]
    near = [NearDuplicates(embedding="look", keep=["duration"])]

    def verdicts(records, samples, parts, per_task):
        build = tables.build(samples, signals, records, parts)
        for part, files in enumerate(build.files):
            here = pq.read_table(build.store.root / files.samples)["sample_id"].to_pylist()
            build.tokenize({n: f for n, f in failures.items() if n.encode().hex().ljust(32, "0") in here}, part)
        ledger = build.ledger(rules, near, per_task=per_task)
        return ledger.sort_by([("level", "ascending"), ("id", "ascending")])

    want = verdicts(records, samples, 1, 1)
    shuffled = data.draw(st.permutations(records)), data.draw(st.permutations(samples))
    got = verdicts(*shuffled, data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4)))
    assert got.equals(want)


@pytest.mark.parametrize("rows", [1, 30, 1 << 16])
def test_the_bytes_of_the_fragments_do_not_depend_on_the_tasks(tables, monkeypatch, rows):
    monkeypatch.setattr(ledger, "ROWS", rows)
    rng = np.random.default_rng(0)
    ids = [f"{i:03d}" for i in range(60)]
    signals = [
        {
            "sample_id": i,
            "look": (np.array(axis(n % 7, 8)) + 0.05 * rng.standard_normal(8)).tolist(),
            "sharpness": float(n),
        }
        for n, i in enumerate(ids)
    ]
    build = tables.build([{"sample_id": i} for i in ids], signals, parts=9)
    rules = [Rule(field="sharpness", min_percentile=10)]
    want = [f.path for f in build.decide(rules, LOOK, per_task=1).fragments]
    for per_task in (2, 5, 9):
        build.store.remove(f.path for f in build.store.files("pairs"))
        assert [f.path for f in build.decide(rules, LOOK, per_task=per_task).fragments] == want


class Counting(LocalEngine):
    """Says which functions ran."""

    def __init__(self):
        self.ran = []

    def map(self, fn, items):
        for item in items:
            self.ran.append(getattr(fn, "func", fn).__name__)
            yield from super().map(fn, [item])


COMPARING = {"_all_vectors", "_compare", "_between", "_united", "_assign", "_draw", "_centroids", "_to_buckets"}


def test_a_moved_rule_or_a_raised_threshold_compares_nothing(tables):
    samples = [{"sample_id": i, "width": w, "height": 1} for i, w in zip("abcd", [4, 3, 2, 1], strict=True)]
    turned = [[math.cos(t), math.sin(t), *[0.0] * 6] for t in np.deg2rad([0, 10, 30, 45])]
    signals = [
        {"sample_id": i, "look": v, "sharpness": s} for i, v, s in zip("abcd", turned, [9, 8, 7, 6], strict=True)
    ]
    build, engine = tables.build(samples, signals), Counting()

    def keepers(threshold, least=0, records=()):
        engine.ran.clear()
        near = [NearDuplicates(embedding="look", threshold=threshold)]
        rows = build.verdicts([Rule(field="sharpness", min=least)], near, records=records, engine=engine)
        return [r.get("duplicate_of") for r in rows.values()]

    assert keepers(0.9) == [None, "a", "a", "a"]
    assert "_compare" in engine.ran
    assert keepers(0.9, least=8.5) == [None] * 4
    assert not COMPARING & set(engine.ran)
    assert keepers(0.95) == [None, "a", None, "c"]
    assert not COMPARING & set(engine.ran)
    assert keepers(0.9, records=[Rule(field="width", min=1)]) == [None, "a", "a", "a"]
    assert not COMPARING & set(engine.ran)
    assert keepers(0.8) == [None, "a", "a", "a"]  # a lower one needs links that are not there
    assert "_compare" in engine.ran
    build.store.remove([build.store.files("pairs")[-1].path])
    keepers(0.97)
    build.tokenize({"a": TOKENIZE})
    assert keepers(0.97) == [None, None, None, None]
    assert not COMPARING & set(engine.ran)


def test_cosines_with_any_keeper_of_a_small_group_are_beside_the_links(tables, monkeypatch):
    """Also those of pairs that are not linked; of larger groups vectors are read again, to the same end."""
    turned = [[math.cos(t), math.sin(t), *[0.0] * 6] for t in np.deg2rad([0, 10, 20, 30])]
    signals = [{"sample_id": i, "look": v, "sharpness": n} for n, (i, v) in enumerate(zip("abcd", turned, strict=True))]
    near_ = [NearDuplicates(embedding="look", threshold=0.95)]
    said = []
    for most in (4, 3):
        monkeypatch.setattr(near, "ALIKE", most)
        build = tables.build([{"sample_id": i} for i in "abcd"], signals, parts=2)
        for least in (0, 1):
            engine = Counting()
            said.append(build.verdicts([Rule(field="sharpness", min=least)], near_, engine=engine))
            assert ("_lend" in engine.ran) == (most == 3)
    assert said[:2] == said[2:]
    assert said[0]["d"]["similarity"] == pytest.approx(math.cos(math.radians(30)), abs=1e-6)


def test_links_that_are_not_all_there_are_made_again(tables, monkeypatch):
    from curate.decide import near

    monkeypatch.setattr(near, "EXACT_ROWS", 0)
    monkeypatch.setattr(near, "CELL_ROWS", 4)
    rng = np.random.default_rng(0)
    ids = [f"{i:02d}" for i in range(30)]
    signals = [{"sample_id": i, "look": rng.standard_normal(8).tolist()} for i in ids]
    build, engine = tables.build([{"sample_id": i} for i in ids], signals), Counting()
    want = build.decide(near=LOOK).pairs
    assert len(want) > 2
    build.store.remove(want[1:2])
    assert build.decide(near=LOOK, engine=engine).pairs == want
    assert COMPARING & set(engine.ran)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small disk")
def test_a_full_disk_is_an_error_and_leaves_nothing_half(tmp_path, tables, refused):
    """A real one of 256 KiB."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small disk")
    try:
        ids = [f"{i:04d}" for i in range(2000)]
        build = tables.build([{"sample_id": i} for i in ids], [{"sample_id": i} for i in ids], parts=8)
        (build.store.root / "verdicts").symlink_to(tmp_path)
        (tmp_path / "filler").write_bytes(bytes(240 << 10))
        assert refused(build) == f"no space left on the disk of {build.store.root / 'verdicts'}"
        left = {p.name for p in tmp_path.iterdir()} - {"filler"}
        assert all(pq.read_table(tmp_path / name).num_rows for name in left)
        assert not any(name.endswith(".part") for name in left)
        (tmp_path / "filler").unlink()
        assert build.ledger().num_rows == 4000
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)

"""4M's view: budgets, disjoint input and target, sentinels that put a text together again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CARDS, STREAMS, make_samples

from curate.schema.errors import CurateError
from curate.shards.masked import mask_text, masked_spans, share_out
from curate.shards.stream import stream
from curate.shards.views import MaskedView

TRUTH = {s.sample_id: s for s in make_samples(101)}
SENTINELS = np.array([2, 3, 4, 5])
END = 1


def examples(build: Path, view: MaskedView, **options: Any) -> list[dict[str, Any]]:
    return list(stream(build, view=view, **options))


def put_together(one: list[int], other: list[int]) -> list[int]:
    """The text that a masked input and its whole target came from, as a decoder of T5 spans would."""
    marks = set(SENTINELS.tolist())
    spans: dict[int, list[int]] = {}
    head = -1
    for token in other:
        if token in marks:
            head = token
            spans[head] = []
        else:
            spans[head].append(token)
    return [t for token in one for t in (spans[token] if token in marks else [token])]


@given(
    st.integers(0, 1 << 32),
    st.lists(st.integers(6, 299), min_size=1, max_size=60),
    st.integers(0, 70),
    st.integers(1, 80),
)
def test_masked_text(seed: int, text: list[int], input_budget: int, target_budget: int) -> None:
    one, other = mask_text(np.random.default_rng(seed), np.array(text), SENTINELS, input_budget, target_budget)
    assert len(one) <= input_budget
    assert 1 <= len(other) <= target_budget
    assert other[0] in SENTINELS
    if input_budget and target_budget > len(text) + len(SENTINELS):  # nothing was cut off the target
        assert put_together(one.tolist(), other.tolist()) == text
        assert other[-1] in SENTINELS


def test_masked_spans_by_example() -> None:
    """`the cute dog walks in the park`, with `cute dog` and `park` hidden (Raffel et al. 2020, figure 2)."""
    ids = np.array([10, 11, 12, 13, 14, 15, 16])
    keep = np.array([1, 0, 0, 1, 1, 1, 0], bool)
    one, other, heads = masked_spans(ids, keep, SENTINELS)
    assert one.tolist() == [10, 2, 13, 14, 15, 3]
    assert other.tolist() == [2, 11, 12, 3, 16, 4]
    assert heads.tolist() == [0, 3, 5]


@given(st.integers(0, 1 << 32), st.integers(0, 500), st.lists(st.floats(0, 5), min_size=1, max_size=6), st.data())
def test_shares_stay_within_total_and_room(seed: int, total: int, alphas: list[float], data: st.DataObject) -> None:
    alphas = [a if a > 0.01 else 0 for a in alphas]
    room = data.draw(st.lists(st.integers(0, 300), min_size=len(alphas), max_size=len(alphas)))
    shares = share_out(np.random.default_rng(seed), total, alphas, room)
    assert all(0 <= s <= r for s, r in zip(shares, room, strict=True))
    assert all(s == 0 for s, a in zip(shares, alphas, strict=True) if a == 0)
    if any(alphas):
        assert sum(share_out(np.random.default_rng(seed), total, alphas, [total] * len(alphas))) == total


def test_shares_follow_the_concentrations() -> None:
    """The mean share of a Dirichlet draw is alpha over the sum of alphas; its spread falls as they grow."""
    rng = np.random.default_rng(0)
    drawn = np.array([share_out(rng, 100, [1.0, 3.0], [100, 100]) for _ in range(4000)])
    assert abs(drawn[:, 0].mean() - 25) < 1
    even = np.array([share_out(rng, 100, [50.0, 50.0], [100, 100]) for _ in range(1000)])
    wild = np.array([share_out(rng, 100, [0.2, 0.2], [100, 100]) for _ in range(1000)])
    assert even[:, 0].std() < 6 < 30 < wild[:, 0].std()


@pytest.mark.parametrize("frames", [None, 2, {"tok_rgb@32": 1}])
def test_each_token_is_the_samples_own_and_stands_where_it_says(shared_build: Path, frames: Any) -> None:
    for item in examples(shared_build, MaskedView((8, 40), (4, 30), frames=frames)):
        sample = TRUTH[item["sample_id"]]
        assert {len(item[f"input_{k}"]) for k in ("ids", "positions", "streams", "mask")} == {40}
        assert {len(item[f"target_{k}"]) for k in ("ids", "positions", "streams", "mask")} == {30}
        assert item["target_mask"].any()
        for place, spec in enumerate(STREAMS):
            taken: dict[str, dict[int, int]] = {}
            for side in ("input", "target"):
                mine = item[f"{side}_mask"] & (item[f"{side}_streams"] == place)
                pairs = zip(item[f"{side}_positions"][mine].tolist(), item[f"{side}_ids"][mine].tolist(), strict=True)
                taken[side] = dict(pairs)
                assert len(taken[side]) == mine.sum()
            ids = sample.ids.get(spec.name)
            if ids is None:
                assert taken == {"input": {}, "target": {}}
            elif spec.name == "caption":
                known = set(ids.tolist()) | {END} | set(SENTINELS.tolist())
                assert set(taken["input"].values()) | set(taken["target"].values()) <= known
            else:
                assert not set(taken["input"]) & set(taken["target"])
                cap = frames if isinstance(frames, int) else (frames or {}).get(spec.name, len(ids))
                flat, both = ids.reshape(-1), taken["input"] | taken["target"]
                starts = range(0, len(flat) - min(cap, len(ids)) * spec.unit + 1, spec.unit)
                assert any(all(flat[s + at] == token for at, token in both.items()) for s in starts)
        for side in ("input", "target"):
            assert not item[f"{side}_ids"][~item[f"{side}_mask"]].any()


def test_an_image_and_its_caption_come_back_whole_from_input_and_target(shared_build: Path) -> None:
    """With room for everything, input and target of a grid are disjoint, and a text is only masked, never cut."""
    checked = 0
    for item in examples(shared_build, MaskedView(4000, 4000, alpha={"caption": 1.0})):
        caption = TRUTH[item["sample_id"]].ids["caption"]
        assert caption is not None
        one, other = (item[f"{side}_ids"][item[f"{side}_mask"]].tolist() for side in ("input", "target"))
        assert put_together(one, other) == [*caption.tolist(), END]
        checked += 1
    assert checked == 101


def test_alphas_make_a_task(shared_build: Path) -> None:
    """Captions in, images out."""
    view = MaskedView(32, 32, alpha={"caption": 1}, target_alpha={"tok_rgb@32": 1})
    for item in examples(shared_build, view):
        assert set(item["input_streams"][item["input_mask"]].tolist()) <= {2}
        assert set(item["target_streams"][item["target_mask"]].tolist()) <= {0}
        assert item["target_mask"].any() == (TRUTH[item["sample_id"]].kind != "audio")


def test_all_streams_are_drawn_in_and_out(shared_build: Path) -> None:
    items = examples(shared_build, MaskedView(32, 32))
    for side in ("input", "target"):
        assert {int(s) for i in items for s in i[f"{side}_streams"][i[f"{side}_mask"]]} == {0, 1, 2}


def test_positions_are_drawn_evenly(shared_build: Path) -> None:
    """Chi-square of target places in images over 60 epochs: 15 degrees of freedom, 37.7 is the 0.1 % point."""
    view = MaskedView(4, 4, alpha={"tok_rgb@32": 1})
    hits = np.zeros(16)
    for epoch in range(60):
        for item in examples(shared_build, view, epoch=epoch):
            if TRUTH[item["sample_id"]].kind == "image":
                hits += np.bincount(item["target_positions"][item["target_mask"]], minlength=16)
    assert ((hits - hits.mean()) ** 2 / hits.mean()).sum() < 37.7


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(np.array_equal(one[k], other[k]) for k in one)


def test_a_sample_looks_the_same_on_any_rank_and_anew_in_each_epoch(shared_build: Path) -> None:
    view = MaskedView(24, 24)
    alone = {i["sample_id"]: i for i in examples(shared_build, view)}
    for rank in range(3):
        for item in examples(shared_build, view, rank=rank, world=3):
            assert same(item, alone[item["sample_id"]])
    later = examples(shared_build, view, epoch=1)
    assert sum(same(item, alone[item["sample_id"]]) for item in later) < 5
    for batch in stream(shared_build, view=view, batch=10):
        for i, name in enumerate(batch["sample_id"]):
            assert np.array_equal(batch["target_ids"][i], alone[name]["target_ids"])


def test_text_without_sentinels_is_masked_by_position(shared_build: Path) -> None:
    from curate.shards.commit import read_manifest

    manifest = read_manifest(shared_build)
    plain = CARDS["words"].model_copy(update={"special_tokens": {}})
    bound = MaskedView(16, 16).bind(manifest.model_copy(update={"codecs": manifest.codecs | {"words": plain}}))
    assert [s.sentinels for s in bound.masked] == [None, None, None]


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (MaskedView(0), "input_tokens"),
        (MaskedView(8, (9, 8)), "target_tokens"),
        (MaskedView(alpha={"tok_rgb": 1}), "it has: tok_rgb@32"),
        (MaskedView(alpha=-1.0), "negative"),
        (MaskedView(alpha={}), "above 0"),
        (MaskedView(frames=0), "below 1"),
        (MaskedView(frames={"caption": 3}), "never cut"),
    ],
)
def test_a_view_that_cannot_be_is_refused_at_once(shared_build: Path, view: MaskedView, says: str) -> None:
    with pytest.raises(CurateError) as caught:
        stream(shared_build, view=view)
    assert says in str(caught.value)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000))
def test_even_tiny_budgets_give_a_target(shared_build: Path, inputs: int, targets: int, seed: int) -> None:
    for item in examples(shared_build, MaskedView(inputs, targets), seed=seed):
        assert item["target_mask"].any()

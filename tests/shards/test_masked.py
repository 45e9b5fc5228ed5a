"""4M's view: budgets, disjoint input and target, sentinels that put a text together again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import CARDS, STREAMS, make_samples

from curate.schema.errors import CurateError
from curate.shards.kernels import mask_grid, mask_text, share_out
from curate.shards.masked import Alpha
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


def chance(seed: int) -> NDArray[np.uint64]:
    return np.array([seed], np.uint64)


def masked(seed: int, text: list[int], input_budget: int, target_budget: int) -> tuple[list[int], list[int]]:
    one, other = np.empty(input_budget + 1, np.int32), np.empty(target_budget + 1, np.int32)
    ids, noise, whole = np.array(text[:-1], np.int32), np.empty(len(text)), np.empty(2 * len(text) + 1, np.int32)
    counts = mask_text(chance(seed), ids, text[-1], SENTINELS, input_budget, target_budget, one, other, noise, whole)
    return one[: counts[0]].tolist(), other[: counts[1]].tolist()


def shares(
    state: NDArray[np.uint64], total: int, alphas: list[float], room: list[int] | None = None
) -> NDArray[np.int64]:
    out = np.empty(len(alphas), np.int64)
    share_out(
        state,
        total,
        np.array(alphas),
        np.array([total] * len(alphas) if room is None else room),
        out,
        np.empty(len(alphas)),
    )
    return out


@given(
    st.integers(0, 1 << 32),
    st.lists(st.integers(6, 299), min_size=1, max_size=60),
    st.integers(0, 70),
    st.integers(1, 80),
)
@settings(deadline=None)
def test_masked_text(seed: int, text: list[int], input_budget: int, target_budget: int) -> None:
    one, other = masked(seed, text, input_budget, target_budget)
    assert len(one) <= input_budget
    assert 1 <= len(other) <= target_budget
    assert other[0] in SENTINELS
    if input_budget and target_budget > len(text) + len(SENTINELS):  # nothing was cut off the target
        assert put_together(one, other) == text
        assert other[-1] in SENTINELS


def test_spans_look_as_those_of_t5() -> None:
    """`the cute dog walks in the park`, with `cute dog` and `park` hidden (Raffel et al. 2020, figure 2)."""
    text = [10, 11, 12, 13, 14, 15, 16]
    drawn = [masked(seed, text, 70, 80) for seed in range(2000)]
    assert ([10, 2, 13, 14, 15, 3], [2, 11, 12, 3, 16, 4]) in drawn


def test_a_target_that_is_cut_begins_at_a_sentinel() -> None:
    heads = {masked(seed, list(range(10, 40)), 70, 4)[1][0] for seed in range(300)}
    assert heads == set(SENTINELS[:3].tolist())  # the last one heads no span


@given(st.integers(0, 1 << 32), st.integers(0, 500), st.lists(st.floats(0, 5), min_size=1, max_size=6), st.data())
@settings(deadline=None)
def test_shares_stay_within_total_and_room(seed: int, total: int, alphas: list[float], data: st.DataObject) -> None:
    alphas = [a if a > 0.01 else 0 for a in alphas]
    room = data.draw(st.lists(st.integers(0, 300), min_size=len(alphas), max_size=len(alphas)))
    drawn = shares(chance(seed), total, alphas, room)
    assert all(0 <= s <= r for s, r in zip(drawn, room, strict=True))
    assert all(s == 0 for s, a in zip(drawn, alphas, strict=True) if a == 0)
    if any(alphas):
        assert sum(shares(chance(seed), total, alphas)) == total


@pytest.mark.parametrize("alphas", [[1.0, 3.0], [0.02, 0.06], [4.0, 12.0]])
def test_shares_follow_the_concentrations(alphas: list[float]) -> None:
    """The mean share of a Dirichlet draw is alpha over the sum of alphas, and its variance m (1 - m) / (sum + 1)."""
    state = chance(0)
    drawn = np.array([shares(state, 100_000, alphas)[0] / 100_000 for _ in range(4000)])
    variance = 0.25 * 0.75 / (sum(alphas) + 1)
    assert abs(drawn.mean() - 0.25) < 4 * (variance / 4000) ** 0.5
    assert abs(drawn.var() / variance - 1) < 0.15


def test_what_rounding_leaves_goes_to_equal_streams_as_often() -> None:
    """One token over four streams of concentration 1: the largest share of a fresh draw takes it."""
    state = chance(3)
    drawn = sum(shares(state, 1, [1.0] * 4) for _ in range(4000))
    assert (np.abs(drawn - 1000) < 4 * (4000 * 0.25 * 0.75) ** 0.5).all()


@given(st.integers(0, 1 << 32), st.integers(1, 300), st.data())
@settings(deadline=None)
def test_a_grid_is_drawn_twice_without_overlap(seed: int, n: int, data: st.DataObject) -> None:
    n_in = data.draw(st.integers(0, n))
    n_out = data.draw(st.integers(0, n - n_in))
    one, other, room = np.empty(n_in + 1, np.int32), np.empty(n_out + 1, np.int32), np.empty(n, np.int32)
    mask_grid(chance(seed), n, n_in, n_out, one, other, room)
    picked, target = one[:n_in].tolist(), other[:n_out].tolist()
    assert (picked, target) == (sorted(set(picked)), sorted(set(target)))
    assert not set(picked) & set(target)
    assert all(0 <= p < n for p in picked + target)


def test_every_pair_of_positions_is_drawn_as_often() -> None:
    """Chi-square over the 15 pairs of 6 positions: 14 degrees of freedom, 36.1 is the 0.1 % point."""
    state, hits = chance(7), np.zeros((6, 6))
    one, other, room = np.empty(3, np.int32), np.empty(1, np.int32), np.empty(6, np.int32)
    for _ in range(15_000):
        mask_grid(state, 6, 2, 0, one, other, room)
        hits[one[0], one[1]] += 1
    pairs = hits[np.triu_indices(6, 1)]
    assert ((pairs - 1000) ** 2 / 1000).sum() < 36.1


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


def test_a_mixture_draws_one_of_its_concentrations(shared_build: Path) -> None:
    """Captions to images three times as often as images to captions (4M-21 mixes such tasks)."""
    alpha: list[Alpha] = [{"caption": 1}, {"tok_rgb@32": 1}]
    view = MaskedView(8, 8, alpha=alpha, target_alpha=alpha[::-1], weights=[3, 1])
    tasks = []
    for epoch in range(20):
        for item in examples(shared_build, view, epoch=epoch):
            if TRUTH[item["sample_id"]].kind == "image":
                [given], [wanted] = (set(item[f"{s}_streams"][item[f"{s}_mask"]].tolist()) for s in ("input", "target"))
                assert {given, wanted} == {0, 2}
                tasks.append(given == 2)
    assert abs(np.mean(tasks) - 0.75) < 4 * (0.75 * 0.25 / len(tasks)) ** 0.5


def test_a_stream_has_no_more_than_its_most(shared_build: Path) -> None:
    for item in examples(shared_build, MaskedView(64, 64, most={"tok_rgb@32": (3, 2), "caption": 4})):
        for side, places in (("input", {0: 3, 2: 4}), ("target", {0: 2, 2: 4})):
            for place, most in places.items():
                assert (item[f"{side}_mask"] & (item[f"{side}_streams"] == place)).sum() <= most


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
        (MaskedView(alpha=[]), "mixture of nothing"),
        (MaskedView(alpha=[1.0, 2.0], weights=[1]), "as many weights"),
        (MaskedView(alpha=[1.0, 2.0], target_alpha=[1.0, 2.0, 3.0]), "target_alpha 3"),
        (MaskedView(most={"tok_rgb": 3}), "it has: tok_rgb@32"),
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

"""The order of an epoch, and what becomes of its end."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import STREAMS

from curate.schema.errors import CurateError
from curate.shards.epoch import BLOCK_SHARDS, Blocks
from curate.shards.rows import Ragged
from curate.shards.stream import stream
from curate.shards.token_stream import TokenStream
from curate.shards.views import RawView


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(0, 1000))
@settings(deadline=None)
def test_blocks_give_each_row_once_from_a_few_shards_at_a_time(shard_rows: list[int], seed: int) -> None:
    order, n = Blocks(shard_rows, f"{seed}"), sum(shard_rows)
    rows = order(np.arange(n))
    assert sorted(rows.tolist()) == list(range(n))
    shard = np.searchsorted(np.cumsum(shard_rows), rows, side="right")
    at, ahead, sizes = 0, list[int](), iter((1, 2, *[BLOCK_SHARDS] * len(shard_rows)))
    while at < n:
        coming, size = order.next_shards(at), next(sizes)
        assert coming[: len(ahead)] == ahead, "those of the next blocks were fetched before"
        block, ahead = coming[:size], coming[size:]
        last = at + sum(shard_rows[s] for s in block) - 1
        assert set(shard[at : last + 1].tolist()) == set(block)
        assert order.next_shards(last) == coming
        assert bool(ahead) == (last + 1 < n)
        at = last + 1
    picks = np.random.default_rng(seed).integers(0, n, 50)
    np.testing.assert_array_equal(order(picks), rows[picks])  # any position by itself


def test_blocks_are_drawn_anew_in_each_epoch_and_can_be_resumed(shared_build: Path) -> None:
    def names(tokens: TokenStream) -> list[str]:
        return [n for batch in tokens for n in batch["sample_id"].tolist()]

    tokens = stream(shared_build, view=RawView(only=[]), batch=7, shuffle="blocks")
    first, second = names(tokens), names(tokens)
    assert sorted(first) == sorted(second)
    assert first != second
    tokens = stream(shared_build, view=RawView(only=[]), batch=7, shuffle="blocks")
    begun = [n for batch in islice(tokens, 3) for n in batch["sample_id"].tolist()]
    rest = [stream(shared_build, view=RawView(only=[]), shuffle="blocks", rank=r, world=2) for r in range(2)]
    for one in rest:
        one.resume(tokens.state())
    given_out = [[item["sample_id"] for item in one] for one in rest]
    assert begun + [n for pair in zip(*given_out, strict=True) for n in pair] == first
    with pytest.raises(CurateError, match="shuffle 2, this stream has 1"):
        stream(shared_build).resume(tokens.state())


@given(
    world=st.integers(1, 7), batch=st.one_of(st.none(), st.integers(1, 60)), tail=st.sampled_from(["drop", "repeat"])
)
@settings(max_examples=30, deadline=None)
def test_every_rank_has_as_many_full_items(shared_build: Path, world: int, batch: int | None, tail: Any) -> None:
    whole = [i["sample_id"] for i in stream(shared_build, view=RawView(only=[]))]
    dealt: list[list[str]] = []
    for rank in range(world):
        tokens = stream(shared_build, view=RawView(only=[]), rank=rank, world=world, batch=batch, tail=tail)
        expected = len(tokens)
        items = [[i["sample_id"]] if batch is None else i["sample_id"].tolist() for i in tokens]
        assert len(items) == expected
        assert {len(i) for i in items} <= {batch or 1}
        assert (tokens.state()["epoch"], tokens.state()["index"]) == (1, 0)
        dealt.append([n for i in items for n in i])
    given_out = [n for names in zip(*dealt, strict=True) for n in names]  # strict: equally many
    step = world * (batch or 1)
    if tail == "drop":
        assert given_out == whole[: len(whole) // step * step]
    else:
        assert len(given_out) == -(-len(whole) // step) * step
        assert given_out == (whole * (len(given_out) // len(whole) + 1))[: len(given_out)]


def test_tensors_share_the_memory_of_arrays(shared_build: Path) -> None:
    for batch, arrays in zip(stream(shared_build, batch=30, tensors=True), stream(shared_build, batch=30), strict=True):
        assert batch["sample_id"].tolist() == arrays["sample_id"].tolist()
        assert torch.equal(batch["start_us"], torch.from_numpy(arrays["start_us"]))
        for spec in STREAMS:
            one, other = batch[spec.name], arrays[spec.name]
            assert isinstance(one, Ragged)
            assert one.values.dtype == getattr(torch, spec.dtype)
            np.testing.assert_array_equal(one.values.numpy(), other.values)
            np.testing.assert_array_equal(one.offsets.numpy(), other.offsets)


@pytest.mark.parametrize(("options", "says"), [({"shuffle": "block"}, '"blocks"'), ({"tail": "keep"}, "repeat")])
def test_a_word_that_is_none_is_refused(shared_build: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(CurateError) as caught:
        stream(shared_build, **options)
    assert says in str(caught.value)

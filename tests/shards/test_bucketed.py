"""Batches of one shape: each sample once, and nothing beside what does not fit it."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import make_samples
from torch.utils.data import DataLoader

from curate.schema.errors import CurateError
from curate.shards.bucketed import bucketed
from curate.shards.bucketed_stream import BucketedStream
from curate.shards.rows import Ragged
from curate.shards.views import MaskedView, RawView

TRUTH = {s.sample_id: s for s in make_samples(101)}
GRIDS = ("tok_rgb@32", "tok_audio@16k")


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BucketedStream, "window", 40)  # the build has 101 samples


def shape(name: str, streams: tuple[str, ...] = GRIDS) -> tuple[int, ...]:
    """Steps of a sample's streams, -1 of those that it lacks."""
    return tuple(-1 if (ids := TRUTH[name].ids.get(s)) is None else len(ids) for s in streams)


def names(items: Any) -> list[list[str]]:
    return [item["sample_id"].tolist() for item in items]


@pytest.mark.parametrize("shuffle", [True, "blocks", False])
def test_each_sample_comes_once_beside_those_of_its_shape(shared_build: Path, shuffle: Any) -> None:
    tokens = bucketed(shared_build, 4, shuffle=shuffle)
    batches = names(tokens)
    assert sorted(name for batch in batches for name in batch) == sorted(TRUTH)
    assert {len(batch) for batch in batches} == {1, 2, 3, 4}
    for batch in batches:
        assert len({shape(name) for name in batch}) == 1
    later = names(tokens)
    assert sorted(map(sorted, later)) != sorted(map(sorted, batches)) or shuffle is False


def test_a_batch_is_one_array_a_stream(shared_build: Path) -> None:
    for item in bucketed(shared_build, 4, tail="repeat"):
        for stream in GRIDS:
            ragged = item[stream]
            assert isinstance(ragged, Ragged)
            if ragged.present.any():
                assert ragged.stacked.shape[:2] == (4, shape(item["sample_id"][0])[GRIDS.index(stream)])
                for i, name in enumerate(item["sample_id"].tolist()):
                    np.testing.assert_array_equal(ragged.stacked[i], TRUTH[name].ids[stream])


def test_rows_of_several_lengths_cannot_be_stacked(shared_build: Path) -> None:
    with pytest.raises(ValueError, match="rows of"):
        _ = next(iter(bucketed(shared_build, 40, by=["tok_audio@16k"], shuffle=False)))["caption"].stacked


def test_by_says_what_counts(shared_build: Path) -> None:
    for batch in names(bucketed(shared_build, 4, by=["tok_audio@16k"])):
        assert len({shape(name, ("tok_audio@16k",)) for name in batch}) == 1
    (first, *_) = names(bucketed(shared_build, 40, by=[], shuffle=False))
    assert len(first) == 40


@pytest.mark.parametrize("tail", ["drop", "repeat"])
@pytest.mark.parametrize("world", [1, 3])
def test_every_rank_has_as_many_full_batches(shared_build: Path, tail: Any, world: int) -> None:
    ranks = [names(bucketed(shared_build, 3, tail=tail, rank=r, world=world)) for r in range(world)]
    assert len({len(batches) for batches in ranks}) == 1
    every = [batch for batches in ranks for batch in batches]
    assert {len(batch) for batch in every} == {3}
    given_out = [name for batch in every for name in batch]
    assert set(given_out) == set(TRUTH) if tail == "repeat" else len(set(given_out)) == len(given_out)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_stops_and_other_numbers_of_ranks_lose_nothing(shared_build: Path, data: st.DataObject) -> None:
    whole = names(bucketed(shared_build, 4, view=RawView(only=["tok_rgb@32"])))
    seen: list[list[str]] = []
    state: dict[str, int] | None = None
    while state is None or state["epoch"] == 0:
        world, steps = (data.draw(st.integers(1, 4)) for _ in range(2))
        given_out, states = [], []
        for rank in range(world):
            tokens = bucketed(shared_build, 4, view=RawView(only=["tok_rgb@32"]), rank=rank, world=world)
            if state:
                tokens.resume(state)
            given_out.append(names(islice(tokens, steps)))
            states.append(tokens.state())
        seen += [ranks[step] for step in range(steps) for ranks in given_out if step < len(ranks)]
        state = states[0]
    assert seen == whole


def test_a_loader_gives_the_same_batches(shared_build: Path) -> None:
    want = names(bucketed(shared_build, 4))
    tokens = bucketed(shared_build, 4, view=MaskedView(8, 8), tensors=True)
    loader: Any = DataLoader(tokens, batch_size=None, num_workers=2, multiprocessing_context="fork")  # type: ignore[arg-type]
    assert len(names(loader)) == len(names(bucketed(shared_build, 4, view=MaskedView(8, 8))))
    raw: Any = DataLoader(
        bucketed(shared_build, 4),  # type: ignore[arg-type]
        batch_size=None,
        num_workers=2,
        multiprocessing_context="fork",
    )
    assert names(raw) == want


def test_a_state_is_of_one_batch_size(shared_build: Path) -> None:
    tokens = bucketed(shared_build, 4)
    next(iter(tokens))
    with pytest.raises(CurateError, match="size 4, this stream has 5"):
        bucketed(shared_build, 5).resume(tokens.state())


def test_an_unknown_stream_is_refused(shared_build: Path) -> None:
    with pytest.raises(CurateError, match="no stream 'tok_rgb'"):
        bucketed(shared_build, 4, by=["tok_rgb"])

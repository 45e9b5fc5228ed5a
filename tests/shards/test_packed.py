"""Rows of packed sequences: each sequence once and whole, little padding, and a place that is resumed anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from curate.schema.errors import CurateError
from curate.shards.kernels import best_fit
from curate.shards.packed import packed
from curate.shards.packed_stream import PackedStream
from curate.shards.sequence import SequenceView
from curate.shards.stream import stream
from curate.shards.views import Task

VIEW = SequenceView(["caption", "tok_audio@16k", "tok_rgb@32"], outputs=["tok_rgb@32"])
LENGTH = 200


@pytest.fixture(autouse=True)
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedStream, "window", 20)  # the build has 101 samples


def sequences(build: Path, view: SequenceView = VIEW, **options: Any) -> dict[str, tuple[list[int], list[bool]]]:
    found = stream(build, view=view, **options)
    return {item["sample_id"]: (item["tokens"].tolist(), item["loss"].tolist()) for item in found}


def taken_apart(items: Iterable[dict[str, Any]]) -> list[tuple[str, tuple[list[int], list[bool]]]]:
    """The sequences of rows, by what attention is told of them."""
    out = []
    for item in items:
        names = iter(item["sample_id"].tolist())
        flat = {key: item[key].reshape(-1) for key in ("tokens", "loss", "positions", "documents")}
        bounds = item["cu_seqlens"].tolist()
        assert (bounds[0], bounds[-1]) == (0, item["tokens"].size)
        assert item["max_seqlen"] == max(np.diff(bounds))
        for begin, end in pairwise(bounds):
            number = flat["documents"][begin]
            assert (flat["documents"][begin:end] == number).all()
            if number < 0:
                assert not any(flat[key][begin:end].any() for key in ("tokens", "loss", "positions"))
                continue
            assert flat["positions"][begin:end].tolist() == list(range(end - begin))
            assert number == 0 or flat["documents"][begin - 1] == number - 1
            out.append((next(names), (flat["tokens"][begin:end].tolist(), flat["loss"][begin:end].tolist())))
        assert next(names, None) is None
    return out


@pytest.mark.parametrize("shuffle", [True, "blocks", False])
@pytest.mark.parametrize("batch", [1, 4])
def test_each_sequence_comes_once_and_whole(shared_build: Path, shuffle: Any, batch: int) -> None:
    tokens = packed(shared_build, VIEW, LENGTH, shuffle=shuffle, batch=batch, seed=2)
    found = taken_apart(tokens)
    assert len(found) == 101
    assert dict(found) == sequences(shared_build, seed=2)
    assert tokens.state()["epoch"] == 1
    later = taken_apart(tokens)
    assert dict(later) == sequences(shared_build, seed=2, epoch=1)
    assert (found == later) == (shuffle is False)


def test_tasks_are_packed_by_their_lengths(shared_build: Path) -> None:
    view = SequenceView(tasks=[Task(["caption"], ["tok_rgb@32"]), Task([], ["tok_audio@16k"])])
    assert dict(taken_apart(packed(shared_build, view, LENGTH, batch=3))) == sequences(shared_build, view)


@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_stops_and_other_numbers_of_ranks_lose_nothing(shared_build: Path, data: st.DataObject) -> None:
    whole = [item["sample_id"].tolist() for item in packed(shared_build, VIEW, LENGTH)]
    seen: list[list[str]] = []
    state: dict[str, int] | None = None
    while state is None or state["epoch"] == 0:
        world, batch, steps = (data.draw(st.integers(1, 4)) for _ in range(3))
        given_out, states = [], []
        for rank in range(world):
            tokens = packed(shared_build, VIEW, LENGTH, rank=rank, world=world, batch=batch)
            if state:
                tokens.resume(state)
            given_out.append([rows_of(item) for item in islice(tokens, steps)])
            states.append(tokens.state())
        for step in range(steps):
            rows = [ranks[step] if step < len(ranks) else [] for ranks in given_out]
            seen += [ranks[i] for i in range(batch) for ranks in rows if i < len(ranks)]
        state = states[0]
        if len(seen) < len(whole):
            assert all(one == state for one in states)
    assert seen == whole


def rows_of(item: dict[str, Any]) -> list[list[str]]:
    """The names of the samples in each row."""
    counts = [int(row.max()) + 1 for row in item["documents"]]
    return [names.tolist() for names in np.split(item["sample_id"], np.cumsum(counts)[:-1])]


@pytest.mark.parametrize("tail", ["drop", "repeat"])
def test_every_rank_has_as_many_full_batches(shared_build: Path, tail: Any) -> None:
    whole = [item["sample_id"].tolist() for item in packed(shared_build, VIEW, LENGTH)]
    ranks = [list(packed(shared_build, VIEW, LENGTH, rank=r, world=3, batch=4, tail=tail)) for r in range(3)]
    want = len(whole) // 12 if tail == "drop" else -(-len(whole) // 12)
    assert [len(items) for items in ranks] == [want] * 3
    assert {item["tokens"].shape for items in ranks for item in items} == {(4, LENGTH)}
    rows = [r for step in zip(*ranks, strict=True) for four in zip(*map(rows_of, step), strict=True) for r in four]
    assert rows == (whole * 2)[: want * 12]


@pytest.mark.parametrize("workers", [1, 3])
def test_a_loader_gives_the_same_rows_and_tells_where_it_stands(shared_build: Path, workers: int) -> None:
    def loader(tokens: PackedStream) -> DataLoader[Any]:
        return DataLoader(tokens, batch_size=None, num_workers=workers, multiprocessing_context="fork")  # type: ignore[arg-type]

    want = [item["tokens"] for item in packed(shared_build, VIEW, LENGTH, batch=2)]
    tokens = packed(shared_build, VIEW, LENGTH, batch=2, tensors=True)
    begun = [item["tokens"].numpy() for item in islice(loader(tokens), 5)]
    again = packed(shared_build, VIEW, LENGTH, batch=2, tensors=True)
    again.resume(tokens.state(items=5))
    rest = [item["tokens"].numpy() for item in loader(again)]
    assert len(begun + rest) == len(want)
    assert all(np.array_equal(one, other) for one, other in zip(begun + rest, want, strict=True))


def test_tensors(shared_build: Path) -> None:
    item = next(iter(packed(shared_build, VIEW, LENGTH, batch=2, tensors=True)))
    assert item["tokens"].dtype == torch.int64
    assert item["cu_seqlens"].dtype == torch.int32


def test_a_sequence_that_is_too_long_is_said_or_skipped(shared_build: Path) -> None:
    every = sequences(shared_build)
    long = {name for name, (tokens, _) in every.items() if len(tokens) > 60}
    assert 0 < len(long) < 101
    with pytest.raises(CurateError, match="more than the 60 of a row"):
        list(packed(shared_build, VIEW, 60))
    assert {name for name, _ in taken_apart(packed(shared_build, VIEW, 60, too_long="skip"))} == set(every) - long


@given(st.lists(st.integers(2, 100), max_size=200), st.integers(100, 300))
@settings(deadline=None)
def test_rows_hold_what_is_put_into_them(lengths: list[int], room: int) -> None:
    into, count = best_fit(np.array(lengths, np.int64), room)
    used = np.bincount(into, lengths, count)
    assert (used <= room).all()
    assert (used > 0).all()
    assert sum(used > room / 2) >= count - 1  # two rows that are half empty would be one


@pytest.mark.parametrize("steps", [5, None])
def test_images_clips_and_captions_leave_less_than_a_hundredth_empty(steps: int | None) -> None:
    """Rows of 4,096: images of 196 ids, clips of 5 steps of 256 (MAGVIT-v2's 17 frames) or of 1 to 5, each with a
    caption of 20 to 60, and captions alone."""
    rng = np.random.default_rng(0)
    kind, caption = rng.integers(0, 3, 4096), rng.integers(20, 61, 4096)
    clip = 256 * (rng.integers(1, 6, 4096) if steps is None else steps)
    lengths = 2 + caption + 2 + np.choose(kind, [196 + 2, clip + 2, 0])
    _, count = best_fit(lengths, 4096)
    assert lengths.sum() / (count * 4096) > 0.99

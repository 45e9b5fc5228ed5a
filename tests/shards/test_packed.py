"""Rows of packed sequences: each sequence once and whole, little padding, and a place that is resumed anywhere."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyBuild, make_samples
from torch.utils.data import DataLoader

from curate.schema.errors import CurateError
from curate.shards.commit import read_manifest
from curate.shards.kernels import best_fit
from curate.shards.packed import packed
from curate.shards.packed_stream import Documents, PackedStream
from curate.shards.sequence import BOS, EOS, SequenceView
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


@pytest.mark.parametrize("length", [600, 170])
def test_the_samples_of_a_record_are_one_document(shared_build: Path, length: int) -> None:
    """Two samples share each record; those that do not fit into a row together are documents of their own."""
    alone = sequences(shared_build, seed=1)
    whole: dict[str, list[list[int]]] = {}
    for sample in sorted(make_samples(101), key=lambda s: s.start_us):
        inner, pieces = alone[sample.sample_id][0][1:-1], whole.setdefault(sample.content_id, [[]])
        if len(pieces[-1]) + len(inner) + 2 > length:
            pieces.append([])
        pieces[-1] += inner
    tokens = packed(shared_build, VIEW, length, documents="record", batch=3, seed=1)
    found = []
    for item in tokens:
        starts, content = item["cu_seqlens"], item["tokens"].reshape(-1)
        for begin, end in pairwise(starts.tolist()):
            if item["documents"].reshape(-1)[begin] >= 0:
                assert item["positions"].reshape(-1)[begin:end].tolist() == list(range(end - begin))
                found.append(content[begin:end].tolist())
    wanted = [[BOS, *piece, EOS] for pieces in whole.values() for piece in pieces]
    assert sorted(found) == sorted(wanted)
    assert len(wanted) > 51 if length == 170 else len(wanted) == 51
    assert tokens.padding() == 1 - sum(map(len, found)) / (length * len([1 for item in tokens for _ in item["tokens"]]))


def test_records_are_not_read_by_blocks(shared_build: Path) -> None:
    with pytest.raises(CurateError, match="lie in many shards"):
        packed(shared_build, VIEW, LENGTH, documents="record", shuffle="blocks")


def test_shards_that_cannot_be_read_are_left_out(tiny_build: TinyBuild) -> None:
    build = tiny_build(101, splits={"train": 1.0})
    every = sequences(build)
    shard = build / read_manifest(build).splits[0].shards[2]
    lost = set(pa.ipc.open_file(shard).read_all()["sample_id"].to_pylist())
    shard.unlink()
    with pytest.raises(CurateError, match="no such file"):
        list(packed(build, VIEW, LENGTH))
    tokens = packed(build, VIEW, LENGTH, on_error="skip")
    assert {name for name, _ in taken_apart(tokens)} == set(every) - lost
    assert (tokens.skipped, list(tokens.damaged)) == (len(lost), [str(shard)])


@pytest.mark.parametrize("documents", ["sample", "record"])
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_stops_and_other_numbers_of_ranks_lose_nothing(
    shared_build: Path, documents: Documents, data: st.DataObject
) -> None:
    whole = [item["sample_id"].tolist() for item in packed(shared_build, VIEW, LENGTH, documents=documents)]
    seen: list[list[str]] = []
    state: dict[str, int] | None = None
    while state is None or state["epoch"] == 0:
        world, batch, steps = (data.draw(st.integers(1, 4)) for _ in range(3))
        given_out, states = [], []
        for rank in range(world):
            tokens = packed(shared_build, VIEW, LENGTH, rank=rank, world=world, batch=batch, documents=documents)
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
    return [item["sample_id"][item["sample_row"] == row].tolist() for row in range(len(item["tokens"]))]


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
    assert list(packed(shared_build, VIEW, 3, too_long="skip")) == []


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

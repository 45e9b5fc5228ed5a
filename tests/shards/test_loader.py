"""A torch DataLoader over a stream: with workers of any kind it gives what it gives without."""

from __future__ import annotations

import itertools
import multiprocessing
import pickle
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from curate.schema.errors import CurateError
from curate.shards.stream import stream
from curate.shards.token_stream import TokenStream
from curate.shards.turns import Turns
from curate.shards.views import MaskedView

HOW = [(0, None, False)]
FORKED = [(workers, "fork", keep) for workers in (1, 3) for keep in (False, True)]
STARTED = [(w, context, keep) for context in ("spawn", "forkserver") for w in (1, 3) for keep in (False, True)]
WORKERS = [*HOW, *FORKED, *(pytest.param(*how, marks=pytest.mark.long) for how in STARTED)]


def tokens_of(build: Path, batch: int = 20, **more: Any) -> TokenStream:
    return stream(build, view=MaskedView(16, 16), batch=batch, **more)


def loader_of(tokens: TokenStream, workers: int, context: str | None = None, keep: bool = False) -> DataLoader[Any]:
    return DataLoader(
        tokens, batch_size=None, num_workers=workers, multiprocessing_context=context, persistent_workers=keep
    )


def seen(batch: dict[str, Any]) -> tuple[Any, ...]:
    """Order and masks of a batch."""
    masks = (np.asarray(batch[name]).tobytes() for name in ("input_ids", "target_ids", "target_mask"))
    return (tuple(batch["sample_id"]), *masks)


def epochs(build: Path, count: int, first: int = 0) -> list[list[tuple[Any, ...]]]:
    """What a stream gives that is iterated directly, epoch by epoch."""
    return [[seen(b) for b in tokens_of(build, epoch=e)] for e in range(first, first + count)]


@pytest.mark.parametrize(("workers", "context", "keep"), WORKERS)
def test_every_iteration_is_the_next_epoch(shared_build: Path, workers: int, context: str | None, keep: bool) -> None:
    want = epochs(shared_build, 4)
    assert len(want[0]) == 6
    assert len({tuple(e) for e in want}) == 4
    tokens = tokens_of(shared_build)
    loader = loader_of(tokens, workers, context, keep)
    got = [[seen(b) for b in loader] for _ in range(2)]
    assert got == want[:2]
    assert tokens.epoch == 2
    assert tokens.state()["epoch"] == 2
    third = [seen(b) for b in itertools.islice(loader, 2)]  # broken off in the middle of an epoch
    assert third == want[2][:2]
    tokens.resume(tokens.state(items=2))
    assert third + [seen(b) for b in loader] == want[2]
    assert [seen(b) for b in loader] == want[3]


@pytest.mark.parametrize(("workers", "context", "keep"), [*HOW, *FORKED])
def test_a_state_is_resumed_in_another_process(
    shared_build: Path, workers: int, context: str | None, keep: bool
) -> None:
    tokens = tokens_of(shared_build, epoch=5)
    begun = [seen(b) for b in itertools.islice(loader_of(tokens, workers, context, keep), 3)]
    again = tokens_of(shared_build)
    again.resume(tokens.state(items=3))
    loader = loader_of(again, workers, context, keep)
    assert [begun + [seen(b) for b in loader], [seen(b) for b in loader]] == epochs(shared_build, 2, first=5)


def test_an_equal_seed_of_torch_for_every_epoch_changes_nothing(shared_build: Path) -> None:
    tokens = tokens_of(shared_build)
    got = []
    for _ in range(3):
        torch.manual_seed(0)  # many trainers do
        got.append([seen(b) for b in loader_of(tokens, 2, "fork")])
    assert got == epochs(shared_build, 3)


def test_numbers_of_workers_and_loaders_may_change_and_mix_with_plain_iteration(shared_build: Path) -> None:
    tokens = tokens_of(shared_build)
    plain = [seen(b) for b in tokens]
    got = [plain, *([seen(b) for b in loader_of(tokens, n, "fork" if n else None)] for n in (2, 0, 3))]
    got.append([seen(b) for b in tokens])
    assert got == epochs(shared_build, 5)


def test_an_epoch_that_is_broken_off_is_not_replayed_and_that_is_said(shared_build: Path) -> None:
    want = epochs(shared_build, 3)
    tokens = tokens_of(shared_build)
    for epoch in range(2):
        assert seen(next(iter(loader_of(tokens, 2, "fork")))) == want[epoch][0]
        with pytest.raises(CurateError, match=rf"in the middle of epoch {epoch}.*\n.*items="):
            tokens.state()
    assert [seen(b) for b in loader_of(tokens, 2, "fork")] == want[2]
    next(iter(loader_of(tokens, 2, "fork")))
    with warnings.catch_warnings():  # a forked worker inherits it
        warnings.filterwarnings("error", message="the last epoch of this stream was broken off")
        with pytest.raises(UserWarning, match="epoch 4 begins now"):
            list(loader_of(tokens, 2, "fork"))


def test_where_to_go_on_was_said_and_nothing_warns(shared_build: Path) -> None:
    tokens = tokens_of(shared_build)
    next(iter(loader_of(tokens, 2, "fork")))
    tokens.resume(tokens.state(items=0))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="the last epoch of this stream was broken off")
        assert [seen(b) for b in loader_of(tokens, 2, "fork")] == epochs(shared_build, 1)[0]


def test_two_loaders_at_once_are_two_epochs(shared_build: Path) -> None:
    tokens = tokens_of(shared_build)
    pairs = zip(loader_of(tokens, 2, "fork"), loader_of(tokens, 1, "fork"), strict=True)
    assert [list(e) for e in zip(*((seen(a), seen(b)) for a, b in pairs), strict=True)] == epochs(shared_build, 2)


def test_ranks_keep_step(shared_build: Path) -> None:
    for rank in range(2):
        tokens = tokens_of(shared_build, rank=rank, world=2)
        got = [[seen(b) for b in loader_of(tokens, 2, "fork")] for _ in range(2)]
        assert got == [[seen(b) for b in tokens_of(shared_build, rank=rank, world=2, epoch=e)] for e in range(2)]
        assert tokens.state()["epoch"] == 2


def test_a_worker_that_dies_leaves_the_next_epoch_whole(shared_build: Path) -> None:
    tokens = tokens_of(shared_build, batch=2)  # more items than workers make ahead
    loader = loader_of(tokens, 3, "fork")
    running = iter(loader)
    next(running)
    # PyTorch's handler of SIGCHLD raises at whatever line runs when a child ends, pytest's own among them.
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        running._workers[1].kill()  # type: ignore[attr-defined]
        # it exited unexpectedly, or what it had made went with it before it was fetched
        with pytest.raises((RuntimeError, OSError, EOFError)):
            list(running)
        running._shutdown_workers()  # type: ignore[attr-defined]
    finally:
        signal.signal(signal.SIGCHLD, handler)
    assert [seen(b) for b in loader] == [seen(b) for b in tokens_of(shared_build, batch=2, epoch=1)]


def test_a_plain_pickle_is_a_stream_of_its_own(shared_build: Path) -> None:
    tokens = tokens_of(shared_build)
    next(iter(tokens))
    other = pickle.loads(pickle.dumps(tokens))
    assert len([*other]) == 5
    assert (tokens.state()["epoch"], other.state()["epoch"]) == (0, 1)


@pytest.mark.parametrize("is_seeded", [False, True])
def test_an_epoch_is_one_whatever_processes_are_made_meanwhile(
    shared_build: Path, monkeypatch: pytest.MonkeyPatch, is_seeded: bool
) -> None:
    make = multiprocessing.context.ForkProcess.__init__

    def make_among_others(self: Any, *args: Any, **more: Any) -> None:
        for _ in range(5):  # as threads of the trainer do that start a pool of their own
            make(multiprocessing.context.ForkProcess.__new__(multiprocessing.context.ForkProcess))
        make(self, *args, **more)

    monkeypatch.setattr(multiprocessing.context.ForkProcess, "__init__", make_among_others)
    tokens = tokens_of(shared_build)
    got = []
    for _ in range(2):
        if is_seeded:
            torch.manual_seed(0)
        got.append([seen(b) for b in loader_of(tokens, 2, "fork")])
    assert got == epochs(shared_build, 2)


def test_two_iterations_at_once_of_one_seed_are_two_epochs(shared_build: Path) -> None:
    tokens = tokens_of(shared_build)
    running = []
    for _ in range(2):
        torch.manual_seed(0)
        running.append(iter(loader_of(tokens, 2, "fork")))
    got = [[seen(b) for b in one] for one in running]
    assert sorted(got) == sorted(epochs(shared_build, 2))  # which of them begins first is chance


def test_slow_workers_belong_to_the_iteration_that_they_were_started_for() -> None:
    """Persistent workers: the second begins its first iteration when the first has begun its second."""
    turns = Turns(0, 7)
    first, _ = turns.begin(0, 2, 99, 1)
    second, broken_off = turns.begin(0, 2, 99, 2)
    late, _ = turns.begin(1, 2, 99, 1)
    last, _ = turns.begin(1, 2, 99, 2)
    assert broken_off
    assert [(i.epoch, i.index) for i in (first, late)] == [(0, 7)] * 2
    assert [(i.epoch, i.index) for i in (second, last)] == [(1, 0)] * 2
    assert turns.next == (2, 0)
    assert not any(i.whole for i in (first, second))

"""torchdata's StatefulDataLoader: its snapshots hold where each worker's share stands, and nothing is read again."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from torchdata.stateful_dataloader import StatefulDataLoader

from curate.shards.bucketed import bucketed
from curate.shards.mix import mix
from curate.shards.packed import packed
from curate.shards.sequence import SequenceView
from curate.shards.stream import stream
from curate.shards.views import RawView

RAW = RawView(only=["caption"])
STREAMS: dict[str, Callable[[Path], Any]] = {
    "stream": lambda build: stream(build, view=RAW, batch=7),
    "mixture": lambda build: mix([build], view=RAW, batch=7, on_end="stop"),
    "packed": lambda build: packed(build, SequenceView(["caption"]), 40, batch=2),
    "bucketed": lambda build: bucketed(build, 4, view=RawView(only=["tok_rgb@32"])),
}


def loader_of(tokens: Any, workers: int, every: int, keep: bool = False) -> Any:
    return StatefulDataLoader(
        tokens,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
        snapshot_every_n_steps=every,
        persistent_workers=keep,
    )


def names(items: Any) -> list[tuple[str, ...]]:
    return [tuple(item["sample_id"]) for item in items]


@pytest.mark.parametrize("kind", list(STREAMS))
@pytest.mark.parametrize(("workers", "every", "taken"), [(0, 1, 4), (1, 1, 3), (2, 1, 1), (3, 1, 4), (2, 3, 5)])
def test_it_goes_on_where_it_was_stopped(shared_build: Path, kind: str, workers: int, every: int, taken: int) -> None:
    make = STREAMS[kind]
    want = [names(make(shared_build))]
    tokens = make(shared_build)
    assert names(tokens) == want[0]
    want.append(names(tokens))  # the next epoch
    loader = loader_of(make(shared_build), workers, every)
    assert names(islice(loader, taken)) == want[0][:taken]
    loader = loader_of(make(shared_build), workers, every)
    running = iter(loader)
    begun = names(islice(running, taken))
    state = json.loads(json.dumps(loader.state_dict())) if not workers else loader.state_dict()
    del running
    again = loader_of(make(shared_build), workers, every)
    again.load_state_dict(state)
    assert begun + names(again) == want[0]
    assert names(again) == want[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_of_an_epochs_end_is_the_next_epochs_begin(shared_build: Path, workers: int) -> None:
    make = STREAMS["stream"]
    tokens = make(shared_build)
    want = [names(tokens) for _ in range(3)]
    loader = loader_of(make(shared_build), workers, 1)
    assert names(loader) == want[0]
    again = loader_of(make(shared_build), workers, 1)
    again.load_state_dict(loader.state_dict())
    assert next(n for n in (names(again), names(again)) if n) == want[1]


def test_workers_that_live_on_are_in_a_later_epoch(shared_build: Path) -> None:
    make = STREAMS["stream"]
    tokens = make(shared_build)
    want = [names(tokens) for _ in range(3)]
    loader = loader_of(make(shared_build), 2, 1, keep=True)
    assert names(loader) == want[0]
    running = iter(loader)
    begun = names(islice(running, 1))
    state = loader.state_dict()
    again = loader_of(make(shared_build), 2, 1)
    again.load_state_dict(state)
    assert begun + names(again) == want[1]
    assert names(again) == want[2]

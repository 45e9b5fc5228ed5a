"""Shards that cannot be read: an error that names them, or samples that are left out and counted."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import TinyBuild

from curate.schema.errors import CurateError
from curate.shards.commit import read_manifest
from curate.shards.stream import stream
from curate.shards.views import RawView
from curate.storage import Folder


def remove(path: Path) -> None:
    path.unlink()


def cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    """One bit of an id: the file is whole, and only its digest tells."""
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


FAULTS = [
    pytest.param(remove, {}, "no such file", id="missing"),
    pytest.param(cut_short, {}, "not a whole Arrow IPC file", id="cut short"),
    pytest.param(flip, {"verify": True}, "not those that were committed", id="flipped"),
]


@pytest.fixture
def build(tiny_build: TinyBuild) -> Path:
    """101 samples, 16 a shard."""
    return tiny_build(101, splits={"train": 1.0})


def third(build: Path) -> tuple[Path, slice]:
    """A shard, and where its samples are in stored order."""
    [split] = read_manifest(Folder(build)).splits
    first = sum(split.shard_rows[:2])
    return build / split.shards[2], slice(first, first + split.shard_rows[2])


@pytest.mark.parametrize(("fault", "options", "says"), FAULTS)
def test_it_is_named(build: Path, fault: Callable[[Path], None], options: dict[str, Any], says: str) -> None:
    path, _ = third(build)
    fault(path)
    with pytest.raises(CurateError, match=says) as caught:
        list(stream(build, **options))
    assert str(path) in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize(("fault", "options", "says"), FAULTS)
@pytest.mark.parametrize("batch", [None, 9])
def test_it_is_left_out_and_counted(
    build: Path,
    fault: Callable[[Path], None],
    options: dict[str, Any],
    says: str,
    batch: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = [item["sample_id"] for item in stream(build, view=RawView(only=["caption"]))]
    path, rows = third(build)
    stored = [item["sample_id"] for item in stream(build, view=RawView(only=["caption"]), shuffle=False)]
    lost = set(stored[rows])
    fault(path)
    with caplog.at_level(logging.WARNING, "curate"):
        tokens = stream(build, view=RawView(only=["caption"]), on_error="skip", batch=batch, **options)
        items = [[item["sample_id"]] if batch is None else item["sample_id"].tolist() for item in tokens]
    assert [name for names in items for name in names] == [name for name in whole if name not in lost]
    assert all(items)
    assert tokens.skipped == len(lost)
    [(shard, why)] = tokens.damaged.items()
    assert build / shard == path
    assert says in why
    assert [record.getMessage() for record in caplog.records] == [f"left out: {why}"]
    assert (tokens.state()["epoch"], tokens.state()["index"]) == (1, 0)


def test_a_place_is_the_same_with_and_without_what_is_left_out(build: Path) -> None:
    """So a job goes on after the shard was restored, and gives the rest."""
    whole = [item["sample_id"] for item in stream(build)]
    path, _ = third(build)
    held = path.read_bytes()
    remove(path)
    tokens = stream(build, on_error="skip", batch=10)
    some = iter(tokens)
    for _ in range(4):
        next(some)
    path.write_bytes(held)
    again = stream(build)
    again.resume(tokens.state())
    assert [item["sample_id"] for item in again] == whole[40:]


def test_what_is_whole_verifies(build: Path) -> None:
    assert len(list(stream(build, verify=True))) == 101


def test_an_unknown_word_is_refused(build: Path) -> None:
    with pytest.raises(CurateError, match="on_error='ignore'"):
        stream(build, on_error="ignore")  # type: ignore[arg-type]

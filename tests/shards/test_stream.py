"""A stream gives each sample once an epoch, on any number of ranks and workers, with stops anywhere between."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import STREAMS, TinyBuild, make_samples

from curate.schema.errors import CurateError
from curate.shards import dealing as stream_module
from curate.shards.stream import stream
from curate.shards.token_stream import TokenStream
from curate.shards.views import MaskedView, RawView

TRUTH = {s.sample_id: s for s in make_samples(101)}


def names(tokens: TokenStream) -> list[str]:
    """Sample ids of the rest of the epoch."""
    out: list[str] = []
    for item in tokens:
        out.extend([item["sample_id"]] if isinstance(item["sample_id"], str) else item["sample_id"])
    return out


def test_each_sample_comes_once_with_its_own_tokens(shared_build: Path) -> None:
    seen = set()
    for item in stream(shared_build):
        sample = TRUTH[item["sample_id"]]
        seen.add(item["sample_id"])
        assert (item["kind"], item["start_us"], item["end_us"]) == (sample.kind, sample.start_us, sample.end_us)
        for spec in STREAMS:
            want = sample.ids.get(spec.name)
            if want is None:
                assert item[spec.name] is None
            else:
                assert item[spec.name].dtype == spec.numpy_dtype
                np.testing.assert_array_equal(item[spec.name], want)
    assert seen == set(TRUTH)


def test_a_batch_holds_what_its_samples_hold(shared_build: Path) -> None:
    singles = list(stream(shared_build, seed=5))
    at = 0
    for batch in stream(shared_build, seed=5, batch=16):
        for i, name in enumerate(batch["sample_id"]):
            assert name == singles[at]["sample_id"]
            for spec in STREAMS:
                np.testing.assert_array_equal(batch[spec.name][i], singles[at][spec.name])
            at += 1
    assert at == 101


def test_epochs_and_seeds_have_orders_of_their_own(shared_build: Path) -> None:
    tokens = stream(shared_build)
    first, second = names(tokens), names(tokens)
    assert sorted(first) == sorted(second)
    assert first != second
    assert second == names(stream(shared_build, epoch=1))
    assert first != names(stream(shared_build, seed=1))


def test_unshuffled_is_the_stored_order(shared_build: Path) -> None:
    from curate.shards.commit import read_manifest
    from curate.shards.reader import iter_rows

    stored = [
        s for rows in iter_rows(shared_build, read_manifest(shared_build), "train") for s in rows.keys["sample_id"]
    ]
    assert names(stream(shared_build, shuffle=False)) == stored
    assert names(stream(shared_build)) != stored


@given(
    world=st.integers(1, 9),
    batch=st.one_of(st.none(), st.integers(1, 120)),
    ahead=st.integers(1, 200),
    epoch=st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_ranks_share_an_epoch(shared_build: Path, world: int, batch: int | None, ahead: int, epoch: int) -> None:
    ranks = []
    for rank in range(world):
        tokens = stream(shared_build, view=RawView(only=["caption"]), rank=rank, world=world, batch=batch, epoch=epoch)
        tokens._look_ahead = ahead  # what is gathered at once must not show
        expected = len(tokens)
        items = list(tokens)
        assert len(items) == expected
        ranks.append([s for i in items for s in ([i["sample_id"]] if batch is None else i["sample_id"])])
        assert tokens.state()["epoch"] == epoch + 1
        assert tokens.state()["index"] == 0
    alone = names(stream(shared_build, view=RawView(only=["caption"]), epoch=epoch))
    assert ranks == [alone[rank::world] for rank in range(world)]


@given(data=st.data(), batch=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_stops_and_other_numbers_of_ranks_lose_nothing(shared_build: Path, data: st.DataObject, batch: int) -> None:
    """A job is stopped again and again, each time started on another number of ranks, till the epoch ends."""
    seen: list[str] = []
    state: dict[str, int] | None = None
    while True:
        world = data.draw(st.integers(1, 5))
        steps = data.draw(st.integers(1, 6))
        states = []
        given_out: list[list[str]] = []
        for rank in range(world):
            tokens = stream(shared_build, view=RawView(only=[]), rank=rank, world=world, batch=batch)
            if state:
                tokens.resume(state)
            mine: list[str] = []
            for _, item in zip(range(steps), tokens, strict=False):
                mine.extend(item["sample_id"])
            given_out.append(mine)
            states.append(tokens.state())
        assert all(s == states[0] for s in states)
        longest = max(len(g) for g in given_out)
        seen += [g[i] for i in range(longest) for g in given_out if i < len(g)]
        state = states[0]
        if state["epoch"] == 1:
            break
    assert seen == names(stream(shared_build))  # no sample twice, none missing, none out of its place


def test_the_next_sample_after_a_stop_is_the_very_next(shared_build: Path) -> None:
    whole = names(stream(shared_build))
    tokens = stream(shared_build)
    for count, item in enumerate(tokens, start=1):
        again = stream(shared_build)
        again.resume(tokens.state())
        assert item["sample_id"] == whole[count - 1]
        if count in (1, 50, 100):
            assert next(iter(again))["sample_id"] == whole[count]
    assert tokens.state()["epoch"] == 1


def test_the_state_after_the_last_sample_is_the_next_epoch(shared_build: Path) -> None:
    """Peers replay an empty epoch here."""
    tokens = stream(shared_build, batch=101)
    next(iter(tokens))
    again = stream(shared_build)
    again.resume(tokens.state())
    assert names(again) == names(stream(shared_build, epoch=1))


def test_going_on_after_a_break_in_the_loop(shared_build: Path) -> None:
    tokens = stream(shared_build)
    begin = [item["sample_id"] for _, item in zip(range(10), tokens, strict=False)]
    assert begin + names(tokens) == names(stream(shared_build))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_torch_loader_gives_the_same_batches_for_any_number_of_workers(shared_build: Path, workers: int) -> None:
    from torch.utils.data import DataLoader, IterableDataset

    alone = list(stream(shared_build, view=MaskedView(16, 16), batch=8))
    tokens = stream(shared_build, view=MaskedView(16, 16), batch=8)
    assert isinstance(tokens, IterableDataset)
    loaded = list(DataLoader(tokens, batch_size=None, num_workers=workers))
    assert len(loaded) == len(tokens) == 13
    for one, other in zip(loaded, alone, strict=True):
        assert list(one["sample_id"]) == list(other["sample_id"])
        for name in ("input_ids", "target_ids", "target_mask"):
            np.testing.assert_array_equal(np.asarray(one[name]), other[name])
    again = stream(shared_build, batch=8)
    again.resume(tokens.state(items=5))  # as a trainer that counted 5 batches from its loader
    assert names(again) == [s for batch in alone[5:] for s in batch["sample_id"]]
    again.resume(tokens.state(items=13))
    assert again.state()["epoch"] == 1


def test_a_stream_travels_to_another_process(shared_build: Path) -> None:
    tokens = stream(shared_build)
    next(iter(tokens))
    rest = names(pickle.loads(pickle.dumps(tokens)))
    assert rest == names(tokens)


def test_it_streams_without_torch(shared_build: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'torch' else found(name, *a)\n"
        "from curate.shards.stream import stream\n"
        "from curate.shards.token_stream import TokenStream\n"
        f"tokens = stream({str(shared_build)!r})\n"
        "assert type(tokens) is TokenStream\n"
        "print('\\n'.join(item['sample_id'] for item in tokens))\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{script}"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == names(stream(shared_build))


def test_more_shards_than_are_kept_open(shared_build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.shards import reader

    whole = names(stream(shared_build))
    monkeypatch.setattr(reader, "_OPEN_SHARDS", 1)
    assert names(stream(shared_build)) == whole


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"split": "tset"}, "it has: train"),
            ({"view": RawView(only=["tok_depth"])}, "it has: tok_rgb@32"),
            ({"rank": 2, "world": 2}, "rank 2 of 2"),
            ({"batch": 0}, "batch of 0"),
            ({"epoch": -1}, "epoch -1"),
        ],
    )
    def test_what_the_build_does_not_have(self, shared_build: Path, options: dict[str, Any], says: str) -> None:
        with pytest.raises(CurateError) as caught:
            stream(shared_build, **options)
        assert says in str(caught.value)

    def test_a_state_of_another_seed_or_order(self, shared_build: Path) -> None:
        state = stream(shared_build, seed=1).state()
        with pytest.raises(CurateError, match="seed 1, this stream has 0"):
            stream(shared_build).resume(state)
        with pytest.raises(CurateError, match="shuffle"):
            stream(shared_build, seed=1, shuffle=False).resume(state)

    def test_a_state_of_another_build(self, shared_build: Path, tiny_build: TinyBuild) -> None:
        state = stream(tiny_build(101, seed=4, splits={"train": 1.0})).state()
        with pytest.raises(CurateError, match="another build"):
            stream(shared_build).resume(state)

    def test_what_is_no_state(self, shared_build: Path) -> None:
        with pytest.raises(CurateError, match="not a state"):
            stream(shared_build).resume({"epoch": 1})

    def test_a_shard_that_is_gone_or_cut_short(self, tiny_build: TinyBuild) -> None:
        build = tiny_build(40, splits={"train": 1.0})
        shard = sorted((build / "tokens/train").iterdir())[1]
        raw = shard.read_bytes()
        shard.write_bytes(raw[:-100])
        with pytest.raises(CurateError, match="not a whole Arrow IPC file"):
            names(stream(build))
        shard.unlink()
        with pytest.raises(CurateError, match="no such file"):
            names(stream(build))

    def test_a_shard_of_other_rows(self, tiny_build: TinyBuild) -> None:
        build = tiny_build(40, splits={"train": 1.0})
        shards = sorted((build / "tokens/train").iterdir())
        shards[0].write_bytes(shards[-1].read_bytes())
        with pytest.raises(CurateError, match=r"does not hold \d+ rows"):
            names(stream(build))


def test_a_split_without_samples_streams_nothing(tiny_build: TinyBuild) -> None:
    build = tiny_build(4, splits={"train": 1 - 1e-9, "never": 1e-9})
    assert names(stream(build, "never")) == []


def test_long_rows_are_not_all_gathered_at_once(shared_build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = names(stream(shared_build))
    monkeypatch.setattr(stream_module, "_LOOK_AHEAD_BYTES", 2000)
    tokens = stream(shared_build)
    assert 1 <= tokens._look_ahead < 20
    assert names(tokens) == whole

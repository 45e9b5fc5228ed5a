"""Builds are mixed by weights; each gives its own samples once an epoch of its own, wherever the mixture is stopped."""

from __future__ import annotations

import itertools
import pickle
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CARDS, STREAMS, finish, make_samples
from torch.utils.data import DataLoader

from curate.schema.errors import CurateError
from curate.shards.commit import read_manifest
from curate.shards.join import join
from curate.shards.mix import mix
from curate.shards.mixture import Mixture
from curate.shards.stream import stream
from curate.shards.views import MaskedView, RawView, SequenceView

TRUTH = {s.sample_id: s for s in make_samples(101)}
PICTURES = "tok_rgb@32"


@pytest.fixture(scope="session")
def builds(tmp_path_factory: pytest.TempPathFactory, shared_build: Path) -> dict[str, Path]:
    """101 samples of three streams, 10 with words only, 7 with all streams in another order."""
    folder = tmp_path_factory.mktemp("mixed")
    words = [s for s in STREAMS if s.name == "caption"]
    cards = {name: card for name, card in CARDS.items() if card.stream == "caption"}
    finish(folder / "words", make_samples(200)[190:], splits={"train": 1.0}, streams=words, cards=cards)
    few = make_samples(307)[300:]
    finish(folder / "few", few, splits={"train": 1.0}, streams=STREAMS[::-1])
    return {"all": shared_build, "words": folder / "words", "few": folder / "few"}


WEIGHTS = {"all": 0.5, "words": 0.2, "few": 0.3}


def mixture(builds: dict[str, Path], view: Any = None, **more: Any) -> Mixture:
    return mix({name: (builds[name], w) for name, w in WEIGHTS.items()}, view=view or RawView(only=["caption"]), **more)


def taken(items: Any, count: int | None = None) -> list[tuple[int, str]]:
    """(part, sample) of the first items, or of all."""
    out: list[tuple[int, str]] = []
    for item in itertools.islice(items, count):
        if isinstance(item["source"], int):
            out.append((item["source"], item["sample_id"]))
        else:
            out += zip(np.asarray(item["source"]).tolist(), item["sample_id"], strict=True)
    return out


@pytest.mark.parametrize("shuffle", [True, False, "blocks"])
def test_each_part_comes_in_its_own_order_epoch_after_epoch(builds: dict[str, Path], shuffle: Any) -> None:
    got = taken(mixture(builds, seed=4, shuffle=shuffle), 300)
    assert Counter(part for part, _ in got) == {0: 150, 1: 60, 2: 90}
    for number, (name, build) in enumerate(builds.items()):
        mine = [sample for part, sample in got if part == number]
        epochs = (stream(build, view=RawView(only=[]), seed=4, epoch=e, shuffle=shuffle) for e in range(20))
        alone = [item["sample_id"] for tokens in epochs for item in tokens]
        assert mine == alone[: len(mine)], name


def test_what_was_given_is_told_by_part(builds: dict[str, Path]) -> None:
    tokens = mixture(builds, batch=10)
    taken(tokens, 21)
    counts = tokens.counts()
    assert {name: c.samples for name, c in counts.items()} == {"all": 105, "words": 42, "few": 63}
    assert counts["few"].epochs == 9
    assert counts["all"].share == 0.5
    assert tokens.counts(items=3)["all"].samples == 15


def test_a_view_is_shown_the_streams_of_all(builds: dict[str, Path]) -> None:
    tokens = mixture(builds, RawView())
    for item in itertools.islice(tokens, 60):
        assert list(item)[4:] == [*(s.name for s in STREAMS), "source"]
        assert list(item)[4:-1] == [s.name for s in tokens.manifest.streams]
        sample = TRUTH.get(item["sample_id"])
        if item["source"] == 1:
            assert item[PICTURES] is None
        if sample is not None:
            for spec in STREAMS:
                np.testing.assert_array_equal(item[spec.name], sample.ids.get(spec.name))


@pytest.mark.parametrize("view", [RawView(), MaskedView(16, 16), SequenceView(["caption", PICTURES])])
def test_a_batch_holds_what_its_samples_hold(builds: dict[str, Path], view: Any) -> None:
    singles = {(i["source"], i["sample_id"]): i for i in itertools.islice(mixture(builds, view), 14)}
    (batch,) = itertools.islice(mixture(builds, view, batch=14), 1)
    assert batch["source"].dtype == np.int64
    assert [*zip(batch["source"].tolist(), batch["sample_id"], strict=True)] == list(singles)
    for i, key in enumerate(zip(batch["source"].tolist(), batch["sample_id"], strict=True)):
        one = singles[key]
        if "tokens" in one:
            part = slice(*batch["offsets"][i : i + 2])
            np.testing.assert_array_equal(batch["tokens"][part], one["tokens"])
        else:
            for name in one:
                np.testing.assert_array_equal(batch[name][i], one[name])


def test_masks_are_drawn_anew_for_each_epoch_of_a_part(builds: dict[str, Path]) -> None:
    rounds: dict[str, list[bytes]] = {}
    for item in itertools.islice(mixture(builds, MaskedView(16, 16)), 60):
        if item["source"] == 2:
            rounds.setdefault(item["sample_id"], []).append(item["target_positions"].tobytes())
    assert len(rounds) == 7
    assert sum(len(set(masks)) > 1 for masks in rounds.values()) >= 5


def test_some_samples_of_some_parts(builds: dict[str, Path]) -> None:
    tokens = mixture(builds, where={"all": "kind = 'image'"}, on_end="stop")
    images = {item["sample_id"] for item in stream(builds["all"], where="kind = 'image'")}
    assert {TRUTH[name].kind for name in images} == {"image"}
    assert {name for part, name in taken(tokens) if part == 0} <= images
    assert tokens.parts["all"].samples == len(images)
    assert {s for _, s in taken(mixture(builds, where="kind = 'image'"), 200)} & images == images
    with pytest.raises(CurateError, match="no part 'none'"):
        mixture(builds, where={"none": "true"})
    both = join(builds["all"], builds["words"], miss="null", streams=[], where="kind = 'image'")
    assert {name for _, name in taken(mix([both], on_end="stop"))} == images
    with pytest.raises(CurateError, match=r"curate.join\(where="):
        mix([both], where="true")


@pytest.mark.parametrize("batch", [None, 8])
def test_shards_that_cannot_be_read_are_left_out(builds: dict[str, Path], tmp_path: Path, batch: int | None) -> None:
    build = shutil.copytree(builds["all"], tmp_path / "all")
    damaged = {**builds, "all": build}
    whole = taken(mixture(damaged, on_end="stop"))
    shard = build / read_manifest(build).splits[0].shards[1]
    lost = set(pa.ipc.open_file(shard).read_all()["sample_id"].to_pylist())
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(CurateError, match="not a whole Arrow IPC file"):
        taken(mixture(damaged, on_end="stop", batch=batch))
    tokens = mixture(damaged, on_end="stop", on_error="skip", batch=batch)
    assert taken(tokens) == [one for one in whole if one[1] not in lost]
    assert tokens.skipped == sum(name in lost for _, name in whole) > 0
    assert list(tokens.damaged) == [str(shard)]


@given(data=st.data(), batch=st.integers(1, 9), on_end=st.sampled_from(["repeat", "stop"]))
@settings(max_examples=12, deadline=None)
def test_stops_and_other_numbers_of_ranks_lose_nothing(
    builds: dict[str, Path], data: st.DataObject, batch: int, on_end: str
) -> None:
    """A job is stopped again and again, each time started on another number of ranks."""
    seen: list[tuple[int, str]] = []
    state: dict[str, int] | None = None
    while len(seen) < 120 and (state is None or state["epoch"] == 0):
        world, steps = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 6))
        states = []
        for rank in range(world):
            tokens = mixture(builds, rank=rank, world=world, batch=batch, on_end=on_end)
            if state:
                tokens.resume(state)
            seen += taken(tokens, steps)
            states.append(tokens.state())
        assert all(s == states[0] for s in states)
        state = states[0]
    whole = taken(mixture(builds, on_end=on_end), len(seen))
    assert Counter(seen) == Counter(whole)  # no sample too often, none missing


@pytest.mark.parametrize("tail", ["uneven", "drop", "repeat"])
def test_it_stops_before_a_sample_would_come_again(builds: dict[str, Path], tail: Any) -> None:
    whole = taken(mixture(builds, on_end="stop"))
    assert max(Counter(whole).values()) == 1
    assert Counter(part for part, _ in whole)[2] == 7  # the part that is used up first
    again = taken(mixture(builds), len(whole) + 1)
    assert again[:-1] == whole
    assert again[-1] in whole
    ranks = [mixture(builds, on_end="stop", tail=tail, rank=r, world=3, batch=2) for r in range(3)]
    lengths = [len(tokens) for tokens in ranks]
    items = [taken(tokens) for tokens in ranks]
    assert [-(-len(one) // 2) for one in items] == lengths
    assert all(tokens.state()["epoch"] == 1 for tokens in ranks)
    if tail == "drop":
        assert [len(one) for one in items] == [len(whole) // 6 * 2] * 3
    elif tail == "repeat":
        assert [len(one) for one in items] == [-(-len(whole) // 6) * 2] * 3
        assert {*itertools.chain(*items)} == set(whole)
    else:
        assert sorted(itertools.chain(*items)) == sorted(whole)
    second = taken(ranks[0], 1)
    assert second == taken(mixture(builds, on_end="stop", tail=tail, world=3, batch=2, epoch=1), 1)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_loader_gives_the_same_batches_for_any_number_of_workers(builds: dict[str, Path], workers: int) -> None:
    want = [taken([b]) for b in mixture(builds, MaskedView(16, 16), batch=4, on_end="stop")]
    tokens = mixture(builds, MaskedView(16, 16), batch=4, on_end="stop")
    loader: DataLoader[Any] = DataLoader(tokens, batch_size=None, num_workers=workers)
    begun = [taken([b]) for b in itertools.islice(loader, 2)]
    assert tokens.epoch == 0
    tokens.resume(tokens.state(items=2))
    assert begun + [taken([b]) for b in loader] == want
    second = [taken([b]) for b in mixture(builds, MaskedView(16, 16), batch=4, on_end="stop", epoch=1)]
    assert [taken([b]) for b in loader] == second


def test_tensors_are_what_arrays_are(builds: dict[str, Path]) -> None:
    (one,), (other,) = (
        itertools.islice(mixture(builds, MaskedView(16, 16), batch=9, tensors=t), 1) for t in (False, True)
    )
    assert other["source"].tolist() == one["source"].tolist()
    assert np.array_equal(other["input_ids"].numpy(), one["input_ids"])


def test_ranks_see_all_parts(builds: dict[str, Path]) -> None:
    """Positions are dealt by chance: 10 ranks and shares of tenths would else be one part each for ever."""
    for rank in range(10):
        parts = {part for part, _ in taken(mixture(builds, rank=rank, world=10), 40)}
        assert parts == {0, 1, 2}


def test_a_mixture_travels_to_another_process(builds: dict[str, Path]) -> None:
    tokens = mixture(builds)
    taken(tokens, 5)
    assert taken(pickle.loads(pickle.dumps(tokens)), 20) == taken(tokens, 20)


class TestShares:
    def test_parts_without_weights_are_mixed_as_large_as_they_are(self, builds: dict[str, Path]) -> None:
        assert mix(list(builds.values()), on_end="stop").weights == dict(
            zip(map(str, builds.values()), [101, 10, 7], strict=True)
        )

    def test_a_temperature_makes_them_more_even(self, builds: dict[str, Path]) -> None:
        weights = list(mix(builds, temperature=2).weights.values())
        assert np.allclose(np.array(weights) / weights[0], np.sqrt(np.array([101, 10, 7]) / 101), atol=1e-4)

    def test_a_cap_bounds_an_epoch_and_the_next_one_has_others(self, builds: dict[str, Path]) -> None:
        tokens = mix(builds, caps=20)
        assert list(tokens.weights.values()) == [20, 10, 7]
        got = [sample for part, sample in taken(tokens, 74) if part == 0]
        first, second = got[:20], got[20:]
        assert len(set(first)) == len(set(second)) == 20
        assert set(first) != set(second)
        assert tokens.counts()["all"].epochs == 2
        assert list(mix(builds, caps={"all": 50}).weights.values()) == [50, 10, 7]


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"temperature": 2.0}, "not from both"),
            ({"caps": {"al": 3}}, "there is no part 'al'"),
            ({"caps": 0}, "0 is below 1"),
            ({"rank": 1}, "rank 1 of 1"),
            ({"on_end": "end"}, "one of repeat, stop"),
            ({"view": RawView(only=["tok_depth"])}, "it has: tok_rgb@32"),
        ],
    )
    def test_options(self, builds: dict[str, Path], options: dict[str, Any], says: str) -> None:
        with pytest.raises(CurateError) as caught:
            mixture(builds, **options)
        assert says in str(caught.value)

    def test_weights(self, builds: dict[str, Path]) -> None:
        with pytest.raises(CurateError, match="few has no weight"):
            mix({"all": (builds["all"], 1.0), "few": builds["few"]})
        with pytest.raises(CurateError, match="a weight of -1"):
            mix([(builds["all"], 1.0), (builds["few"], -1)])
        with pytest.raises(CurateError, match="two parts are called"):
            mix([builds["all"], builds["all"]])

    def test_streams_of_one_name_and_two_tokenizers(self, builds: dict[str, Path], tmp_path: Path) -> None:
        cards = {name: card.model_copy(update={"licence": "MIT"}) for name, card in CARDS.items()}
        other = [s.__class__.of(card.stream, card) for s, card in zip(STREAMS, cards.values(), strict=True)]
        finish(tmp_path / "other", make_samples(8), streams=other, cards=cards)
        with pytest.raises(CurateError, match="of another tokenizer"):
            mix([builds["all"], tmp_path / "other"])

    def test_a_state_of_another_mixture(self, builds: dict[str, Path]) -> None:
        state = mixture(builds).state()
        with pytest.raises(CurateError, match="other builds, weights or caps"):
            mixture(builds, caps=5).resume(state)
        with pytest.raises(CurateError, match="seed 0, this mixture has 1"):
            mixture(builds, seed=1).resume(state)
        with pytest.raises(CurateError, match="not a state"):
            mixture(builds).resume({"epoch": 1})

    def test_a_length_without_end(self, builds: dict[str, Path]) -> None:
        with pytest.raises(TypeError, match="no end"):
            len(mixture(builds))

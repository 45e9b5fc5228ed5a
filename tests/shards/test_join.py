"""Two builds of one sample are one sample, met by its id, in the order of the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import CARDS, STREAMS, finish, make_samples

import curate
from curate.schema.errors import CurateError
from curate.shards.join import Joined, join
from curate.shards.views import MaskedView

SAMPLES = make_samples(60)
TRUTH = {s.sample_id: s for s in SAMPLES}
SOUND = "tok_audio@16k"


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A build of pictures and words, and one of sounds that has 40 of its 60 samples, and 7 others, in two splits."""
    folder = tmp_path_factory.mktemp("halves")
    sight = [s for s in STREAMS if s.name != SOUND]
    finish(folder / "sight", SAMPLES, splits={"train": 1.0}, streams=sight, cards=cards_of(sight))
    sound = [s for s in STREAMS if s.name == SOUND]
    some = [*SAMPLES[20:], *make_samples(80)[73:]]
    finish(folder / "sound", some, seed=8, splits={"train": 0.5, "held": 0.5}, streams=sound, cards=cards_of(sound))
    return folder / "sight", folder / "sound"


def cards_of(streams: list[Any]) -> dict[str, Any]:
    names = {s.name for s in streams}
    return {name: card for name, card in CARDS.items() if card.stream in names}


def items(part: Joined, **more: Any) -> list[dict[str, Any]]:
    return list(curate.mix([part], on_end="stop", **more))


def ids(samples: list[dict[str, Any]]) -> list[str]:
    return [sample["sample_id"] for sample in samples]


@pytest.mark.parametrize("miss", ["skip", "null"])
def test_samples_meet_by_id(halves: tuple[Path, Path], miss: Any) -> None:
    part = join(*halves, miss=miss)
    assert part.missing == 20
    found = items(part, shuffle=False)
    alone = ids(list(curate.stream(halves[0], shuffle=False)))
    both = {s.sample_id for s in SAMPLES[20:]}
    assert ids(found) == [i for i in alone if miss == "null" or i in both]
    for item in found:
        want = TRUTH[item["sample_id"]].ids if item["sample_id"] in both else {}
        np.testing.assert_array_equal(item[SOUND], want.get(SOUND))
        np.testing.assert_array_equal(item["caption"], TRUTH[item["sample_id"]].ids["caption"])


def test_batches_are_those_of_a_build_that_has_all(halves: tuple[Path, Path], tmp_path: Path) -> None:
    finish(tmp_path / "whole", SAMPLES, splits={"train": 1.0})
    whole = {s["sample_id"]: s for s in curate.stream(tmp_path / "whole", view=MaskedView(9, 9), seed=2)}
    both = {s.sample_id for s in SAMPLES[20:]}
    names = {0: 0, 1: 2, 2: 1}  # streams of the whole build: pictures, sounds, words
    for batch in curate.mix([join(*halves, miss="null")], view=MaskedView(9, 9), seed=2, batch=7, on_end="stop"):
        for i, sample in enumerate(batch["sample_id"]):
            assert (batch["input_mask"][i].sum() > 0) == (whole[sample]["input_mask"].sum() > 0)
            if sample in both:
                assert {names[s] for s in batch["target_streams"][i].tolist()} <= {0, 1, 2}


def test_a_join_is_resumed_on_other_ranks(halves: tuple[Path, Path]) -> None:
    part = join(*halves, miss="skip")
    first = curate.mix([part], on_end="stop", batch=5)
    begun = [next(iter(first)), next(iter(first))]
    rest = []
    for rank in range(3):
        tokens = curate.mix([join(*halves, miss="skip")], on_end="stop", rank=rank, world=3)
        tokens.resume(first.state())
        rest += ids(list(tokens))
    seen = [i for batch in begun for i in batch["sample_id"]] + rest
    assert sorted(seen) == sorted(s.sample_id for s in SAMPLES[20:])


def test_a_join_is_mixed_with_others(halves: tuple[Path, Path], shared_build: Path) -> None:
    tokens = curate.mix({"both": (join(*halves, miss="null"), 1), "other": (shared_build, 3)}, seed=1)
    got = [item for item, _ in zip(tokens, range(80), strict=False)]
    assert sum(item["source"] == 0 for item in got) == 20
    assert {s for item in got for s in item if s == SOUND} == {SOUND}


def test_what_is_missing_is_refused_at_once(halves: tuple[Path, Path]) -> None:
    with pytest.raises(CurateError) as caught:
        join(*halves)
    assert "lacks 20 of 60 samples" in str(caught.value)
    assert "miss='skip'" in str(caught.value)


def test_streams_of_both(halves: tuple[Path, Path], shared_build: Path) -> None:
    with pytest.raises(CurateError, match="both builds have a stream 'caption'"):
        join(halves[0], shared_build, miss="null", streams=["caption"])
    with pytest.raises(CurateError, match="no stream 'tok_depth'"):
        join(*halves, streams=["tok_depth"])
    assert join(halves[0], shared_build, miss="null").manifest.streams[-1].name == SOUND

from __future__ import annotations

import numpy as np
import pytest
from card_build import Builder, items, opened

from curate.card.roundtrip import false_colour
from curate.card.tokens import entropy, rank_curve, stream_stats


def test_entropy_of_known_distributions() -> None:
    assert entropy(np.array([5, 5, 5, 5])) == 2.0
    assert entropy(np.array([7, 0, 0])) == 0.0
    assert entropy(np.zeros(4, np.int64)) == 0.0
    assert entropy(np.array([1, 3])) == pytest.approx(0.8112781)


def test_statistics_are_those_of_all_ids(tmp_path_factory: pytest.TempPathFactory) -> None:
    builder = Builder(tmp_path_factory.mktemp("build"), items())
    with opened(builder) as tables:
        stats = {s.entry.name: s for s in stream_stats(tables)}
    for name, found in stats.items():
        ids = [t[name] for t in builder.tokens if t[name] is not None]
        assert found.ids == sum(i.size for i in ids) == found.entry.ids
        assert found.missing == len(builder.tokens) - len(ids)
    image = np.concatenate([t["tok_rgb@256"] for t in builder.tokens if t["tok_rgb@256"] is not None])
    values, counts = np.unique(image, return_counts=True)
    assert stats["tok_rgb@256"].distinct == len(values)
    assert stats["tok_rgb@256"].top[0] == (values[counts.argmax()], counts.max())
    assert stats["tok_rgb@256"].lengths == [(1, 6), (2, 2)]  # six images, two clips of two frames
    audio = np.concatenate(
        [t["tok_audio@16k"].reshape(-1, 8) for t in builder.tokens if t["tok_audio@16k"] is not None]
    )
    assert [b.distinct for b in stats["tok_audio@16k"].books] == [len(np.unique(audio[:, i])) for i in range(8)]


def test_lengths_are_put_into_classes_that_add_up(tmp_path_factory: pytest.TempPathFactory) -> None:
    builder = Builder(tmp_path_factory.mktemp("build"), items())
    with opened(builder) as tables:
        found = stream_stats(tables)
    for stats in found:
        assert sum(count for _, count, _ in stats.length_bars) == stats.entry.samples
        assert len(stats.length_bars) <= 8


def test_the_rank_curve_starts_high_and_ends_low() -> None:
    points = rank_curve(np.array([0, 1, 100, 10])).removeprefix("M").split("L")
    assert points == ["0.0 0.0", "126.2 30.0", "200.0 60.0"]
    assert rank_curve(np.array([0, 3])) == ""


def test_equal_ids_have_equal_colours() -> None:
    ids = np.array([[0, 511], [9, 9]], np.uint16)
    image = false_colour(ids, [8, 8, 8], 512, side=4)
    assert image.shape == (4, 4, 3)
    assert image[0, 0].tolist() == [30, 30, 30]
    assert image[0, 3].tolist() == [235, 235, 235]
    assert (image[2:] == image[2, 0]).all()

"""One flat vocabulary: exact layout, exact lengths, and ids that come back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import make_samples

from curate.schema.errors import CurateError
from curate.shards.commit import read_manifest
from curate.shards.draw import Draw
from curate.shards.sequence import BOS, EOS, FlatVocabulary
from curate.shards.stream import stream
from curate.shards.views import SequenceView, Task

TRUTH = {s.sample_id: s for s in make_samples(101)}
ORDER = ["caption", "tok_audio@16k", "tok_rgb@32"]


@pytest.fixture
def words(shared_build: Path) -> FlatVocabulary:
    return FlatVocabulary.of(read_manifest(shared_build))


def test_blocks_lie_side_by_side(words: FlatVocabulary) -> None:
    """3 marks of sequences, 3 pairs of stream marks, 64,000 of images, 8 levels of 1,024, 300 of text."""
    assert words.begin == {"tok_rgb@32": 3, "tok_audio@16k": 5, "caption": 7}
    assert words.end == {"tok_rgb@32": 4, "tok_audio@16k": 6, "caption": 8}
    assert words.offset == {"tok_rgb@32": 9, "tok_audio@16k": 64009, "caption": 64009 + 8192}
    assert words.size == 64009 + 8192 + 300


def test_a_manifest_says_where_a_stream_lies(words: FlatVocabulary) -> None:
    """As a stranger reads it: `schemas/tables.md`."""
    ids = np.array([[5, 9, 1, 0, 0, 0, 0, 1023]])
    block = words.block("tok_audio@16k")
    assert (block.begin, block.end, block.first, block.levels) == (5, 6, 64009, 8)
    level = np.arange(ids.size) % block.levels
    assert words.flatten("tok_audio@16k", ids).tolist() == (block.first + level * 1024 + ids[0]).tolist()


def test_levels_of_audio_have_blocks_of_their_own(words: FlatVocabulary) -> None:
    flat = words.flatten("tok_audio@16k", np.array([[5] * 8, [1023] * 8]))
    assert flat.tolist() == [64009 + 1024 * level + code for code in (5, 1023) for level in range(8)]
    assert words.restore("tok_audio@16k", flat).tolist() == [5] * 8 + [1023] * 8
    with pytest.raises(ValueError, match="levels in turn"):
        words.restore("tok_audio@16k", flat[1:])


def test_a_sequence_reads_back_into_its_streams(shared_build: Path, words: FlatVocabulary) -> None:
    view = SequenceView(ORDER, outputs=["tok_audio@16k", "tok_rgb@32"])
    for item in stream(shared_build, view=view):
        sample, tokens, loss = TRUTH[item["sample_id"]], item["tokens"], item["loss"]
        assert (tokens[0], tokens[-1]) == (BOS, EOS)
        assert not loss[0]
        assert loss[-1]
        at = 1
        for name in ORDER:
            ids = sample.ids.get(name)
            if ids is None:
                continue
            n = ids.size
            assert tokens[at] == words.begin[name]
            assert words.restore(name, tokens[at + 1 : at + 1 + n]).tolist() == ids.reshape(-1).tolist()
            assert tokens[at + 1 + n] == words.end[name]
            counts = name != "caption"
            assert loss[at : at + n + 2].tolist() == [False, *[counts] * (n + 1)]
            at += n + 2
        assert at == len(tokens) - 1
        assert int(tokens.max()) < words.size


def test_no_loss_where_the_output_is_missing(shared_build: Path) -> None:
    for item in stream(shared_build, view=SequenceView(["caption", "tok_audio@16k"])):
        missing = TRUTH[item["sample_id"]].ids.get("tok_audio@16k") is None
        assert item["loss"].any() == (not missing)


@pytest.mark.parametrize("frames", [None, 2, {"tok_audio@16k": 4}])
def test_lengths_are_known_without_reading_ids(shared_build: Path, frames: Any) -> None:
    view = SequenceView(ORDER, frames=frames)
    items = list(stream(shared_build, view=view, shuffle=False))
    lengths = view.lengths(shared_build, read_manifest(shared_build))
    assert lengths.tolist() == [len(i["tokens"]) for i in items]


def test_a_batch_is_sequences_end_to_end(shared_build: Path) -> None:
    view = SequenceView(ORDER)
    items = list(stream(shared_build, view=view))
    (batch,) = stream(shared_build, view=view, batch=101)
    assert batch["offsets"][-1] == len(batch["tokens"]) == len(batch["loss"])
    for i, item in enumerate(items):
        part = slice(batch["offsets"][i], batch["offsets"][i + 1])
        assert np.array_equal(batch["tokens"][part], item["tokens"])
        assert np.array_equal(batch["loss"][part], item["loss"])


TASKS = [Task(["caption"], ["tok_rgb@32"]), Task(["tok_rgb@32"], ["caption"], 3.0), Task([], ["tok_audio@16k"])]


def test_tasks_are_drawn_of_those_that_a_sample_fits(shared_build: Path) -> None:
    words = FlatVocabulary.of(read_manifest(shared_build), len(TASKS))
    drawn = {kind: [0, 0, 0] for kind in ("image", "video", "audio")}
    for epoch in range(20):
        for item in stream(shared_build, view=SequenceView(tasks=TASKS), epoch=epoch):
            sample, tokens, loss = TRUTH[item["sample_id"]], item["tokens"], item["loss"]
            number = int(tokens[1]) - (words.size - len(TASKS))
            drawn[sample.kind][number] += 1
            order = [*TASKS[number].inputs, *TASKS[number].outputs]
            want = [BOS, int(tokens[1])]
            for name in order:
                ids = sample.ids[name]
                assert ids is not None
                want += [words.begin[name], *words.flatten(name, ids).tolist(), words.end[name]]
            assert tokens.tolist() == [*want, EOS]
            given = sample.ids[TASKS[number].inputs[0]].size + 2 if TASKS[number].inputs else 0  # type: ignore[union-attr]
            assert not loss[: given + 3].any()
            assert loss[given + 3 :].all()
    assert drawn["image"][2] == 0  # an image has no sound
    assert drawn["audio"][:2] == [0, 0]
    share = drawn["image"][1] / sum(drawn["image"])
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / sum(drawn["image"])) ** 0.5


def test_a_sample_that_fits_no_task_teaches_nothing(shared_build: Path) -> None:
    for item in stream(shared_build, view=SequenceView(tasks=TASKS[2:])):
        if TRUTH[item["sample_id"]].ids.get("tok_audio@16k") is None:
            assert (item["tokens"].tolist(), item["loss"].any()) == ([BOS, EOS], False)


def test_lengths_of_drawn_tasks_are_known_too(shared_build: Path) -> None:
    view = SequenceView(tasks=TASKS)
    items = list(stream(shared_build, view=view, shuffle=False, seed=4, epoch=2))
    lengths = view.lengths(shared_build, read_manifest(shared_build), draw=Draw(4, 2))
    assert lengths.tolist() == [len(i["tokens"]) for i in items]


@pytest.mark.parametrize(
    ("view", "says"),
    [
        (SequenceView([]), "at least one stream"),
        (SequenceView(["caption", "caption"]), "each once"),
        (SequenceView(["caption"], tasks=TASKS), "leave order and outputs out"),
        (SequenceView(tasks=[Task(["caption"], [])]), "needs an output"),
        (SequenceView(tasks=[Task(["caption"], ["caption"])]), "each once"),
        (SequenceView(["captions"]), "it has: tok_rgb@32"),
        (SequenceView(["caption"], outputs=["tok_rgb@32"]), "not in order"),
    ],
)
def test_a_view_that_cannot_be_is_refused_at_once(shared_build: Path, view: SequenceView, says: str) -> None:
    with pytest.raises(CurateError) as caught:
        stream(shared_build, view=view)
    assert says in str(caught.value)

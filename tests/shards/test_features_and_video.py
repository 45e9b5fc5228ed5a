"""Streams that are not images, sounds or text: features as they are (float16), and video on a stated clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny import CARDS, COMMON, STREAMS, finish, make_samples

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.manifest import Clock
from curate.shards.commit import read_manifest
from curate.shards.ipc import open_ipc
from curate.shards.packed import packed
from curate.shards.schema import StreamSpec, streams_in
from curate.shards.sequence import FlatVocabulary
from curate.shards.stream import stream
from curate.shards.verify import verify
from curate.shards.views import MaskedView, SequenceView

FEATURES = CodecCard(
    name="clip",
    modality="image",
    stream="clip_global",
    quantiser="none",
    vocabulary=0,
    dtype="float16",
    features=5,
    **COMMON,
)
VIDEO = CodecCard(
    name="clips",
    modality="video",
    stream="tok_video@32",
    quantiser="lfq",
    bit_order="lsb",
    vocabulary=1 << 18,
    dtype="uint32",
    grid=(2, 2),
    temporal_stride=4,
    **COMMON,
)
CLOCK = Clock(fps=8, stride=4, pad=True)
ALL = [*STREAMS, StreamSpec.of("clip_global", FEATURES), StreamSpec.of("tok_video@32", VIDEO, CLOCK)]


def some_samples() -> list:
    rng = np.random.default_rng(1)
    out = []
    for sample in make_samples(40):
        seen = sample.kind != "audio"
        steps = 1 if sample.kind == "image" else 4
        features = rng.normal(0, 100, (steps, 5)).astype(np.float16) if seen else None
        video = rng.integers(0, 1 << 18, (steps, 2, 2)) if seen else None
        out.append(replace(sample, ids={**sample.ids, "clip_global": features, "tok_video@32": video}))
    return out


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("more") / "build"
    cards = CARDS | {"clip": FEATURES, "clips": VIDEO}
    finish(path, some_samples(), splits={"train": 1.0}, streams=ALL, cards=cards)
    return path


def test_features_and_large_ids_come_back_to_the_bit(build: Path) -> None:
    truth = {s.sample_id: s for s in some_samples()}
    seen = 0
    for item in stream(build):
        want = truth[item["sample_id"]].ids
        if want["clip_global"] is None:
            assert item["clip_global"] is None
            continue
        seen += 1
        assert item["clip_global"].dtype == np.float16
        assert item["clip_global"].tobytes() == want["clip_global"].tobytes()
        assert item["tok_video@32"].dtype == np.uint32
        assert item["tok_video@32"].tolist() == want["tok_video@32"].tolist()
    assert seen == 30
    assert verify(build).problems == []


def test_a_shard_says_how_its_video_stands_in_time(build: Path) -> None:
    [shard] = {build / path for split in read_manifest(build).splits for path in split.shards[:1]}
    specs = {spec.name: spec for spec in streams_in(open_ipc(shard)[0])}
    assert specs["tok_video@32"].clock == CLOCK
    assert specs["tok_rgb@32"].clock is None
    assert specs["clip_global"].shape == (None, 5)


def test_masks_leave_features_out(build: Path) -> None:
    manifest = read_manifest(build)
    with pytest.raises(CurateError, match="features, not ids"):
        MaskedView(alpha={"caption": 1, "clip_global": 1}).bind(manifest)
    assert "clip_global" not in MaskedView(alpha=1.0).bind(manifest).streams


@pytest.mark.parametrize("frames", [None, 2])
def test_features_have_slots_in_a_sequence_and_come_beside(build: Path, frames: int | None) -> None:
    """A slot a vector, as of VL-GPT, behind all ids of the build; what is shown of a clip begins by chance."""
    ids = FlatVocabulary.of(read_manifest(build))
    assert "clip_global" not in ids.offset
    words = FlatVocabulary.of(read_manifest(build), slots=["clip_global"])
    begin, end, slot = words.begin["clip_global"], words.end["clip_global"], words.offset["clip_global"]
    assert (begin, end, slot, words.size) == (ids.size, ids.size + 1, ids.size + 2, ids.size + 3)
    assert {name: words.offset[name] for name in ids.offset} == ids.offset
    truth = {s.sample_id: s.ids for s in some_samples()}
    view, windows = SequenceView(["clip_global", "caption"], frames=frames), set()
    for item in stream(build, view=view):
        vectors, features = item["clip_global"], truth[item["sample_id"]]["clip_global"]
        assert (item["tokens"] == slot).sum() == len(vectors)
        if features is None:
            assert len(vectors) == 0
            continue
        shown = min(len(features), frames or len(features))
        assert item["tokens"][1 : shown + 3].tolist() == [begin, *[slot] * shown, end]
        [at] = [i for i in range(len(features) - shown + 1) if np.array_equal(features[i : i + shown], vectors)]
        windows.add(at)
    assert windows == ({0} if frames is None else {0, 1, 2})
    singles = {item["sample_id"]: item for item in stream(build, view=view)}
    for batch in stream(build, view=view, batch=7):
        both = [singles[name] for name in batch["sample_id"]]
        assert np.array_equal(batch["clip_global"], np.concatenate([one["clip_global"] for one in both]))
        assert np.array_equal(batch["tokens"], np.concatenate([one["tokens"] for one in both]))
    rows = next(iter(packed(build, view, 64, batch=3)))
    assert (rows["tokens"] == slot).sum() == len(rows["clip_global"])
    both = [singles[name] for name in rows["sample_id"]]
    assert np.array_equal(rows["clip_global"], np.concatenate([one["clip_global"] for one in both]))


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (np.zeros((1, 5), np.float32), "must be float16"),
        (np.zeros((1, 4), np.float16), r"shape \[1, 4\]"),
        (np.array([[0, 1, np.nan, 0, 0]], np.float16), "not finite"),
        (np.array([[0, 1, np.inf, 0, 0]], np.float16), "not finite"),
    ],
)
def test_features_that_cannot_be_stored_are_refused(features: np.ndarray, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ALL[-2].check(features)

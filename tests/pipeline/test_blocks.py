"""What crosses between workers, and what happens to a batch with a bad member. Operators are functions: no Ray here."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.media.requests import Audio, Frames
from curate.pipeline.blocks import (
    FAIL,
    LOST,
    VIEW,
    drop_views,
    failure_array,
    failures_of,
    pack_view,
    unpack_views,
    view_name,
)
from curate.pipeline.groups import GroupFragment
from curate.pipeline.media_store import GAP_BYTES, MediaReader, MediaTar, read_media
from curate.pipeline.models import models
from curate.pipeline.paths import LIGHT, Group, Paths, groups_of
from curate.pipeline.rows import nested, unnested
from curate.schema.fields import Resources, SignalField
from curate.schema.recipe import Cut, SignalUse
from curate.schema.verdict import Failure
from curate.signals import registry
from curate.signals.base import Batch, Result, Signal, Vector
from curate.signals.probed import PROBED
from curate.storage import Folder

SMALL, LARGE, AUDIO = Frames(size=32), Frames(size=64, crop=False), Audio(16000)


def test_a_view_crosses_without_a_change_and_without_a_copy() -> None:
    images = [np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3), None, np.zeros((1, 8, 4, 3), np.uint8)]
    table = pa.table({VIEW + view_name(SMALL): pack_view(images)})
    back = unpack_views(table, SMALL)
    assert back[1] is None
    for given_, got in zip(images, back, strict=True):
        if given_ is not None:
            assert got is not None
            assert np.array_equal(given_, got)
            assert not got.flags.writeable, "it lies in the block"
    [_, last] = unpack_views(table.slice(1), SMALL)
    assert last is not None
    assert np.array_equal(last, images[2]), "a part of a table too"
    audio = np.array([-32768, 0, 32767], np.int16)
    [heard] = unpack_views(pa.table({VIEW + view_name(AUDIO): pack_view([audio])}), AUDIO)
    assert heard is not None
    assert heard.dtype == np.int16
    assert np.array_equal(heard, audio)


def test_only_views_that_a_later_worker_needs_cross() -> None:
    block = pa.table(
        {
            "sample_id": ["a"],
            VIEW + view_name(SMALL): pack_view([np.zeros((1, 32, 32, 3), np.uint8)]),
            VIEW + view_name(LARGE): pack_view([np.zeros((1, 64, 48, 3), np.uint8)]),
        }
    )
    left = drop_views(block, [LARGE])
    assert [n for n in left.column_names if n.startswith("view:")] == [f"view:{view_name(LARGE)}"]
    assert drop_views(left, []).column_names == ["sample_id"]


def test_equal_views_have_one_name() -> None:
    assert view_name(Frames(size=224, fps=1)) == view_name(Frames(size=224, fps=1.0))
    assert view_name(Frames(size=224)) != view_name(Frames(size=224, crop=False))


@given(st.lists(st.none() | st.builds(Failure, st.text(), st.text(), st.text(), st.integers(1, 9)), max_size=5))
def test_failures_cross_as_a_column(failures: list[Failure | None]) -> None:
    column = failure_array(failures)
    assert failures_of(column) == failures


@given(st.lists(st.integers(-9, 9), max_size=9))
def test_a_table_crosses_as_one_cell(values: list[int]) -> None:
    table = pa.table({"a": pa.array(values, pa.int8()), "b": pa.array([str(v) for v in values], pa.string())})
    block = pa.table({"x": nested(table)})
    assert unnested(block, "x") == table
    assert unnested(pa.concat_tables([block, block]).slice(1), "x") == table


def test_a_tar_is_that_of_tarfile(tmp_path: Path) -> None:
    tar = MediaTar(tmp_path / "a.tar")
    about = {"uri": "x", "text": "é"}
    places = [tar.add("0" * 32, "a/x.PNG?y=1", b"abc", about), tar.add("1" * 32, "b", bytes(512), about)]
    tar.close()
    with tarfile.open(tmp_path / "a.tar") as read:
        members = read.getmembers()
        assert [m.name for m in members[::2]] == [name for name, _ in places] == ["0" * 32 + ".png", "1" * 32 + ".bin"]
        assert [m.offset_data for m in members[::2]] == [offset for _, offset in places]
        assert {(m.mtime, m.uid, m.uname, m.mode) for m in members} == {(0, 0, "", 0o644)}
    again = io.BytesIO()
    with (
        tarfile.open(fileobj=again, mode="w", format=tarfile.GNU_FORMAT) as ours,
        tarfile.open(tmp_path / "a.tar") as read,
    ):
        for member in read:
            info = tarfile.TarInfo(member.name)
            info.size = member.size
            ours.addfile(info, read.extractfile(member))
    assert (tmp_path / "a.tar").read_bytes() == again.getvalue()
    assert read_media(Folder(tmp_path), "a.tar", places[1][1], 512) == bytes(512)


def test_media_that_stand_together_are_read_with_one_request(tmp_path: Path) -> None:
    class Counting(Folder):
        def read_range(self, path: str, offset: int, size: int) -> bytes:
            asked.append((path, offset, size))
            return super().read_range(path, offset, size)

    asked: list[tuple[str, int, int]] = []
    data = bytes(range(256)) * 8192
    for name in ("a.tar", "b.tar"):
        (tmp_path / name).write_bytes(data)
    far = GAP_BYTES + 700
    places = [("a.tar", 512, 100), ("a.tar", 1024, 50), ("a.tar", 1024, 50), ("a.tar", far + 1074, 9), ("b.tar", 0, 7)]
    samples = [{"media": m, "offset": at, "bytes": n} for m, at, n in [*places, ("a.tar", 512, 100)]]
    reader = MediaReader(Counting(tmp_path), samples)
    for i, s in enumerate(samples):
        assert reader.read(i) == data[s["offset"] : s["offset"] + s["bytes"]]
    assert asked == [("a.tar", 512, 562), ("a.tar", far + 1074, 9), ("b.tar", 0, 7), ("a.tar", 512, 100)]
    with pytest.raises(OSError, match="ends before"):
        MediaReader(Counting(tmp_path), [{"media": "a.tar", "offset": 0, "bytes": len(data) + 1}]).read(0)


class Fragile(Signal):
    """Gives the length of a sample's text, and falls over as a whole when one is `bad`."""

    name = "fragile"
    gives = (SignalField("length", pa.float32(), "characters", (0, 100)),)

    def __call__(self, batch: Batch) -> list[Result]:
        if "bad" in batch.text:
            raise ValueError("cannot read bad")
        return [{"length": float("nan") if t == "nan" else float(len(t or ""))} for t in batch.text]


class Looking(Signal):
    """Gives the width of a sample's image, and of no sample without one is asked."""

    name = "looking"
    needs = (SMALL,)
    gives = (SignalField("seen", pa.float32(), "pixels", (0, None)),)

    def __call__(self, batch: Batch) -> list[Result]:
        return [{"seen": None if a is None else float(a.shape[2])} for a in batch.views[SMALL]]


class Pointing(Signal):
    """Gives a vector that is as finite as the text says; none for a text that is no number."""

    name = "pointing"
    gives = (Vector("direction", 2),)

    def __call__(self, batch: Batch) -> list[Result]:
        return [{"direction": [1, float(t)] if t and t != "four" else None} for t in batch.text]


class Doubling(Signal):
    """Reads what another signal gives."""

    name = "doubling"
    after = ("length",)
    gives = (SignalField("twice", pa.float32(), "characters", (0, None)),)

    def __call__(self, batch: Batch) -> list[Result]:
        return [{"twice": None if n is None else 2 * n} for n in batch.columns["length"]]


def computed(
    texts: list[str], lost: list[Failure | None] | None = None, signals: Sequence[Signal] = ()
) -> tuple[pa.Table, list[Failure | None]]:
    """What the signals say of some samples."""
    n = len(texts)
    columns: dict[str, Any] = {
        "sample_id": [f"s{i}" for i in range(n)],
        "kind": ["image"] * n,
        "text": texts,
        **{name: pa.nulls(n, pa.float64()) for name in PROBED},
    }
    signals = [*(signals or [Fragile(), Doubling()])]
    if lost is not None:
        signals.append(Looking())
        columns[VIEW + view_name(SMALL)] = pack_view([None if f else np.zeros((1, 2, 3, 3), np.uint8) for f in lost])
        columns[LOST + view_name(SMALL)] = failure_array(lost)
    fragment = GroupFragment(Group(LIGHT, tuple(signals)), Paths.of({}, Cut(), signals), models())
    out = fragment.computed(pa.table(columns), 0)
    return out, failures_of(out.column(FAIL + signals[0].name))


def test_a_batch_with_one_bad_member_loses_that_one_member() -> None:
    out, failures = computed(["four", "bad", "seventh"])
    assert out["length"].to_pylist() == [4, None, 7]
    assert failures == [None, Failure("annotate:fragile", "ValueError", "cannot read bad", 2), None]


@pytest.mark.parametrize(("text", "says"), [("nan", "length is nan"), ("x" * 101, "length is 101, outside 0 to 100")])
def test_a_value_outside_the_declared_range_is_a_failure(text: str, says: str) -> None:
    out, [_, failure] = computed(["four", text])
    assert out["length"].to_pylist() == [4, None]
    assert out["twice"].to_pylist() == [8, None], "no other signal reads it"
    assert failure is not None
    assert failure.error == "RangeError"
    assert says in failure.message


@pytest.mark.parametrize("text", ["nan", "-inf"])
def test_a_vector_that_is_not_finite_is_a_failure_of_its_sample(text: str) -> None:
    out, _ = computed(["four", text, "3"], signals=[Pointing()])
    assert out["direction"].to_pylist() == [None, None, [1, 3]]
    failures = failures_of(out.column(FAIL + "pointing"))
    wanted = Failure("annotate:pointing", "RangeError", "direction holds NaN or an infinity")
    assert failures == [None, wanted, None]


def test_a_sample_that_lost_a_view_fails_in_the_signals_that_need_it_and_in_no_other() -> None:
    broken = Failure("annotate:decode", "MediaError", "cut off")
    out, failures = computed(["four", "also", "seventh"], [None, broken, None])
    assert out["length"].to_pylist() == [4, 4, 7]
    assert failures == [None] * 3
    assert out["seen"].to_pylist() == [3, None, 3]
    assert failures_of(out.column(FAIL + "looking")) == [None, broken, None]
    out, _ = computed(["four"], [broken])
    assert (out["length"].to_pylist(), out["seen"].to_pylist()) == ([4], [None])


def test_a_text_that_the_tokenizer_refuses_takes_no_other_along() -> None:
    texts = ["a cat", "half a pair \ud800", "a dog"]
    good, bad, other = models().encode("text-bpe-8k", "tokenize:caption", texts)
    assert isinstance(good, np.ndarray)
    assert isinstance(other, np.ndarray)
    assert isinstance(bad, Failure)
    assert (bad.stage, bad.error) == ("tokenize:caption", "ValueError")


def test_light_signals_share_a_fragment_and_each_model_has_its_own() -> None:
    names = ("sharpness", "conse", "brightness", "clip")
    signals = registry.order([registry.build(SignalUse(name=name)) for name in names])
    found = [(g.name, [s.name for s in g.signals]) for g in groups_of(signals)]
    assert found == [(LIGHT, ["sharpness", "brightness"]), ("conse", ["conse"]), ("clip", ["clip"])]


def test_a_signal_declares_what_its_worker_takes() -> None:
    for name in registry.names():
        cost = registry.get(name).cost
        assert isinstance(cost, Resources)
        assert cost.cpus > 0
        assert 0 <= cost.gpus <= 1

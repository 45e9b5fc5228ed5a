"""What crosses between workers, and what happens to a piece with a bad member. Operators are functions: no Ray here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.media.views import Audio, Frames
from curate.pipeline import annotate
from curate.pipeline.blocks import drop_views, failure_of, failure_text, pack_views, unpack_views, view_name
from curate.pipeline.decode_stage import GAP_BYTES, MediaReader
from curate.pipeline.models import models
from curate.pipeline.pieces import MOST_TIMED, parts, split
from curate.schema.fields import Resources, SignalField
from curate.schema.recipe import SignalUse
from curate.schema.verdict import Failure
from curate.signals import registry
from curate.signals.base import Batch, Result, Signal
from curate.storage import Folder

SMALL, LARGE, SOUND = Frames(size=32), Frames(size=64, crop=False), Audio(16000)


def test_a_view_crosses_without_a_change_and_without_a_copy() -> None:
    pictures = [np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3), None, np.zeros((1, 8, 4, 3), np.uint8)]
    table = pa.table(pack_views(SMALL, pictures))
    back = unpack_views(table, SMALL)
    assert back[1] is None
    for given_, got in zip(pictures, back, strict=True):
        if given_ is not None:
            assert got is not None
            assert np.array_equal(given_, got)
            assert not got.flags.writeable, "it lies in the block"
    sound = np.array([-32768, 0, 32767], np.int16)
    [heard] = unpack_views(pa.table(pack_views(SOUND, [sound])), SOUND)
    assert heard is not None
    assert heard.dtype == np.int16
    assert np.array_equal(heard, sound)


def test_only_views_that_a_later_worker_needs_cross() -> None:
    block = pa.table(
        {"sample_id": ["a"]}
        | pack_views(SMALL, [np.zeros((1, 32, 32, 3), np.uint8)])
        | pack_views(LARGE, [np.zeros((1, 64, 48, 3), np.uint8)])
    )
    left = drop_views(block, [LARGE])
    assert [n for n in left.column_names if n.startswith("view:")] == [f"view:{view_name(LARGE)}"]
    assert drop_views(left, []).column_names == ["sample_id"]


def test_equal_views_have_one_name() -> None:
    assert view_name(Frames(size=224, fps=1)) == view_name(Frames(size=224, fps=1.0))
    assert view_name(Frames(size=224)) != view_name(Frames(size=224, crop=False))


@given(st.builds(Failure, st.text(), st.text(), st.text(), st.integers(1, 9)))
def test_a_failure_crosses_as_text(failure: Failure) -> None:
    assert failure_of(failure_text(failure)) == failure


@given(st.lists(st.text(max_size=3), max_size=40), st.integers(1, 9))
def test_pieces_cover_the_input_in_order(rows: list[str], size: int) -> None:
    pieces = split(rows, size)
    assert [i for p in pieces for i in range(p.start, p.start + p.rows)] == list(range(len(rows)))
    assert all(0 < p.rows <= size for p in pieces)
    assert len({p.number for p in pieces}) == len(pieces)


@given(st.lists(st.integers(0, 9), max_size=60), st.integers(1, 9), st.integers(0, 20))
def test_a_part_ends_at_so_many_rows_or_so_much_cost(costs: list[int], size: int, most: int) -> None:
    found = list(parts(costs, size, most))
    assert [i for part in found for i in part] == list(range(len(costs)))
    assert all(len(part) == 1 or (len(part) <= size and sum(costs[i] for i in part) <= most) for part in found)
    assert list(parts(costs[:-1], size, most))[:-1] == found[: max(0, len(list(parts(costs[:-1], size, most))) - 1)]


def test_clips_make_smaller_pieces_than_images() -> None:
    rows = [str(i) for i in range(1000)]
    assert [p.rows for p in split(rows, 512, costs=[0] * 1000, most=MOST_TIMED)] == [512, 488]
    assert {p.rows for p in split(rows, 512, costs=[1] * 1000, most=MOST_TIMED)} == {MOST_TIMED, 1000 % MOST_TIMED}
    assert [p.rows for p in split(rows[:9], 4, costs=[1] * 9, most=MOST_TIMED)] == [4, 4, 1], "an explicit size holds"
    assert [p.number for p in split(rows[:9], 4, prefix="00007")] == ["00007-000", "00007-001", "00007-002"]


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


def block_of(texts: list[str], decode: list[str | None] | None = None) -> pa.Table:
    n = len(texts)
    item = json.dumps({"missing": ["fragile"], "files": {}})
    columns: dict[str, Any] = {
        "sample_id": [f"s{i}" for i in range(n)],
        "kind": ["image"] * n,
        "text": texts,
        **{name: pa.nulls(n, pa.float64()) for name in annotate.CARRIED},
        annotate.DECODE: pa.array(decode if decode is not None else [None] * n, pa.string()),
        "item": [item] * n,
    }
    return pa.table(columns)


def test_a_batch_with_one_bad_member_loses_that_one_member() -> None:
    out = annotate.compute(block_of(["four", "bad", "seventh"]), [Fragile()])
    assert out["length"].to_pylist() == [4, None, 7]
    failures = [failure_of(t) for t in out["fail:fragile"].to_pylist()]
    assert [f is None for f in failures] == [True, False, True]
    assert failures[1] == Failure("annotate:fragile", "ValueError", "cannot read bad", 2)


@pytest.mark.parametrize(("text", "says"), [("nan", "length is nan"), ("x" * 101, "length is 101, outside 0 to 100")])
def test_a_value_outside_the_declared_range_is_a_failure(text: str, says: str) -> None:
    out = annotate.compute(block_of(["four", text]), [Fragile()])
    assert out["length"].to_pylist() == [4, None]
    failure = failure_of(out["fail:fragile"].to_pylist()[1])
    assert failure is not None
    assert failure.error == "RangeError"
    assert says in failure.message


def test_a_sample_that_could_not_be_decoded_is_shown_to_no_signal() -> None:
    broken = failure_text(Failure("annotate:decode", "MediaError", "cut off"))
    out = annotate.compute(block_of(["four", "bad", "seventh"], [None, broken, None]), [Fragile()])
    assert out["length"].to_pylist() == [4, None, 7]
    assert out["fail:fragile"].to_pylist() == [None, None, None]


def test_a_text_that_the_tokenizer_refuses_takes_no_other_along() -> None:
    texts = ["a cat", "half a pair \ud800", "a dog"]
    good, bad, other = models().encode("text-bpe-8k", "tokenize:caption", texts)
    assert isinstance(good, np.ndarray)
    assert isinstance(other, np.ndarray)
    assert isinstance(bad, Failure)
    assert (bad.stage, bad.error) == ("tokenize:caption", "ValueError")


def test_models_on_cpus_share_a_worker_and_one_on_gpus_has_its_own() -> None:
    names = ("sharpness", "conse", "voice_activity", "asr", "clip")
    signals = registry.order([registry.build(SignalUse(name=name)) for name in names])
    first, *rest = annotate.groups(signals, gpus=0)
    assert [s.name for s in first.signals] == ["sharpness"]
    assert [[s.name for s in g.signals] for g in rest] == [["conse", "voice_activity", "asr", "clip"]]
    first, *rest = annotate.groups(signals, gpus=1)
    assert [g.gpus for g in rest] == [0, 0.25]
    assert [s.name for s in rest[-1].signals] == ["clip"]


def test_a_signal_declares_what_its_worker_takes() -> None:
    for name in registry.names():
        cost = registry.get(name)().cost
        assert isinstance(cost, Resources)
        assert cost.cpus > 0
        assert 0 <= cost.gpus <= 1

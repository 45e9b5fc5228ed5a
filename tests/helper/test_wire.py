"""What travels between a worker and its helper process arrives as it was; what is no message is refused."""

from __future__ import annotations

import json
import math
import os
import socket
import struct
import threading
from contextlib import suppress
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from curate.helper import wire
from curate.helper.errors import WireError

ARRAYS = st.sampled_from(sorted(wire.DTYPES)).flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
)
TABLES = st.lists(
    st.tuples(st.integers(-(2**63), 2**63 - 1), st.none() | st.text(), st.lists(st.floats(width=32)))
).map(
    lambda rows: pa.table(
        {
            "a": pa.array([row[0] for row in rows], pa.int64()),
            "b": pa.array([row[1] for row in rows], pa.string()),
            "c": pa.array([row[2] for row in rows], pa.list_(pa.float32())),
        }
    )
)
TEXT = st.text(st.characters(codec=None))  # lone surrogates too: a file's name may hold them
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary() | ARRAYS | TABLES
KEYS = TEXT | st.just("$")
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))


def travelled(value: object) -> Any:
    here, there = socket.socketpair()
    with here, there:
        sender = threading.Thread(target=wire.send, args=(here, wire.encode(value)))
        sender.start()
        got = wire.receive(there)
        sender.join()
    return got


def heard(raw: bytes) -> Any:
    """What a receiver makes of raw bytes, after which the other side is gone."""
    here, there = socket.socketpair()

    def say() -> None:
        with here, suppress(BrokenPipeError):
            here.sendall(raw)

    sender = threading.Thread(target=say)
    sender.start()
    try:
        return wire.receive(there)
    finally:
        there.close()
        sender.join()


def message(table: object, tree: object, rest: bytes = b"") -> bytes:
    first, second = json.dumps(table).encode(), json.dumps(tree).encode()
    return struct.pack("<III", len(first), len(second), 0) + first + second + rest


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, pa.Table):
        return a.schema == b.schema and a.to_pylist().__repr__() == b.to_pylist().__repr__()
    if isinstance(a, list):
        return type(b) is list and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, float):
        return type(b) is float and (struct.pack("d", a) == struct.pack("d", b) or (math.isnan(a) and math.isnan(b)))
    return type(a) is type(b) and bool(a == b)


@settings(max_examples=60, deadline=None)
@given(VALUES)
@example({"$": {"$": 0}})
@example({"$": 0, "a": b"x"})
@example([-0.0, math.inf, math.nan, b"", np.zeros((0, 3), "<f2"), np.array(True)])
def test_a_value_arrives_as_it_was(value: object) -> None:
    assert same(value, travelled(value))


def test_tuples_arrive_as_lists_and_strides_do_not_matter() -> None:
    array = np.arange(24, dtype=np.uint16).reshape(4, 6)
    assert travelled((1, (2.5, "x"))) == [1, [2.5, "x"]]
    assert travelled(array[::2, ::-1]).tolist() == array[::2, ::-1].tolist()
    assert travelled(array.astype(">u2")).tolist() == array.tolist()
    assert travelled(np.asfortranarray(array)).tolist() == array.tolist()


def test_large_buffers_and_many_small_ones() -> None:
    big = np.random.default_rng(0).bytes(40_000_001)
    assert travelled([big, np.frombuffer(big, np.uint8)[1:]])[0] == big
    many = [bytes([i % 256]) * (i % 7) for i in range(3000)]
    assert travelled(many) == many


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        {1: "a"},
        object(),
        np.float32(1),
        np.array(["a"]),
        np.array([None]),
        np.zeros(2, "M8[s]"),
        np.zeros(2, np.complex64),
        [[1, {"a": {2}}]],
        pa.table({"a": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16], pa.binary(16)))}),
    ],
)
def test_what_cannot_travel_is_refused_where_it_is_sent(value: object) -> None:
    with pytest.raises(WireError):
        wire.encode(value)


def test_too_many_plain_values_are_refused() -> None:
    with pytest.raises(WireError, match="send arrays or tables"):
        wire.encode(["x" * 1000] * 20_000)
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(WireError, match="nested too deep"):
        wire.encode(deep)


def extended_table() -> bytes:
    """A table whose schema would have a reader build an extension type."""
    sink = pa.BufferOutputStream()
    field = pa.field("a", pa.binary(), metadata={"ARROW:extension:name": "ray.data.arrow_pickled_object"})
    with pa.ipc.new_stream(sink, pa.schema([field])) as writer:
        writer.write_table(pa.table([pa.array([b"x"], pa.binary())], pa.schema([field])))
    return bytes(sink.getvalue())


def bent_table(old: bytes, new: bytes) -> bytes:
    """A table of one text, 77 letters long, with bytes of it exchanged."""
    before, found, after = bytes(wire.encode(pa.table({"a": ["x" * 77]}))[1]).rpartition(old)
    assert found
    return before + new + after


OFFSETS = bent_table(struct.pack("<ii", 0, 77), struct.pack("<ii", 0, 1 << 30))
NO_UTF8 = bent_table(b"x" * 77, b"\xff" * 77)

LIES = {
    "a header longer than the protocol's": struct.pack("<III", 2**32 - 1, 2**32 - 1, 0),
    "buffers in memory that is not shared": struct.pack("<III", 2, 1, 1) + b"[]0",
    "no JSON": struct.pack("<III", 2, 2, 0) + b"[]{{",
    "no JSON for buffers": struct.pack("<III", 2, 2, 0) + b"{{[]",
    "no text": struct.pack("<III", 2, 2, 0) + b"[]\xff\xfe",
    "JSON nested deep": struct.pack("<III", 2, 400_000, 0) + b"[]" + b"[" * 400_000,
    "a number with 100,000 digits": struct.pack("<III", 2, 100_000, 0) + b"[]" + b"9" * 100_000,
    "buffers that are no list": message({"a": 1}, None),
    "a negative length": message([["bytes", -1]], None),
    "a length that is true": message([["array", "|u1", [True]]], None, b"x"),
    "a length in words": message([["bytes", "many"]], None),
    "a length past all memory": message([["array", "<f8", [1 << 30, 1 << 30, 1 << 30]]], None),
    "more dimensions than numpy has": message([["array", "|u1", [1] * 100]], None, b"x"),
    "zero bytes of a shape that cannot be": message([["array", "|u1", [0, 1 << 62, 1 << 62]]], {"$": 0}),
    "an array of objects": message([["array", "|O", [1]]], {"$": 0}, b"12345678"),
    "an array of records": message([["array", "<f4,<f4", [1]]], {"$": 0}, b"12345678"),
    "a buffer of no kind": message([["pickle", 1]], None, b"x"),
    "a buffer that is not there": message([["bytes", 1]], {"$": 1}, b"x"),
    "a buffer before the first": message([["bytes", 1]], {"$": -1}, b"x"),
    "a buffer named true": message([["bytes", 1], ["bytes", 1]], {"$": True}, b"xy"),
    "a buffer named by a word": message([], {"$": "0"}),
    "two values escaped": message([], {"$": [1, 2]}),
    "a table of no bytes": message([["table", 0]], {"$": 0}),
    "a table that is none": message([["table", 8]], {"$": 0}, b"\xff" * 8),
    "a table cut short": message([["table", 100]], {"$": 0}, OFFSETS[:100]),
    "a table with offsets out of its text": message([["table", len(OFFSETS)]], {"$": 0}, OFFSETS),
    "a table with text that is no UTF-8": message([["table", len(NO_UTF8)]], {"$": 0}, NO_UTF8),
    "a table with an extension type": message([["table", len(extended_table())]], {"$": 0}, extended_table()),
}


@pytest.mark.parametrize("raw", LIES.values(), ids=LIES.keys())
def test_a_message_that_lies_is_refused(raw: bytes) -> None:
    with pytest.raises(WireError):
        heard(raw)


@pytest.mark.parametrize(
    "raw", [b"", b"\x02", message([["bytes", 100]], {"$": 0}, b"short"), message([["array", "<f8", [1 << 40]]], 1)]
)
def test_a_message_that_ends_early_is_an_end(raw: bytes) -> None:
    with pytest.raises((EOFError, MemoryError)):
        heard(raw)


@pytest.mark.parametrize("size", [1000, 100_000, 80 << 20])
def test_buffers_cross_in_shared_memory(size: int) -> None:
    memory = wire.shared_memory()
    data = np.random.default_rng(1).bytes(size)
    here, there = socket.socketpair()
    with here, there:
        for value in ([data, np.frombuffer(data, np.uint8)], [b"x" * 50_000, np.zeros((3, 0))]):
            wire.send(here, wire.encode(value), memory=memory)
            assert same(wire.receive(there, memory=memory), value)
    assert os.fstat(memory).st_size <= 64 << 20
    os.close(memory)


def test_memory_that_is_shorter_than_said_is_refused() -> None:
    memory = wire.shared_memory()
    here, there = socket.socketpair()
    with here, there:
        wire.send(here, wire.encode([bytes(100_000)]), memory=memory)
        os.ftruncate(memory, 99_999)
        with pytest.raises(WireError, match="longer than the memory"):
            wire.receive(there, memory=memory)
    os.close(memory)


def test_memory_is_asked_for_before_it_is_taken() -> None:
    asked: list[int] = []

    def check_size(size: int) -> None:
        asked.append(size)
        raise WireError("too much")

    here, there = socket.socketpair()
    with here, there:
        here.sendall(message([["bytes", 1 << 50], ["array", "<u4", [3, 1000]]], None))
        with pytest.raises(WireError, match="too much"):
            wire.receive(there, check_size=check_size)
    assert asked == [(1 << 50) + 12_000]

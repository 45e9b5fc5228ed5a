"""Messages between a worker and its helper process: a JSON tree, with bytes, arrays and tables as raw buffers beside.

A message is three parts after 12 bytes (three little-endian uint32: the lengths of the first two parts, at most
`HEADER_BYTES` together, and where the third lies, 0 or 1):

1. JSON, what the buffers are, in order: `["bytes", n]`, `["array", dtype, [shape]]` or `["table", n]`;
2. JSON, the value: `{"$": i}` stands for buffer i, and a dict whose only key is "$" is written `{"$": [value]}`;
3. the buffers, back to back. Lengths are 64 bits wide. They follow on the socket (0), or lie in the memory that both
   sides share for this direction (1): a file without a name, which ends with the processes that hold it. Each side
   speaks only when it is asked, so what lies there is read before the next message is written. The receiver copies it
   out before it looks at it: nothing that the other side does to the memory later is seen.

Values are None, bool, int, float, str, bytes, lists and tuples (a tuple arrives as a list), dicts with str keys, numpy
arrays of numbers and booleans, and pyarrow tables without extension types. There is no pickle: either side only ever
builds these types, however the bytes lie.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from curate.helper.errors import WireError

if TYPE_CHECKING:
    import pyarrow as pa

    Buffer = bytes | memoryview

HEADER_BYTES = 16 << 20
"""Most bytes of JSON in a message. What is larger belongs in arrays and tables; JSON grows 20 times when it is read."""

DTYPES = frozenset(("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8"))
"""Arrays that may travel, as numpy spells them. Others than little-endian ones are turned before they are sent."""

SHARED_BYTES = 256 << 20
"""Most bytes of buffers that go through shared memory, where they stand beside the receiver's copy. More go through the
socket, piece by piece."""

_SMALL = 32 << 10
"""Fewer bytes go through the socket with their header."""

_KEPT_BYTES = 64 << 20
"""What shared memory keeps for the next message: to map and to zero it anew costs as much as to copy it."""

_PREFIX = struct.Struct("<III")
_MAX_DIMS = 16
_AT_ONCE = 64
"""Buffers handed to the kernel at once; it takes 1,024."""
_EXTENSION = b"ARROW:extension:"


def encode(value: object) -> list[Buffer]:
    """The parts of a message, to be sent one after another. Raises WireError for a value that cannot travel."""
    kinds: list[list[object]] = []
    buffers: list[Buffer] = []
    try:
        tree = json.dumps(_plain(value, kinds, buffers), separators=(",", ":")).encode()
    except RecursionError as error:
        raise WireError("a value is nested too deep to be sent") from error
    table = json.dumps(kinds, separators=(",", ":")).encode()
    if len(table) + len(tree) > HEADER_BYTES:
        raise WireError(f"more than {HEADER_BYTES:,} bytes of plain values in one message: send arrays or tables")
    return [_PREFIX.pack(len(table), len(tree), 0) + table + tree, *buffers]


def shared_memory() -> int:
    """A file descriptor of memory for the buffers of one direction; empty, without a name, not to be sealed."""
    return os.memfd_create("curate", os.MFD_CLOEXEC)


def send(
    sock: socket.socket, parts: Sequence[Buffer], wait: Callable[[], None] | None = None, memory: int | None = None
) -> None:
    """Send what `encode` made.

    Args:
        wait: for a socket that does not block: returns when it can be written to.
        memory: of `shared_memory`, that the other side reads; None: all goes through the socket.

    Raises:
        OSError: the other side is gone.
    """
    head, *buffers = parts
    if memory is not None and _SMALL <= sum(map(len, buffers)) <= SHARED_BYTES and _shared(memory, buffers):
        table_bytes, tree_bytes, _ = _PREFIX.unpack_from(head)
        head, buffers = _PREFIX.pack(table_bytes, tree_bytes, 1) + head[_PREFIX.size :], []

    def write(views: list[memoryview]) -> int:
        while True:
            try:
                return sock.sendmsg(views)
            except BlockingIOError:
                if wait is None:
                    raise
                wait()

    _write_all([head, *buffers], write)


def _shared(memory: int, buffers: Sequence[Buffer]) -> bool:
    """True if the buffers lie in shared memory now; there may be none left."""
    at = 0

    def write(views: list[memoryview]) -> int:
        nonlocal at
        written = os.pwritev(memory, views, at)
        at += written
        return written

    try:
        _write_all(buffers, write)
    except OSError:
        return False
    return True


def _write_all(buffers: Sequence[Buffer], write: Callable[[list[memoryview]], int]) -> None:
    """Hand all buffers to `write`, which tells how many bytes it took."""
    waiting = [view for buffer in buffers if len(view := memoryview(buffer))]
    begin = 0
    while begin < len(waiting):
        taken = write(waiting[begin : begin + _AT_ONCE])
        while begin < len(waiting) and taken >= len(waiting[begin]):
            taken -= len(waiting[begin])
            begin += 1
        if taken:
            waiting[begin] = waiting[begin][taken:]


def receive(
    sock: socket.socket,
    wait: Callable[[], None] | None = None,
    check_size: Callable[[int], None] | None = None,
    memory: int | None = None,
) -> Any:
    """The next message's value.

    Args:
        wait: for a socket that does not block: returns when it can be read.
        check_size: called with the bytes that all buffers take, before memory is taken for them; may raise.
        memory: of `shared_memory`, that the other side writes to.

    Raises:
        EOFError: the other side is gone.
        WireError: bytes that are no message. The socket is of no use afterwards.
    """

    def fill(view: memoryview) -> None:
        while len(view):
            try:
                got = sock.recv_into(view)
            except BlockingIOError:
                if wait is None:
                    raise
                wait()
                continue
            except ConnectionError as error:
                raise EOFError from error
            if not got:
                raise EOFError
            view = view[got:]

    prefix = bytearray(_PREFIX.size)
    fill(memoryview(prefix))
    table_bytes, tree_bytes, place = _PREFIX.unpack(prefix)
    if table_bytes + tree_bytes > HEADER_BYTES:
        raise WireError("a header longer than the protocol has")
    if place > (memory is not None):
        raise WireError("buffers in a place that is none")
    header = bytearray(table_bytes + tree_bytes)
    fill(memoryview(header))
    kinds = _kinds(header[:table_bytes])
    total = sum(size for size, _, _ in kinds)
    if check_size is not None:
        check_size(total)
    take = fill if not place or memory is None else _reading(memory)
    buffers = [_filled(size, dtype, shape, take) for size, dtype, shape in kinds]
    if place and memory is not None and total > _KEPT_BYTES:
        os.ftruncate(memory, _KEPT_BYTES)
    return _loads(header[table_bytes:], lambda found: _buffer_or_dict(found, buffers))


def _reading(memory: int) -> Callable[[memoryview], None]:
    """What fills views from shared memory, one after the other. It copies: a mapping could change under its reader, or
    end (SIGBUS)."""
    at = 0

    def fill(view: memoryview) -> None:
        nonlocal at
        while len(view):
            got = os.preadv(memory, [view], at)
            if not got:
                raise WireError("buffers longer than the memory that they are said to lie in")
            at += got
            view = view[got:]

    return fill


def _plain(value: object, kinds: list[list[object]], buffers: list[Buffer]) -> object:
    """The value as JSON has it; its buffers are added to the lists."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, kinds, buffers) for item in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise WireError(f"a dict with a key of type {type(key).__name__} cannot be sent")
        out = {key: _plain(item, kinds, buffers) for key, item in value.items()}
        return {"$": [out["$"]]} if out.keys() == {"$"} else out
    if isinstance(value, bytes):
        kinds.append(["bytes", len(value)])
        buffers.append(value)
    elif isinstance(value, np.ndarray):
        raw = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
        if raw.dtype.str not in DTYPES:
            raise WireError(f"an array of {value.dtype} cannot be sent")
        kinds.append(["array", raw.dtype.str, list(value.shape)])
        buffers.append(raw.reshape(-1).view(np.uint8).data)
    elif _is_table(value):
        stream = _table_bytes(value)
        kinds.append(["table", len(stream)])
        buffers.append(stream)
    else:
        raise WireError(f"a {type(value).__module__}.{type(value).__qualname__} cannot be sent")
    return {"$": len(buffers) - 1}


def _loads(text: bytearray, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    try:
        return json.loads(text, object_hook=hook)
    except (ValueError, RecursionError) as error:
        raise WireError("a header that is not JSON") from error


def _kinds(text: bytearray) -> list[tuple[int, str, tuple[int, ...]]]:
    """Size in bytes, what it is (a dtype, `bytes` or `table`) and shape of each buffer."""
    table = _loads(text)
    if not isinstance(table, list):
        raise WireError("a header without a list of buffers")
    out: list[tuple[int, str, tuple[int, ...]]] = []
    for row in table:
        match row:
            case ["bytes" | "table" as kind, int(size)] if size >= 0:
                out.append((size, kind, ()))
            case ["array", str(dtype), [*shape]] if (
                dtype in DTYPES and len(shape) <= _MAX_DIMS and all(type(n) is int and n >= 0 for n in shape)
            ):
                out.append((prod(shape) * np.dtype(dtype).itemsize, dtype, tuple(shape)))
            case _:
                raise WireError("a buffer that is neither bytes nor an array nor a table")
    if sum(size for size, _, _ in out) >= 1 << 63:
        raise WireError("buffers longer than there is memory")
    return out


def _filled(
    size: int, kind: str, shape: tuple[int, ...], fill: Callable[[memoryview], None]
) -> bytes | NDArray[Any] | pa.Table:
    if kind in DTYPES:
        try:
            array: NDArray[Any] = np.empty(shape, kind)
        except ValueError as error:
            raise WireError("an array of a shape that cannot be") from error
        fill(array.reshape(-1).view(np.uint8).data)
        return array
    data = _filled_bytes(size, fill)
    return data if kind == "bytes" else _table(data)


def _filled_bytes(size: int, fill: Callable[[memoryview], None]) -> bytes:
    """Bytes read in place: `bytes(bytearray)` would hold a large file twice."""
    if not size:
        return b""
    out = BytesIO()
    out.seek(size - 1)
    out.write(b"\0")
    with out.getbuffer() as view:
        fill(view)
    return out.getvalue()  # no copy: BytesIO hands out the buffer that it wrote to


def _buffer_or_dict(found: dict[str, Any], buffers: list[Any]) -> Any:
    if found.keys() != {"$"}:
        return found
    match found["$"]:
        case [value]:
            return {"$": value}
        case int(index) if type(index) is int and 0 <= index < len(buffers):
            return buffers[index]
    raise WireError("a value that names a buffer which is not there")


def _is_table(value: object) -> bool:
    arrow = sys.modules.get("pyarrow")  # who has a table has imported it; nobody else needs to
    return arrow is not None and isinstance(value, arrow.Table)


def _table_bytes(table: Any) -> memoryview:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    stream = sink.getvalue()
    _check_schema(stream)
    return memoryview(stream)


def _table(data: bytes) -> pa.Table:
    import pyarrow as pa

    stream = pa.py_buffer(data)
    try:
        _check_schema(stream)
        table = pa.ipc.open_stream(stream).read_all()
        table.validate(full=True)
    except (pa.ArrowException, EOFError, OSError, ValueError) as error:
        raise WireError("a table that is damaged") from error
    return table


def _check_schema(stream: pa.Buffer) -> None:
    """Refuse extension types: some (Ray's among them) unpickle their parameters when a schema is read."""
    import pyarrow as pa

    message = pa.ipc.read_message(stream)
    if message.type != "schema" or _EXTENSION in message.metadata.to_pybytes():
        raise WireError("a table with extension types cannot be sent")

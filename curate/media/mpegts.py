"""True if packets of a transport stream are really lost where its continuity counters do not go on.

Demuxers call the packet before such a place corrupt. But counters begin anew where segments were joined, too
(ISO/IEC 13818-1, 2.4.3.3), and nothing is lost there: the elementary packet before the place is complete and another
begins after it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SYNC = 0x47
_NULL = 0x1FFF
_SIZES = (188, 192, 204)
"""Bytes of a packet: bare, with a time code before it (M2TS), with error correction after it (DVB)."""


def losses(data: bytes, pid: int) -> NDArray[np.int64] | None:
    """Byte offsets at which packets of an elementary stream are missing or damaged; None where packets do not lie in
    a regular grid, so that nothing can be said.

    Args:
        data: the whole file.
        pid: of the stream.
    """
    grid = _grid(data)
    if grid is None:
        return None
    packets, begin, size = grid
    intact = packets[:, 0] == _SYNC
    own = intact & (_pids(packets) == pid) & (packets[:, 3] & 0x10 > 0)
    rows = np.flatnonzero(own)
    some = packets[rows]
    control = some[:, 3]
    counter = (control & 0x0F).astype(np.int64)
    field_length = np.where(control & 0x20, some[:, 4], 0).astype(np.int64)
    flags = np.where(field_length > 0, some[:, 5], 0)
    # 0x80 in the adaptation field: the break is announced (2.4.3.5); the same packet may be sent twice
    steps = (counter[1:] - counter[:-1]) % 16
    announced = flags[1:] & 0x80 > 0
    twice = (steps == 0) & (some[1:, 4:] == some[:-1, 4:]).all(axis=1)
    breaks = (steps != 1) & ~announced & ~twice
    # an elementary packet ends with stuffing, unless it fills its last packet by chance
    ends = field_length > _field_bytes(flags)
    begins = some[:, 1] & 0x40 > 0
    lossy = breaks & ~(ends[:-1] & begins[1:])
    marked = some[:, 1] & 0x80 > 0
    at = np.concatenate([rows[1:][lossy], rows[marked], np.flatnonzero(~intact)])
    return np.sort(at) * size + begin


def without_repeats(data: bytes) -> bytes:
    """A transport stream without packets that are sent twice, as 2.4.3.3 allows and FFmpeg does not know; the data
    itself where there are none."""
    grid = _grid(data) if _may_be_one(data) else None
    if grid is None:
        return data
    packets, begin, size = grid
    pid = _pids(packets)
    order = np.argsort(pid, kind="stable")
    before, after = order[:-1], order[1:]
    payload = packets[after, 3] & 0x10 > 0
    same = (pid[before] == pid[after]) & (packets[before, 3] == packets[after, 3]) & payload & (pid[after] != _NULL)
    at = np.flatnonzero(same)
    at = at[(packets[before[at], 4:] == packets[after[at], 4:]).all(axis=1)]
    if not len(at):
        return data
    kept = np.ones(len(packets), bool)
    kept[after[at]] = False
    whole = np.frombuffer(data, np.uint8)[begin : begin + len(packets) * size].reshape(-1, size)
    return data[:begin] + whole[kept].tobytes() + data[begin + len(packets) * size :]


def new_programs(data: bytes) -> list[int]:
    """Byte offsets at which other streams begin: a program association table (2.4.4.3) that lists other program maps,
    or one before a map (2.4.4.8) that names no stream of its last version. Demuxers do not look for streams that come
    up late."""
    grid = _grid(data) if _may_be_one(data) else None
    if grid is None:
        return []
    packets, begin, size = grid
    pid = _pids(packets)
    starts = packets[:, 1] & 0x40 > 0
    known: dict[int, frozenset[int]] = {}
    listed: set[int] = set()
    found: list[int] = []
    table = 0
    tables = np.flatnonzero(starts & ((pid == 0) | np.isin(pid, _map_pids(packets[starts & (pid == 0)]))))
    for row in tables.tolist():
        section = _section(packets[row])
        if pid[row] == 0:
            table, listed = row, set(_map_pids(packets[row : row + 1]))
        elif section[:1] == b"\x02" and (streams := _streams(section)):
            own = int(pid[row])
            others = known.get(own)
            if (others is not None and not streams & others) or (
                others is None and known and not listed & known.keys()
            ):
                found.append(table * size + begin - (4 if size == 192 else 0))
                known = {}
            known[own] = streams
    return found


def _section(packet: NDArray[np.uint8]) -> bytes:
    """The table that begins in a packet, as far as the packet holds it."""
    raw = packet.tobytes()
    at = 4 + (1 + raw[4] if raw[3] & 0x20 else 0)
    return raw[at + 1 + raw[at] :] if at < len(raw) else b""


def _map_pids(tables: NDArray[np.uint8]) -> list[int]:
    out = set()
    for packet in tables:
        section = _section(packet)
        length = (section[1] & 0x0F) << 8 | section[2] if len(section) > 2 else 0
        for at in range(8, min(3 + length - 4, len(section) - 3), 4):
            if section[at : at + 2] != b"\0\0":
                out.add((section[at + 2] & 0x1F) << 8 | section[at + 3])
    return sorted(out)


def _streams(section: bytes) -> frozenset[int]:
    """PIDs of the streams of a program map."""
    if len(section) < 12:
        return frozenset()
    end = min(3 + ((section[1] & 0x0F) << 8 | section[2]) - 4, len(section))
    at = 12 + ((section[10] & 0x0F) << 8 | section[11])
    out = set()
    while at + 5 <= end:
        out.add((section[at + 1] & 0x1F) << 8 | section[at + 2])
        at += 5 + ((section[at + 3] & 0x0F) << 8 | section[at + 4])
    return frozenset(out)


def _field_bytes(flags: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Bytes of an adaptation field that its flags account for: itself, PCR, OPCR, splice countdown (2.4.3.4). Private
    data and extensions are of any length and count as more than there can be."""
    out = np.ones(len(flags), np.int64)
    for bit, length in ((0x10, 6), (0x08, 6), (0x04, 1), (0x03, 255)):
        out += np.where(flags & bit, length, 0)
    return out


def _may_be_one(data: bytes) -> bool:
    """False for most files that are no transport stream, without a look at all of them."""
    return _SYNC in (data[:1] + data[4:5])


def _pids(packets: NDArray[np.uint8]) -> NDArray[np.int64]:
    return (packets[:, 1] & 0x1F).astype(np.int64) << 8 | packets[:, 2]


def _grid(data: bytes) -> tuple[NDArray[np.uint8], int, int] | None:
    """(packets, offset of the first, distance) where nearly all of the file's packets begin with a sync byte."""
    raw = np.frombuffer(data, np.uint8)
    for size in _SIZES:
        begin = 4 if size == 192 else 0
        count = (len(raw) - begin) // size
        if not count:
            continue
        packets = raw[begin : begin + count * size].reshape(count, size)[:, :188]
        if (packets[:, 0] == _SYNC).mean() > 0.9:
            return packets, begin, size
    return None

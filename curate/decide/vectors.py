"""Embeddings on disk: as many as there are samples, so they are read by rows and never all at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.schema.errors import CurateError

_ROWS = 2048  # rows of a Parquet file that are read at once


class Vectors(Protocol):
    """What near duplicates need of vectors: a numpy array `(n, d)` has it, and so has a `VectorFile`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """`(n, d)`."""

    def __getitem__(self, rows: Any, /) -> Any:
        """Float `(m, d)`: the rows of a slice or of an int64 array, in its order."""


class VectorFile:
    """Float32 `(n, d)` in a file, rows written and read in any order.

    Not a memory map: pages of a map count as memory of the process for as long as the map is there.
    """

    def __init__(self, descriptor: int, rows: int, dim: int) -> None:
        self.shape = (rows, dim)
        self._file = descriptor
        self._stride = 4 * dim
        os.ftruncate(descriptor, rows * self._stride)

    def __setitem__(self, rows: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Write `(m, d)` to the rows of an int64 array `(m,)`."""
        flat = np.ascontiguousarray(vectors, np.float32).reshape(-1).data.cast("B")
        for i, row in enumerate(rows.tolist()):
            _whole(
                os.pwrite(self._file, flat[i * self._stride : (i + 1) * self._stride], row * self._stride), self._stride
            )

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """The rows of a slice without a step, or of an int64 array `(m,)`: float32 `(m, d)`."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.shape[0])
            runs = [(start, max(0, stop - start))]
        else:
            first = np.flatnonzero(np.diff(rows, prepend=-2) != 1)  # neighbours are read in one go
            runs = list(zip(rows[first].tolist(), np.diff(first, append=len(rows)).tolist(), strict=True))
        out = np.empty((sum(count for _, count in runs), self.shape[1]), np.float32)
        flat, at = out.reshape(-1).data.cast("B"), 0
        for row, count in runs:
            size = count * self._stride
            _whole(os.preadv(self._file, [flat[at : at + size]], row * self._stride), size)
            at += size
        return out


def _whole(done: int, size: int) -> None:
    if done != size:
        raise OSError(f"{done} of {size} bytes of an embedding's temporary file read or written")


@contextmanager
def vectors_of(ids: pa.StringArray, files: Sequence[str], column: str, dim: int, stale: str) -> Iterator[VectorFile]:
    """The embeddings of samples in a temporary file of 4 bytes a number (`TMPDIR` moves it), in the order of `ids`.

    Args:
        ids: sorted and unique; each has a vector in one of the files.
        files: Parquet files with `sample_id` and the embedding; rows of other samples, and nulls, are passed over.
        column: the embedding.
        dim: its length.
        stale: hint for vectors of another length.

    Raises:
        CurateError: a vector is not `dim` long.
    """
    known = _bytes(ids)
    with TemporaryDirectory(prefix="curate-vectors-") as scratch, (Path(scratch) / "vectors.f32").open("w+b") as file:
        vectors = VectorFile(file.fileno(), len(ids), dim)
        for path in files:
            with pq.ParquetFile(path) as parquet:
                for batch in parquet.iter_batches(_ROWS, columns=["sample_id", column]):
                    present = batch.filter(pc.is_valid(batch[column]))
                    names = _bytes(present["sample_id"])
                    rows = np.minimum(np.searchsorted(known, names), len(known) - 1)
                    wanted = known[rows] == names
                    flat = present[column].filter(pa.array(wanted)).flatten()
                    if len(flat) != dim * wanted.sum():
                        raise CurateError(f"{column} holds vectors that are not {dim} long", stale)
                    vectors[rows[wanted]] = flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        yield vectors


def _bytes(ids: pa.StringArray) -> NDArray[np.bytes_]:
    """Ids side by side, to be searched: their bytes, which sort as the ids do."""
    binary = ids.cast(pa.binary())
    out = np.empty(len(ids), f"S{max(1, pc.max(pc.binary_length(binary)).as_py() or 0)}")
    for start in range(0, len(ids), _ROWS):
        out[start : start + _ROWS] = binary.slice(start, _ROWS).to_pylist()
    return out

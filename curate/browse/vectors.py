"""Embeddings of all samples: of each a file of vectors in the cache, read in blocks and never held whole."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.browse.table import Browsed
from curate.decide.forest import unit
from curate.schema.errors import CurateError
from curate.shards.tables import SAMPLES_FILES
from curate.storage.tables import read_table

BLOCK_BYTES = 16 << 20
"""Of vectors that are read at a time."""

_VECTORS, _ROWS = "vectors.f32", "rows.npy"


class Vectors:
    """One embedding of a build's samples, made into the cache where it is not there.

    Attributes:
        rows: int64 `(m,)`, ascending: of each vector the number `n` of its sample's row in the table. Samples without
            the embedding, or with one that is not finite, have no vector.
        dim: numbers of a vector.
        folder: holds the file of vectors, and what else is made of them.

    Raises:
        CurateError: vectors are not here, and are gone from the build.
    """

    def __init__(self, browsed: Browsed, field: str) -> None:
        # a field's name may be no name of a file
        self.folder = browsed.cache / "vectors" / str(sorted(browsed.tables.types).index(field))
        self.dim = int(browsed.tables.types[field].list_size)
        if not self.folder.is_dir():
            try:
                _write(browsed, field, self.folder)
            except FileNotFoundError as error:
                raise CurateError(f"the vectors of {field} are gone from this build: {error.filename}") from error
        self.rows: NDArray[np.int64] = np.load(self.folder / _ROWS)

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """All vectors in order: places, and float32 `(b, dim)` of unit length (zero ones stay zero), which the next
        block overwrites."""
        size = max(1, BLOCK_BYTES // (4 * self.dim))
        held = np.empty((min(size, len(self)), self.dim), np.float32)
        with (self.folder / _VECTORS).open("rb", buffering=0) as file:
            for start in range(0, len(self), size):
                block = held[: len(self) - start]
                view = block.data.cast("B")
                while view:
                    view = view[_read(file.readinto(view), self.folder) :]
                yield slice(start, start + len(block)), block

    def of(self, row: int) -> NDArray[np.float32] | None:
        """The vector `(dim,)` of a row of the table; None where it has none."""
        place = int(np.searchsorted(self.rows, row))
        if place == len(self) or self.rows[place] != row:
            return None
        return np.fromfile(self.folder / _VECTORS, np.float32, self.dim, offset=4 * self.dim * place)

    def cosines(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine of every vector with one of unit length `(dim,)`: `(m,)`."""
        out = np.empty(len(self), np.float32)
        for places, block in self.blocks():
            np.matmul(block, vector, out=out[places])
        return out


def _read(count: int, folder: Path) -> int:
    if not count:
        raise CurateError("cached vectors of this build are damaged", f"remove them: {folder}")
    return count


def _write(browsed: Browsed, field: str, folder: Path) -> None:
    """Make the files of a field; another process that does the same at the same time does no harm."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=folder.parent))
    try:
        rows = [np.empty(0, np.int64)]
        with (partial / _VECTORS).open("wb") as file:
            for some, vectors in _of_build(browsed, field):
                rows.append(some)
                vectors.tofile(file)
        np.save(partial / _ROWS, np.concatenate(rows))
        try:
            partial.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _of_build(browsed: Browsed, field: str) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Rows of the table with their vectors, in order, partition by partition."""
    tables = browsed.tables
    home = tables.fields[field]
    files = {stage: tables.by_partition(stage) for stage in (SAMPLES_FILES, home)}
    for file in browsed.files:
        told = pq.read_table(file, columns=["n", "part", "id", "record_id"], filters=[("level", "=", "sample")])
        for part in pc.unique(told["part"]).to_pylist():
            name = tables.partitions[part]
            if name not in files[home]:
                continue  # of a second look that saw none of its samples
            wanted = told.filter(pc.equal(told["part"], part))
            samples = read_table(tables.build, files[SAMPLES_FILES][name], ["sample_id", "record_id"])
            given = read_table(tables.build, files[home][name], ["sample_id", field])
            if given["sample_id"].equals(samples["sample_id"]):  # the same bytes twice in a partition have one id
                at = pc.index_in(_pairs(wanted, "id"), _pairs(samples, "sample_id"))
            else:
                at = pc.index_in(*(ids.combine_chunks() for ids in (wanted["id"], given["sample_id"])))
            column = given[field].combine_chunks().take(at)
            present = column.is_valid()
            vectors = column.filter(present).flatten().to_numpy(zero_copy_only=False)
            vectors = unit(vectors.astype(np.float32, copy=False).reshape(-1, column.type.list_size))
            finite = np.isfinite(vectors).all(axis=1)
            yield wanted["n"].filter(present).to_numpy()[finite], vectors[finite]


def _pairs(table: pa.Table, name: str) -> pa.Array:
    """Samples by their id and their record's."""
    columns = [table[one].combine_chunks() for one in (name, "record_id")]
    return pc.binary_join_element_wise(*columns, "")

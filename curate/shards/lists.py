"""Lists of a build's files: Parquet tables that the manifest names, so that it stays small."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.schema.manifest import File, Manifest
from curate.storage import Store
from curate.storage.tables import write_named_table

FILES = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
    ]
)
"""One row a file of the build, but the manifest and the lists themselves; sorted by path."""

MOST_ROWS = 1_000_000
"""Files of one list."""


def write_lists(build: Store, files: Iterable[File], version: int = 1) -> list[File]:
    """Write the lists of a build's files, `versions/<version>/files-00000-<digest16>.parquet` and so on.

    Their names end in their digests, so the lists of an earlier manifest stay until the next one is in place.

    Returns:
        What the manifest says of them.
    """
    ordered = sorted(files, key=lambda file: file.path)
    lists = []
    for number, start in enumerate(range(0, len(ordered), MOST_ROWS)):
        some = ordered[start : start + MOST_ROWS]
        table = pa.Table.from_arrays(
            [pa.array([getattr(file, f.name) for file in some], f.type) for f in FILES], schema=FILES
        )
        lists.append(write_named_table(build, f"versions/{version}/files-{number:05d}", table))
    return lists


def read_files(build: Store, manifest: Manifest) -> list[File]:
    """Every file of a build, but the manifest and its lists.

    Raises:
        CurateError: a list that is missing, or is not the one that the manifest names.
    """
    return [file for table in list_tables(build, manifest) for file in _entries(table)]


def files_below(build: Store, manifest: Manifest, prefix: str) -> list[File]:
    """The files whose paths begin so, e.g. `verdicts/`, sorted; raises as `read_files`."""
    return [
        file
        for table in list_tables(build, manifest)
        for file in _entries(table.filter(pc.starts_with(table["path"], prefix)))
    ]


def list_tables(build: Store, manifest: Manifest) -> Iterator[pa.Table]:
    """The lists, one after the other, as tables of FILES; raises as `read_files`."""
    for entry in manifest.lists:
        try:
            data = build.read(entry.path)
        except FileNotFoundError:
            raise CurateError(f"{build.name(entry.path)}: there is no such file", "check it: curate verify") from None
        if digest(data) != entry.digest:
            raise CurateError(f"{build.name(entry.path)}: the file was changed", "check it: curate verify")
        table = pq.read_table(pa.BufferReader(data))
        if not table.schema.equals(FILES):
            raise CurateError(f"{build.name(entry.path)}: not a list of files", "check it: curate verify")
        yield table


def _entries(table: pa.Table) -> Iterator[File]:
    for path, said, size, rows in zip(*(column.to_pylist() for column in table.columns), strict=True):
        yield File(path=path, digest=said, bytes=size, rows=rows)

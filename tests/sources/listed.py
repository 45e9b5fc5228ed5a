"""All entries of a source, as a run lists them: checked, its units listed to a build, and each unit read."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from curate.schema import recipe
from curate.sources.base import Source, Unit
from curate.sources.entry import Entry
from curate.sources.listing import open_source
from curate.storage import Folder


def units_of(source: Source, build: Folder) -> list[Unit]:
    """The units, by a source that has been to another process."""
    return list(pickle.loads(pickle.dumps(source)).units(build))


def entries_in(source: Source, build: Folder, units: list[Unit]) -> list[Entry]:
    """Entries of some units, each read by a source that has been to another process, its numbers as text as there."""
    units = [replace(unit, detail={key: str(value) for key, value in unit.detail.items()}) for unit in units]
    return [entry for unit in units for entry in pickle.loads(pickle.dumps(source)).read(unit, build)]


def list_entries(spec: recipe.Source, root: Path, env: Mapping[str, str]) -> list[Entry]:
    """All entries of a source; raises what a run raises."""
    source = open_source(spec, root, env)
    source.check()
    with TemporaryDirectory() as folder:
        build = Folder(Path(folder))
        entries = entries_in(source, build, units_of(source, build))
    if all(entry.is_whole for entry in entries):
        raise source.nothing(next(iter(entries), None))
    ids = [entry.record_id for entry in entries]
    assert len(set(ids)) == len(ids)
    return entries


def list_table(spec: recipe.TableSource, table: Path, base_url: str | None = None) -> list[Entry]:
    """All entries of a table, whatever path the recipe names."""
    changes = {"path": str(table)} | ({"base_url": base_url} if base_url is not None else {})
    return list_entries(spec.model_copy(update=changes), Path("/"), {})


def list_folder(source: str, folder: Path, licence: str | None = None) -> list[Entry]:
    """All entries of a folder."""
    spec = recipe.FolderSource(kind="folder", name=source, path=str(folder), licence=licence)
    return list_entries(spec, Path("/"), {})

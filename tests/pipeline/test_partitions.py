"""Partitions: slices of a unit whose names follow from their own content; what is committed is looked up by name."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.pipeline.ingest import listed_units
from curate.pipeline.partitions import MOST_BYTES, MOST_TIMED, fragment, partition_name, slices
from curate.schema.errors import CurateError
from curate.schema.recipe import PluginSource
from curate.sources.base import Source
from curate.sources.entry import Entry, File, identities
from curate.sources.paths import matching
from curate.storage import Folder


def entries(names: list[str], size: int = 10) -> list[Entry]:
    return [Entry("here", name, 0, None, None, "{}", File(f"/{name}", size)) for name in names]


@given(st.lists(st.sampled_from(["a.png", "b.mp4", "c.wav", "d"]), max_size=80), st.integers(1, 40))
def test_slices_cover_a_unit_in_order_and_are_bounded(kinds: list[str], size: int) -> None:
    unit = entries([f"{i}{kind}" for i, kind in enumerate(kinds)])
    found = list(slices(unit, size))
    assert [e for part in found for e in part] == unit
    for part in found:
        assert 0 < len(part) <= size
        assert sum(e.uri.endswith(("mp4", "wav")) for e in part) <= MOST_TIMED
    shorter = list(slices(unit[:-1], size))
    assert found[: max(0, len(shorter) - 1)] == shorter[:-1], "what is appended changes the last slice only"


def test_a_slice_ends_before_its_media_are_too_many_bytes() -> None:
    sizes = [MOST_BYTES // 2, MOST_BYTES // 2, 1, 3 * MOST_BYTES, 1]
    unit = [e for i, size in enumerate(sizes) for e in entries([f"{i}.png"], size)]
    assert [[e.uri for e in part] for part in slices(unit, 100)] == [
        ["0.png", "1.png"],
        ["2.png"],
        ["3.png"],
        ["4.png"],
    ]


def test_a_name_follows_from_the_slice_alone() -> None:
    some = identities(entries(["a.png", "b.png"]))
    name = partition_name("here", {"kind": "folder"}, "page", some)
    assert name.startswith("here-")
    assert name == partition_name("here", {"kind": "folder"}, "page", list(some))
    others = [
        partition_name("here", {"kind": "table"}, "page", some),
        partition_name("here", {"kind": "folder"}, "other page", some),
        partition_name("here", {"kind": "folder"}, "page", some[::-1]),
        partition_name("there", {"kind": "folder"}, "page", some),
    ]
    assert len({name, *others}) == 5
    assert fragment("samples", name, ["cut", 1]) != fragment("samples", name, ["cut", 2])


def test_a_pattern_that_meets_a_tar_in_several_ways_gives_one_unit(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.tar").touch()
    assert [stat.path for stat in matching(f"{tmp_path}/**/**/*.tar")[1]] == ["a/b/x.tar"]


class Broken(Source):
    """A source of another's that cannot be listed."""

    kind = "broken"

    def units(self, build):
        raise sqlite3.DatabaseError("file is not a database")


def test_a_source_of_anothers_that_cannot_be_listed_is_named(tmp_path: Path) -> None:
    source = Broken(PluginSource(kind="x:Broken", name="photos", path="photos.sqlite"), tmp_path, {})
    with pytest.raises(CurateError, match="source 'photos' cannot be listed: DatabaseError: file is not a database"):
        list(listed_units(Folder(tmp_path), [source]))

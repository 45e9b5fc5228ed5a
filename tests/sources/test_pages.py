"""Pages of a folder: stable when names come and go, and the same of a folder and of a bucket in any order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obstore import exceptions

from curate.schema.errors import CurateError
from curate.sources import folder, paths
from curate.sources.folder import FEWEST, MOST, Named, pages
from curate.storage import Stat, open_store, retry

NAMES = [f"{i * 7919 % 1_000_003:07}.jpg" for i in range(12_000)]


def cut(names: list[str]) -> list[tuple[str, ...]]:
    return [tuple(named.name for named in page) for page in pages(Named(name, None, False, False) for name in names)]


def test_pages_have_about_a_thousand_names():
    sizes = [len(page) for page in cut(sorted(NAMES))]
    assert sum(sizes) == len(NAMES)
    assert all(FEWEST <= size <= MOST for size in sizes[:-1])
    assert 700 < sum(sizes) / len(sizes) < 1500


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, 1_000_003), min_size=1, max_size=3), st.sets(st.sampled_from(NAMES), max_size=2))
def test_a_name_that_comes_or_goes_changes_its_own_page_and_few_others(added, removed):
    before = set(cut(sorted(NAMES)))
    new = {f"{i:07}.png" for i in added}
    after = set(cut(sorted({*NAMES, *new} - removed)))
    assert set(chain(*after)) == {*NAMES, *new} - removed
    assert len(before - after) <= 4 * (len(new) + len(removed))


PART = st.sampled_from(["a", "a-b", "a.b", "a.d", "b", "é", ".h", "a.jpg", "a b"])
WORDS = "a.jpg a.npy a.mp4 a.txt a.json a.b.jpg a.b.npy a.b.txt a-b.jpg a.TXT b.npy .x.jpg a.jpg.txt a. é.jpg é.txt"
FILE = st.sampled_from(WORDS.split())
TREES = st.sets(st.builds(lambda parts, file: "/".join([*parts, file]), st.lists(PART, max_size=2), FILE), max_size=14)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TREES, st.sampled_from([1, 2, 4096]))
def test_a_folder_and_a_bucket_that_lists_in_either_order_name_the_same(tmp_path_factory, monkeypatch, tree, held):
    top = tmp_path_factory.mktemp("tree").resolve()
    made = set()
    for name in sorted(tree):
        if not any(other != name and other.startswith(f"{name}/") for other in tree):
            path = top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
            made.add(name)
    here = [(named.name, named.txt, named.json) for named in folder._walk(top, top, "")]
    assert [name for name, _, _ in here] == sorted(name for name, _, _ in here)
    monkeypatch.setattr(folder, "HELD", held)
    for order in (sorted(made), sorted(made, key=lambda name: name.split("/"))):

        def after(name: str, order: list[str] = order) -> Iterator[Stat]:
            key = (lambda name: name.split("/")) if order != sorted(order) else str
            return (Stat(other, 1) for other in order if key(other) > key(name))

        there = [(named.name, named.txt, named.json) for named in folder._named(map(_stat, order), after)]
        assert sorted(there) == here
        if order == sorted(made):
            assert there == here


def _stat(name: str) -> Stat:
    return Stat(name, 1)


def test_a_store_that_lists_as_a_disk_does_is_sorted(s3):
    there = s3.fresh()
    names = ["a/b/c.jpg", "a/b.jpg", "a-b.jpg", "a.jpg", "a0.jpg", "a.b/x.jpg", "é/y.jpg", "z.jpg"]
    store = open_store(there)
    for name in names:
        store.write(name, b"1")
    assert [stat.path for stat in paths.objects_below(there)] == sorted(names)
    assert {stat.path for stat in paths.listed_after(store, "", "a/b.jpg")} == {*names} - {"a/b/c.jpg", "a/b.jpg"}


def test_a_list_that_breaks_off_goes_on_where_it_was(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.001)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    names = [f"{i:03}.jpg" for i in range(100)]
    asked: list[str | None] = []

    def listed(client: object, prefix: str | None, offset: str | None, chunk_size: int) -> Iterator[list[dict]]:
        asked.append(offset)
        left = [name for name in names if offset is None or name > offset]
        for start in range(0, len(left), 10):
            yield [{"path": name, "size": 1} for name in left[start : start + 10]]
            if start >= 20:
                raise exceptions.GenericError("connection reset")

    monkeypatch.setattr(paths.obstore, "list", listed)
    assert [stat.path for stat in paths.objects_below("s3://bucket")] == names
    assert asked == [None, "029.jpg", "059.jpg", "089.jpg"]


def test_a_folder_in_which_nothing_is_media_is_an_error_of_the_source(tmp_path: Path):
    from listed import list_folder

    (tmp_path / "in").mkdir()
    with pytest.raises(CurateError, match="no media files in"):
        list_folder("s", tmp_path / "in")

"""What an earlier run left is taken where it still holds, and nowhere else (laws 6 and 13). No Ray here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from curate.pipeline.partitions import Partition
from curate.pipeline.paths import LIGHT, Group, Paths, groups_of
from curate.pipeline.retry import _remove, readers
from curate.pipeline.streams import StreamPlan
from curate.schema.recipe import Caption, Cut, Fetch, SignalUse, Stream
from curate.schema.tables import FETCHED
from curate.signals import registry
from curate.signals.caption import CaptionSignal
from curate.storage import Folder
from curate.storage.tables import write_table
from curate.tokenizers import zoo

SOME = Partition("web-0123456789abcdef", "web", 3)


def prefixes(caption: Caption) -> dict[str, str]:
    """How names of fragments begin, of a stream of text and one of images."""
    paths = Paths.of({"web": None}, Cut(), [CaptionSignal.of(caption, [])])
    names = {"caption": "text-bpe-8k", "tok_rgb@256": "image-fsq-64k"}
    plans = [StreamPlan(Stream(name=name, tokenizer=t), zoo.card(t), t) for name, t in names.items()]
    return {plan.use.name: plan.prefix(paths, SOME) for plan in plans}


def test_tokens_of_text_are_those_of_the_captions_that_the_recipe_makes() -> None:
    before, after = prefixes(Caption()), prefixes(Caption(max_chars=10))
    assert before["caption"] != after["caption"]
    assert before["tok_rgb@256"] == after["tok_rgb@256"], "pictures are not tokenized again"


def test_more_requests_at_once_fetch_nothing_again() -> None:
    one, other, third = (
        Paths.of({"web": Fetch(**options).model_dump()}, Cut(), []).fetched(SOME.name, "web")
        for options in ({"concurrency": 1}, {"concurrency": 64}, {"attempts": 9})
    )
    assert one == other != third


NONE: dict[str, list[str]] = {"fetched": [], "records": [], "signals": [], "tokenized": []}


def composed() -> list[Group]:
    """Groups of which the last reads another's tags."""
    signals = [registry.build(SignalUse(name=name)) for name in ("sharpness", "conse", "tiny_image")]
    given = {f.name for s in signals for f in s.gives}
    return groups_of(registry.order([*signals, CaptionSignal.of(Caption(), given)]))


class Removing(Folder):
    """A folder that is killed at one of its removals."""

    left: int

    def remove(self, paths: Iterable[str]) -> None:
        for path in list(paths):
            if not self.left:
                raise KeyboardInterrupt
            object.__setattr__(self, "left", self.left - 1)
            super().remove([path])


def build_of(root: Path, kill: int = 1000) -> Removing:
    """A build of two partitions."""
    build = Removing(root)
    object.__setattr__(build, "left", kill)
    for name in ("web-aaaaaaaaaaaaaaaa", "web-bbbbbbbbbbbbbbbb"):
        for folder in ("records", "samples", *(f"signals/{g.name}" for g in composed())):
            build.write(f"{folder}/{name}-0123456789abcdef.parquet", b"")
        write_table(build, f"fetched/{name}-0123456789abcdef.parquet", FETCHED.empty_table())
        for stream in ("caption", "tok_rgb@256"):
            build.write(f"tokenized/{stream}/{name}-0123456789abcdef-fedcba9876543210.arrow", b"")
    build.write("pairs/0123456789abcdef-0.95/part-00000-of-00001.parquet", b"")
    return build


def left_of(build: Folder, name: str) -> set[str]:
    return {s.path.rpartition("/")[0] for s in build.files() if f"/web-{name}" in s.path and "retry/" not in s.path}


def test_what_reads_a_signal_is_known() -> None:
    assert [g.name for g in composed()] == [LIGHT, "conse", "caption"]
    assert readers(composed()) == {LIGHT: [], "conse": ["caption"], "caption": []}


def test_a_signal_that_failed_is_forgotten_with_what_was_made_of_it(tmp_path: Path) -> None:
    build = build_of(tmp_path)
    failed = "signals/conse/web-aaaaaaaaaaaaaaaa-0123456789abcdef.parquet"
    _remove(build, NONE | {"signals": [failed]}, composed(), ["caption"])
    whole = left_of(build, "b")
    assert whole - left_of(build, "a") == {"signals/conse", "signals/caption"}
    assert not build.files("pairs"), "their name is that of fragments that now say something else"


def test_a_record_that_failed_is_forgotten_with_all_of_its_partition_but_what_cannot_change(tmp_path: Path) -> None:
    build = build_of(tmp_path)
    failed = "fetched/web-aaaaaaaaaaaaaaaa-0123456789abcdef.parquet"
    _remove(build, NONE | {"fetched": [failed]}, composed(), ["caption"])
    assert left_of(build, "a") == {"tokenized/tok_rgb@256"}
    assert build.stat(f"retry/{failed}") is not None
    assert not build.files("pairs")


@pytest.mark.parametrize("kill", range(8))
def test_killed_anywhere_nothing_is_older_than_what_it_was_made_of(tmp_path: Path, kill: int) -> None:
    build = build_of(tmp_path, kill)
    failed = "fetched/web-aaaaaaaaaaaaaaaa-0123456789abcdef.parquet"
    with pytest.raises(KeyboardInterrupt):
        _remove(build, NONE | {"fetched": [failed]}, composed(), ["caption"])
    left = left_of(build, "a")
    made_of = ["fetched", "records", "signals/conse", "signals/caption"]
    there = [folder in left for folder in made_of]
    assert there == sorted(there, reverse=True)
    assert there[-1] <= ("samples" in left)
    if not all(there):
        assert not build.files("pairs")


def test_what_a_killed_retry_has_mended_is_not_fetched_again(tmp_path: Path) -> None:
    build = build_of(tmp_path)
    mended, failed = (f"fetched/web-{16 * x}-0123456789abcdef.parquet" for x in "ab")
    write_table(build, f"retry/{mended}", FETCHED.empty_table())
    _remove(build, NONE | {"fetched": [failed]}, composed(), [])
    assert "fetched" in left_of(build, "a"), "its records lie in the media that this fragment tells of"
    assert "fetched" not in left_of(build, "b")

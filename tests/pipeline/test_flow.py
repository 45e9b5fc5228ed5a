"""A partition through the workers that annotate it, beside the decoder and behind it: the same fragments. No Ray."""

from __future__ import annotations

import io
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from gpu_signal import Halved, Redness
from PIL import Image

from curate.media.requests import Frames
from curate.pipeline.annotate import Annotate, Compute, Context
from curate.pipeline.blocks import VIEW, pack_view, view_name
from curate.pipeline.flow import handed
from curate.pipeline.ingest import cut_how
from curate.pipeline.listing import Listing
from curate.pipeline.partitions import Partition
from curate.pipeline.paths import Group, Paths, groups_of
from curate.pipeline.rows import LEADS, PARTITION, files_column, tally_column
from curate.schema.fields import RunsOn
from curate.schema.ids import content_id
from curate.schema.recipe import Cut, SignalUse
from curate.schema.tables import FETCHED
from curate.signals import registry
from curate.storage import Folder
from curate.storage.tables import read_table, write_table

SIGNALS = registry.order([registry.build(SignalUse(name="brightness")), Redness(), Halved()])
PATHS = Paths.of({"web": None}, Cut(), SIGNALS)


class There(Listing):
    """A listing of this process."""

    def __init__(self, build: Folder) -> None:
        self._paths = pa.array([s.path for s in build.files()], pa.string())


class Silent:
    """A board that nobody reads."""

    def add(self, stage: str, **counts: int) -> None:
        pass

    def spent(self, stage: str, source: str, sums: Mapping[str, float]) -> None:
        pass

    def lease(self, stage: str, partition: str) -> bool:
        return False

    def release(self, stage: str, partition: str) -> None:
        pass


def media(count: int) -> list[bytes]:
    """PNGs of one shade, the second without its end."""
    out = []
    for i in range(count):
        file = io.BytesIO()
        noise = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "png")
        out.append(file.getvalue()[: 900 if i == 1 else None])
    return out


def fetched(root: Path, files: list[bytes], failed: int = 0) -> tuple[Folder, pa.Table]:
    """A build in which a partition has been fetched, and its row."""
    build, part = Folder(root), Partition("web-0123456789abcdef", "web", len(files) + failed)
    build.write("media/a.tar", b"".join(files))
    rows: list[dict[str, Any]] = []
    for i, data in enumerate(files):
        where = {"media": "media/a.tar", "member": f"{i}", "offset": sum(map(len, files[:i])), "bytes": len(data)}
        rows.append({"content_id": content_id(data), **where})
    rows += [{"stage": "ingest", "error": "HttpError", "message": "404", "attempt": 1}] * failed
    about = dict.fromkeys(FETCHED.names) | {"source": "web", "meta": "{}"}
    rows = [about | {"record_id": content_id(b"%d" % i), "uri": f"{i}.png"} | row for i, row in enumerate(rows)]
    write_table(build, PATHS.fetched(part.name, "web"), pa.Table.from_pylist(rows, schema=FETCHED))
    head = dict(zip(PARTITION.names, ([part.name], ["web"], [""], [part.rows], [0]), strict=True))
    row = pa.table(head, schema=PARTITION).append_column(LEADS, pa.nulls(1, LEADS.type))
    row = row.append_column(*tally_column("ingest", part.rows, 0, failed, 0))
    return build, row.append_column("files", files_column(None, []))


def annotated(build: Folder, block: pa.Table, groups: list[Group], here: int) -> dict[str, pa.Table]:
    """The fragments of all groups, of which the first `here` are computed beside the decoder."""
    context = Context(build, PATHS, There(build), Silent(), {})  # type: ignore[arg-type]
    later = groups[here:]
    block = Annotate(context, cut_how(Cut()), groups[:here], later)(block)
    for i, group in enumerate(later):
        block = Compute(context, groups[: here + i], group, later[i + 1 :])(block)
    assert block.num_rows == 1
    return {g.name: read_table(build, PATHS.signals("web-0123456789abcdef", "web", g.name)) for g in groups}


@pytest.mark.parametrize(("count", "failed"), [(3, 1), (0, 2), (2, 0)])
def test_a_group_gives_the_same_wherever_it_is_computed(tmp_path: Path, count: int, failed: int) -> None:
    groups = groups_of(SIGNALS)
    assert [g.name for g in groups] == ["light", "redness", "halved"]
    found = []
    for here in (3, 1, 0):
        build, block = fetched(tmp_path / str(here), media(count), failed)
        found.append(annotated(build, block, groups, here))
    assert found[0] == found[1] == found[2]
    halved = found[0]["halved"]
    assert halved["halved"].null_count == (count > 1)
    assert halved["failure:halved"].null_count == halved.num_rows == count
    assert found[0]["redness"]["failure:redness"].null_count == max(0, count - 1)


@pytest.mark.parametrize("most", [0, 3 * 40 * 40 + 2000])
def test_views_that_are_too_large_to_flow_are_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    groups = groups_of(SIGNALS)
    build, block = fetched(tmp_path / "flows", media(5), 1)
    whole = annotated(build, block, groups, 1)
    monkeypatch.setattr("curate.pipeline.flow.MOST_FLOWING", most)
    monkeypatch.setattr("curate.pipeline.examined.BATCH_ROWS", 2)
    build, block = fetched(tmp_path / "again", media(5), 1)
    assert annotated(build, block, groups, 1) == whole


@pytest.mark.parametrize("here", [3, 1])
def test_a_group_that_is_lost_is_computed_alone_and_reads_what_others_hold(tmp_path: Path, here: int) -> None:
    groups = groups_of(SIGNALS)
    build, block = fetched(tmp_path, media(3))
    whole = annotated(build, block, groups, here)
    for group in groups:
        build.remove([PATHS.signals("web-0123456789abcdef", "web", group.name)])
        before = {s.path: (build.root / s.path).stat().st_mtime_ns for s in build.files()}
        assert annotated(build, block, groups, here) == whole
        assert before == {path: (build.root / path).stat().st_mtime_ns for path in before}


VIEW_OF_HANDED = Frames(size=4)


def frames(count: int, size: int = 4) -> pa.Table:
    views = pack_view([None if i % 5 == 4 else np.zeros((1, size, size, 3), np.uint8) for i in range(count)])
    return pa.table({"sample_id": [f"{i}" for i in range(count)], VIEW + view_name(VIEW_OF_HANDED): views})


@pytest.mark.parametrize("cuts", [[], [1], [128, 256], [7, 150, 151, 600]])
def test_a_model_on_a_gpu_is_handed_the_same_however_the_decoder_cut(cuts: list[int]) -> None:
    whole = frames(1000)
    ends = [0, *cuts, 1000]
    given = [whole.slice(a, b - a) for a, b in pairwise(ends)]
    got = list(handed(given, [VIEW_OF_HANDED], [RunsOn("cuda", batch=64)]))
    assert [t.num_rows for t in got] == [256, 256, 256, 232]
    assert pa.concat_tables(got) == whole
    assert list(handed(given, [VIEW_OF_HANDED], [RunsOn(batch=64)])) == given, "on a CPU as they come"
    assert [t.num_rows for t in handed(given, [VIEW_OF_HANDED], [RunsOn("cuda", batch=8)])][:2] == [128, 128]


def test_a_hand_over_ends_where_its_views_weigh_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.pipeline.flow.HANDED_BYTES", 3 * 48)
    assert [t.num_rows for t in handed([frames(10)], [VIEW_OF_HANDED], [RunsOn("cuda", batch=1)])] == [3, 4, 3]
    assert [t.num_rows for t in handed([frames(10)], [], [RunsOn("cuda", batch=1)])] == [10]

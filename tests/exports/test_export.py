"""What holds for every format: it goes on where it was broken off, reads no changed shard, and keeps others out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from curate.exports import Export, Sample, export
from curate.schema.errors import CurateError
from curate.storage import Folder, Store


class Twin(Export):
    """Two files a shard, and a list of all shards at the end."""

    name = "twin"

    def paths(self, split: str, shard: str) -> list[str]:
        return [f"ids/{split}/{shard}.txt", f"kinds/{split}/{shard}.txt"]

    def shard(self, samples: Iterator[Sample], *files: Path) -> int:
        every = list(samples)
        files[0].write_text("\n".join(sample.sample_id for sample in every))
        files[1].write_text("\n".join(sample.kind for sample in every))
        return len(every)

    def finish(self, out: Store, written: Any) -> None:
        out.write(
            "index.json", json.dumps({split: [w.paths for w in some] for split, some in written.items()}).encode()
        )


TWIN = f"{__name__}:Twin"


def bytes_of(folder: Path) -> dict[str, bytes]:
    store = Folder(folder)
    return {file.path: store.read(file.path) for file in store.files()}


def test_a_shard_that_lacks_a_file_is_written_again_and_the_index_comes_last(
    export_build: Path, tmp_path: Path
) -> None:
    whole = list(export(export_build, TWIN, tmp_path / "a"))
    assert sum(written.samples for written in whole) == 60
    broken = export(export_build, TWIN, tmp_path / "b")
    next(broken), next(broken)
    broken.close()
    assert not (tmp_path / "b/index.json").exists()
    (tmp_path / "b" / whole[1].paths[1]).unlink()
    assert [one.was_there for one in export(export_build, TWIN, tmp_path / "b")] == [True, *[False] * (len(whole) - 1)]
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert all(one.was_there for one in export(export_build, TWIN, tmp_path / "b"))


def test_a_changed_shard_is_named_and_nothing_of_it_is_written(export_build: Path, tmp_path: Path) -> None:
    build = shutil.copytree(export_build, tmp_path / "build")
    shard = sorted(build.rglob("shard-*.arrow"))[-1]
    flipped = bytearray(shard.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    shard.write_bytes(flipped)
    with pytest.raises(CurateError, match=rf"{shard.name}: the file was changed") as error:
        list(export(build, TWIN, tmp_path / "out"))
    assert "curate verify" in error.value.hint
    assert not list((tmp_path / "out").rglob(f"{shard.stem}*"))


def test_two_exports_to_one_place_do_not_meet(export_build: Path, tmp_path: Path) -> None:
    first = export(export_build, TWIN, tmp_path / "out")
    next(first)
    with pytest.raises(CurateError, match="another run is at work"):
        list(export(export_build, TWIN, tmp_path / "out"))
    assert sum(written.samples for written in first) > 0

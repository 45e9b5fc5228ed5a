"""Builds on an object store whose network is bad: the same bytes as in a folder, read the same, and nothing secret."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faulty_proxy import PASSING, STALL, faulty_proxy, seeded
from object_store import ObjectStore
from small import RECIPE, Project, make_media

import curate
from curate.storage import Store, open_store

FAULTS = [fault for fault in PASSING if fault != STALL]
"""A command's patience is 20 s a stall, more than a test has; stalls are in `tests/storage/test_faults.py`."""


def contents(build: Store) -> dict[str, bytes]:
    return {stat.path: build.read(stat.path) for stat in build.files()}


def shown(text: str, build: object) -> str:
    """What a command says, without where the build lies."""
    return text.replace(str(build), "BUILD")


def streamed(build: Path | str) -> list[bytes]:
    """Every array of an epoch in order."""
    return [
        np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
        for item in curate.stream(build, seed=5)
        for _, value in sorted(item.items())
    ]


def test_a_build_in_a_bucket_is_read_as_one_in_a_folder(
    small_build: Path, project: Project, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    uri = f"{s3.bucket('builds')}/small"
    with faulty_proxy(s3.endpoint, s3.key, s3.secret, seeded(1, 0.1, FAULTS)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        build = open_store(uri)
        for path, data in contents(open_store(small_build)).items():
            build.write(path, data)
        said = ""
        for command in (("verify", "--json"), ("explain", "--", "text.jpg")):
            name, *options = command
            here, there = (project.curate(name, place, *options) for place in (small_build, uri))
            assert shown(there.stdout, uri) == shown(here.stdout, small_build)
            said += there.stdout + there.stderr
        assert streamed(uri) == streamed(small_build)
        assert proxy.injected.total() > 5
    assert s3.secret not in said


@pytest.fixture
def images(tmp_path: Path) -> Project:
    """The small project without its videos, and with cheap signals only."""
    make_media(tmp_path / "media")
    for video in (tmp_path / "media").glob("*.mp4"):
        video.unlink()
    return Project(tmp_path)


CHEAP = RECIPE
for dear in ("motion", "voice_activity", "conse"):
    CHEAP = CHEAP.replace(f"  - name: {dear}\n", "")


@pytest.fixture
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray keeps what it logs. Its sockets lie there too, whose paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_build_made_in_a_bucket_is_the_one_made_in_a_folder(
    images: Project, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, ray_folder: Path, seed: int
) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(images.root / "cache"))
    local = images.root / "local"
    images.run(local, recipe=CHEAP)
    uri = f"{s3.bucket('builds')}/made-{seed}"
    with faulty_proxy(s3.endpoint, s3.key, s3.secret, seeded(seed, 0.1, FAULTS)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        done = [images.run(uri, "--workers", 2, recipe=CHEAP)]  # type: ignore[arg-type]
        assert proxy.injected.total() >= 10, str(proxy)
        # drawn for each request, so now and then one kind is not; tests/storage has each by itself
        assert len(proxy.injected) >= len(FAULTS) - 2, str(proxy)
        made, expected = contents(open_store(uri)), contents(open_store(local))
        assert made.keys() == expected.keys()
        assert [path for path in expected if made[path] != expected[path]] == []
        for command in (("verify",), ("explain", "text.jpg"), ("card",), ("stream", "--bench")):
            name, *options = command
            done.append(images.curate(name, uri, *options))
        again = images.run(uri, recipe=CHEAP)  # type: ignore[arg-type]
        assert contents(open_store(uri)) == expected, again.stdout
        assert streamed(uri) == streamed(local)
    said = "".join(one.stdout + one.stderr for one in [*done, again])
    assert s3.secret not in said
    secret = s3.secret.encode()
    assert [path for path, data in made.items() if secret in data] == []
    kept = [path for folder in (ray_folder, images.root) for path in folder.rglob("*") if path.is_file()]
    assert any("logs" in path.parts for path in kept)
    assert [path for path in kept if secret in path.read_bytes()] == []


@pytest.mark.long
def test_a_data_loader_of_a_build_in_a_bucket(
    small_build: Path, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its workers are started anew, as the message to a forked one says."""
    from torch.utils.data import DataLoader

    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    uri = f"{s3.bucket('builds')}/loaded"
    for path, data in contents(open_store(small_build)).items():
        open_store(uri).write(path, data)

    def ids(workers: int, context: str | None) -> str:
        tokens = curate.stream(uri, seed=5, batch=2)
        loader = DataLoader(tokens, batch_size=None, num_workers=workers, multiprocessing_context=context)
        return json.dumps([batch["sample_id"] for batch in loader], default=str)

    assert ids(2, "forkserver") == ids(0, None)
    with pytest.raises(curate.schema.errors.CurateError, match="forkserver"):
        ids(2, "fork")

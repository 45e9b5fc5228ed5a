"""A folder and a bucket, which tests use alike; and a proxy that spoils what passes between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy, faulty_proxy
from object_store import ObjectStore

from curate.schema.ids import digest
from curate.storage import Bucket, Store, bucket, open_store, retry


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Local copies of this test only."""
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def in_bucket(s3: ObjectStore) -> Bucket:
    """An empty prefix of a bucket."""
    store = open_store(s3.fresh())
    assert isinstance(store, Bucket)
    return store


@pytest.fixture(params=["folder", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "folder":
        return open_store(tmp_path / "store")
    bucket: Bucket = request.getfixturevalue("in_bucket")
    return bucket


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of tries with shorter waits."""
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 0.05)


@pytest.fixture
def impatient(quick: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store may be silent for a moment only."""
    monkeypatch.setattr(bucket, "SILENT_SECONDS", 0.4)
    bucket._made.cache_clear()
    yield
    bucket._made.cache_clear()


@pytest.fixture
def proxy(s3: ObjectStore, quick: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy that does no harm yet, and is the endpoint of this process's environment."""
    with faulty_proxy(s3.endpoint, s3.key, s3.secret) as running:
        running.stall_seconds = 1.0
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


@pytest.fixture
def behind_proxy(s3: ObjectStore, proxy: FaultyProxy, request: pytest.FixtureRequest) -> Bucket:
    """An empty prefix, reached by the proxy. It is named for the test, so that seeded faults are the same each time."""
    store = open_store(f"{s3.bucket('behind-proxy')}/{digest(request.node.name.encode())[:12]}")
    assert isinstance(store, Bucket)
    assert store.endpoint == proxy.endpoint
    return store

"""Fixtures for tests of all rooms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from object_store import ObjectStore, running_store
from once import once
from plugin_build import PluginBuild, make
from small_sam import save_small_sam


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole builds come first: a worker that ends early takes over tests of seconds, not one of minutes."""
    items.sort(key=lambda item: "/tests/pipeline/" not in item.path.as_posix())


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """A real S3 server on loopback: `.env`, `.bucket(name)`, `.fresh()`. It sets nothing in this process."""
    with running_store(tmp_path_factory.mktemp("weed")) as store:
        yield store


@pytest.fixture
def s3(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """The same, with this process's environment set as a user's would be; children inherit it."""
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name, value in object_store.env.items():
        monkeypatch.setenv(name, value)
    return object_store


@pytest.fixture(scope="session")
def sam(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of a small SAM."""
    return save_small_sam(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="session")
def plugin_build(tmp_path_factory: pytest.TempPathFactory) -> PluginBuild:
    """A finished build by the recipe of `examples/plugins`, which tests only read."""
    return PluginBuild(once(tmp_path_factory, "plugins", make))

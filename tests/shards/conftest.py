"""Fixtures of the shards room; see `tiny.py` for what they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import TinyBuild, finish, make_samples


@pytest.fixture
def tiny_build(tmp_path: Path) -> TinyBuild:
    """`tiny_build(n, name="build", **options of finish)`: a finished build of n samples."""

    def make(n: int = 60, name: str = "build", **options: Any) -> Path:
        finish(tmp_path / name, make_samples(n), **options)
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def shared_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of 101 samples, all in `train`, that tests only read."""
    build = tmp_path_factory.mktemp("shared") / "build"
    finish(build, make_samples(101), splits={"train": 1.0})
    return build

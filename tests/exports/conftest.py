"""Fixtures of the exports room; see `exported.py` for what is exported."""

from __future__ import annotations

from pathlib import Path

import pytest
from exported import make_exported


@pytest.fixture(scope="session")
def export_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished build of 60 samples in the splits `train` and `held`, which tests only read."""
    build = tmp_path_factory.mktemp("exported") / "build"
    make_exported(build)
    return build

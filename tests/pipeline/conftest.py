"""The small build, made once a session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small import RECIPE, Project, make_media


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    root = tmp_path_factory.mktemp("project")
    make_media(root / "media")
    (root / "small.yaml").write_text(RECIPE)
    return Project(root)


@pytest.fixture(scope="session")
def small_build(project: Project) -> Path:
    """The build of the small recipe, undisturbed, with two workers. Tests only read it."""
    out = project.root / "two"
    project.run(out, "--workers", 2)
    return out


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A build that a test may spoil: files are linked, not copied, and are replaced whole by whoever changes them."""

    def copy(build: Path) -> Path:
        to = tmp_path / build.name
        shutil.copytree(build, to, copy_function=os.link)
        return to

    return copy

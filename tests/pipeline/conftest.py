"""The small build, made once a session."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from once import once
from small import Project, make_media, make_project


@pytest.fixture(scope="session")
def small_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The media of the small recipe. What is linked to them is as it was to a build of them, which reads none again."""
    return once(tmp_path_factory, "small-media", lambda root: make_media(root / "media")) / "media"


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory, small_media: Path) -> Project:
    root = tmp_path_factory.mktemp("project")
    make_project(root, small_media)
    return Project(root)


@pytest.fixture(scope="session")
def small_build(tmp_path_factory: pytest.TempPathFactory, small_media: Path) -> Path:
    """The build of the small recipe, undisturbed, with two workers. Tests only read it."""

    def make(root: Path) -> None:
        make_project(root, small_media)
        Project(root).run(root / "two", "--workers", 2)

    return once(tmp_path_factory, "small", make) / "two"


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build of the main job; what it said lies beside it as `stdout` and `stderr`. Tests only read it."""

    def make(root: Path) -> None:
        done = Project(root).curate("run", "quickstart", "--out", root / "quickstart")
        (root / "stdout").write_text(done.stdout)
        (root / "stderr").write_text(done.stderr)

    return once(tmp_path_factory, "quickstart", make) / "quickstart"


@pytest.fixture
def copy_of(tmp_path: Path) -> Callable[[Path], Path]:
    """A build that a test may spoil: files are linked, not copied, and are replaced whole by whoever changes them."""

    def copy(build: Path) -> Path:
        to = tmp_path / build.name
        shutil.copytree(build, to, copy_function=os.link)
        return to

    return copy

"""A disk that is really full, in the middle of a run."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from small import Project, digests


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB: the media of the small recipe fit, what is made of them does not."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


@pytest.mark.long
def test_a_full_disk_is_said_in_one_sentence_and_what_was_committed_is_kept(
    small_disk: Path, small_build: Path, project: Project
) -> None:
    out = small_disk / "build"
    done = project.curate("run", project.recipe, "--out", out, "--workers", 2, ok=False)
    assert done.returncode == 2
    assert "no space left on the disk" in done.stderr
    assert "Traceback" not in done.stderr
    committed = {p.name for p in out.rglob("here-*")}
    assert committed, "something was committed before the disk was full"
    assert not (out / "manifest.json").exists()

    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    done = project.run(out)
    assert "reused" in done.stderr
    assert digests(out) == digests(small_build)

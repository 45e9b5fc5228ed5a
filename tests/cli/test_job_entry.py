"""What a job says of a Python that cannot run curate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from curate.cli import job_entry


def job(folder: Path, needs: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a job in this Python, which is told that it needs so."""
    shutil.copyfile(job_entry.__file__, folder / job_entry.FILE)
    (folder / job_entry.NEEDS).write_text(json.dumps(needs))
    command = [sys.executable, str(folder / job_entry.FILE), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("with_code", [True, False])
def test_this_python_can_run_curate(with_code: bool) -> None:
    needs = job_entry.needs(with_code)
    assert ("curate-tokens" in needs["packages"]) is not with_code  # type: ignore[operator]
    assert {"typer", "ray", "pyarrow"} <= set(needs["packages"])  # type: ignore[call-overload]
    assert not job_entry.lacks(needs)  # type: ignore[arg-type]


def test_a_package_that_is_missing_is_named_with_the_python_that_lacks_it(tmp_path: Path) -> None:
    done = job(tmp_path, {"python": [3, 11], "packages": ["typer", "no-such-a", "no-such-b"]}, "--help")
    assert done.returncode == job_entry.LACKS
    [sentence] = done.stderr.splitlines()
    assert sentence.startswith("curate: the job's python lacks no-such-a, no-such-b: ")
    assert sys.executable in sentence
    assert "start Ray there in the environment" in sentence


def test_a_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    done = job(tmp_path, {"python": [3, 99], "packages": []}, "--help")
    assert done.returncode == job_entry.LACKS
    assert "too old for curate, which needs 3.99" in done.stderr


def test_a_python_that_has_all_becomes_curate(tmp_path: Path) -> None:
    done = job(tmp_path, {"python": [3, 11], "packages": ["typer"]}, "run", "no-such-recipe")
    assert done.returncode == 2
    assert "no-such-recipe" in done.stderr

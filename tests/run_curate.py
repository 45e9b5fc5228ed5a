"""The command, as a user gives it."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

Done = subprocess.CompletedProcess[str]


def curate(*args: object, cwd: Path | None = None, **env: str) -> Done:
    """The command in a process of its own, with some of its environment."""
    command = [sys.executable, "-m", "curate.cli.main", *map(str, args)]
    return subprocess.run(
        command, env=os.environ | env, cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )


def typed(*args: object) -> Done:
    """The command in this process: the same words and exit codes, without the seconds in which a process imports."""
    from curate.cli.main import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["curate", *map(str, args)])
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(args, code, out.getvalue(), err.getvalue())

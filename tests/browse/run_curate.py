"""The command, as a user gives it."""

from __future__ import annotations

import os
import subprocess
import sys


def curate(*args: object, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "curate.cli.main", *map(str, args)]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, timeout=300, check=False)

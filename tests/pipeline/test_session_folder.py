"""Where Ray's sockets lie, whose paths may not be long."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from curate.pipeline.ray_start import SESSION_BYTES, SOCKET_BYTES, session_folder

ROOT = "/" + "x" * (SOCKET_BYTES - SESSION_BYTES - 1)


@pytest.mark.parametrize(
    ("env", "ours"),
    [
        ({}, False),
        ({"TMPDIR": "/tmp"}, False),
        ({"TMPDIR": ROOT}, False),
        ({"TMPDIR": f"{ROOT}x"}, True),
        ({"TMPDIR": f"{ROOT[:-1]}é"}, True),  # bytes count, not letters
        ({"TMPDIR": ""}, True),
        ({"TMPDIR": "here"}, True),
        ({"TMPDIR": "/" + "y" * 150, "RAY_TMPDIR": "/tmp"}, False),
        ({"TMPDIR": "/tmp", "RAY_TMPDIR": "/" + "y" * 150}, True),
    ],
)
def test_a_long_or_relative_place_is_not_used(env: dict[str, str], ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    with session_folder() as folder:
        assert (folder is not None) == ours
        if folder is not None:
            assert len(folder) < 40
            assert Path(folder).stat().st_mode & 0o077 == 0, "for this user's eyes only"
            assert Path(folder).stat().st_uid == os.getuid()
    assert folder is None or not Path(folder).exists()


@pytest.mark.long
def test_ray_and_helpers_start_where_tmpdir_has_150_letters(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 150)
    long.mkdir()
    script = (
        "import ray\n"
        "from curate.pipeline.cluster import connect\n"
        "from curate.pipeline.models import models\n"
        "def ids(text):\n"
        "    return models().encode('text-bpe-8k', 'tokenize:caption', [text])[0].tolist()\n"
        "with connect(None, 1) as cluster:\n"
        "    print(cluster.cpus, len(ray.get(ray.remote(ids).remote('a cat'))))\n"
    )
    env = {**os.environ, "TMPDIR": str(long), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "2"]

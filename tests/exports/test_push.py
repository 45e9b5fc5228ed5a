"""An export goes to the Hub by huggingface_hub's own upload, which goes on where it was broken off."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from hub_server import Hub, running_hub


def curate(hub: Hub, home: Path, *args: object) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_x", "HF_HOME": str(home)}
    command = [sys.executable, "-m", "curate.cli.main", "export", *map(str, args)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)


def test_what_was_exported_is_pushed_and_a_refused_push_goes_on(export_build: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = (export_build, "--format", "parquet", "--out", out, "--push", "me/tokens", "--json")
    with running_hub() as hub:
        hub.refuse = 1
        failed = curate(hub, tmp_path, *asked)
        assert failed.returncode == 2, failed.stderr
        assert "me/tokens: " in failed.stderr
        assert "run the same command again" in failed.stderr
        done = curate(hub, tmp_path, *asked)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        assert (said["pushed"], said["files"]) == (f"{hub.url}/datasets/me/tokens", said["were_there"])
        here = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        assert hub.files == {path: data for path, data in here.items() if path != "export.json"}
        assert hub.visibility == "private"
        assert curate(hub, tmp_path, *asked).returncode == 0
        assert len(hub.commits) == 1, "what is there is not sent again"


def test_a_bucket_is_not_pushed(export_build: Path, tmp_path: Path) -> None:
    with running_hub() as hub:
        refused = curate(hub, tmp_path, export_build, "--out", "s3://bucket/x", "--push", "me/tokens")
    assert refused.returncode == 2
    assert "is not on this machine" in refused.stderr

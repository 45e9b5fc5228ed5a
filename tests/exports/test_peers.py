"""MosaicML streaming, LitData and Megatron-Energon read their formats themselves.

They do not install beside the versions that this project is pinned to, so each gets an environment of its own.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported import exported_samples

from curate.exports import export

PEERS = {
    "mds": "mosaicml-streaming==0.13.*",
    "litdata": "litdata==0.2.*",
    "energon": "megatron-energon==7.*",
}


def said(array: Any) -> list[Any]:
    return [array.dtype.name, list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]


@pytest.mark.long
@pytest.mark.parametrize("name", PEERS)
def test_a_library_reads_its_own_format(name: str, export_build: Path, tmp_path: Path) -> None:
    list(export(export_build, name, tmp_path / "out"))
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", PEERS[name], "torch==2.13.0"], check=True)
    found = {}
    for split in ("train", "held"):
        script = Path(__file__).with_name("peer_reads.py")
        done = subprocess.run(
            [python, script, name, tmp_path / "out", split], capture_output=True, text=True, check=True
        )
        rows = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("SAMPLE ")]
        found |= {row.get("sample_id", row.get("__key__")): row for row in rows}
    truth = {sample.sample_id: sample for sample in exported_samples()}
    assert set(found) == set(truth)
    for key, sample in truth.items():
        for stream, ids in sample.ids.items():
            column = f"{stream}.npy" if name == "energon" else stream
            if ids is not None:
                dtype = np.float16 if stream == "clip_global" else np.uint16
                assert found[key][column] == said(np.asarray(ids, dtype))
            elif name == "energon":
                assert column not in found[key]
            else:
                assert stream in found[key]["missing"]
                assert 0 in found[key][column][1]

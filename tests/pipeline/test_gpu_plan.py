"""A model on a GPU has workers of its own, which get views over the plan and commit its fragment (Ray counts the GPUs;
there need be none)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from small import package_file

RECIPE = """\
name: gpu
partition: 2
sources:
  - {kind: folder, name: here, path: media}
annotate:
  - name: brightness
  - name: gpu_signal:Redness
  - name: gpu_signal:Halved
tokenize:
  streams:
    - {name: caption, tokenizer: text-bpe-8k}
"""

RUN = """
import sys
import ray
from curate.cli.main import app
ray.init(address="local", num_cpus=2, num_gpus=int(sys.argv[1]), include_dashboard=False, log_to_driver=False)
app(["run", sys.argv[2], "--out", sys.argv[3], "--no-dashboard"])
"""


@pytest.mark.long
def test_a_model_on_a_gpu_gives_what_it_gives_beside_the_decoder(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    for name in ("astronaut", "chelsea", "coffee"):
        data = package_file("skimage", f"data/{name}.png").read_bytes()
        (tmp_path / "media" / f"{name}.png").write_bytes(data)
        (tmp_path / "media" / f"{name}.txt").write_text(name)
    (tmp_path / "media" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "gpu.yaml").write_text(RECIPE)
    tables = []
    for gpus in (0, 1):
        out = tmp_path / f"out-{gpus}"
        env = {"PYTHONPATH": f"{Path(__file__).parent}:{':'.join(p for p in sys.path if p)}", "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-c", RUN, str(gpus), str(tmp_path / "gpu.yaml"), str(out)]
        subprocess.run(command, check=True, capture_output=True, text=True, env=env)
        folders = sorted(p.name for p in (out / "signals").iterdir())
        assert folders == ["halved", "light", "redness"]
        parts = [ds.dataset(out / "signals" / f, format="parquet").to_table().sort_by("sample_id") for f in folders]
        tables.append(parts)
    assert tables[0] == tables[1]
    halved, light, redness = tables[1]
    assert halved["halved"].to_pylist() == [r / 2 for r in redness["redness"].to_pylist()]
    assert light.num_rows == 3

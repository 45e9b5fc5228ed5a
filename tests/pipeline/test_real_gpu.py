"""On a machine with a GPU: what ships gives there what it gives on a CPU, up to last bits, for pools of any size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small import Project, package_file

from curate.shards.commit import read_manifest
from curate.tokenizers import zoo

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU that PyTorch can use"),
]

RECIPE = """\
name: gpu
partition: 3
sources:
  - {kind: folder, name: here, path: media}
annotate:
  - name: brightness
  - name: conse
    compute: {device: cuda, workers: WORKERS}
tokenize:
  streams:
    - {name: tok_rgb@256, tokenizer: image-fsq-64k, compute: {device: cuda, workers: WORKERS}}
    - {name: caption, tokenizer: text-bpe-8k}
"""


def test_ids_differ_from_those_of_a_cpu_in_few_places() -> None:
    from skimage import data

    images = [np.ascontiguousarray(f()[:256, :256])[None] for f in (data.astronaut, data.chelsea, data.coffee)]
    there, here = (zoo.load_on_one_thread("image-fsq-64k", device).encode(images) for device in ("cuda", "cpu"))
    wrong = np.mean([np.mean(a != b) for a, b in zip(there, here, strict=True)])
    assert wrong < 0.01
    together, alone = (zoo.load("image-fsq-64k", "cuda", batch=8).encode(some) for some in (images, images[1:2]))
    assert np.mean(together[1] != alone[0]) < 0.001, "its place in the batch moves last bits at most"


def test_pools_of_two_sizes_give_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    for name in ("astronaut", "chelsea", "coffee", "motorcycle_left", "ihc", "color"):
        (tmp_path / "media" / f"{name}.png").write_bytes(package_file("skimage", f"data/{name}.png").read_bytes())
        (tmp_path / "media" / f"{name}.txt").write_text(name)
    builds = []
    for workers in (1, 2):
        out = tmp_path / f"out-{workers}"
        Project(tmp_path).run(out, recipe=RECIPE.replace("WORKERS", f"{workers}"))
        said = {model.name: model.device for model in read_manifest(out).models}
        assert said == {"conse": "cuda", "tok_rgb@256": "cuda"}
        files = [p for name in ("signals", "tokens") for p in (out / name).rglob("*") if p.is_file()]
        builds.append({str(p.relative_to(out)): p.read_bytes() for p in files})
    assert builds[0] == builds[1]

"""A model on a GPU has workers of its own, which get views over the plan and commit its fragment (Ray counts the GPUs;
there need be none)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow.dataset as ds
import pytest
from gpu_signal import NOTES
from PIL import Image

from curate.shards.commit import read_manifest

RECIPE = """\
name: gpu
partition: 6
sources:
  - {kind: folder, name: here, path: media}
annotate:
  - name: brightness
  - name: gpu_signal:Redness
    compute: {dtype: bfloat16, gpus: 0.25, workers: WORKERS}
  - name: gpu_signal:Halved
  - name: gpu_signal:Place
    for: kept
    compute: {workers: WORKERS}
decide:
  rules:
    - {field: redness, min: 127}
tokenize:
  streams:
    - {name: greys, tokenizer: "gpu_signal:Greys", compute: {batch: 16, workers: WORKERS}}
    - {name: caption, tokenizer: text-bpe-8k}
"""

RUN = """
import sys
import ray
from curate.cli.main import app
ray.init(address="local", num_cpus=3, num_gpus=int(sys.argv[1]), include_dashboard=False, log_to_driver=False)
app(["run", sys.argv[2], "--out", sys.argv[3], "--no-dashboard"])
"""


def built(root: Path, gpus: int, workers: int = 1) -> tuple[Path, list[list[str]]]:
    """A build on so many GPUs of Ray's, and what its models noted: name, device, dtype, batch, GPUs seen,
    share, items."""
    name = f"{gpus}-{workers}"
    out, notes, recipe = root / f"out-{name}", root / f"notes-{name}", root / "gpu.yaml"
    notes.mkdir()
    recipe.write_text(RECIPE.replace("WORKERS", f"{workers}"))
    env = {"PYTHONPATH": f"{Path(__file__).parent}:{':'.join(p for p in sys.path if p)}", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, "-c", RUN, str(gpus), str(recipe), str(out)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env | {NOTES: str(notes)})
    assert done.returncode == 0, done.stdout + done.stderr
    return out, [line.split() for file in sorted(notes.iterdir()) for line in file.read_text().splitlines()]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Twenty images of noise, two of which are broken, each with a text."""
    folder = tmp_path / "media"
    folder.mkdir()
    for i in range(20):
        noise = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i:02}.png")
        (folder / f"{i:02}.txt").write_text(f"noise {i}")
    for name in ("05.png", "13.png"):
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path


def tables(out: Path) -> list[object]:
    names = ("halved", "light", "redness")
    return [ds.dataset(out / "signals" / name, format="parquet").to_table().sort_by("sample_id") for name in names]


def content(out: Path) -> Mapping[str, bytes]:
    """All files that a build's size of pools must not show in; the manifest holds the recipe, which names it."""
    kept = ("signals", "samples", "records", "verdicts", "tokenized", "tokens", "units")
    return {str(p.relative_to(out)): p.read_bytes() for name in kept for p in (out / name).rglob("*") if p.is_file()}


@pytest.mark.long
def test_models_are_where_the_gpus_are(media: Path) -> None:
    alone, beside = built(media, 0)
    assert {line[1] for line in beside} == {"cpu"}
    assert {(line[4], line[5]) for line in beside} == {("[]", "0")}
    out, notes = built(media, 2)
    assert {(name, device, dtype, batch, share) for name, device, dtype, batch, _, share, _ in notes} == {
        ("redness", "cuda", "bfloat16", "4", "0.25"),
        ("place", "cuda", "float32", "4", "0.5"),
        ("greys", "cuda", "float32", "16", "0.25"),
    }
    assert {line[4] for line in notes if line[1] == "cuda"} <= {"[0]", "[1]"}, (
        "each sees the one that it has a share of"
    )
    said = {(m.name, m.of, m.device, m.dtype, m.batch) for m in read_manifest(out).models}
    assert said == {
        ("redness", "signal", "cuda", "bfloat16", 4),
        ("place", "signal", "cuda", "float32", 4),
        ("greys", "stream", "cuda", "float32", 16),
    }
    assert {(m.device, m.batch) for m in read_manifest(alone).models} == {("cpu", 1)}
    assert tables(alone) == tables(out)
    halved, light, redness = (t.to_pydict() for t in tables(out))  # type: ignore[attr-defined]
    assert halved["halved"] == [r / 2 for r in redness["redness"]]
    assert len(light["sample_id"]) == 18


@pytest.mark.long
def test_pools_of_any_size_give_the_same_bytes(media: Path) -> None:
    first, *others = (content(built(media, 2, workers)[0]) for workers in (1, 2, 3))
    assert first
    assert all(first == other for other in others)


@pytest.mark.long
def test_an_image_that_kills_a_tokenizer_on_a_gpu_costs_itself(media: Path) -> None:
    Image.new("RGB", (40, 40), "white").save(media / "media" / "00.png")
    out, _ = built(media, 2)
    ledger = ds.dataset(out / "verdicts", format="parquet").to_table(filter=ds.field("level") == "sample")
    failed = ledger.filter(ds.field("outcome") == "failed").to_pylist()
    assert [(row["stage"], row["error"]) for row in failed] == [("tokenize:greys", "Crashed")]
    manifest = read_manifest(out)
    [greys] = [stream for stream in manifest.streams if stream.name == "greys"]
    assert greys.samples == manifest.counts.samples["kept"] > 5

"""The end of a run: card, manifest, and nothing else left in the folder."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console

from curate.decide.ledger import conserve
from curate.pipeline.cluster import Cluster
from curate.pipeline.files import remove_others
from curate.pipeline.made import Made
from curate.pipeline.plan import Plan
from curate.pipeline.progress import Stage
from curate.schema.manifest import MANIFEST, Counts, Manifest
from curate.shards.commit import describe_file, write_manifest
from curate.shards.ipc import open_ipc
from curate.shards.pack import splits_of, stream_entries
from curate.signals.base import Signal
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer

VERSIONS = (
    "curate-tokens",
    "ray",
    "pyarrow",
    "numpy",
    "torch",
    "av",
    "faiss-cpu",
    "onnxruntime",
    "opencv-python-headless",
    "pillow",
    "scenedetect-headless",
    "faster-whisper",
    "vector-quantize-pytorch",
    "tokenizers",
)
"""Distributions whose code decides what the bytes of a build are."""


CardWriter = Callable[[Path, Manifest, Callable[[str], Tokenizer]], list[str]]
"""`curate.card.write.write_card`: the room above, so it is handed down and not imported."""


def finish(plan: Plan, build: Path, cluster: Cluster, console: Console, made: Made, write_card: CardWriter) -> Manifest:
    """Write the card, commit the manifest, and remove what the manifest does not name: an earlier recipe's pieces."""
    manifest = _manifest(plan, build, cluster, made)
    with Stage(console, "card", 1, "page") as stage:
        for path in write_card(build, manifest, _load):
            manifest.files.append(describe_file(build, path, 0))
        stage.add(1)
    manifest.files.sort(key=lambda f: f.path)
    write_manifest(build, manifest)
    remove_others(build, {MANIFEST, *(f.path for f in manifest.files)})
    return manifest


def _load(name: str) -> Tokenizer:
    """A tokenizer on one thread, as where ids are made: pictures of the card are decoded to the same bytes anywhere."""
    import torch

    torch.set_num_threads(1)
    return zoo.load(name)


def _manifest(plan: Plan, build: Path, cluster: Cluster, made: Made) -> Manifest:
    recipe = plan.file.recipe
    assert made.ledger is not None
    files = [describe_file(build, path, _rows(build, path)) for paths in made.files.values() for path in paths]
    return Manifest(
        name=recipe.name,
        recipe=recipe.model_dump(mode="json"),
        seed=recipe.seed,
        counts=Counts(**conserve(made.ledger, made.records, made.samples)),
        splits=splits_of(list(recipe.pack.splits), made.plans),
        streams=stream_entries(
            build,
            made.plans,
            [s.spec for s in plan.streams],
            {s.use.name: (s.card.name, s.card.modality) for s in plan.streams},
        ),
        signals=[_signal(s) for s in plan.signals],
        codecs={s.card.name: s.card for s in plan.streams},
        versions={"python": ".".join(platform.python_version_tuple()[:2])} | {name: version(name) for name in VERSIONS},
        hardware=cluster.hardware(),
        files=sorted(files, key=lambda f: f.path),
    )


def _signal(signal: Signal) -> dict[str, Any]:
    return {
        "name": signal.name,
        "version": signal.version(),
        "options": signal.options.model_dump(mode="json"),
        "fields": [
            {
                "name": f.name,
                "type": str(f.type),
                "unit": f.unit,
                "range": list(f.range),
                "kinds": list(f.kinds),
                "about": f.about,
            }
            for f in signal.gives
        ],
    }


def _rows(build: Path, path: str) -> int:
    if path.endswith(".parquet"):
        return int(pq.read_metadata(build / path).num_rows)
    if path.endswith(".arrow"):
        return sum(batch.num_rows for batch in open_ipc(build / path)[1])
    records = path.replace("media/", "records/", 1).removesuffix(".tar") + ".parquet"
    return int(pq.read_metadata(build / records).num_rows)

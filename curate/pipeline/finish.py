"""The end of a run: card, manifest, and nothing else left in the folder."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

from rich.console import Console

from curate.decide.ledger import conserve
from curate.pipeline.cluster import Cluster
from curate.pipeline.made import Made
from curate.pipeline.plan import Plan
from curate.pipeline.progress import Stage
from curate.pipeline.stream import ray_map
from curate.schema.manifest import MANIFEST, Counts, File, Manifest
from curate.shards.commit import describe_file, write_manifest
from curate.shards.ipc import open_ipc
from curate.shards.pack import splits_of, stream_entries
from curate.signals.base import Signal
from curate.storage import Store
from curate.storage.base import Hold
from curate.storage.lease import LEASE
from curate.storage.tables import table_rows
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


DESCRIBED = 32
"""Files whose digests one task makes."""

CardWriter = Callable[[Store, Manifest, Callable[[str], Tokenizer]], list[str]]
"""`curate.card.write.write_card`: the room above, so it is handed down and not imported."""


def finish(
    plan: Plan, build: Store, hold: Hold, cluster: Cluster, console: Console, made: Made, write_card: CardWriter
) -> Manifest:
    """Write the card, commit the manifest, and remove what the manifest does not name: an earlier recipe's pieces."""
    manifest = _manifest(plan, build, cluster, made)
    with Stage(console, "card", 1, "page") as stage:
        where = {s.card.name: s.tokenizer for s in plan.streams}
        for path in write_card(build, manifest, lambda name: _load(where[name])):
            manifest.files.append(describe_file(build, path, 0))
        stage.add(1)
    manifest.files.sort(key=lambda f: f.path)
    write_manifest(hold, manifest)
    keep = {MANIFEST, *(f.path for f in manifest.files)}
    build.remove(stat.path for stat in build.files() if stat.path not in keep and stat.path != LEASE)
    return manifest


def _load(name: str) -> Tokenizer:
    """A tokenizer on one thread, as where ids are made: pictures of the card are decoded to the same bytes anywhere."""
    import torch

    torch.set_num_threads(1)
    return zoo.load(name)


def _manifest(plan: Plan, build: Store, cluster: Cluster, made: Made) -> Manifest:
    recipe = plan.file.recipe
    assert made.ledger is not None
    paths = [path for paths in made.files.values() for path in paths]
    # on the cluster: it reads every byte of the build once more
    parts = ray_map(partial(_describe, build), [paths[i : i + DESCRIBED] for i in range(0, len(paths), DESCRIBED)])
    files = [file for part in parts for file in part]
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


def _describe(build: Store, paths: Sequence[str]) -> list[File]:
    return [describe_file(build, path, _rows(build, path)) for path in paths]


def _rows(build: Store, path: str) -> int:
    if path.endswith(".parquet"):
        return table_rows(build, path)
    if path.endswith(".arrow"):
        return sum(batch.num_rows for batch in open_ipc(build.local(path))[1])
    records = path.replace("media/", "records/", 1).removesuffix(".tar") + ".parquet"
    return table_rows(build, records)

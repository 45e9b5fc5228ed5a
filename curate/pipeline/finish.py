"""The end of a run: card, manifest, and nothing else left in the folder."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from rich.console import Console

from curate.pipeline.cluster import Cluster
from curate.pipeline.finish_tasks import CardWriter, Loader, describe, make_card
from curate.pipeline.pace import Pace
from curate.pipeline.placement import models_of
from curate.pipeline.plan import Plan
from curate.pipeline.progress import Stage
from curate.schema.manifest import MANIFEST, Counts, File, Manifest, ModelEntry, SecondLook, Split, Trial
from curate.shards.commit import write_manifest
from curate.shards.lists import write_lists
from curate.shards.pack import ShardResult, stream_entries
from curate.shards.sequence import FlatVocabulary
from curate.signals.base import Signal
from curate.signals.captions import CaptionerSignal
from curate.storage import Store
from curate.storage.base import Lease
from curate.storage.lease import LEASE

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
    "tokenizers",
)
"""Distributions whose code decides what the bytes of a build are."""


DESCRIBED = 32
"""Files whose digests one task makes."""


@dataclass(frozen=True)
class Made:
    """What the stages of a run made, as the manifest tells of it."""

    counts: Counts
    second_look: SecondLook | None
    shards: Sequence[ShardResult]
    splits: list[Split]
    trial: Trial | None = None


def finish(
    plan: Plan,
    build: Store,
    lease: Lease,
    cluster: Cluster,
    console: Console,
    course: Pace,
    made: Made,
    known: Mapping[str, File],
    paths: Sequence[str],
    work: Sequence[str],
    write_card: CardWriter,
) -> Manifest:
    """Write the card, commit the manifest, and remove what it does not name: an earlier recipe's fragments.

    Args:
        known: by path, files whose digests were made where they were written.
        paths: all files of the build but shards and the card.
        work: fragments of `WORK` folders that the next run may take up.
    """
    engine = cluster.engine()
    # of what a run committed that did not end, every byte is read once more
    others = sorted(path for path in paths if path not in known)
    parts = engine.map(describe, ((build, others[i : i + DESCRIBED]) for i in range(0, len(others), DESCRIBED)))
    described = {file.path: file for part in parts for file in part}
    files = [known.get(path) or described[path] for path in sorted(paths)] + [shard.file for shard in made.shards]
    manifest = _manifest(plan, cluster, made)
    with Stage(console, "card", 1, "page", course=course) as stage:
        loader = Loader({s.card.name: s.tokenizer for s in plan.streams})
        # in a task, so that what it reads and draws is not held by this process
        [written] = engine.map(make_card, [(build, manifest, write_card, loader, files)])
        files += written
        stage.add(1)
    manifest.lists = write_lists(build, files)
    write_manifest(lease, manifest)
    keep = {MANIFEST, LEASE, *work, *(f.path for f in files), *(f.path for f in manifest.lists)}
    build.remove(stat.path for stat in build.files() if stat.path not in keep)
    return manifest


def _manifest(plan: Plan, cluster: Cluster, made: Made) -> Manifest:
    manifest = Manifest(
        **made_by(plan),
        trial=made.trial,
        counts=made.counts,
        second_look=made.second_look,
        splits=made.splits,
        streams=stream_entries(
            made.shards,
            [s.spec for s in plan.streams],
            {s.use.name: (s.card.name, s.card.modality) for s in plan.streams},
        ),
        models=_models(plan),
        hardware=cluster.hardware(),
        lists=[],
    )
    vocabulary = FlatVocabulary.of(manifest)
    for entry in manifest.streams:
        entry.flat = vocabulary.block(entry.name) if entry.vocabulary else None
    return manifest


def _models(plan: Plan) -> list[ModelEntry]:
    """What the networks of a settled plan ran on; of those behind endpoints that is not known."""
    elsewhere = {s.name for s in plan.signals if isinstance(s, CaptionerSignal) and s.use.endpoint is not None}
    groups = [group for group in plan.groups if group.name not in elsewhere]
    models = [("signal", model) for model in models_of(groups, plan.computes)]
    models += [("stream", stream.model) for stream in plan.streams]
    return [ModelEntry(name=model.name, of=of, **asdict(model.ran_on)) for of, model in models if model.cost.model]


def made_by(plan: Plan) -> dict[str, Any]:
    """What a manifest says of the plan that it was made by, and of the code."""
    recipe = plan.file.recipe
    return {
        "name": recipe.name,
        "recipe": recipe.model_dump(mode="json"),
        "seed": recipe.seed,
        "signals": [_signal(s) for s in plan.signals],
        "codecs": {s.card.name: s.card for s in plan.streams},
        "versions": {"python": ".".join(platform.python_version_tuple()[:2])} | {n: version(n) for n in VERSIONS},
    }


def _signal(signal: Signal) -> dict[str, Any]:
    return {
        "name": signal.name,
        "version": signal.version(),
        "options": signal.made_by(),
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

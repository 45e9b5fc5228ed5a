"""Whether every node of a cluster sees what a run needs from a file system."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from rich.console import Console

from curate.schema.errors import CurateError
from curate.sources.base import Source
from curate.storage import Folder, Store, is_remote
from curate.storage.place import temporary_name

LOOK_SECONDS = 60.0
"""How long a node may take to look."""


def check_nodes(build: Store, sources: Sequence[Source], console: Console) -> None:
    """Refuse a local path that a node of the cluster does not see; say what depends on one that all see.

    A cluster of one node needs no check. Otherwise a file is put into the build's folder, and a task on each node looks
    for it and for the path of each local source.

    Raises:
        CurateError: a node does not see a path; with the way out.
    """
    known = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = {n["NodeID"]: n["NodeManagerAddress"] for n in known if n["Alive"] and n["Resources"].get("CPU")}
    places = {f"source {s.name}": place for s in sources if not is_remote(place := s.place)}
    if len(nodes) < 2 or not (places or isinstance(build, Folder)):
        return
    token: Path | None = None
    if isinstance(build, Folder):
        build.root.mkdir(parents=True, exist_ok=True)
        token = build.root / temporary_name("nodes")
        token.write_bytes(b"")
        places["the build"] = str(token)
    try:
        blind = _look(nodes, places)
    finally:
        if token is not None:
            token.unlink(missing_ok=True)
    for what, unseen in blind.items():
        place = str(build) if what == "the build" else places[what]
        way = "give --out s3://bucket/prefix" if what == "the build" else "put it into a bucket and name it s3://..."
        raise CurateError(
            f"{what} lies at {place}, which {len(unseen)} of the cluster's {len(nodes)} nodes do not see: "
            f"{', '.join(sorted(set(unseen)))}",
            f"{way}, or use a file system that all nodes mount at the same path",
        )
    console.print(
        f"nodes      {len(nodes)}; {' and '.join(places)} on a local path, which all of them see now; "
        "with s3:// they would not need to"
    )


def _look(nodes: Mapping[str, str], places: Mapping[str, str]) -> dict[str, list[str]]:
    """For each place that not all nodes see, the addresses of those that do not."""
    look = ray.remote(num_cpus=0, max_retries=3)(_seen)
    asked = {
        node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(dict(places))
        for node in nodes
    }
    blind: dict[str, list[str]] = {}
    for node, answer in asked.items():
        seen = ray.get(answer, timeout=LOOK_SECONDS)
        for what in places:
            if what not in seen:
                blind.setdefault(what, []).append(nodes[node])
    return blind


def _seen(places: dict[str, str]) -> list[str]:
    return [what for what, path in places.items() if Path(path).exists()]

"""The seam for methods that find near duplicates: samples in, links with similarities out.

A method links samples of one kind that are alike and writes the links to the build. What becomes of them (groups,
keepers, verdicts) is the same for all methods: `curate.decide.groups`. Most of one's own are a `Buckets`
(`curate.decide.buckets`): they say which samples to compare, and how alike two are. A recipe names them by entry point
(`curate.dedups`) or `package.module:Class`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate import plugins
from curate.decide.engine import Engine, Held
from curate.decide.partitions import PartitionFiles
from curate.schema.fields import SignalField
from curate.schema.recipe import NearDuplicates
from curate.storage import Store

BUILTIN = {"cosine": "curate.decide.near:Cosine"}
"""Methods that ship with curate."""

LINKS = pa.schema(
    [
        pa.field("a", pa.string(), nullable=False),  # sample ids, a < b
        pa.field("b", pa.string(), nullable=False),
        pa.field("similarity", pa.float64(), nullable=False),
    ]
)
"""Links of near duplicates."""


@dataclass(frozen=True)
class Material:
    """What a method may look at.

    Attributes:
        build: holds the fragments, and takes the links.
        groups: partitions, a group for each task.
        loaded: for each group the held `curate.decide.partitions.Loaded`.
        rows: samples by kind.
        home: group of signals that has the field.
        field: embedding, or whatever else the specification names.
        seed: of the recipe.
        engine: runs tasks.
    """

    build: Store
    groups: Sequence[Sequence[PartitionFiles]]
    loaded: Sequence[Held]
    rows: Mapping[str, int]
    home: str
    field: SignalField
    seed: int
    engine: Engine


class Method(Protocol):
    """Finds near duplicates. `curate.decide.near.Cosine` is one."""

    def links(self, material: Material, spec: NearDuplicates) -> list[str]:
        """Files of LINKS in the build, made here or found there: for every threshold from the specification's on, the
        links at or above it connect all samples of one kind that are alike by that threshold.

        All samples that have the field take part, whatever else becomes of them: then no rule changes a link.
        """

    def similarity(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
        """How alike rows of `a` are to those of `b`, both `(p, d)` of unit length: `(p,)`, what the links say."""


def method(name: str) -> Method:
    """The method that a recipe calls so.

    Raises:
        CurateError: there is none; see `plugins.make`.
    """
    made: Method = plugins.make("dedup", name, {})
    return made


def complete_links(build: Store, key: str, threshold: float) -> list[str] | None:
    """Links that are there and were made for a threshold no larger; of several the one that is nearest.

    They lie in `pairs/<key>-<threshold>/part-<i>-of-<n>.parquet`, and all n together are complete.
    """
    found: dict[float, list[str]] = defaultdict(list)
    for file in build.files("pairs"):
        folder = file.path.split("/")[1]
        if folder.startswith(f"{key}-"):
            found[float(folder.removeprefix(f"{key}-"))].append(file.path)
    for base in sorted((base for base in found if base <= threshold), reverse=True):
        paths = found[base]
        if len(paths) == int(paths[0].rsplit("-", 1)[1].removesuffix(".parquet")):
            return paths
    return None

"""What all stages of a run work with."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console

from curate.media.decodes import Decodes
from curate.pipeline.cluster import Cluster
from curate.pipeline.pace import Pace
from curate.pipeline.paths import Paths
from curate.pipeline.plan import Plan
from curate.pipeline.preflight import Preflight
from curate.pipeline.spent import Spent
from curate.storage import Store


@dataclass(frozen=True)
class RunContext:
    """A run.

    Attributes:
        plan: settled.
        build: where it goes.
        cluster: what it runs on.
        console: where its progress goes.
        paths: names of its fragments.
        decodes: what was decoded; stages add to it.
        preflight: tries what is to be used, before it is.
        course: what stages took in the last run; they add what they take in this one.
        spent: where the time of tasks went; stages add to it.
    """

    plan: Plan
    build: Store
    cluster: Cluster
    console: Console
    paths: Paths
    decodes: Decodes
    preflight: Preflight
    course: Pace
    spent: Spent = field(default_factory=dict)

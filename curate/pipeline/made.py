"""What a run has made so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from curate.shards.order import ShardPlan


@dataclass
class Made:
    """What a run has made so far; `finish` turns it into a manifest.

    Attributes:
        files: paths relative to the build, by folder; all of them go into the manifest.
        records, samples: how many went in, counted where they were listed and cut.
        ledger: the whole ledger.
        plans: the shards.
    """

    files: dict[str, list[str]] = field(default_factory=dict)
    records: int = 0
    samples: int = 0
    ledger: pa.Table | None = None
    plans: list[ShardPlan] = field(default_factory=list)

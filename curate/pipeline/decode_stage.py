"""The operator that decodes: the one place where media turns into views (law 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.clips import Span
from curate.media.guarded import decode
from curate.media.views import View
from curate.pipeline.media_store import read_media
from curate.schema.errors import MediaError
from curate.schema.fields import TIMED
from curate.schema.verdict import Failure
from curate.storage import Store

DECODE_SECONDS = 120.0
"""Time limit for one sample's decode; reaching it is a failure of that sample."""


class MediaReader:
    """Reads the media of one piece. Clips of one video stand together, so the last one read is kept."""

    def __init__(self, build: Store) -> None:
        self._build = build
        self._last: tuple[tuple[str, int], bytes] | None = None

    def read(self, sample: dict[str, Any]) -> bytes:
        at = (sample["media"], sample["offset"])
        if self._last is None or self._last[0] != at:
            self._last = (at, read_media(self._build, sample["media"], sample["offset"], sample["bytes"]))
        return self._last[1]


def decode_samples(
    build: Store, samples: Sequence[dict[str, Any]], views: Sequence[View], stage: str
) -> tuple[dict[View, list[NDArray[np.generic] | None]], list[Failure | None]]:
    """One decode a sample for all `views`; a sample that fails has None in every view and a Failure.

    Args:
        samples: rows of the SAMPLES table.
        stage: the stage's name in failures.
    """
    out: dict[View, list[NDArray[np.generic] | None]] = {v: [] for v in views}
    failures: list[Failure | None] = []
    reader = MediaReader(build)
    for sample in samples:
        span = Span(sample["start_us"], sample["end_us"]) if sample["kind"] in TIMED else None
        failure = None
        got: dict[View, NDArray[np.generic]] = {}
        try:
            if views:
                got = decode(
                    reader.read(sample), sample["kind"], views, span, limit_s=DECODE_SECONDS, key=sample["sample_id"]
                ).views
        except (MediaError, MemoryError) as exc:
            failure = Failure.of(f"{stage}:decode", exc)
        failures.append(failure)
        for view in views:
            out[view].append(got.get(view))
    return out, failures

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


READ_BYTES, GAP_BYTES = 8 << 20, 256 << 10
"""Media that stand together in their tar are read with one request, up to so many bytes, over gaps of so many."""


class MediaReader:
    """Reads the media of some samples, in their order; clips of one video share a read.

    Args:
        samples: rows of the SAMPLES table, as they will be read.
    """

    def __init__(self, build: Store, samples: Sequence[dict[str, Any]]) -> None:
        self._build, self._samples = build, samples
        self._media, self._start, self._data = "", 0, b""

    def read(self, i: int) -> bytes:
        """Media of sample i."""
        sample = self._samples[i]
        if not self._holds(sample):
            self._media, self._start = sample["media"], sample["offset"]
            self._data = read_media(self._build, self._media, self._start, self._stop(i) - self._start)
        at = sample["offset"] - self._start
        return self._data[at : at + sample["bytes"]]

    def _holds(self, sample: dict[str, Any]) -> bool:
        at: int = sample["offset"] - self._start
        return bool(sample["media"] == self._media and at >= 0 and at + sample["bytes"] <= len(self._data))

    def _stop(self, i: int) -> int:
        """Where a read that begins with sample i ends."""
        first = self._samples[i]
        stop: int = first["offset"] + first["bytes"]
        for sample in self._samples[i + 1 :]:
            end: int = sample["offset"] + sample["bytes"]
            near = first["offset"] <= sample["offset"] <= stop + GAP_BYTES and end <= first["offset"] + READ_BYTES
            if sample["media"] != first["media"] or not near:
                break
            stop = max(stop, end)
        return stop


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
    reader = MediaReader(build, samples)
    for i, sample in enumerate(samples):
        span = Span(sample["start_us"], sample["end_us"]) if sample["kind"] in TIMED else None
        failure = None
        got: dict[View, NDArray[np.generic]] = {}
        try:
            if views:
                got = decode(
                    reader.read(i), sample["kind"], views, span, limit_s=DECODE_SECONDS, key=sample["sample_id"]
                ).views
        except (MediaError, MemoryError) as exc:
            failure = Failure.of(f"{stage}:decode", exc)
        failures.append(failure)
        for view in views:
            out[view].append(got.get(view))
    return out, failures

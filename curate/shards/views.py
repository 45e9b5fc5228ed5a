"""How a trainer sees shards. A view is a small declaration; bound to a manifest it turns rows into samples or batches.

`RawView` gives arrays as they are stored, `MaskedView` masked any-to-any examples as 4M draws them, `SequenceView`
sequences over one flat vocabulary. A view of your own is two methods; see `Bound`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from curate.schema.manifest import Manifest
from curate.shards.draw import Draw, check_names
from curate.shards.masked import MaskedView
from curate.shards.rows import Rows
from curate.shards.sequence import SequenceView

__all__ = ["Bound", "MaskedView", "RawView", "SequenceView", "View"]


class Bound(Protocol):
    """A view of one build.

    Attributes:
        streams: the streams that it reads.
    """

    @property
    def streams(self) -> tuple[str, ...]: ...

    def sample(self, rows: Rows, i: int, draw: Draw) -> dict[str, Any]:
        """Row i as a trainer sees it; depends on that row and on `draw` only."""
        ...

    def batch(self, rows: Rows, draw: Draw) -> dict[str, Any]:
        """All rows as one batch."""
        ...


class View(Protocol):
    """How a trainer sees rows of shards: what `stream` takes as `view`, e.g. `MaskedView(256, 256)`."""

    def bind(self, manifest: Manifest) -> Bound:
        """The view of a build; raises CurateError where they do not fit."""
        ...


@dataclass(frozen=True)
class RawView:
    """Ids as they are stored.

    A sample is `{"sample_id", "kind": str, "start_us", "end_us": int, stream: ndarray or None}`, arrays in the
    stream's shape and dtype, e.g. uint16 `(T, 32, 32)`; None where the modality is missing. A batch has the same keys:
    object arrays of str, int64 arrays, and a `Ragged` a stream (`values`, `offsets`, `present`).

    Attributes:
        only: the streams to read; all where None.
    """

    only: Sequence[str] | None = None

    def bind(self, manifest: Manifest) -> Bound:
        check_names(manifest, list(self.only or ()), "RawView")
        return _Raw(tuple(s.name for s in manifest.streams if self.only is None or s.name in self.only))


@dataclass(frozen=True)
class _Raw:
    streams: tuple[str, ...]

    def sample(self, rows: Rows, i: int, draw: Draw) -> dict[str, Any]:
        out: dict[str, Any] = {
            "sample_id": rows.keys["sample_id"][i],
            "kind": rows.keys["kind"][i],
            "start_us": int(rows.keys["start_us"][i]),
            "end_us": int(rows.keys["end_us"][i]),
        }
        for name in self.streams:
            out[name] = rows.streams[name][i]
        return out

    def batch(self, rows: Rows, draw: Draw) -> dict[str, Any]:
        return {**rows.keys, **rows.streams}

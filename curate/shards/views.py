"""How a trainer sees shards. A view is a small declaration; bound to a manifest it turns rows into samples or batches.

`RawView` gives arrays as they are stored, `MaskedView` masked any-to-any examples as 4M draws them, `SequenceView`
sequences over one flat vocabulary. A view of your own that turns one sample into another is a `SampleView`
(`examples/plugins/view.py`); one that makes batches is two methods, see `Bound`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from curate import plugins
from curate.schema.manifest import Manifest
from curate.shards.draw import Draw, check_names
from curate.shards.masked import MaskedView
from curate.shards.rows import Rows
from curate.shards.sequence import SequenceView, Task

__all__ = ["Bound", "MaskedView", "RawView", "SampleView", "SequenceView", "Task", "View", "view_of"]


class Bound(Protocol):
    """A view of one build.

    One whose `batch` runs without Python's lock says so by `parallel = True`: the next rows are then gathered by a
    thread beside it. Others would only hand the lock to and fro.

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


class SampleView:
    """Base of a view that makes of each stored sample what a trainer takes: it writes `one`.

    Attributes:
        only: the streams that it reads; all where None.
    """

    only: Sequence[str] | None = None

    def one(self, sample: dict[str, Any]) -> dict[str, Any]:
        """The item for a sample of `RawView`. A batch has a list a key."""
        raise NotImplementedError

    def bind(self, manifest: Manifest) -> Bound:
        """The view of a build; raises CurateError where they do not fit."""
        return _Each(RawView(self.only).bind(manifest), self.one)


@dataclass(frozen=True)
class _Each:
    raw: Bound
    one: Callable[[dict[str, Any]], dict[str, Any]]

    @property
    def streams(self) -> tuple[str, ...]:
        return self.raw.streams

    def sample(self, rows: Rows, i: int, draw: Draw) -> dict[str, Any]:
        return self.one(self.raw.sample(rows, i, draw))

    def batch(self, rows: Rows, draw: Draw) -> dict[str, Any]:
        items = [self.sample(rows, i, draw) for i in range(len(rows))]
        return {key: [item[key] for item in items] for key in items[0]}


def view_of(name: str) -> View:
    """The view that `curate stream --view` names: `raw`, an entry point, or `package.module:X`, where X is a view or a
    class of one that takes no arguments.

    Raises:
        CurateError: there is none, or its class cannot be made without arguments.
    """
    found: Any = plugins.find("view", name)
    made: View = plugins.make("view", name, {}) if isinstance(found, type) else found
    return made


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

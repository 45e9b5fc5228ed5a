"""Which file holds what of a partition. A fragment's name carries the fingerprints of all that it was made of."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate.media.requests import DecodeRequest
from curate.pipeline.blocks import view_name
from curate.pipeline.partitions import KEY_HEX, fragment
from curate.schema.fields import Resources, RunsOn
from curate.schema.ids import key_of
from curate.schema.recipe import Cut, Media
from curate.signals.base import Signal

READER = Media().reader
"""The reader of video that is not named where it makes a fragment: so its fragments keep their names."""

FETCH_VERSION = 1
CUT_VERSION = 5
ANNOTATE_VERSION = 4
"""Versions of our own code: raised when results change."""

LIGHT, LIGHT_KEPT = "light", "light-kept"
"""The groups of signals without a model: of all samples, and of those that are looked at a second time."""


@dataclass(frozen=True)
class Group:
    """Signals that share a fragment, and a worker.

    Attributes:
        name: `light`, `light-kept`, or the name of the one signal that has a model.
        signals: in an order that respects what they read of each other.
        is_second: True if only samples that rules and duplicates left are looked at.
    """

    name: str
    signals: tuple[Signal, ...]
    is_second: bool = False

    @property
    def needs(self) -> list[DecodeRequest]:
        """Views of all its signals, each once, in a fixed order."""
        return sorted({view for s in self.signals for view in s.needs}, key=view_name)


def groups_of(signals: Sequence[Signal], kept: Collection[str] = ()) -> list[Group]:
    """Groups in an order that respects what they read of each other; those of the second look come last.

    A signal without a model that reads what a model gives comes after it, in a group of its own; of a second look such
    signals share one, which comes last, but for those that a model reads.

    Args:
        signals: in such an order.
        kept: names of those that belong to the second look, with all that read them.
    """
    light: list[Signal] = []
    rest: list[Group] = []
    by_models: set[str] = set()
    for signal in signals:
        if signal.name in kept:
            continue
        if signal.cost.model or by_models & set(signal.after):
            by_models |= {f.name for f in signal.gives}
            rest.append(Group(signal.name, (signal,)))
        else:
            light.append(signal)
    first = [*([Group(LIGHT, tuple(light))] if light else []), *rest]
    alone: list[Group] = []
    closing: list[Signal] = []
    read: set[str] = set()
    for signal in reversed([s for s in signals if s.name in kept]):
        if signal.cost.model or read & {f.name for f in signal.gives}:
            read |= set(signal.after)
            alone.append(Group(signal.name, (signal,), is_second=True))
        else:
            closing.append(signal)
    last = [Group(LIGHT_KEPT, tuple(reversed(closing)), is_second=True)] if closing else []
    return [*first, *reversed(alone), *last]


@dataclass(frozen=True)
class Paths:
    """Paths of fragments, from a recipe's options.

    Attributes:
        fetched_as: by source, fingerprint of what fetching depends on.
        cut_as: options of the recipe's `cut` that the samples depend on.
        signals_as: by signal, fingerprint of what its values depend on beside the samples.
        groups: by group, the names of its signals.
        second: groups of the second look.
        homes: by field, its signal and its group.
        reader: of video (`media.reader` of the recipe). What is made of pixels depends on it; records and samples do
            not.
    """

    fetched_as: Mapping[str, Any]
    cut_as: Any
    signals_as: Mapping[str, str]
    groups: Mapping[str, tuple[str, ...]]
    homes: Mapping[str, tuple[str, str]]
    reader: str = READER
    second: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        fetch: Mapping[str, Any],
        cut: Cut,
        signals: Sequence[Signal],
        reader: str = READER,
        kept: Collection[str] = (),
    ) -> Paths:
        """Of the fetch section of each source (None where it has none), `cut`, all signals, the reader of video, and
        the names of signals of the second look."""
        groups = groups_of(signals, kept)
        return cls(
            fetched_as={source: ["fetch", FETCH_VERSION, _fetched_as(options)] for source, options in fetch.items()},
            # min_seconds is a rule of `decide`: moving it must not cut again
            cut_as=["cut", CUT_VERSION, cut.shots.model_dump(), cut.max_seconds, cut.max_samples],
            signals_as=_signals_as(signals, [] if reader == READER else [reader]),
            groups={g.name: tuple(s.name for s in g.signals) for g in groups},
            homes={f.name: (s.name, g.name) for g in groups for s in g.signals for f in s.gives},
            reader=reader,
            second=frozenset(g.name for g in groups if g.is_second),
        )

    def fetched(self, partition: str, source: str) -> str:
        """What the source says, and where the media lie: the commit of fetching."""
        return fragment("fetched", partition, self.fetched_as[source])

    def media(self, partition: str, source: str) -> str:
        """The tar of media."""
        return fragment("media", partition, self.fetched_as[source], "tar")

    def records(self, partition: str, source: str) -> str:
        """The table of records."""
        return fragment("records", partition, self._cut(source))

    def samples(self, partition: str, source: str) -> str:
        """The table of samples."""
        return fragment("samples", partition, self._cut(source))

    def signals(self, partition: str, source: str, group: str, of: str | None = None) -> str:
        """The fragment of a group of signals; of the second look, with the digest `of` of the samples in it."""
        made_by = ["signals", self._decoded(source), [self.signals_as[name] for name in self.groups[group]]]
        return fragment(f"signals/{group}", partition, made_by if of is None else [*made_by, of])

    def tables(self, partition: str, source: str) -> list[str]:
        """All tables of a partition that are made before decisions."""
        found = [self.fetched(partition, source), self.records(partition, source), self.samples(partition, source)]
        return [*found, *(self.signals(partition, source, group) for group in self.groups if group not in self.second)]

    def tokens_prefix(self, partition: str, source: str, stream: str, made_by: Any) -> str:
        """Names of a stream's fragments of a partition begin so; the digest of what they hold follows."""
        key = key_of(["tokens", self._decoded(source), made_by])[:KEY_HEX]
        return f"tokenized/{stream}/{partition}-{key}-"

    @staticmethod
    def prefix_of(path: str) -> str:
        """How the name of a fragment of tokens begins, as `tokens_prefix` gives it."""
        return path[: path.rfind("-") + 1]

    def _cut(self, source: str) -> Any:
        return [self.fetched_as[source], self.cut_as]

    def _decoded(self, source: str) -> Any:
        return self._cut(source) if self.reader == READER else [*self._cut(source), self.reader]


def _fetched_as(options: Mapping[str, Any] | None) -> Any:
    """How many requests are made at once changes no byte."""
    return None if options is None else {name: value for name, value in options.items() if name != "concurrency"}


def _signals_as(signals: Sequence[Signal], decoded_by: Sequence[str]) -> dict[str, str]:
    """By signal, the digest of its code, model and options, and of those of the signals that it reads; and of the
    reader of video, where that is another than `READER`."""
    found: dict[str, str] = {}
    provider = {f.name: s.name for s in signals for f in s.gives}
    for signal in signals:  # each after those that it reads
        upstream = sorted({found[provider[field]] for field in signal.after if field in provider})
        needs = [view_name(v) for v in signal.needs]
        made_by = ["annotate", ANNOTATE_VERSION, signal.name, signal.version(), signal.made_by(), needs, upstream]
        found[signal.name] = key_of([*made_by, *computed_as(signal.on, signal.cost), *decoded_by])
    return found


def computed_as(on: RunsOn, cost: Resources) -> list[Any]:
    """What a model's values depend on of how it is run; nothing where that is the model's own way. The device is not of
    it: a build names its class of hardware."""
    own = RunsOn(on.device, cost.dtypes[0], cost.batch)
    return [] if on == own else [on.dtype, on.batch]

"""The plan: a recipe with all its names resolved and all its thresholds checked, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from curate import plugins
from curate.decide.rules import check_near_duplicates, check_rules
from curate.media.reader import check_reader
from curate.pipeline.paths import LIGHT
from curate.pipeline.tokenize import StreamPlan
from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.schema.recipe_file import RecipeFile
from curate.signals import registry
from curate.signals.base import Signal
from curate.signals.caption import CaptionSignal
from curate.signals.probed import PROBED
from curate.sources.base import Source
from curate.sources.listing import open_source
from curate.tokenizers import zoo


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        file: the recipe.
        signals: in an order that respects what they read of each other; the caption is the last.
        fields: every field that a rule may name: of signals and of probing.
        streams: token streams with their codec cards.
    """

    file: RecipeFile
    signals: list[Signal]
    fields: dict[str, SignalField]
    streams: list[StreamPlan]


def make_plan(file: RecipeFile) -> Plan:
    """Resolve and check a recipe.

    Raises:
        CurateError: an unknown signal, option, field, tokenizer or model; a threshold outside its field's range. The
            message starts with the file and the line.
    """
    recipe = file.recipe
    with _at(file, ("media", "reader")):
        check_reader(recipe.media.reader)
    with _at(file, ("cut", "shots", "detector")):
        plugins.find("detector", recipe.cut.shots.detector)
    for i, source in enumerate(recipe.sources):
        with _at(file, ("sources", i, "kind")):
            plugins.find("source", source.kind)
    signals: list[Signal] = []
    for i, use in enumerate(recipe.annotate):
        with _at(file, ("annotate", i)):
            signals.append(registry.build(use))
    with _at(file, ("caption",)):
        caption = CaptionSignal.of(recipe.caption, {f.name for s in signals for f in s.gives})
    with _at(file, ("annotate",)):
        ordered = registry.order([*signals, caption])
    fields = dict(PROBED)
    for signal in ordered:
        for field in signal.gives:
            if field.name in fields:
                raise file.error(("annotate",), f"two signals give the field {field.name!r}")
            fields[field.name] = field
    for signal in ordered:
        if signal.name == LIGHT:
            raise file.error(("annotate",), f"a signal cannot be called {LIGHT!r}: the files of light signals are")
    for i, rule in enumerate(recipe.decide.records):
        with _at(file, ("decide", "records", i)):
            check_rules([rule], PROBED)
    for i, rule in enumerate(recipe.decide.rules):
        with _at(file, ("decide", "rules", i)):
            check_rules([rule], fields)
    for i, near in enumerate(recipe.decide.near_duplicates):
        with _at(file, ("decide", "near_duplicates", i)):
            check_near_duplicates([near], fields)
    streams: list[StreamPlan] = []
    for i, stream in enumerate(recipe.tokenize.streams):
        with _at(file, ("tokenize", "streams", i, "tokenizer")):
            found = zoo.located(stream.tokenizer, file.path.parent)
            card = zoo.card(found)
            if any(s.card.name == card.name and s.card != card for s in streams):
                raise CurateError(
                    f"two different tokenizers are called {card.name}", "rename one, in its card.json too"
                )
            streams.append(StreamPlan(stream, card, found, recipe.tokenize.crops))
            _ = streams[-1].view  # refused here, where the line of the recipe is known
    return Plan(file, ordered, fields, streams)


def open_sources(file: RecipeFile, env: Mapping[str, str]) -> list[Source]:
    """All sources, in the recipe's order, each looked at.

    Raises:
        CurateError: a source that is not there, with the line that names it.
    """
    sources = []
    for i, spec in enumerate(file.recipe.sources):
        with _at(file, ("sources", i, "path")):
            source = open_source(spec, file.path.parent, env)
            source.check()
            sources.append(source)
    return sources


class _at:
    """Puts the file and the line before what a check inside says."""

    def __init__(self, file: RecipeFile, loc: Sequence[str | int]) -> None:
        self._file, self._loc = file, loc

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, exc: BaseException | None, tb: object) -> None:
        if isinstance(exc, CurateError):
            raise self._file.error(self._loc, exc.message, exc.hint) from exc

"""The plan: a recipe with all its names resolved and all its thresholds checked, before anything runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from curate import plugins
from curate.decide.rules import check_near_duplicates, check_record_rules, check_rules
from curate.media.reader import check_reader
from curate.pipeline.paths import LIGHT, LIGHT_KEPT, Group, groups_of
from curate.pipeline.placement import FETCH_CPUS, LIST_CPUS, Capacity, Pool, device_of, models_of, pools_of
from curate.pipeline.streams import StreamPlan
from curate.schema.errors import CurateError
from curate.schema.fields import Resources, RunsOn, SignalField
from curate.schema.recipe import Compute
from curate.schema.recipe_file import RecipeFile
from curate.signals import registry
from curate.signals.base import Signal
from curate.signals.caption import ORIGINS, CaptionSignal
from curate.signals.captions import CaptionerOptions, CaptionerSignal, schema_of, template_of
from curate.signals.endpoint import key_of_environment
from curate.signals.labels import LabelSignal
from curate.signals.probed import PROBED
from curate.signals.prompts import check_template
from curate.sources.base import Source
from curate.sources.listing import open_source
from curate.tokenizers import zoo
from curate.tokenizers.labels import label_signal, signal_for
from curate.tokenizers.views import frames_of


@dataclass(frozen=True)
class Plan:
    """What a run does.

    Attributes:
        file: the recipe.
        signals: in an order that respects what they read of each other: those of `annotate`, those whose labels a
            stream is of, and the caption.
        fields: every field that a rule may name: of signals and of probing.
        streams: token streams with their codec cards.
        computes: by signal what its model is to run on, as the recipe says it.
        lines: by signal where the recipe names its device, where it does.
        places: by signal where the recipe names it, where it does.
        kept: names of the signals of the second look: those that the recipe says are for kept samples, and all that
            read what these give.
    """

    file: RecipeFile
    signals: list[Signal]
    fields: dict[str, SignalField]
    streams: list[StreamPlan]
    computes: dict[str, Compute]
    lines: dict[str, tuple[str | int, ...]]
    places: dict[str, tuple[str | int, ...]]
    kept: frozenset[str] = frozenset()

    @property
    def groups(self) -> list[Group]:
        """The groups of its signals, those of the second look last."""
        return groups_of(self.signals, self.kept)


def make_plan(file: RecipeFile) -> Plan:
    """Resolve and check a recipe.

    Raises:
        CurateError: an unknown signal, option, field, tokenizer or model; a threshold outside its field's range; a
            captioner's prompt, schema or key that is missing or wrong. The message starts with the file and the line.
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
    computes: dict[str, Compute] = {}
    lines: dict[str, tuple[str | int, ...]] = {}
    places: dict[str, tuple[str | int, ...]] = {}

    def compute(signal: Signal, use: Compute, *at: str | int) -> None:
        with _at(file, (*at, "compute")):
            computes[signal.name], signal.on = _run_on(signal.name, signal.cost, use, recipe.compute)
        if at:
            places[signal.name] = at
        if "device" in use.model_fields_set:
            lines[signal.name] = (*at, "compute", "device")

    for i, use in enumerate(recipe.annotate):
        with _at(file, ("annotate", i)):
            signals.append(registry.build(use))
        compute(signals[-1], use.compute, "annotate", i)
    streams = _streams(file, signals)
    captioners = _captioners(file, signals)
    for captioner, at in captioners:
        compute(captioner, captioner.use.compute, *at)
    with _at(file, ("caption", "prefer")):
        known, texts = {f.name for s in signals for f in s.gives}, [text for c, _ in captioners for text in c.texts]
        caption = CaptionSignal.of(recipe.caption, known, texts)
    with _at(file, ("annotate",)):
        ordered = registry.order([*signals, *(c for c, _ in captioners), caption])
    for signal in ordered:
        if signal.name not in computes:
            compute(signal, Compute())
    said = {s.name for s, use in zip(signals, recipe.annotate, strict=False) if use.for_ == "kept"}
    kept = _second_look(ordered, {*said, *(use.name for use in recipe.caption.uses if use.for_ == "kept")})
    fields = dict(PROBED)
    for signal in ordered:
        for field in signal.gives:
            if field.name in fields:
                raise file.error(("annotate",), f"two signals give the field {field.name!r}")
            fields[field.name] = field
    for signal in ordered:
        if signal.name in (LIGHT, LIGHT_KEPT):
            raise file.error(
                ("annotate",), f"a signal cannot be called {signal.name!r}: the files of light signals are"
            )
    for i, rule in enumerate(recipe.decide.records):
        with _at(file, ("decide", "records", i)):
            check_record_rules([rule])
    for i, rule in enumerate(recipe.decide.rules):
        with _at(file, ("decide", "rules", i)):
            check_rules([rule], fields)
    for i, near in enumerate(recipe.decide.near_duplicates):
        with _at(file, ("decide", "near_duplicates", i)):
            check_near_duplicates([near], fields)
            _check_first([near.embedding, *near.keep], ordered, kept)
    return Plan(file, ordered, fields, streams, computes, lines, places, kept)


def _second_look(signals: Sequence[Signal], said: Collection[str]) -> frozenset[str]:
    """Names of the signals that are for kept samples: `said`, and all that read what one of these gives.

    Args:
        signals: in an order that respects what they read of each other.
    """
    kept: set[str] = set()
    given: set[str] = set()
    for signal in signals:
        if signal.name in said or given & set(signal.after):
            kept.add(signal.name)
            given |= {f.name for f in signal.gives}
    return frozenset(kept)


def _check_first(fields: Sequence[str], signals: Sequence[Signal], kept: Collection[str]) -> None:
    """Refuse near duplicates by a field that is computed only of what they leave.

    Raises:
        CurateError: one of `fields` is of the second look.
    """
    for signal in signals:
        late = {f.name for f in signal.gives} & set(fields) if signal.name in kept else set()
        if late:
            raise CurateError(
                f"{min(late)} is known only of samples that near duplicates left: {signal.name} is, or reads what is, "
                "`for: kept`",
                "say `for: all` there, or take another field",
            )


def settle(plan: Plan, has: Capacity) -> Plan:
    """The plan with the device of each model, on what there is to run on. Signals are settled in place.

    Raises:
        CurateError: the recipe wants a GPU and there is none, with the line that says so.
    """
    file = plan.file
    for signal in plan.signals:
        with _at(file, plan.lines.get(signal.name, ("compute", "device"))):
            device = device_of(signal.name, signal.cost, plan.computes[signal.name], has)
        signal.on = replace(signal.on, device=device)
    streams = []
    for i, stream in enumerate(plan.streams):
        own = "device" in stream.use.compute.model_fields_set
        with _at(file, ("tokenize", "streams", i, "compute", "device") if own else ("compute", "device")):
            device = device_of(stream.use.name, stream.cost, stream.compute, has)
        streams.append(replace(stream, on=replace(stream.on, device=device)))
    return replace(plan, streams=streams)


def pools(plan: Plan, has: Capacity) -> list[Pool]:
    """The pools of workers of a run, stage by stage.

    Args:
        plan: a settled one.
    """
    first, second = (
        models_of([g for g in plan.groups if g.is_second is late], plan.computes) for late in (False, True)
    )
    look = [pool for pool in pools_of("look", second, has) if pool.models]
    annotate = pools_of("annotate", first, has, beside=LIST_CPUS + FETCH_CPUS)
    return [*annotate, *look, *pools_of("tokenize", [stream.model for stream in plan.streams], has)]


def _run_on(name: str, cost: Resources, use: Compute, recipe: Compute) -> tuple[Compute, RunsOn]:
    """All that is said of what a model is to run on; and the numbers and the batch that follow from it.

    Args:
        use: what the recipe says of this model. It must be possible; what the recipe says of all models holds for those
            that it is possible for.

    Raises:
        CurateError: the model cannot do what `use` says.
    """
    if use.device == "cuda" and not cost.gpus:
        raise CurateError(f"{name} runs on CPUs alone", "leave `device` out")
    if use.dtype is not None and use.dtype not in cost.dtypes:
        raise CurateError(f"{name} does not compute in {use.dtype}", f"it does in {', '.join(cost.dtypes)}")
    said = use.over(recipe)
    dtype = said.dtype if said.dtype in cost.dtypes else cost.dtypes[0]
    batch = said.batch or cost.batch if cost.gpus else cost.batch
    return said, RunsOn(dtype=dtype or cost.dtypes[0], batch=batch)


def _captioners(file: RecipeFile, signals: Sequence[Signal]) -> list[tuple[CaptionerSignal, tuple[str | int, ...]]]:
    """The captioners of the recipe, each of which may read fields of `signals` and of those before it; with where the
    recipe names them."""
    caption = file.recipe.caption
    fields = {**PROBED, **{f.name: f for s in signals for f in s.gives}}
    taken = {LIGHT, CaptionSignal.name, *ORIGINS, *(s.name for s in signals)}
    made: list[tuple[CaptionerSignal, tuple[str | int, ...]]] = []
    for i, use in enumerate(caption.uses):
        at: tuple[str | int, ...] = (
            ("caption", "captioner") if caption.captioner is not None else ("caption", "captioners", i)
        )
        with _at(file, (*at, "name")):
            if use.name in taken:
                raise CurateError(f"a captioner cannot be called `{use.name}`: something else is", "e.g. caption_short")
        with _at(file, (*at, "schema")):
            schema_of(use)
        with _at(file, (*at, "prompt")):
            check_template(template_of(use), fields)
        with _at(file, (*at, "calls", "api_key_env")):
            key_of_environment(use)
        with _at(file, (*at, "model")):
            made.append((CaptionerSignal(CaptionerOptions(use=use)), at))
        fields |= {field.name: field for field in made[-1][0].gives}
    return made


def _streams(file: RecipeFile, signals: list[Signal]) -> list[StreamPlan]:
    """The token streams; signals whose labels they are of are added to `signals`, where none there gives the field."""
    recipe, annotate = file.recipe, list(signals)
    streams: list[StreamPlan] = []
    for i, stream in enumerate(recipe.tokenize.streams):
        with _at(file, ("tokenize", "streams", i, "tokenizer")):
            found = zoo.located(stream.tokenizer, file.path.parent)
            card = zoo.card(found)
            if any(s.card.name == card.name and s.card != card for s in streams):
                raise CurateError(
                    f"two different tokenizers are called {card.name}", "rename one, in its card.json too"
                )
            cost = zoo.cost(found)
        with _at(file, ("tokenize", "streams", i, "compute")):
            said, on = _run_on(stream.name, cost, stream.compute, recipe.compute)
        with _at(file, ("tokenize", "streams", i, "tokenizer")):
            streams.append(StreamPlan(stream, card, found, recipe.tokenize.crops, cost, said, on))
            _ = streams[-1].view  # refused here, where the line of the recipe is known
            if card.needs:
                _give_labels(streams[-1], signals, annotate)
    return streams


def _give_labels(stream: StreamPlan, signals: list[Signal], annotate: Sequence[Signal]) -> None:
    """See to it that a signal gives the field that a stream is of: one of `annotate`, or the one that its folder names.

    Raises:
        CurateError: none does, or the signal that gives it gives other labels, or of other frames.
    """
    card, field = stream.card, stream.card.needs[0]
    view = frames_of(card, stream.use.fps, stream.use.max_frames, stream.crops)
    giver = next((s for s in signals if any(f.name == field for f in s.gives)), None)
    foreign = plugins.is_foreign("tokenizer", stream.tokenizer)
    named = None if giver is not None and foreign else label_signal(signal_for(stream.tokenizer, card, view))
    if giver is None and named is not None:
        signals.append(named)
        return
    hint = "or let it have a field of its own: `curate tokenizers label ... --option field=NAME`"
    if not isinstance(giver, LabelSignal) or giver.view != view:
        raise CurateError(
            f"{card.name} is of other frames than the field `{field}` is of",
            f"give its signal the options size: {view.size}, fps: {view.fps:g}, max_frames: {view.max_frames}"
            f"{f', crops: {view.crops}' if view.crops > 1 else ''}; {hint}",
        )
    same = named is None or (giver.kind == named.kind if giver in annotate else giver.options == named.options)
    if not same:
        raise CurateError(
            f"{card.name} is of other labels than the field `{field}` holds, which another stream or signal gives",
            f"name its signal under annotate, {hint}",
        )


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

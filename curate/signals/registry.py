"""Signals by name, made with the options of a recipe and put in an order that respects what they read of each other."""

from __future__ import annotations

from collections.abc import Sequence

from curate import plugins
from curate.schema.errors import CurateError
from curate.schema.recipe import SignalUse
from curate.signals.base import Signal
from curate.signals.probed import PROBED
from curate.signals.texts import TextSignal

_ELSEWHERE = {"caption": "it always runs last; the recipe's `caption:` section sets it"}
"""Signals that are not named under `annotate`, and where they come from."""


def names() -> list[str]:
    """Signals that a recipe's `annotate` may name, sorted: those that ship with curate, and those of entry points."""
    return [name for name in plugins.names("signal") if name not in _ELSEWHERE]


def get(name: str) -> type[Signal]:
    """The class of a signal.

    Args:
        name: one of `names()`, or `package.module:Class` of a `Signal` of your own.

    Raises:
        CurateError: there is none; with the nearest name and the list.
    """
    if name in _ELSEWHERE:
        raise CurateError(f"signal `{name}` is not to be listed under annotate", _ELSEWHERE[name])
    cls: type[Signal] = plugins.find("signal", name)
    if cls.one is Signal.one and cls.__call__ is Signal.__call__:
        raise CurateError(
            f"`{name}` is no signal: it has neither `one` nor `__call__`", "see curate.signals.base.Signal"
        )
    if not plugins.is_path(name) and cls.name != name:
        raise CurateError(
            f"the signal of the entry point `{name}` calls itself `{cls.name}`",
            "a build knows it by one name: make the two the same",
        )
    return cls


def build(use: SignalUse) -> Signal:
    """The signal that a recipe asks for, its options checked; no model is loaded.

    Raises:
        CurateError: unknown signal, unknown option (with the nearest and those allowed), or a wrong value.
    """
    cls = get(use.name)
    return cls(plugins.checked_options("signal", use.name, cls.Options, use.options))


def order(signals: Sequence[Signal]) -> list[Signal]:
    """Signals so that each comes after those whose fields it reads; otherwise in the order given.

    Raises:
        CurateError: two signals have one name or give the same field, one reads a field that none gives or, as text,
            one that is none, or they read in a circle.
    """
    called = [signal.name for signal in signals]
    if twice := sorted({name for name in called if called.count(name) > 1}):
        raise CurateError(
            f"signal names must be unique; twice: {', '.join(twice)}",
            "options may name a second one: `of` where it is of a text, `field` where it gives labels",
        )
    given: dict[str, str] = dict.fromkeys(PROBED, "probing")
    for signal in signals:
        for field in signal.gives:
            if field.name in given:
                raise CurateError(
                    f"signals `{given[field.name]}` and `{signal.name}` both give the field `{field.name}`"
                )
            given[field.name] = signal.name
    for signal in signals:
        for missing in (name for name in signal.after if name not in given):
            giver = provider(missing)
            raise CurateError(
                f"signal `{signal.name}` needs the field `{missing}`, which none gives",
                f"add the signal {giver}" if giver else "name a signal that gives it",
            )
    fields = {**PROBED, **{field.name: field for signal in signals for field in signal.gives}}
    for signal in signals:
        if isinstance(signal, TextSignal):
            signal.check(fields)
    available = set(PROBED)
    waiting, out = list(signals), []
    while waiting:
        ready = next((s for s in waiting if available.issuperset(s.after)), None)
        if ready is None:
            raise CurateError(f"signals wait for each other in a circle: {', '.join(s.name for s in waiting)}")
        waiting.remove(ready)
        out.append(ready)
        available.update(field.name for field in ready.gives)
    return out


def provider(field: str) -> str | None:
    """The signal that ships with curate and gives a field; None where none does, or only by its options."""
    shipped = {name: plugins.find("signal", name) for name in plugins.builtin("signal") if name not in _ELSEWHERE}
    return next((name for name, cls in sorted(shipped.items()) if field in {f.name for f in cls.gives}), None)

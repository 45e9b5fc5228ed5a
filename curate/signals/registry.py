"""Signals by name: those in this folder, and users' own as `package.module:Class`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from functools import cache

from pydantic import ValidationError

import curate.signals
from curate.schema.errors import CurateError
from curate.schema.recipe import SignalUse
from curate.signals.base import Signal
from curate.signals.nearest import nearest
from curate.signals.probed import PROBED_FIELDS

_ELSEWHERE = {"caption": "it always runs last; the recipe's `caption:` section sets it"}
"""Signals that are not named under `annotate`, and where they come from."""


@cache
def _found() -> dict[str, type[Signal]]:
    """Name to class of each signal that a recipe's `annotate` may name. A new file in this folder is all it takes."""
    found: dict[str, type[Signal]] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(curate.signals.__path__)):
        namespace = vars(importlib.import_module(f"curate.signals.{module}"))
        classes = [v for v in namespace.values() if isinstance(v, type) and issubclass(v, Signal)]
        for cls in (c for c in classes if c.__module__ == f"curate.signals.{module}" and c is not Signal):
            if cls.name not in _ELSEWHERE:
                found[cls.name] = cls
    return dict(sorted(found.items()))


def names() -> list[str]:
    """Names of the signals that ship with curate, sorted."""
    return list(_found())


def get(name: str) -> type[Signal]:
    """The class of a signal.

    Args:
        name: one of `names()`, or `package.module:Class` of a `Signal` of your own.

    Raises:
        CurateError: there is none; with the nearest name and the list.
    """
    if ":" in name:
        return _imported(name)
    if name in _ELSEWHERE:
        raise CurateError(f"signal `{name}` is not to be listed under annotate", _ELSEWHERE[name])
    found = _found()
    if name not in found:
        raise CurateError(
            f"unknown signal `{name}`{nearest(name, found)}",
            f"signals: {', '.join(found)}; or package.module:Class for one of your own",
        )
    return found[name]


def _imported(path: str) -> type[Signal]:
    module, _, attribute = path.partition(":")
    try:
        value = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as exc:
        raise CurateError(
            f"signal `{path}` cannot be imported: {exc}",
            "write package.module:Class, and install the package where curate runs, on every worker",
        ) from exc
    if not (isinstance(value, type) and issubclass(value, Signal)):
        raise CurateError(f"`{path}` is not a subclass of curate.signals.base.Signal")
    return value


def build(use: SignalUse) -> Signal:
    """The signal that a recipe asks for, its options checked; no model is loaded.

    Raises:
        CurateError: unknown signal, unknown option (with the nearest and those allowed), or a wrong value.
    """
    cls = get(use.name)
    try:
        options = cls.Options.model_validate(use.options)
    except ValidationError as exc:
        raise _option_error(use.name, cls, exc) from exc
    return cls(options)


def _option_error(name: str, cls: type[Signal], exc: ValidationError) -> CurateError:
    allowed = list(cls.Options.model_fields)
    first = exc.errors()[0]
    option = ".".join(str(part) for part in first["loc"]) or "options"
    hint = f"options of {name}: {', '.join(allowed)}" if allowed else f"{name} has no options"
    if first["type"] == "extra_forbidden":
        return CurateError(f"unknown option `{option}` of signal `{name}`{nearest(option, allowed)}", hint)
    given = "" if first["type"] == "missing" else f", not {first['input']!r}"
    return CurateError(f"option `{option}` of signal `{name}`: {first['msg'].lower()}{given}", hint)


def order(signals: Sequence[Signal]) -> list[Signal]:
    """Signals so that each comes after those whose fields it reads; otherwise in the order given.

    Raises:
        CurateError: two signals give the same field, one reads a field that none gives, or they read in a circle.
    """
    given: dict[str, str] = {field.name: "probing" for field in PROBED_FIELDS}
    for signal in signals:
        for field in signal.gives:
            if field.name in given:
                raise CurateError(
                    f"signals `{given[field.name]}` and `{signal.name}` both give the field `{field.name}`"
                )
            given[field.name] = signal.name
    for signal in signals:
        for missing in (name for name in signal.after if name not in given):
            raise CurateError(f"signal `{signal.name}` needs the field `{missing}`, which none gives", _giver(missing))
    ready = {field.name for field in PROBED_FIELDS}
    waiting, out = list(signals), []
    while waiting:
        ripe = next((s for s in waiting if ready.issuperset(s.after)), None)
        if ripe is None:
            raise CurateError(f"signals wait for each other in a circle: {', '.join(s.name for s in waiting)}")
        waiting.remove(ripe)
        out.append(ripe)
        ready.update(field.name for field in ripe.gives)
    return out


def _giver(field: str) -> str:
    givers = [name for name, cls in _found().items() if field in {f.name for f in cls.gives}]
    return f"add the signal {givers[0]}" if givers else "name a signal that gives it"

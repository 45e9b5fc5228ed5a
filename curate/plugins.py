"""The one registry: a name of a recipe or of the command line becomes a class here, and nowhere else.

A name is that of a class that ships with curate, of an entry point of an installed distribution, or
`package.module:Class`. A distribution gives entry points in its pyproject.toml, in the group `curate.<kind>s`:

    [project.entry-points."curate.signals"]
    sunsets = "my_package.sunsets:Sunsets"

Names are known without importing what they stand for; only `find` imports, and only the one class that it is asked for.
So this room is low, though it says by name where the classes of higher rooms are.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from curate.schema.errors import CurateError
from curate.schema.nearest import meant

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Kind:
    """What plugins of one kind are, and where those are that ship with curate.

    Attributes:
        base: `module:Class` of the class that a plugin derives from, or of the protocol whose methods it has; empty
            where only what is made of it can be looked at.
        builtin: where the names are. A package: each class in a file of it that derives from `base`, or from one whose
            name ends so (`LabelSignal`), is one, called what it sets `name` (or `kind`) to. Or `module:table`: name to
            `module:Class`, or a function that gives that.
        unknown: how the error about an unknown name begins, where `unknown <kind>` is not it.
    """

    base: str = ""
    builtin: str = ""
    unknown: str = ""


KINDS = {
    "source": Kind("curate.sources.base:Source", "curate.sources"),
    "detector": Kind(builtin="curate.media.shots:DETECTORS", unknown="no shot detector"),
    "signal": Kind("curate.signals.base:Signal", "curate.signals"),
    "captioner": Kind("curate.signals.captioner:Captioner", "curate.signals.captioner:BUILTIN"),
    "dedup": Kind("curate.decide.methods:Method", "curate.decide.methods:BUILTIN", "no method for near duplicates"),
    "tokenizer": Kind("curate.tokenizers.base:Tokenizer", "curate.tokenizers.zoo:shipped"),
    "architecture": Kind("curate.tokenizers.base:Tokenizer", "curate.tokenizers.builtin:ARCHITECTURES"),
    "encoder": Kind(builtin="curate.tokenizers.builtin:ENCODERS", unknown="no encoder library"),
    "view": Kind("curate.shards.views:View", "curate.plugins:VIEWS"),
    "export": Kind("curate.exports.base:Export", "curate.exports"),
}

VIEWS = {
    "masked": "curate.shards.masked:MaskedView",
    "raw": "curate.shards.views:RawView",
    "sequence": "curate.shards.sequence:SequenceView",
}
"""Views that ship with curate: they lie in files with much else."""


def find(kind: str, name: str) -> Any:
    """What a name stands for: a class, or, where the kind's base is a protocol, an object that has its methods.

    Args:
        kind: of `KINDS`.
        name: one of `names(kind)`, or `package.module:Class`.

    Raises:
        CurateError: an unknown name (with the nearest); a class that cannot be imported, or is not what the kind asks
            for; a name that two distributions give, or that an installed one and curate itself give.
    """
    where, origin = _where(kind, name)
    try:
        found = _imported(where)
    except (Exception, SystemExit) as exc:  # whatever another's module does when it is imported
        cause = f"{type(exc).__name__}: {exc}"
        raise CurateError(f"{kind} `{name}` cannot be imported: {cause}", _way_out(where, origin)) from exc
    _check(kind, name, found, origin)
    return found


def make(kind: str, name: str, options: Mapping[str, Any]) -> Any:
    """The class that a name stands for, made with options.

    Raises:
        CurateError: as `find`; or it does not take these options, or says itself what is wrong.
    """
    found = find(kind, name)
    try:
        return found(**options)
    except (ImportError, AttributeError, TypeError, ValueError) as exc:
        raise CurateError(
            f"{kind} `{name}` cannot be made{f' with {dict(options)}' if options else ''}: {exc}",
            "see its class for the options; one of your own is to be installed where curate runs, on every worker",
        ) from exc


def checked_options(kind: str, name: str, model: type[Model], given: Mapping[str, Any]) -> Model:
    """Options of a plugin as the recipe gives them, by its model.

    Raises:
        CurateError: an unknown option, with the nearest and those allowed, or a wrong value.
    """
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        allowed, first = list(model.model_fields), exc.errors()[0]
        option = ".".join(str(part) for part in first["loc"]) or "options"
        hint = f"options of {name}: {', '.join(allowed)}" if allowed else f"{name} has no options"
        if first["type"] == "extra_forbidden":
            raise CurateError(f"unknown option `{option}` of {kind} `{name}`{meant(option, allowed)}", hint) from exc
        value = "" if first["type"] == "missing" else f", not {first['input']!r}"
        raise CurateError(f"option `{option}` of {kind} `{name}`: {first['msg'].lower()}{value}", hint) from exc


def names(kind: str) -> list[str]:
    """Names of a kind, sorted: those that ship with curate, and entry points of installed distributions."""
    return sorted({*builtin(kind), *_entry_points(kind)})


@cache
def builtin(kind: str) -> Mapping[str, str]:
    """Name to `module:Class` of each that ships with curate."""
    declared = KINDS[kind]
    if ":" not in declared.builtin:
        return _classes(declared.builtin, declared.base.partition(":")[2]) if declared.builtin else {}
    table = _imported(declared.builtin)
    found: Mapping[str, str] = table() if callable(table) else table
    return found


def is_path(name: str) -> bool:
    """True if a name is a `package.module:Class`; a path of the file system with a colon in it is not."""
    return ":" in name and "/" not in name


def is_foreign(kind: str, name: str) -> bool:
    """True if a name stands for another's class: an entry point's, or a `package.module:Class`."""
    return is_path(name) or name in _entry_points(kind)


def _where(kind: str, name: str) -> tuple[str, str]:
    """Where the class of a name is, `module:Class`, and the distribution that says so; empty for others."""
    if is_path(name):
        return name, ""
    given, own = _entry_points(kind).get(name, {}), builtin(kind).get(name)
    paths = sorted({*given, *([own] if own else [])})
    if len(paths) > 1:
        who = [given.get(path, "curate itself") for path in paths]
        raise CurateError(
            f"{kind} `{name}` is given twice: by {' and by '.join(sorted(who))}",
            f"uninstall what you do not use, or name the class: {', '.join(paths)}",
        )
    if not paths:
        known = names(kind)
        listed = f"there are: {', '.join(known)}; or package.module:Class for one of your own"
        unknown = KINDS[kind].unknown or f"unknown {kind}"
        raise CurateError(f"{unknown} `{name}`{meant(name, known)}", listed if known else listed.partition("; or ")[2])
    return paths[0], given.get(paths[0], "")


def _entry_points(kind: str) -> Mapping[str, Mapping[str, str]]:
    """Name of each entry point of a kind to its classes, and to each the distribution that gives it."""
    return _entry_points_on(f"curate.{kind}s", tuple(sys.path))


@cache
def _entry_points_on(group: str, path: tuple[str, ...]) -> Mapping[str, Mapping[str, str]]:
    """Of the distributions on a path: it is part of the key, since workers are given folders after they start."""
    from importlib.metadata import entry_points  # takes as long as all else here

    found: dict[str, dict[str, str]] = {}
    for point in entry_points(group=group):
        where = point.value.partition("[")[0].strip()  # the extras that it asks for are the installer's business
        found.setdefault(point.name, {}).setdefault(where, _distribution(point))
    return found


def _distribution(point: EntryPoint) -> str:
    return f"the distribution {point.dist.name} {point.dist.version}" if point.dist else "an unnamed distribution"


def _classes(package: str, base: str) -> dict[str, str]:
    """Name to `module:Class` of each class that derives from `base`, or from one whose name ends so, and has a name.

    They are read from the files of a package.
    """
    spec = find_spec(package)
    assert spec is not None, package
    assert spec.submodule_search_locations, package
    # most files hold none, and parsing them is what takes the time
    declared = re.compile(rf"^class \w+\(.*{base}\b", re.MULTILINE)
    found = {}
    for file in Path(spec.submodule_search_locations[0]).glob("*.py"):
        text = file.read_text("utf-8")
        for node in ast.parse(text).body if declared.search(text) else ():
            if isinstance(node, ast.ClassDef) and _derives(node, base) and (name := _name(node)):
                found[name] = f"{package}.{file.stem}:{node.name}"
    return found


def _derives(node: ast.ClassDef, base: str) -> bool:
    return any(ast.unparse(one).endswith(base) for one in node.bases)


def _name(node: ast.ClassDef) -> str:
    """What the class sets `name`, or else `kind`, to in its body; empty where it sets neither."""
    said = {}
    for line in node.body:
        if isinstance(line, ast.Assign | ast.AnnAssign) and isinstance(line.value, ast.Constant):
            target = line.target if isinstance(line, ast.AnnAssign) else line.targets[0]
            said[ast.unparse(target)] = line.value.value
    return str(said.get("name") or said.get("kind") or "")


def _imported(where: str) -> Any:
    module, _, attribute = where.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _way_out(where: str, origin: str) -> str:
    if origin:
        return f"it is `{where}` of {origin}: mend or uninstall that; it must be installed on every worker, too"
    if where.startswith("curate."):
        return "install what is missing where curate runs, on every worker"
    return "write package.module:Class, and install the package where curate runs, on every worker"


def _check(kind: str, name: str, found: Any, origin: str) -> None:
    """CurateError where what was found is not what the kind asks for."""
    if not KINDS[kind].base:
        return
    base = _imported(KINDS[kind].base)
    hint = f"see {base.__module__}.{base.__qualname__}" + (f"; it is given by {origin}" if origin else "")
    if getattr(base, "_is_protocol", False):
        # attributes that are no methods are not asked for: a class may set them when it is made
        methods = [n for n, v in vars(base).items() if callable(v) and (n == "__call__" or not n.startswith("_"))]
        has = {n for cls in (found if isinstance(found, type) else type(found)).__mro__ for n in vars(cls)}
        lacking = [method for method in methods if method not in has]
    elif isinstance(found, type) and issubclass(found, base):
        lacking = sorted(getattr(found, "__abstractmethods__", ()))
    else:
        raise CurateError(f"`{name}` is not a subclass of {base.__module__}.{base.__qualname__}", hint)
    if lacking:
        raise CurateError(f"`{name}` is no {kind}: it has no {', '.join(lacking)}", hint)

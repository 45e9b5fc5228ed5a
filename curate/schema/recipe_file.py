"""Reading a recipe: errors say file, line, what is allowed, and the nearest name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from curate.schema.errors import CurateError
from curate.schema.nearest import nearest
from curate.schema.package_data import data_folder
from curate.schema.recipe import SOURCES, FolderSource, PluginSource, Recipe, TableSource, TarSource

Loc = tuple[str | int, ...]
_SOURCES: dict[str, type[BaseModel]] = {
    "folder": FolderSource,
    "webdataset": TarSource,
    "table": TableSource,
    "plugin": PluginSource,
}


class RecipeFile:
    """A parsed recipe that remembers where each value stands.

    Attributes:
        path: the file. Relative paths in the recipe start from its folder.
        recipe: what it says.
    """

    def __init__(self, path: Path, recipe: Recipe, lines: dict[Loc, int]) -> None:
        self.path = path
        self.recipe = recipe
        self._lines = lines

    def error(self, loc: Sequence[str | int], message: str, hint: str = "") -> CurateError:
        """A CurateError that starts with the file and the line of the value at `loc`."""
        return CurateError(f"{self.path}:{_line(self._lines, tuple(loc))}: {message}", hint)

    @classmethod
    def load(cls, name: str | Path) -> RecipeFile:
        """Read a recipe file, or one of the built-in ones by its name.

        Raises:
            CurateError: no such file; not YAML; a key, type or value that a recipe cannot have.
        """
        path = find_recipe(name)
        try:
            text = path.read_text(encoding="utf-8")
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except UnicodeDecodeError as exc:
            raise CurateError(f"{path}: not a text file: {exc}") from exc
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
            raise CurateError(f"{where}: not valid YAML: {getattr(exc, 'problem', exc)}") from exc
        lines: dict[Loc, int] = {}
        if not isinstance(node, yaml.MappingNode):
            raise CurateError(
                f"{path}:1: a recipe is a mapping of keys to values", f"keys: {', '.join(Recipe.model_fields)}"
            )
        _walk(node, (), lines, path)
        data = yaml.safe_load(text)
        try:
            return cls(path, Recipe.model_validate(data), lines)
        except ValidationError as exc:
            raise _explain(exc, path, lines) from exc


def find_recipe(name: str | Path) -> Path:
    """A recipe's path from a path or from a built-in name."""
    path = Path(name)
    if path.is_file():
        return path
    folder = data_folder("pipelines")
    built_in = sorted(p.stem for p in folder.glob("*.yaml"))
    if path.suffix == "" and path.name == str(name) and path.name in built_in:
        return folder / f"{path.name}.yaml"
    # `curate run pipelines/quickstart.yaml` also works away from a checkout
    if path.parts[:1] == ("pipelines",) and path.stem in built_in and path.suffix == ".yaml":
        return folder / path.name
    if path.exists():
        raise CurateError(f"{name} is no recipe", f"`curate init {name}` writes one for the media that are there")
    raise CurateError(
        f"no recipe {str(name)!r}", f"{nearest(path.stem, built_in)}built-in recipes: {', '.join(built_in)}"
    )


def _line(lines: dict[Loc, int], loc: Loc) -> int:
    while loc and loc not in lines:
        loc = loc[:-1]
    return lines.get(loc, 1)


def _walk(node: yaml.Node, loc: Loc, lines: dict[Loc, int], path: Path) -> None:
    lines[loc] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            at: Loc = (*loc, str(key.value))
            if at in lines:
                raise CurateError(
                    f"{path}:{key.start_mark.line + 1}: key {key.value!r} occurs twice; first on line {lines[at]}"
                )
            _walk(value, at, lines, path)
            lines[at] = key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            _walk(value, (*loc, i), lines, path)


def _explain(exc: ValidationError, path: Path, lines: dict[Loc, int]) -> CurateError:
    out = []
    for err in exc.errors():
        # union tags (`folder`, `table`) are pydantic's, not the file's
        loc: Loc = tuple(
            part
            for i, part in enumerate(err["loc"])
            if not (part in _SOURCES and i == 2 and err["loc"][0] == "sources")
        )
        at = ".".join(str(part) for part in loc) or "the recipe"
        where = f"{path}:{_line(lines, loc)}"
        if err["type"] == "extra_forbidden":
            allowed = _keys_at(err["loc"])
            out.append(f"{where}: unknown key {at!r}; {nearest(str(loc[-1]), allowed)}allowed: {', '.join(allowed)}")
        elif err["type"] == "union_tag_not_found":
            out.append(f"{where}: {at} needs a key 'kind'; allowed: {', '.join(SOURCES)}, or package.module:Class")
        elif err["type"] == "missing":
            out.append(f"{where}: {at!r} is missing")
        elif err["type"] == "literal_error":
            given = str(err["input"])
            choices = [c.strip("'") for c in str(err["ctx"]["expected"]).replace(" or ", ", ").split(", ")]
            out.append(f"{where}: {at} is {given!r}; {nearest(given, choices)}allowed: {', '.join(choices)}")
        else:
            got = "" if isinstance(err["input"], dict | list) else f" (got {err['input']!r})"
            out.append(f"{where}: {at}: {err['msg'].removeprefix('Value error, ')}{got}")
    return CurateError("\n".join(out), "`curate schema recipe` prints every key with its type and meaning")


def _keys_at(loc: Sequence[str | int]) -> list[str]:
    """The keys allowed in the mapping that holds `loc`'s last part."""
    model: Any = Recipe
    for part in list(loc)[:-1]:
        if isinstance(part, int):
            continue
        if part in _SOURCES:
            model = _SOURCES[part]
            continue
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            return []
        model = _model_in(field.annotation) or model
    return sorted(field.alias or name for name, field in model.model_fields.items())


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for arg in getattr(annotation, "__args__", ()):
        found = _model_in(arg)
        if found is not None:
            return found
    return None

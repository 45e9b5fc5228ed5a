"""Paths of recipes: `${NAME}` from the environment, relative ones from the recipe's folder."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from curate.schema.errors import CurateError
from curate.schema.nearest import nearest

_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_ESCAPED = re.compile(r"\[([*?[])\]")  # as glob.escape writes them


def substitute(text: str, env: Mapping[str, str], quote: Callable[[str], str] = str) -> str:
    """`text` with each `${NAME}` replaced; `quote` is applied to what is put in.

    Raises:
        CurateError: a name that the environment does not hold.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name not in env:
            hint = f"{nearest(name, env)}set it in the environment, or write the value into the recipe"
            raise CurateError(f"${{{name}}} in {text!r} is not set", hint)
        return quote(env[name])

    return _VARIABLE.sub(value, text)


def local_path(text: str, root: Path, env: Mapping[str, str]) -> Path:
    """The absolute path that a recipe means."""
    return (root / Path(substitute(text, env)).expanduser()).absolute()


def local_glob(text: str, root: Path, env: Mapping[str, str]) -> tuple[Path, list[Path]]:
    """The files that a recipe's path or pattern (`*`, `?`, `[ab]`, `**`) means, sorted, and the folder they start in.

    The folder is all before the first part that holds a pattern. What stands for `${NAME}` is taken as it is.
    """
    pattern = Path(glob.escape(str(root.absolute()))) / Path(substitute(text, env, glob.escape)).expanduser()
    base = Path()
    for part in pattern.parts:
        if glob.has_magic(_ESCAPED.sub("", part)):
            break
        base /= _ESCAPED.sub(r"\1", part)
    if base.is_file():
        return base.parent, [base]
    # not Path.glob: it knows no escapes
    found = map(Path, glob.glob(str(pattern), recursive=True))  # noqa: PTH207
    return base, sorted(path for path in found if path.is_file())

"""Paths of recipes: `${NAME}` from the environment, relative ones from the recipe's folder, `s3://` as they are.

An *address* is the absolute path of a file, or `s3://bucket/key`. Of a key each character counts: `?`, `#` and `%`
stand for themselves.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from obstore.exceptions import InvalidPathError

from curate.schema.errors import CurateError
from curate.schema.nearest import nearest
from curate.storage import Store, is_remote, open_store

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


def address_of(text: str, root: Path, env: Mapping[str, str]) -> str:
    """The address that a recipe means."""
    said = substitute(text, env)
    return said.rstrip("/") if is_remote(said) else str((root / Path(said).expanduser()).absolute())


def in_bucket(address: str) -> tuple[Store, str]:
    """The bucket of an `s3://` address, and the key in it.

    Raises:
        CurateError: another scheme, or no bucket.
    """
    scheme, mark, rest = address.partition("://")
    bucket, _, key = rest.partition("/")
    return open_store(scheme + mark + bucket), key


def matching(text: str, root: Path, env: Mapping[str, str]) -> tuple[str, list[str]]:
    """The files that a recipe's path or pattern (`*`, `?`, `[ab]`, `**`) means, by path, and the folder they start in.

    The folder is all before the first part that holds a pattern. What stands for `${NAME}` is taken as it is.

    Returns:
        The folder's address, and the files' paths relative to it.
    """
    pattern = substitute(text, env, glob.escape)
    if is_remote(pattern):
        return _matching_objects(pattern)
    pattern = str(Path(glob.escape(str(root.absolute()))) / Path(pattern).expanduser())
    base = Path(*_plain_parts(Path(pattern).parts))
    if base.is_file():
        return str(base.parent), [base.name]
    # not Path.glob: it knows no escapes
    found = map(Path, glob.glob(pattern, recursive=True))  # noqa: PTH207
    return str(base), [path.relative_to(base).as_posix() for path in sorted(found) if path.is_file()]


def _matching_objects(pattern: str) -> tuple[str, list[str]]:
    """The same in a bucket."""
    scheme, mark, rest = pattern.partition("://")
    parts = rest.split("/")
    base = _plain_parts(parts)
    if not base:
        raise CurateError(f"{pattern} names no bucket", "a pattern may stand only after s3://bucket/")
    if len(base) == len(parts):
        name, base = base[-1], base[:-1]
        store, path = in_bucket(scheme + mark + "/".join([*base, name]))
        folder = scheme + mark + "/".join(base)
        return folder, [name] if path and store.stat(path) is not None else []
    folder = scheme + mark + "/".join(base)
    found = objects_below(folder)
    left = parts[len(base) :]
    return folder, sorted((path for path in found if _fits(path.split("/"), left)), key=lambda path: path.split("/"))


def objects_below(folder: str) -> dict[str, int]:
    """Names of all objects below an `s3://` address, relative to it, with their sizes.

    Raises:
        CurateError: the bucket cannot be listed, or holds a name that no request can carry.
    """
    store, prefix = in_bucket(folder)
    try:
        found = store.files(prefix)
    except InvalidPathError as exc:
        raise CurateError(
            f"{folder} holds an object whose name has a line break, or `.` or `..` as a part",
            "such a name cannot be asked for, nor be listed past: rename it",
        ) from exc
    start = len(prefix) + 1 if prefix else 0
    return {stat.path[start:]: stat.bytes for stat in found}


def _plain_parts(parts: Sequence[str]) -> list[str]:
    """The parts before the first that holds a pattern, unescaped."""
    out: list[str] = []
    for part in parts:
        if glob.has_magic(_ESCAPED.sub("", part)):
            break
        out.append(_ESCAPED.sub(r"\1", part))
    return out


def _fits(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether the parts of a path are what `glob` finds for those of a pattern: no sign stands for a leading dot."""
    if not pattern:
        return not path
    first, rest = pattern[0], pattern[1:]
    if first == "**":
        if not rest:  # as glob does: everything below
            return bool(path) and not any(part.startswith(".") for part in path)
        return _fits(path, rest) or (bool(path) and not path[0].startswith(".") and _fits(path[1:], pattern))
    if not path or (path[0].startswith(".") and not first.startswith(".")):
        return False
    return fnmatchcase(path[0], first) and _fits(path[1:], rest)

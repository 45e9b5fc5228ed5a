"""Paths of recipes: `${NAME}` from the environment, relative ones from the recipe's folder, `s3://` as they are.

An *address* is the absolute path of a file, or `s3://bucket/key`. Of a key each character counts: `?`, `#` and `%`
stand for themselves.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import InvalidPathError

from curate.schema.errors import CurateError
from curate.schema.nearest import nearest
from curate.storage import Bucket, Folder, Stat, Store, is_remote, open_store
from curate.storage.retry import retried

PAGE = 1000
"""Objects of one request for a list."""

LAST = "\U0010ffff"
"""What no name that goes on with another character comes behind."""

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


def variables(text: str) -> list[str]:
    """The names that stand in a text as `${NAME}`, sorted."""
    return sorted(set(_VARIABLE.findall(text)))


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


def pattern_of(text: str, root: Path, env: Mapping[str, str]) -> str:
    """The address that a recipe's path or pattern (`*`, `?`, `[ab]`, `**`) means, for `matching`.

    What stands for `${NAME}` is taken as it is.
    """
    pattern = substitute(text, env, glob.escape)
    if is_remote(pattern):
        return pattern
    return str(Path(glob.escape(str(root.absolute()))) / Path(pattern).expanduser())


def matching(pattern: str) -> tuple[str, list[Stat]]:
    """The files that a pattern means, by path, and the folder they start in: all before the first part that holds a
    sign of a pattern.

    Returns:
        The folder's address, and the files by their paths relative to it, with their sizes.
    """
    if is_remote(pattern):
        return _matching_objects(pattern)
    base = Path(*plain_parts(Path(pattern).parts))
    if base.is_file():
        return str(base.parent), [Stat(base.name, base.stat().st_size)]
    # not Path.glob: it knows no escapes
    found = set(map(Path, glob.glob(pattern, recursive=True)))  # noqa: PTH207 -- and `**/**` gives a path twice
    stats = (Folder(base).stat(path.relative_to(base).as_posix()) for path in sorted(found))
    return str(base), [stat for stat in stats if stat is not None]


def _matching_objects(pattern: str) -> tuple[str, list[Stat]]:
    """The same in a bucket."""
    scheme, mark, rest = pattern.partition("://")
    parts = rest.split("/")
    base = plain_parts(parts)
    if not base:
        raise CurateError(f"{pattern} names no bucket", "a pattern may stand only after s3://bucket/")
    if len(base) == len(parts):
        name, base = base[-1], base[:-1]
        store, path = in_bucket(scheme + mark + "/".join([*base, name]))
        stat = store.stat(path) if path else None
        return scheme + mark + "/".join(base), [Stat(name, stat.bytes)] if stat is not None else []
    folder = scheme + mark + "/".join(base)
    left = parts[len(base) :]
    found = (stat for stat in objects_below(folder) if _fits(stat.path.split("/"), left))
    return folder, sorted(found, key=lambda stat: stat.path.split("/"))


def objects_below(folder: str) -> Iterator[Stat]:
    """All objects below an `s3://` address, in the order of their names, which are relative to it.

    Each thousand costs a request, and no more is held. Some servers of their own kind (SeaweedFS) go through folders
    as they would on a disk, where `a/b` comes before `a-b`; what they list is held and sorted.

    Raises:
        CurateError: the bucket cannot be listed, or holds a name that no request can carry.
    """
    store, prefix = in_bucket(folder)
    start = len(prefix) + 1 if prefix else 0
    found = listed_after(store, prefix, "")
    is_sorted: bool | None = None  # not known before it matters
    for stat in found:
        if is_sorted is None and "/" in stat.path[start:]:
            is_sorted = _is_in_order(store, prefix, stat.path[: stat.path.index("/", start)])
            if not is_sorted:
                found = iter(sorted([stat, *found], key=lambda stat: stat.path))
                yield from (Stat(stat.path[start:], stat.bytes) for stat in found)
                return
        yield Stat(stat.path[start:], stat.bytes)


def _is_in_order(store: Store, prefix: str, folder: str) -> bool:
    """True if a store lists by whole names: then those in a folder come behind all that begin with `folder.`."""
    behind = next(listed_after(store, prefix, f"{folder}.{LAST}"), None)
    return behind is not None and behind.path.startswith(f"{folder}/")


def listed_after(store: Store, prefix: str, after: str) -> Iterator[Stat]:
    """Files of a store below a prefix that come after `after`, as the store has them in order.

    Raises:
        CurateError: as `objects_below`.
    """
    if not isinstance(store, Bucket):
        yield from (stat for stat in store.files(prefix) if stat.path > after)
        return
    pages: Any = None

    def page() -> Sequence[Any]:
        nonlocal pages
        try:
            pages = pages or obstore.list(store.client, prefix=prefix or None, offset=after or None, chunk_size=PAGE)
            return next(pages, ())
        except Exception:
            pages = None  # the next try goes on behind what came before
            raise

    while found := _page(store, page):
        for item in found:
            after = item["path"]
            yield Stat(after, item["size"])


def _page(store: Store, page: Callable[[], Sequence[Any]]) -> Sequence[Any]:
    try:
        return retried(page, str(store))
    except InvalidPathError as exc:
        raise CurateError(
            f"{store} holds an object whose name has a line break, or `.` or `..` as a part",
            "such a name cannot be asked for, nor be listed past: rename it",
        ) from exc


def plain_parts(parts: Sequence[str]) -> list[str]:
    """The parts before the first that holds a pattern, unescaped."""
    out: list[str] = []
    for part in parts:
        if glob.has_magic(_ESCAPED.sub("", part)):
            break
        out.append(_ESCAPED.sub(r"\1", part))
    return out


def _fits(path: Sequence[str], pattern: Sequence[str]) -> bool:
    """True if the parts of a path are what `glob` finds for those of a pattern: no sign stands for a leading dot."""
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

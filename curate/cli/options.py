"""Options of the form NAME=VALUE."""

from __future__ import annotations

from collections.abc import Iterable

from curate.schema.errors import CurateError


def named_values(given: Iterable[str], option: str) -> dict[str, str]:
    """NAME=VALUE pairs by name; of a name that is given again the last.

    Raises:
        CurateError: one without `=`, or without a name. It does not show the value, which may be a secret.
    """
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals):
            raise CurateError(f"{option} {name!r} is not NAME=VALUE")
        found[name] = value
    return found

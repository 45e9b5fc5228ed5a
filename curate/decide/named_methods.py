"""Methods that find near duplicates, by the name that a recipe calls them."""

from __future__ import annotations

from curate.decide.methods import Method
from curate.decide.near import Cosine
from curate.schema.errors import CurateError
from curate.schema.nearest import closest

METHODS: dict[str, Method] = {"cosine": Cosine()}
"""What `method` of a recipe's near duplicates may be."""


def method(name: str) -> Method:
    """The method of a name.

    Raises:
        CurateError: there is none.
    """
    if name not in METHODS:
        near = closest(name, list(METHODS))
        raise CurateError(
            f"there is no method {name} for near duplicates" + (f"; did you mean {near}?" if near else ""),
            f"methods: {', '.join(METHODS)}",
        )
    return METHODS[name]

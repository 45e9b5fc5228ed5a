"""From a recipe's source to its class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from curate.schema import recipe
from curate.sources.base import Source
from curate.sources.folder import Folders
from curate.sources.tables import Tables
from curate.sources.tars import Tars

KINDS: dict[str, type[Source]] = {one.kind: one for one in (Folders, Tars, Tables)}
"""Source types by what the recipe calls them."""


def open_source(spec: recipe.Source, root: Path, env: Mapping[str, str]) -> Source:
    """The source that a section of the recipe means; see `Source`. Nothing is read yet.

    Raises:
        CurateError: a variable that is not set, an address that is none.
    """
    return KINDS[spec.kind](spec, root, env)

"""From a recipe's source to its class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from curate import plugins
from curate.schema import recipe
from curate.sources.base import Source


def open_source(spec: recipe.Source, root: Path, env: Mapping[str, str]) -> Source:
    """The source that a section of the recipe means; see `Source`. Nothing is read yet.

    Raises:
        CurateError: a variable that is not set, an address that is none.
    """
    cls: type[Source] = plugins.find("source", spec.kind)
    return cls(spec, root, env)

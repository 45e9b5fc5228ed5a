"""Labelers by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from curate import plugins
from curate.schema.errors import CurateError
from curate.tokenizers.labels.base import Labeler, SampleLabeler


def labeler_of(name: str, options: Mapping[str, Any], device: str = "cpu") -> Any:
    """The labeler `name`, an entry point or `package.module:Class` of one's own, made with `options`.

    Args:
        device: for labelers that take one, where the options do not name it.

    Returns:
        a `Labeler` or a `SampleLabeler`.

    Raises:
        CurateError: there is none, it does not take these options, or it is no labeler.
    """
    where = {"device": device} if "device" in inspect.signature(plugins.find("labeler", name)).parameters else {}
    made = plugins.make("labeler", name, {**where, **options})
    if not isinstance(made, Labeler | SampleLabeler):
        raise CurateError(
            f"`{name}` is no labeler", "it needs name, digest and __call__ (curate.tokenizers.labels.base)"
        )
    return made

"""Labelers by name."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from curate.schema.errors import CurateError
from curate.schema.nearest import nearest
from curate.tokenizers.labels.base import Labeler, SampleLabeler

_LABELERS = {
    "canny": "curate.tokenizers.labels.canny:Canny",
    "deeplab": "curate.tokenizers.labels.deeplab:DeepLab",
    "metadata": "curate.tokenizers.labels.metadata:MetadataLabeler",
    "movenet": "curate.tokenizers.labels.movenet:MoveNet",
    "palette": "curate.tokenizers.labels.palette:PaletteLabeler",
    "transformers-boxes": "curate.tokenizers.labels.transformers_labelers:TransformersBoxes",
    "transformers-depth": "curate.tokenizers.labels.transformers_labelers:TransformersDepth",
    "transformers-sam": "curate.tokenizers.labels.sam:TransformersSAM",
    "transformers-segmentation": "curate.tokenizers.labels.transformers_labelers:TransformersSegmentation",
    "yunet": "curate.tokenizers.labels.yunet:YuNet",
}
"""Class of each; importing waits until one is made."""


def labeler_of(name: str, options: Mapping[str, Any], device: str = "cpu") -> Any:
    """The labeler `name`, or `package.module:Class` of one's own, made with `options`.

    Args:
        device: for labelers that take one, where the options do not name it.

    Returns:
        a `Labeler` or a `SampleLabeler`.

    Raises:
        CurateError: there is none, it does not take these options, or it is no labeler.
    """
    if ":" not in name and name not in _LABELERS:
        known = sorted(_LABELERS)
        raise CurateError(
            f"no labeler {name!r}",
            f"{nearest(name, known)}there are: {', '.join(known)}; or package.module:Class of one of your own",
        )
    module, _, attribute = _LABELERS.get(name, name).partition(":")
    try:
        cls = getattr(importlib.import_module(module), attribute)
        where = {"device": device} if "device" in inspect.signature(cls).parameters else {}
        made = cls(**{**where, **options})
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise CurateError(
            f"labeler `{name}` cannot be made with {dict(options)}: {error}",
            "see its class for the options; one of your own is to be installed where curate runs, on every worker",
        ) from error
    if not isinstance(made, Labeler | SampleLabeler):
        raise CurateError(
            f"`{name}` is no labeler", "it needs name, digest and __call__ (curate.tokenizers.labels.base)"
        )
    return made

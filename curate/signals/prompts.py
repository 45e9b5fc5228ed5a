"""Templates of prompts: text with fields of a sample in braces, checked before anything runs."""

from __future__ import annotations

import string
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.schema.nearest import meant
from curate.signals.caption import clean, cut

OF_SAMPLES = ("text", "kind")
"""What a template may name beside fields of signals: text given with the sample, and image, video or audio."""

MAX_CHARS = 2000
"""Of one value in a prompt; longer ones are cut at a word."""

_BRACES = "write {{ and }} for braces of the prompt's own"


def fields_of(template: str) -> list[str]:
    """Names in braces, each once, in order.

    Raises:
        CurateError: a brace without its pair, or something else than a name in braces.
    """
    try:
        parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    except ValueError as exc:
        raise CurateError(f"the prompt is no template: {exc}", _BRACES) from exc
    names = [str(name) for _, name, _, _ in parts]
    for _, name, spec, conversion in parts:
        if spec or conversion or not str(name).isidentifier():
            raise CurateError(f"the prompt has {{{name}}} in braces, which is no name of a field", _BRACES)
    return list(dict.fromkeys(names))


def check_template(template: str, fields: Mapping[str, SignalField]) -> None:
    """Refuse a template that names what is not there, or what cannot be said in words.

    Args:
        fields: of probing and of earlier signals, by name.

    Raises:
        CurateError: with the nearest name.
    """
    known = [*OF_SAMPLES, *(name for name, field in fields.items() if _is_words(field.type))]
    for name in fields_of(template):
        if name in fields and name not in known:
            raise CurateError(f"the prompt names `{name}`, which holds {fields[name].type_text()} and no words")
        if name not in known:
            raise CurateError(
                f"the prompt names `{name}`, which no earlier signal gives{meant(name, known)}",
                f"fields: {', '.join(known)}",
            )


def values_of(template: str, sample: Mapping[str, Any]) -> dict[str, str]:
    """What a sample puts in the place of each name: one line, empty where it has no value."""
    return {name: cut(clean(_said(sample.get(name))), MAX_CHARS) for name in fields_of(template)}


def _is_words(kind: pa.DataType) -> bool:
    of = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_string(of) or pa.types.is_integer(of) or pa.types.is_floating(of))


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_said, value))
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)

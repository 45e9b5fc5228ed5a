"""What a captioner answered, checked: text, or an object of a JSON schema whose properties become typed fields.

An answer is a refusal where the server says so (`refusal`, `content_filter`), or where a text of it begins as one of
`curate.signals.refusals` does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.signals.caption import clean
from curate.signals.refusals import REFUSAL

_PROPERTY = re.compile(r"[a-z][a-z0-9_]*")
_MARKUP = ("<!doctype", "<html", "<?xml")


class AnswerError(Exception):
    """An answer that is no caption: empty, cut off, too long, a page of HTML, or not what the schema asks for."""


class Refusal(AnswerError):
    """A model that refused to describe the sample."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a schema that is none, or whose answers have no fields.

    Raises:
        CurateError: with the reason.
    """
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(dict(schema))
    except SchemaError as exc:
        raise CurateError(f"the schema is no JSON schema: {exc.json_path}: {exc.message}") from exc
    properties = schema.get("properties")
    if schema.get("type") != "object" or not isinstance(properties, dict) or not properties:
        raise CurateError("the schema must be of an object with properties", "write {type: object, properties: {...}}")
    for name in properties:
        if name == "by" or not _PROPERTY.fullmatch(name):
            raise CurateError(
                f"the property {name!r} cannot name a field", "use lower case letters, digits and _; `by` is taken"
            )


def strict(schema: Any) -> Any:
    """The schema with all properties of each object required and no others allowed, as servers that answer by a schema
    ask for; where it says otherwise itself, that stands."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(part) for key, part in schema.items()}
    if made.get("type") == "object" and isinstance(made.get("properties"), dict):
        made = {"required": list(made["properties"]), "additionalProperties": False} | made
    return made


def field_of(name: str, spec: Mapping[str, Any], kinds: tuple[str, ...]) -> SignalField:
    """The field of a property: string and enum are text, integer int32, number float64, boolean 0 or 1, with their
    range; lists of objects with properties are lists of structs of the same; other lists and objects are JSON."""
    about, allowed = str(spec.get("description", "")), spec.get("enum")
    if isinstance(allowed, list):
        about = f"{about} One of: {', '.join(map(str, allowed))}.".strip()
    kind = _arrow(spec)
    match _type(spec):
        case "boolean":
            return SignalField(name, kind, "true 1, false 0", (0, 1), kinds, about)
        case "integer" | "number":
            return SignalField(name, kind, "", (spec.get("minimum"), spec.get("maximum")), kinds, about)
    return SignalField(name, kind, kinds=kinds, about=about)


def text_of(answer: str, max_chars: int) -> str:
    """The caption that an answer is, on one line.

    Raises:
        AnswerError, Refusal: it is none.
    """
    text = clean(answer)
    if not text:
        raise AnswerError("it answers nothing")
    if text.lower().startswith(_MARKUP):
        raise AnswerError("it answers a page of markup")
    if REFUSAL.match(text):
        raise Refusal(f"it refuses: {text[:200]}")
    return _short(text, max_chars)


def values_of(answer: str, schema: Mapping[str, Any], max_chars: int) -> tuple[str, dict[str, Any]]:
    """An answer as JSON on one line, and the value of each property as its field has it; an empty string is null.

    An empty list is an answer where nothing but lists of objects is asked for. Texts in lists are no captions, so none
    of them is a refusal.

    Args:
        schema: as `strict` gives it.

    Raises:
        AnswerError, Refusal: it is not of the schema, or a text in it is no caption.
    """
    from jsonschema import Draft202012Validator

    try:
        found = json.loads(answer, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        text_of(answer, max_chars)  # a refusal or a page says more than that it is no JSON
        raise AnswerError(f"it answers no JSON: {clean(answer)[:100]}") from exc
    wrong = next(Draft202012Validator(dict(schema)).iter_errors(found), None)
    if wrong is not None:
        raise AnswerError(f"its JSON breaks the schema at {wrong.json_path}: {wrong.message[:200]}")
    properties = schema["properties"]
    values = {name: _value(found.get(name), spec, max_chars) for name, spec in properties.items()}
    if all(value in (None, []) for value in values.values()) and not all(map(entries_of, properties.values())):
        raise AnswerError("it answers nothing")
    return _json(found), values


def is_caption(spec: Mapping[str, Any]) -> bool:
    """True if a property may be a caption: text that is not one of a few."""
    return _type(spec) == "string" and "enum" not in spec


def entries_of(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """Properties of the objects that a list is of; none where the property is something else."""
    items = spec.get("items")
    if _type(spec) != "array" or not isinstance(items, dict) or _type(items) != "object":
        return {}
    found = items.get("properties")
    return found if isinstance(found, dict) else {}


def _arrow(spec: Mapping[str, Any]) -> pa.DataType:
    match _type(spec):
        case "integer" | "boolean":
            return pa.int32()
        case "number":
            return pa.float64()
    entries = entries_of(spec)
    return pa.list_(pa.struct([(name, _arrow(part)) for name, part in entries.items()])) if entries else pa.string()


def _value(value: Any, spec: Mapping[str, Any], max_chars: int, in_list: bool = False) -> Any:
    """The value of a property's field, or of a struct's in a list."""
    if value is not None and (entries := entries_of(spec)):
        rows = [
            {name: _value(entry.get(name), part, max_chars, in_list=True) for name, part in entries.items()}
            for entry in value
            if entry is not None
        ]
        return [row for row in rows if any(one not in (None, []) for one in row.values())]
    if value is None or value in ("", [], {}):
        return None
    match _type(spec):
        case "string" if "enum" in spec:
            return value
        case "string" if in_list:
            return _short(clean(value), max_chars) or None
        case "string":
            return text_of(value, max_chars) if clean(value) else None
        case "integer" | "boolean":
            if abs(value) >= 1 << 31:
                raise AnswerError(f"it answers {value}, which takes more than 32 bits")
            return int(value)
        case "number":
            if math.isinf(value):
                raise AnswerError("it answers a number that is too large")
            return float(value)
    return _json(value)


def _short(text: str, max_chars: int) -> str:
    if len(text) > max_chars:
        raise AnswerError(f"it answers {len(text)} characters, more than max_chars, {max_chars}")
    return text


def _json(value: Any) -> str:
    return clean(json.dumps(value, ensure_ascii=False))


def _type(spec: Mapping[str, Any]) -> str:
    """Of a property, null aside; empty where it may be of several."""
    kinds = spec.get("type", "")
    kinds = [kind for kind in kinds if kind != "null"] if isinstance(kinds, list) else [kinds]
    if kinds == [""] and all(isinstance(one, str) for one in spec.get("enum", [0])):
        return "string"
    return str(kinds[0]) if len(kinds) == 1 else ""


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")

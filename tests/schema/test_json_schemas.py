"""The JSON Schemas are those of the classes, and explain themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from curate.schema.json_schemas import SCHEMAS, schema_text

CARD = (".CodecCard.", ".Preprocessing.", ".Quality.")
"""Classes whose docstrings say what their fields are."""


def undescribed(schema: Any, place: str = "") -> Iterator[str]:
    """Properties without a description, in a schema and in the definitions that it holds."""
    if isinstance(schema, list):
        for part in schema:
            yield from undescribed(part, place)
    elif isinstance(schema, dict):
        for name, value in schema.get("properties", {}).items():
            if not value.get("description"):
                yield f"{place}.{name}"
        for key, value in schema.items():
            named = key in ("properties", "$defs")
            for name, part in value.items() if named else [(None, value)]:
                yield from undescribed(part, f"{place}.{name}" if named else place)


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name != "codec-card"])
def test_every_property_says_what_it_is(name: str) -> None:
    found = undescribed(json.loads(schema_text(name)))
    assert [place for place in found if not place.startswith(CARD)] == []


def test_what_is_not_described_is_found() -> None:
    inner = {"properties": {"a": {"type": "string"}, "b": {"description": "this"}}}
    assert list(undescribed({"$defs": {"Of": inner}, "properties": {"c": {"anyOf": [inner]}}})) == [
        ".c",
        ".Of.a",
        ".c.a",
    ]

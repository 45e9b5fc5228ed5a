"""JSON Schemas of what people and programs write and read; `schemas/` holds them, a test keeps them true."""

from __future__ import annotations

import json

from pydantic import BaseModel

from curate.schema.codec import CodecCard
from curate.schema.events import Event
from curate.schema.manifest import Manifest
from curate.schema.recipe import Recipe

SCHEMAS: dict[str, type[BaseModel]] = {
    "recipe": Recipe,
    "manifest": Manifest,
    "codec-card": CodecCard,
    "progress": Event,
}


def schema_text(name: str) -> str:
    """The JSON Schema as it stands in `schemas/NAME.schema.json`."""
    return json.dumps(SCHEMAS[name].model_json_schema(), indent=1, sort_keys=True) + "\n"

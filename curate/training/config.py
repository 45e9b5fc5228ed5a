"""Reading a `train.yaml`, the same for every kind of tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel

from curate.schema.errors import CurateError

Config = TypeVar("Config", bound=BaseModel)


def read_config(kind: type[Config], path: Path) -> Config:
    """The configuration in a YAML file.

    Raises:
        CurateError: the file does not fit `kind`.
    """
    try:
        return kind.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (ValueError, yaml.YAMLError) as error:
        raise CurateError(f"{path.name} is not a training configuration: {error}") from error

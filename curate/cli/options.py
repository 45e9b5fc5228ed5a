"""Options that several commands have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from curate.schema.errors import CurateError

Json = Annotated[bool, typer.Option("--json", help="For machines: JSON on stdout.")]


def named_values(given: Iterable[str], option: str) -> dict[str, str]:
    """NAME=VALUE pairs by name; of a name that is given again the last.

    Raises:
        CurateError: one without `=`, or without a name. It does not show the value, which may be a secret.
    """
    found = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not (name and equals):
            raise CurateError(f"{option} {name!r} is not NAME=VALUE")
        found[name] = value
    return found


def options_of(given: Iterable[str]) -> dict[str, Any]:
    """Pairs of `--option`, values as YAML reads them."""
    return {name: yaml.safe_load(value) for name, value in named_values(given, "--option").items()}


def refuse_tokenizer(out: Path) -> None:
    """CurateError where a folder that a tokenizer is to be made in holds one."""
    if (out / "card.json").exists():
        raise CurateError(f"{out} holds a tokenizer already", "give another folder, or remove it")

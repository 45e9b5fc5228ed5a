"""Import of published weights: a folder of the zoo from a checkpoint.

What is published as a program (TorchScript) runs in a process that can be ended (law 10).
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import get_type_hints

from pydantic import TypeAdapter, ValidationError

from curate import plugins
from curate.helper.errors import HelperDied, HelperError
from curate.helper.process import Helper
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.nearest import nearest
from curate.tokenizers.zoo import class_of

LIMIT_S = 1800
"""Seconds for an import: a large tokenizer of clips takes minutes on one CPU core."""


def importable() -> list[str]:
    """Architectures whose published weights `import_checkpoint` reads."""
    return [name for name in plugins.names("architecture") if hasattr(class_of(name), "import_checkpoint")]


def options_of(architecture: str) -> dict[str, inspect.Parameter]:
    """Options of an architecture's `import_checkpoint`: what it takes beside source and folder."""
    parameters = inspect.signature(class_of(architecture).import_checkpoint).parameters
    return {name: p for name, p in parameters.items() if name not in ("source", "folder")}


def import_checkpoint(
    architecture: str, source: str, out: Path, options: Mapping[str, str], limit_s: float = LIMIT_S
) -> CodecCard:
    """Make the folder of a tokenizer of published weights.

    Args:
        source: a local path or a hub id.
        options: of the architecture, as text; turned into the types of its `import_checkpoint`.
        limit_s: seconds that a published program may take.

    Raises:
        CurateError: an unknown architecture or option, weights that cannot be had or do not fit, or the program took
            too long or ended its process.
    """
    if architecture not in importable():
        raise CurateError(
            f"no architecture {architecture!r} to import",
            f"{nearest(architecture, importable())}there are: {', '.join(importable())}",
        )
    if not getattr(class_of(architecture), "runs_program", False):
        return _imported(architecture, source, out, options)
    with Helper(f"{__name__}:CheckpointImporter", memory_bytes=None, name="import") as helper:
        try:
            arguments = (architecture, source, str(out), dict(options))
            said = helper.call("import_checkpoint", *arguments, limit_s=limit_s)
        except (HelperDied, HelperError) as error:
            raise CurateError(
                f"{architecture} cannot be imported from {source}: {error}",
                "its archives are programs, and were run; are they the publisher's own?",
            ) from error
    return CodecCard.model_validate_json(said)


class CheckpointImporter:
    """The helper's side."""

    RAISES = (CurateError,)

    def import_checkpoint(self, architecture: str, source: str, out: str, options: dict[str, str]) -> str:
        """The card as JSON."""
        return _imported(architecture, source, Path(out), options).model_dump_json()


def _imported(architecture: str, source: str, out: Path, options: Mapping[str, str]) -> CodecCard:
    known, importer = options_of(architecture), class_of(architecture).import_checkpoint
    if unknown := [name for name in options if name not in known]:
        raise CurateError(f"{architecture} has no option {unknown[0]!r}", f"it has: {', '.join(known) or 'none'}")
    types = get_type_hints(importer)
    try:
        typed = {name: TypeAdapter(types[name]).validate_python(value) for name, value in options.items()}
    except ValidationError as exc:
        raise CurateError(f"an option of {architecture}: {exc.errors()[0]['msg']}") from exc
    made: CodecCard = importer(source, out, **typed)
    return made

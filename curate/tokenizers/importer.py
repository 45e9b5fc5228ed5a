"""Import of published tokenizers that are programs (TorchScript): in a process that can be ended (law 10)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from curate.helper.errors import HelperDied, HelperError
from curate.helper.process import Helper
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers import zoo

LIMIT_S = 1800
"""Seconds for an import: a large tokenizer of clips takes minutes on one CPU core."""


class CheckpointImporter:
    """The helper's side."""

    RAISES = (CurateError,)

    def import_checkpoint(self, architecture: str, source: str, out: str, options: dict[str, str]) -> str:
        """As `zoo.import_checkpoint`; the card as JSON."""
        return zoo.import_checkpoint(architecture, source, Path(out), options).model_dump_json()


def import_checkpoint(
    architecture: str, source: str, out: Path, options: Mapping[str, str], limit_s: float = LIMIT_S
) -> CodecCard:
    """As `zoo.import_checkpoint`; a published program runs in a helper process, for `limit_s` seconds at most.

    Raises:
        CurateError: as there, or the program took too long or ended its process.
    """
    if not (architecture in zoo.importable() and zoo.runs_program(architecture)):
        return zoo.import_checkpoint(architecture, source, out, options)
    with Helper(f"{__name__}:CheckpointImporter", memory_bytes=None, name="import") as helper:
        try:
            said = helper.call("import_checkpoint", architecture, source, str(out), dict(options), limit_s=limit_s)
        except (HelperDied, HelperError) as error:
            raise CurateError(
                f"{architecture} cannot be imported from {source}: {error}",
                "its archives are programs, and were run; are they the publisher's own?",
            ) from error
    return CodecCard.model_validate_json(said)

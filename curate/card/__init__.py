"""The dataset card: what was kept, dropped and failed, and why, as one HTML page and a README.

`write` makes the card of a build, `explain` tells what became of one input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from curate.schema.manifest import File, Manifest
    from curate.storage import Store
    from curate.tokenizers.base import Tokenizer

__all__ = ["explain", "write", "write_card"]


def write_card(
    build: Store, manifest: Manifest, files: Iterable[File], loader: Callable[[str], Tokenizer]
) -> list[str]:
    """`write.write_card`, imported where it runs: torch and what draws are not held by a process that hands it on."""
    from curate.card.write import write_card as write

    return write(build, manifest, files, loader)

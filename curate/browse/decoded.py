"""Tokens of a kept sample decoded next to the original, as the card shows some; made when asked for."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from curate.browse.kept_files import KeptFiles
from curate.browse.models import Models
from curate.browse.query import seen
from curate.schema.errors import CurateError
from curate.schema.verdict import Outcome

_OF_IMAGE = ("original", "ids", "decoded")
_OF_AUDIO = ("original", "decoded", "original_image", "decoded_image")


class Decoded:
    """Decoded tokens of a build's samples.

    Args:
        models: decode them.
        folder: keeps what they gave.
    """

    def __init__(self, models: Models, folder: Path) -> None:
        self._models, self._kept = models, KeptFiles(folder)

    def panel(self, row: dict[str, Any]) -> dict[str, Any]:
        """What streams of a sample decode to: `curate.card.roundtrip.Panel`, with numbers of files (`file`) in the
        place of images and audio.

        Args:
            row: of the table, with `n`, `id`, `part` and `outcome`.

        Raises:
            CurateError: it was not kept, or nothing can be decoded at all; what goes wrong with one stream is among
                `problems`.
        """
        if row["outcome"] != Outcome.KEPT:
            raise CurateError("only samples that are kept have tokens")
        held = self._read(row["n"])
        if held is None or held["panel"]["problems"]:  # what was wrong may have been mended
            held = _split(self._models.ask("panel", row["id"], row["part"]))
            self._kept.write(f"{row['n']}.json", json.dumps(held).encode())
        panel: dict[str, Any] = held["panel"]
        return panel

    def file(self, n: int, number: int) -> tuple[bytes, str]:
        """An image or audio of a panel, and its type.

        Raises:
            CurateError: the panel was not made, or was pruned; it has no such file.
        """
        held = self._read(n)
        if held is None or not 0 <= number < len(held["files"]):
            raise CurateError("there is no such file: decode the tokens again")
        head, _, data = held["files"][number].partition(",")
        return base64.b64decode(data), head.removeprefix("data:").removesuffix(";base64")

    def _read(self, n: int) -> dict[str, Any] | None:
        data = self._kept.read(f"{n}.json")
        return None if data is None else json.loads(data)


def _split(panel: dict[str, Any]) -> dict[str, Any]:
    """A panel, and apart from it the data URIs that stood in it: the page's policy shows none."""
    files: list[str] = []
    shown = [(one, _OF_IMAGE) for images in panel["images"].values() for one in images]
    for one, names in (*shown, *((one, _OF_AUDIO) for one in panel["audio"].values())):
        for name in names:
            files.append(one[name])
            one[name] = len(files) - 1
    for text in panel["texts"].values():
        text["decoded"] = seen(text["decoded"])
    return {"panel": panel, "files": files}

"""Where progress goes when a program reads it."""

from __future__ import annotations

import json
import threading
from typing import IO, Any

from rich.console import Console

from curate.schema.events import (
    Dashboard,
    Forecast,
    Funnel,
    Note,
    Placement,
    StageEnd,
    StageProgress,
    StageStart,
    Summary,
)


class JsonConsole(Console):
    """For programs: each event is one JSON object on a line of its own, as `schemas/progress.schema.json` says.

    Lines are ASCII and are flushed one by one. What is printed becomes an event `note`. A quiet one says only the
    result.
    """

    def __init__(self, file: IO[str], quiet: bool = False) -> None:
        super().__init__(file=file, quiet=quiet, force_terminal=False)
        self._writing = threading.Lock()

    def emit(
        self, event: StageStart | StageProgress | StageEnd | Note | Dashboard | Funnel | Placement | Forecast | Summary
    ) -> None:
        """Write one event."""
        if self.quiet and not isinstance(event, Funnel | Placement | Forecast | Summary):
            return
        line = json.dumps({"event": event.event, **event.model_dump(mode="json")})  # what it is comes first
        with self._writing:
            self.file.write(line + "\n")
            self.file.flush()

    def print(self, *objects: Any, **how: Any) -> None:
        self.emit(Note(text=" ".join(map(str, objects))))

"""Sources: where records come from. A source lists units; a task reads a unit and gives entries.

A file of this folder with a class that derives from `Source` is one, called by its `kind` in a recipe's `sources:`.
`read` gets the bytes of entries, wherever they are, under limits (laws 10 and 11).
"""

from curate.sources.base import Options, Source, Unit
from curate.sources.entry import Entry

__all__ = ["Entry", "Options", "Source", "Unit"]

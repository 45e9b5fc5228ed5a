"""Tasks at the end of a run. The process that does one imports this file, and so it imports little."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from curate.schema.manifest import File, Manifest
from curate.shards.commit import describe_file
from curate.shards.ipc import open_ipc
from curate.storage import Store
from curate.storage.tables import table_rows
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer

CardWriter = Callable[[Store, Manifest, Sequence[File], Callable[[str], Tokenizer]], list[str]]
"""`curate.card.write.write_card`: the room above, so it is handed down and not imported."""


@dataclass(frozen=True)
class Loader:
    """Tokenizers on one thread, as where ids are made: media of the card are decoded to the same bytes anywhere.

    Attributes:
        where: by tokenizer's name, what `zoo.load` takes.
    """

    where: Mapping[str, str]

    def __call__(self, name: str) -> Tokenizer:
        return zoo.load_on_one_thread(self.where[name])


def make_card(
    build: Store, manifest: Manifest, write_card: CardWriter, loader: Loader, files: Sequence[File]
) -> list[File]:
    """Write the card; its files."""
    return [describe_file(build, path, 0) for path in write_card(build, manifest, files, loader)]


def describe(build: Store, paths: Sequence[str]) -> list[File]:
    """Files of a build as the manifest lists them, read once more."""
    return [describe_file(build, path, _rows(build, path)) for path in paths]


def _rows(build: Store, path: str) -> int:
    if path.endswith(".parquet"):
        return table_rows(build, path)
    if path.endswith(".arrow"):
        return sum(batch.num_rows for batch in open_ipc(build.local(path))[1])
    fetched = path.replace("media/", "fetched/", 1).removesuffix(".tar") + ".parquet"
    return table_rows(build, fetched)

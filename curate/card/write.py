"""The dataset card of a build: `card/index.html` and `card/README.md`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from curate.card.facts import gather
from curate.card.page import render_page, show
from curate.card.readme import render_readme
from curate.media import guarded
from curate.schema.manifest import File, Manifest
from curate.shards.tables import open_tables
from curate.storage import Store
from curate.tokenizers.base import Tokenizer

PAGE, README = "card/index.html", "card/README.md"


def write_card(
    build: Store, manifest: Manifest, files: Iterable[File], loader: Callable[[str], Tokenizer]
) -> list[str]:
    """Write the card of a build whose other files are complete; the manifest need not be committed yet.

    It can run on any node: what it is given can be pickled if `loader` can, and what it holds does not grow with
    samples. It reads only files that are listed. The same build gives the same bytes: members of galleries are chosen
    by id and by value, and nothing of the machine, the clock or the folder's place is in them (law 6).

    Args:
        build: where it lies.
        manifest: its counts, splits, streams, signals and codecs.
        files: all files of the build but those of the card.
        loader: gives a tokenizer by the name that a stream's entry holds; used to decode tokens back to media.

    Returns:
        Paths of the files written, relative to the build.

    Raises:
        CurateError: the ledger does not add up or disagrees with the manifest, so that a card would not be true.
    """
    guarded.prepare()
    with open_tables(build, manifest, files) as tables:
        facts = gather(tables)
        texts = {PAGE: render_page(facts, show(tables, facts, loader)), README: render_readme(facts)}
    for path, content in texts.items():
        build.write(path, content.encode("utf-8"))
    return list(texts)

"""Token shards: fragments as they are tokenized, shards in final order, and the readers of trainers.

`pack` and `order` write, `commit` names what counts, `verify` checks; `stream` is `curate.stream`, `mix` mixes
builds and `join` joins them, `views` says how a trainer sees a sample, `reader` reads rows by number (for exports and
the card).
"""

__all__ = [
    "commit",
    "fragments",
    "ipc",
    "join",
    "lists",
    "mix",
    "mixture",
    "order",
    "pack",
    "reader",
    "rows",
    "schema",
    "shuffle",
    "stream",
    "token_stream",
    "verify",
    "views",
]

"""The workbench: a page on loopback to look through a finished build, `curate browse BUILD`.

`table` writes what the page asks about into one columnar table in a cache; `query` answers questions in a fixed
vocabulary of fields and operators; `looks` makes thumbnails; `columns` holds numbers of all samples, `judged` says what
rules make of them, `moving` answers the page about rules that are moved, and `recipe_text` writes them into a recipe;
`compare` says what two builds differ in; `server` is the ASGI application. Nothing here writes to a build. The page's
source is in `web/` of the repository.
"""

__all__ = ["columns", "compare", "judged", "looks", "moving", "query", "recipe_text", "server", "table"]

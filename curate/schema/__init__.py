"""Contracts: what people and programs write and read, and the ids that name it. It imports no other room.

`recipe`, `manifest`, `codec` and `events` are pydantic models (their JSON Schemas lie in `schemas/`), `tables` the
Arrow schemas of Parquet files, `ledger_laws` what a ledger must keep; `ids` makes record, sample and content ids;
`errors` has `CurateError`, which every room raises for what a user can mend.
"""

__all__ = [
    "codec",
    "errors",
    "events",
    "fields",
    "ids",
    "json_schemas",
    "ledger_laws",
    "manifest",
    "nearest",
    "package_data",
    "recipe",
    "recipe_file",
    "tables",
    "text",
    "verdict",
]

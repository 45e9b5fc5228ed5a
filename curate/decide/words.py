"""Rules on words: strings, booleans, lists of strings, and what a source says beside its media; over whole columns.

Every such column becomes strings, or lists of strings. A boolean is `true` or `false`; of `meta.NAME` a number is what
JSON writes. Of a list any item counts: `in` and `matches` want one that fits, `not_in` wants none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.decide.bounds import META, Threshold
from curate.storage.sql import connect

SHOWN = 200
"""Characters of a value that the ledger shows."""

MISSING = "missing"
"""What the ledger shows of a value that is not there."""


def said_of(table: pa.Table, field: str) -> pa.Array:
    """A column of RECORDS or SAMPLES by its name in rules: `licence`, `source`, `kind`, or `meta.NAME` of its JSON.

    Returns:
        Strings; of `meta.NAME` lists of strings, of one item where JSON has no array; null where nothing is said.
    """
    if not field.startswith(META):
        return whole(table[field])
    name = field.removeprefix(META).replace("~", "~0").replace("/", "~1")
    with connect() as con:
        con.register("said", pa.table({"n": pa.array(np.arange(len(table))), "meta": table["meta"]}))
        rows = con.sql(
            "SELECT CASE json_type(meta, $at) WHEN 'ARRAY' THEN CAST(json_extract(meta, $at) AS VARCHAR[]) "
            "WHEN 'NULL' THEN NULL ELSE [json_extract_string(meta, $at)] END AS said, json_type(meta, $at) IS NULL "
            "AS nothing FROM said ORDER BY n",
            params={"at": f"/{name}"},
        ).to_arrow_table()
    nothing = whole(rows["nothing"])
    said = whole(rows["said"]).cast(pa.list_(pa.string()))
    return pc.if_else(nothing, pa.scalar(None, said.type), said)


def broken(bound: Threshold, column: pa.Array, there: NDArray[np.bool_]) -> pa.Array:
    """Values that break a bound on words, or on whether there is a value.

    Args:
        column: `(n,)`, of any type where the bound only asks whether there is a value, else strings, booleans or lists
            of strings.
        there: bool `(n,)`, rows of which a value can be expected: false where the second look has not been.

    Returns:
        Strings `(n,)`: the value of each row that breaks it, at most `SHOWN` characters; null of the others.
    """
    missing = column.is_null().to_numpy(zero_copy_only=False)
    if bound.op == "not missing":
        return pa.array(np.full(len(column), MISSING, object), pa.string(), mask=~(missing & there))
    if pa.types.is_list(column.type):
        items = pc.cast(column.flatten(), pa.string())
        counts = pc.fill_null(pc.list_value_length(column), 0).to_numpy().astype(np.int64)
        parents = np.repeat(np.arange(len(column)), counts)
        some = np.zeros(len(column), bool)
        some[parents[_fits(bound, items)]] = True
        ends = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
        shown = pc.binary_join(pa.ListArray.from_arrays(ends, pc.fill_null(items, "null")), ", ")
    else:
        shown = pc.cast(column, pa.string())
        some = _fits(bound, shown)
    breaks = (some if bound.op == "not in" else ~some) & ~missing
    return pc.if_else(pa.array(breaks), pc.utf8_slice_codeunits(shown, 0, SHOWN), pa.scalar(None, pa.string()))


def _fits(bound: Threshold, items: pa.Array) -> NDArray[np.bool_]:
    """Items that are one of the bound's words, or in which its expression is found."""
    if bound.op == "matches":
        found = pc.match_substring_regex(items, bound.words[0])
    else:
        found = pc.is_in(items, pa.array(bound.words, pa.string()))
    return np.asarray(pc.fill_null(found, False).to_numpy(zero_copy_only=False), bool)


def broken_by(
    bounds: Sequence[tuple[int, Threshold]], columns: dict[str, pa.Array], there: dict[str, NDArray[np.bool_]]
) -> dict[int, pa.Array]:
    """`broken` of some bounds, by their number."""
    return {number: broken(bound, columns[bound.field], there[bound.field]) for number, bound in bounds}


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole

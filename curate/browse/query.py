"""What the page may ask, in a fixed vocabulary: names of fields are looked up, values are parameters, never SQL."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from curate.browse.table import Browsed
from curate.card.text import visible
from curate.schema.errors import CurateError
from curate.schema.nearest import closest
from curate.storage.sql import quoted, scan

FACETS = ("outcome", "rule", "error", "stage", "source", "kind", "licence", "level")
"""What a row can be filtered by, with how many have each value."""

LABEL = "label"
"""The facet of what a person said of samples; see `curate.browse.labels`."""

KINS = {"duplicates": "coalesce(duplicate_of, id)", "record": "record_id"}
"""What rows have in common that are shown together, with its SQL: a group of duplicates by its keeper, a record."""

LISTED = 50
"""Values of a facet that are listed, the commonest first."""

NEAR, LASSO = "near", "lasso"
"""Sets of rows that embeddings are looked at for: those with a cosine, and those in a part of the map."""

Sets = Mapping[str, pa.Table]
"""Rows by the name of a set: `n` of each; of NEAR `_cosine` too, a name that no signal takes."""

_ALL: Sets = {}

PAGE_ROWS = 200
"""Rows of a page at most."""

TEXT = 100_000
"""Characters of one text that are told of a sample."""

_COLUMNS = {**{name: quoted(name) for name in FACETS}, **KINS}
_SHOWN = "n, level, id, kind, outcome, rule, error, uri, source, duration, member IS NOT NULL AS stored"
_CAPTION = 300  # characters of a text in a grid


def page(browsed: Browsed, asked: Mapping[str, Any], sets: Sets = _ALL) -> dict[str, Any]:
    """Rows that match, some at a time, and how many there are.

    Args:
        asked: `where` (see `condition`), `search`, `sort` (a number field or empty), `descending`, `offset`, `limit`.
        sets: rows that alone are looked at; where there are NEAR, the nearest come first.

    Raises:
        CurateError: something is not in the vocabulary.
    """
    where, values = condition(browsed, asked)
    sort = asked.get("sort") or ""
    order, shown, kept = "n", "", "n"
    if NEAR in sets:
        order, shown, kept = "_cosine DESC, n", ", _cosine AS cosine", "n, _cosine"
    elif sort:
        column = quoted(known(sort, browsed.numbers, "number"))
        order = f"{column} {'DESC' if asked.get('descending') else 'ASC'} NULLS LAST, n"
        shown = f", CAST({column} AS DOUBLE) AS sorted"
    offset, limit = _count(asked.get("offset", 0), 1 << 53), _count(asked.get("limit", 60), PAGE_ROWS)
    found = rows(  # texts are read of the rows that are shown alone
        browsed,
        f"WITH chosen AS MATERIALIZED (SELECT {kept} FROM {_among(sets)} WHERE {where} ORDER BY {order} "
        f"LIMIT {limit} OFFSET {offset}) SELECT {_SHOWN}, left({_caption(browsed)}, {_CAPTION}) AS caption{shown} "
        f"FROM rows JOIN chosen USING (n) ORDER BY {order}",
        values,
        sets,
    )
    total = rows(browsed, f"SELECT count(*) AS n FROM {_among(sets)} WHERE {where}", values, sets)[0]["n"]
    return {
        "rows": [{**row, "caption": seen(row["caption"]), "uri": seen(row["uri"])} for row in found],
        "total": total,
    }


def facets(browsed: Browsed, asked: Mapping[str, Any], sets: Sets = _ALL) -> dict[str, list[dict[str, Any]]]:
    """Values of each facet with how many of the rows that match have them; its own choice does not narrow it.

    One pass over the table for all facets without a choice, and one for each of the others.
    """
    chosen = [name for name in FACETS if any(one.get("field") == name for one in _filters(asked))]
    out: dict[str, list[dict[str, Any]]] = {}
    for names in ([name for name in FACETS if name not in chosen], *([name] for name in chosen)):
        if not names:
            continue
        others = [one for one in _filters(asked) if one.get("field") not in names]
        where, values = condition(browsed, {**asked, "where": others})
        columns = ", ".join(_COLUMNS[name] for name in names)
        each = ", ".join(f"({_COLUMNS[name]})" for name in names)
        found = rows(
            browsed,
            f"SELECT * FROM (SELECT {columns}, grouping({columns}) AS grouped, count(*) AS number "
            f"FROM {_among(sets)} WHERE {where} GROUP BY GROUPING SETS ({each})) "
            f"QUALIFY row_number() OVER (PARTITION BY grouped ORDER BY number DESC) <= {LISTED + 1}",
            values,
            sets,
        )
        for i, name in enumerate(names):
            # of `grouped` the bit of the column that is grouped by is 0; the first column's bit is the highest
            grouped = (1 << len(names)) - 1 - (1 << (len(names) - 1 - i))
            mine = [(row[name], row["number"]) for row in found if row["grouped"] == grouped and row[name] is not None]
            mine.sort(key=lambda one: (-one[1], one[0]))
            out[name] = [{"value": value, "n": n} for value, n in mine[:LISTED]]
    where, values = condition(browsed, {**asked, "where": [o for o in _filters(asked) if o.get("field") != LABEL]})
    labels = rows(
        browsed,
        f"SELECT label AS value, count(*) AS n FROM (SELECT id FROM {_among(sets)} WHERE {where}) "
        "JOIN labels USING (id) GROUP BY 1 ORDER BY 1 DESC",
        values,
        sets,
    )
    return {LABEL: labels, **{name: out[name] for name in FACETS}}


def condition(browsed: Browsed, asked: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """SQL that is true of rows that match, and its parameters.

    Args:
        asked: `where`: a list of `{field, is: [text, ...]}` for facets and `{field, min, max}` for numbers;
            `search`: text that a caption, another text or the uri has, whatever its case.
    """
    terms, values = ["true"], list[Any]()
    for one in _filters(asked):
        field = one.get("field")
        if "is" in one:
            known(field, (LABEL, *_COLUMNS), "facet")
            chosen = one["is"]
            if not isinstance(chosen, list) or not all(isinstance(value, str) for value in chosen):
                raise CurateError(f"the filter of {field} needs a list of texts")
            term = "{} IN (SELECT unnest(?::VARCHAR[]))"
            if field == LABEL:
                terms.append(f"id IN (SELECT id FROM labels WHERE {term.format('label')})")
            else:
                terms.append(term.format(_COLUMNS[str(field)]))
            values.append(chosen)
            continue
        column = f"CAST({quoted(known(field, browsed.numbers, 'number'))} AS DOUBLE)"
        for end, operator in (("min", ">="), ("max", "<=")):
            if one.get(end) is not None:
                terms.append(f"{column} {operator} ?")
                values.append(number(one[end]))
    search = asked.get("search") or ""
    if not isinstance(search, str):
        raise CurateError("a search is a text")
    if search:
        terms.append(
            "(" + " OR ".join(f"contains(lower({quoted(t)}), lower(?))" for t in (*browsed.texts, "uri")) + ")"
        )
        values += [search] * (len(browsed.texts) + 1)
    return " AND ".join(terms), values


def rows(browsed: Browsed, sql: str, values: Sequence[Any] = (), sets: Sets = _ALL) -> list[dict[str, Any]]:
    """Rows of a query as JSON takes them: no infinite numbers.

    Args:
        sets: tables that the query may name.
    """
    with browsed.con.cursor() as cursor:
        for name, table in sets.items():
            cursor.register(name, table)
        done = cursor.execute(sql, list(values))
        names = [column[0] for column in done.description or []]
        return [dict(zip(names, map(plain, row), strict=True)) for row in done.fetchall()]


def sample(browsed: Browsed, n: int, columns: Sequence[str] = ()) -> dict[str, Any]:
    """Columns of the row of a number; all where none are named.

    Raises:
        CurateError: there is no such row.
    """
    file = browsed.files[bisect_right(browsed.starts, n) - 1]  # the view would look at all files
    found = rows(browsed, f"SELECT {', '.join(map(quoted, columns)) or '*'} FROM {scan([str(file)])} WHERE n = ?", [n])
    if not found:
        raise CurateError(f"there is no row {n}")
    return found[0]


def seen(value: str | None) -> str | None:
    """A text of strangers to be shown: no character hides or reorders others, and what is very long is cut."""
    if value is None:
        return None
    rest = f"… {len(value):,} characters in all" if len(value) > TEXT else ""
    return visible(value[:TEXT]) + rest


def plain(value: Any) -> Any:
    """A value as JSON takes it: no infinite number."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def known(name: object, names: Sequence[str], what: str) -> str:
    """A name that the page gave.

    Raises:
        CurateError: it is none of `names`.
    """
    if isinstance(name, str) and name in names:
        return name
    near = closest(str(name), names)
    raise CurateError(f"this build has no {what} {name}" + (f"; did you mean {near}?" if near else ""))


def number(value: object) -> float:
    """A number that the page gave.

    Raises:
        CurateError: it is none, or is not finite.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise CurateError(f"{value!r} is no number")


def _caption(browsed: Browsed) -> str:
    """SQL of the text that a grid shows: the one that is tokenized, else what the source gave."""
    return 'coalesce("caption", "text")' if "caption" in browsed.texts else '"text"'


def _among(sets: Sets) -> str:
    """SQL of the rows that are in all sets."""
    return "rows" + "".join(f" JOIN {name} USING (n)" for name in sets)


def _filters(asked: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    where = asked.get("where") or []
    if not isinstance(where, list) or not all(isinstance(one, dict) for one in where):
        raise CurateError("filters are a list of objects")
    return where


def _count(value: object, most: int) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most:
        return value
    raise CurateError(f"{value!r} is no whole number from 0 to {most}")

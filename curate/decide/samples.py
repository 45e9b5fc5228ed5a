"""Verdicts on samples, from the columns that the signals gave (law 3: score once, decide late)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curate.decide.ledger import VERDICTS, sample_rows
from curate.decide.near import Groups, Mapper, near_duplicates
from curate.decide.probed import PROBED, probed_sql
from curate.decide.rules import (
    BROKEN,
    CANDIDATES,
    apply_rules,
    bounds,
    check_near_duplicates,
    check_rules,
)
from curate.decide.sql import connect, name, refuse_any, scan, text
from curate.decide.vectors import vectors_of
from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.schema.recipe import Decide, NearDuplicates
from curate.schema.tables import FAILURE_NAMES, LEDGER

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_STALE = "signals and samples are of different runs: remove the build's signals and run again"
_FAILED = "(stage IS NOT NULL OR error IS NOT NULL)"


def decide_samples(
    samples: Sequence[str],
    signals: Mapping[str, Sequence[str]],
    decide: Decide,
    fields: Mapping[str, SignalField],
    seed: int,
    mapper: Mapper = map,
    failures: Sequence[str] = (),
) -> pa.Table:
    """What becomes of each sample: failed, else dropped by the first rule it breaks, else a near duplicate, else kept.

    Args:
        samples: Parquet files of SAMPLES.
        signals: for each signal Parquet files with `sample_id`, its fields, and the FAILURE columns; one row for every
            sample. Of a sample that failed in several, the ledger has the failure of the first.
        decide: of the recipe; `decide.records` is not looked at.
        fields: fields of the signals by name. Probed fields (`width`, `pixels`, `duration`, ...) may be used as well.
        seed: of the recipe.
        mapper: runs the cells of near duplicates, for example as Ray tasks.
        failures: Parquet files with `sample_id` and the FAILURE columns, null where there is none: what failed after
            earlier verdicts, in `tokenize`. Such a sample is failed and keeps no duplicate, but it stays among those
            that percentiles are taken over, so that no threshold moves.

    Returns:
        Ledger rows of level `sample`, sorted by id.

    Near duplicates are looked for among the samples that are left, kind by kind, and where the recipe asks for them on
    several embeddings, one after the other. If a later embedding makes a duplicate of a keeper, its duplicates move on
    to the new keeper, and `similarity` is the smaller of the two cosines on the way. While they are compared,
    embeddings lie in a temporary file of 4 bytes a number.

    Raises:
        CurateError: rules that `check_rules` refuses; a sample without a row of some signal, a row without a sample,
            either twice; a field that no signal gives; NaN.
    """
    fields = {**PROBED, **fields}
    check_rules(decide.rules, fields)
    check_near_duplicates(decide.near_duplicates, fields)
    if not samples:
        return LEDGER.empty_table()
    used = {r.field for r in decide.rules} | {f for spec in decide.near_duplicates for f in spec.keep}
    with connect() as con:
        _load(con, samples, signals, failures, sorted(used))
        apply_rules(con, bounds(decide.rules))
        con.execute(
            f"""CREATE TEMP TABLE survivors AS SELECT * FROM {CANDIDATES}
            WHERE id NOT IN (SELECT id FROM failures) AND id NOT IN (SELECT id FROM {BROKEN})"""
        )
        _near(con, signals, decide.near_duplicates, fields, seed, mapper)
        con.execute(
            f"""CREATE TEMP TABLE {VERDICTS} AS SELECT c.id,
                CASE WHEN f.id IS NOT NULL THEN 'failed' WHEN b.id IS NOT NULL THEN 'dropped'
                    WHEN d.id IS NOT NULL THEN 'duplicate' ELSE 'kept' END AS outcome,
                b.rule, b.value, b.threshold,
                d.keeper AS duplicate_of, if(d.id IS NULL, NULL, 'near') AS match, d.similarity,
                {", ".join(f"f.{column}" for column in FAILURE_NAMES)}
            FROM {CANDIDATES} c LEFT JOIN failures f ON f.id = c.id
                LEFT JOIN {BROKEN} b ON b.id = c.id AND f.id IS NULL LEFT JOIN duplicates d ON d.id = c.id"""
        )
        return sample_rows(con, samples)


def _load(
    con: DuckDBPyConnection,
    samples: Sequence[str],
    signals: Mapping[str, Sequence[str]],
    later: Sequence[str],
    used: Sequence[str],
) -> None:
    """Make `failures` and `candidates`; refuse tables of signals that do not match the samples one to one.

    One signal is held at a time, and of that only the fields in use stay.
    """
    home = {field: _giver(signals, field) for field in used if field not in PROBED}
    probed = "".join(f", ({probed_sql(f)})::DOUBLE AS {name(f)}" for f in used if f in PROBED)
    con.execute(f"CREATE TEMP TABLE {CANDIDATES} AS SELECT sample_id AS id, kind{probed} FROM {scan(samples)}")
    refuse_any(
        con,
        f"SELECT id FROM {CANDIDATES} GROUP BY id HAVING count(*) > 1",
        "samples are listed more than once",
        _STALE,
    )

    failure = ", ".join(FAILURE_NAMES)
    con.execute(
        """CREATE TEMP TABLE failures
        (rank INTEGER, id VARCHAR, stage VARCHAR, error VARCHAR, message VARCHAR, attempt INTEGER)"""
    )
    for rank, (signal, files) in enumerate(signals.items()):
        given = [name(f) for f in used if home.get(f) == signal]
        columns = "".join(f", {f}::DOUBLE AS {f}" for f in given)
        con.execute(
            f"CREATE OR REPLACE TEMP TABLE signal AS SELECT sample_id AS id{columns}, {failure} FROM {scan(files)}"
        )
        refuse_any(
            con,
            "SELECT id FROM signal GROUP BY id HAVING count(*) > 1",
            f"samples have several rows of signal {signal}",
            _STALE,
        )
        refuse_any(
            con, f"SELECT id FROM {CANDIDATES} ANTI JOIN signal USING (id)", f"samples lack the signal {signal}", _STALE
        )
        refuse_any(
            con,
            f"SELECT id FROM signal ANTI JOIN {CANDIDATES} USING (id)",
            f"rows of the signal {signal} have no sample",
            _STALE,
        )
        con.execute(f"INSERT INTO failures SELECT {rank}, id, {failure} FROM signal WHERE {_FAILED}")
        if given:
            _replace_candidates(con, f"SELECT c.*, {', '.join(given)} FROM {CANDIDATES} c JOIN signal USING (id)")
    con.execute("DROP TABLE IF EXISTS signal")
    _replace_candidates(con, f"SELECT *, id IN (SELECT id FROM failures) AS failed FROM {CANDIDATES}")
    if later:
        con.execute(
            f"INSERT INTO failures SELECT {len(signals)}, sample_id, {failure} FROM {scan(later)} WHERE {_FAILED}"
        )
        refuse_any(
            con,
            f"SELECT id FROM failures ANTI JOIN {CANDIDATES} USING (id)",
            "later failures are of no sample",
            _STALE,
        )
    con.execute(
        f"""CREATE OR REPLACE TEMP TABLE failures AS SELECT id, {failure} FROM failures
        QUALIFY row_number() OVER (PARTITION BY id ORDER BY rank, {failure}) = 1"""
    )


def _replace_candidates(con: DuckDBPyConnection, query: str) -> None:
    con.execute(f"CREATE OR REPLACE TEMP TABLE {CANDIDATES} AS {query}")


def _giver(signals: Mapping[str, Sequence[str]], field: str) -> str:
    """The signal whose files have the field."""
    for signal, files in signals.items():
        if any(field in pq.read_schema(file).names for file in files[:1]):
            return signal
    raise CurateError(f"no signal of this build has the field {field}", _STALE)


def _near(
    con: DuckDBPyConnection,
    signals: Mapping[str, Sequence[str]],
    specs: Sequence[NearDuplicates],
    fields: Mapping[str, SignalField],
    seed: int,
    mapper: Mapper,
) -> None:
    """Make `duplicates`, all near ones: `id`, `keeper`, `similarity`."""
    files = {spec.embedding: signals[_giver(signals, spec.embedding)] for spec in specs}
    kinds = [kind for (kind,) in con.execute("SELECT DISTINCT kind FROM survivors ORDER BY kind").fetchall()]
    con.execute("CREATE TEMP TABLE duplicates (id VARCHAR, keeper VARCHAR, similarity DOUBLE)")
    for spec in specs:
        for kind in kinds:
            found = _near_of_kind(con, files[spec.embedding], spec, kind, fields[spec.embedding], seed, mapper)
            if found is None:
                continue
            new = {"id": pa.array(found.ids, pa.string()), "keeper": pa.array(found.keepers, pa.string())}
            con.register("new", pa.table({**new, "similarity": found.similarity}))
            con.execute("DELETE FROM survivors WHERE id IN (SELECT id FROM new)")
            # The keeper of an earlier specification may be a duplicate now: point past it.
            con.execute(
                """UPDATE duplicates SET keeper = new.keeper, similarity = least(duplicates.similarity, new.similarity)
                FROM new WHERE duplicates.keeper = new.id"""
            )
            con.execute("INSERT INTO duplicates SELECT id, keeper, similarity FROM new")
            con.unregister("new")


def _near_of_kind(
    con: DuckDBPyConnection,
    files: Sequence[str],
    spec: NearDuplicates,
    kind: str,
    embedding: SignalField,
    seed: int,
    mapper: Mapper,
) -> Groups | None:
    """Near duplicates among the survivors of one kind that have the embedding; None where fewer than two have it."""
    keep = "".join(f", v.{name(f)}" for f in spec.keep)
    table = con.sql(
        f"""SELECT v.id{keep} FROM survivors v JOIN {scan(files)} g ON g.sample_id = v.id
        WHERE v.kind = {text(kind)} AND g.{name(embedding.name)} IS NOT NULL ORDER BY v.id"""
    ).to_arrow_table()
    if len(table) < 2:
        return None
    ids = table["id"].cast(pa.string()).combine_chunks()
    keys = np.full((len(ids), len(spec.keep)), np.nan)
    for i, field in enumerate(spec.keep):
        keys[:, i] = pc.fill_null(table[field], np.nan).to_numpy()
    del table
    with vectors_of(ids, files, embedding.name, embedding.type.list_size, _STALE) as vectors:
        return near_duplicates(ids, vectors, keys, spec.threshold, spec.cells, seed, mapper)

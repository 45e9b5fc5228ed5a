"""What every ledger keeps (law 1): the sums and the laws that decide, verify, the card, the summary and tests share."""

from __future__ import annotations

from collections.abc import Mapping

from curate.schema.verdict import RECORD_OUTCOMES, SAMPLE_OUTCOMES

OUTCOMES = {"record": RECORD_OUTCOMES, "sample": SAMPLE_OUTCOMES}
"""Outcomes that rows of each level may have."""

LAWS = (
    ("a level that is neither record nor sample", "SELECT id FROM ledger WHERE level NOT IN ('record', 'sample')"),
    ("more than one row of one id", "SELECT id FROM ledger GROUP BY level, id HAVING count(*) > 1"),
    (
        "dropped without rule, value and threshold, or with them but not dropped",
        "SELECT id FROM ledger WHERE CASE WHEN outcome = 'dropped' "
        "THEN rule IS NULL OR (value IS NULL) <> (threshold IS NULL) OR (value IS NULL) = (value_text IS NULL) "
        "ELSE rule IS NOT NULL OR value IS NOT NULL OR threshold IS NOT NULL OR value_text IS NOT NULL END",
    ),
    (
        "failed without stage, error, message and attempt, or with them but not failed",
        "SELECT id FROM ledger WHERE CASE WHEN outcome = 'failed' "
        "THEN stage IS NULL OR error IS NULL OR message IS NULL OR attempt IS NULL "
        "ELSE stage IS NOT NULL OR error IS NOT NULL OR message IS NOT NULL OR attempt IS NOT NULL END",
    ),
    (
        "duplicate without keeper and match, or with them but not duplicate",
        "SELECT id FROM ledger WHERE (outcome = 'duplicate') <> (duplicate_of IS NOT NULL) "
        'OR (duplicate_of IS NULL) <> ("match" IS NULL)',
    ),
    (
        "near duplicate without similarity, or with it but not near",
        "SELECT id FROM ledger WHERE (similarity IS NOT NULL) <> coalesce(\"match\" = 'near', false)",
    ),
    (
        "duplicate of itself, or of what the ledger does not hold",
        "SELECT id FROM ledger a WHERE duplicate_of IS NOT NULL AND (duplicate_of = id OR NOT EXISTS "
        "(SELECT 1 FROM ledger b WHERE b.level = a.level AND b.id = a.duplicate_of))",
    ),
    (
        "duplicate of what is neither kept nor sampled",
        "SELECT id FROM ledger a WHERE EXISTS (SELECT 1 FROM ledger b WHERE b.level = a.level "
        "AND b.id = a.duplicate_of AND b.outcome NOT IN ('kept', 'sampled'))",
    ),
    (
        "record, or kept sample, with signals that were not evaluated",
        "SELECT id FROM ledger WHERE not_evaluated IS NOT NULL AND (level = 'record' OR outcome = 'kept')",
    ),
    (
        "sample of a record that is not sampled",
        "SELECT id FROM ledger a WHERE level = 'sample' AND NOT EXISTS "
        "(SELECT 1 FROM ledger b WHERE b.level = 'record' AND b.id = a.record_id AND b.outcome = 'sampled')",
    ),
    (
        "sampled record without a sample",
        "SELECT id FROM ledger a WHERE level = 'record' AND outcome = 'sampled' AND NOT EXISTS "
        "(SELECT 1 FROM ledger b WHERE b.level = 'sample' AND b.record_id = a.id)",
    ),
)
"""Each law as what breaks it, in words, and a query of the ids of rows of the table `ledger` that do (none in a sound
ledger)."""


def counts_of(level: str, found: Mapping[str, int]) -> dict[str, int]:
    """`{total, OUTCOME: rows, ...}` of a level in the order of OUTCOMES; 0 where `found` names an outcome not."""
    parts = {str(outcome): found.get(str(outcome), 0) for outcome in OUTCOMES[level]}
    return {"total": sum(parts.values()), **parts}

"""From signals to verdicts: rules, exact and near duplicates, and the ledger of what became of every input (law 1).

It works partition by partition and bucket by bucket, on an `engine`; no table of all samples exists. `rules` are
thresholds, `methods` the seam for near duplicates, `near` the built-in one, `buckets` the base of one"s own.
"""

__all__ = ["buckets", "causes", "decide", "engine", "ledger", "methods", "partitions", "processes", "rules"]

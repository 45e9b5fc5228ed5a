"""Verdicts over columns, never over media: rules, exact and near duplicates, the ledger and its sums."""

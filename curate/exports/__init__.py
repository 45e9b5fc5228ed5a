"""Builds in the formats and dialects of others; one file or folder each."""

"""Formats that others read, one file each: a finished build's shards, written again, or by a plugin.

`curate export BUILD --format NAME --out DIR` and `export` run one; `Export` is what a new one derives from.
`docs/exports.md` says what each holds and how it is read. `fourm` is 4M's dialect of words, which labels are
written in.
"""

from curate.exports.base import Export, Sample, Selection, Written, export

__all__ = ["Export", "Sample", "Selection", "Written", "export"]

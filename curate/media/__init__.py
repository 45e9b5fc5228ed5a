"""Media: what a file of the open web is, how a record is cut into samples, and what a sample shows and sounds like.

Everything is in `examine` (records: probed, cut, decoded in one run) and `decode` (one sample); `guarded` has the same
functions in a helper process, which is how a build calls them. `requests` says what may be asked of a sample,
`docs/inputs.md` what of each format is honoured, ignored and refused.
"""

__all__ = [
    "arrays",
    "audio",
    "clips",
    "decode",
    "decodes",
    "encode",
    "examine",
    "guarded",
    "images",
    "requests",
    "video",
]

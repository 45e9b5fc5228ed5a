"""Decoding of hostile media: one decode gives all that is asked for (law 4), in a helper process (law 10).

`requests` says what can be asked for (`Frames`, `Audio`, `Energy`, `Array`), `guarded` decodes under limits, `examine`
measures what a medium is and cuts it to samples, `decode` does it in this process. `images`, `video`, `audio` and
`arrays` are one kind each.
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

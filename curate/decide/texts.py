"""Texts as keys: what says the same has the same one."""

from __future__ import annotations

import unicodedata

import numpy as np
import pyarrow as pa
from blake3 import blake3

from curate.decide.keys import EMPTY, Keys

NO_TEXT = bytes(16)
"""Key of what is null or blank."""


def normal(text: str) -> str:
    """What copies of a text share: in Unicode's NFKC, case folded, white space as single spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def text_keys(column: pa.ChunkedArray) -> Keys:
    """For each text 128 bits of BLAKE3 of its normal form; `NO_TEXT` of one that is null or blank."""
    known: dict[str | None, bytes] = {None: NO_TEXT}
    out = bytearray()
    for text in column.to_pylist():
        if text not in known:
            said = normal(text)
            known[text] = blake3(said.encode()).digest(16) if said else NO_TEXT
        out += known[text]
    return np.frombuffer(bytes(out), "S16") if out else EMPTY

"""The caption of a sample: given, a captioner's, or composed of what the other signals found."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence
from typing import cast

from pydantic import Field

from curate.schema.errors import CurateError
from curate.schema.nearest import meant
from curate.schema.recipe import Caption
from curate.signals import base
from curate.signals.base import Batch, Result, Signal, Text, map_samples

ORIGINS = ("given", "composed")
"""Origins of a caption beside captioners."""

PARTS = ("conse_tags", "ocr_text", "asr_text")
"""Fields that a composed caption is made of; it works with any of them, and without."""


class CaptionOptions(base.Options):
    """Options, which come of the recipe's `caption:` section.

    Attributes:
        prefer: `given`, `composed` or a captioner's field; the first in this order that has a text wins.
        max_chars: longer captions are cut at a word.
        available: the fields of `PARTS` that this build computes.
    """

    prefer: tuple[str, ...] = ORIGINS
    max_chars: int = Field(2000, gt=0)
    available: tuple[str, ...] = ()


class CaptionSignal(Signal):
    """One caption a sample, and where it came from.

    The composed caption is fixed, plain English: `A picture of espresso, cup. Text: "OPEN". Speech: "Hello."`; a part
    is left out where there is nothing to say. A sample of which nothing is known has no caption (null, source
    `none`), never an empty one.
    """

    name = "caption"
    gives = (
        Text("caption", about="The text that is tokenized; null where there is none."),
        Text("caption_source", about="Where it came from: given, composed, none, or the field of a captioner."),
    )
    Options = CaptionOptions
    options: CaptionOptions

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        use = self.options
        parts = [field for field in PARTS if field in use.available and "composed" in use.prefer]
        self.after = (*parts, *(origin for origin in use.prefer if origin not in ORIGINS))

    @classmethod
    def of(cls, caption: Caption, available: Collection[str], texts: Sequence[str] = ()) -> CaptionSignal:
        """The signal that a recipe's `caption:` section means.

        Args:
            caption: the section.
            available: names of all fields that the build's signals give.
            texts: fields of its captioners that may be a caption.

        Raises:
            CurateError: `prefer` names none of them; with the nearest.
        """
        known = [*ORIGINS, *texts]
        prefer = caption.prefer or ["given", *(use.name for use in caption.uses if use.name in texts), "composed"]
        for origin in prefer:
            if origin not in known:
                raise CurateError(
                    f"prefer names `{origin}`, which gives no text{meant(origin, known)}",
                    f"allowed: {', '.join(known)}",
                )
        parts = tuple(field for field in PARTS if field in available)
        return cls(CaptionOptions(prefer=tuple(prefer), max_chars=caption.max_chars, available=parts))

    def __call__(self, batch: Batch) -> list[Result]:
        def one(i: int) -> dict[str, str | None]:
            for origin in self.options.prefer:
                text = cut(clean(self._from(origin, batch, i) or ""), self.options.max_chars)
                if text:
                    return {"caption": text, "caption_source": origin}
            return {"caption": None, "caption_source": "none"}

        return map_samples("annotate:caption", batch, one)

    def _from(self, origin: str, batch: Batch, i: int) -> str | None:
        if origin == "given":
            return batch.text[i]
        if origin != "composed":
            return cast("str | None", batch.columns[origin][i])
        tags, ocr, speech = (batch.columns[f][i] if f in self.after else None for f in PARTS)
        return compose(batch.kind[i], tags or [], ocr or "", speech or "")


def compose(kind: str, tags: Collection[str], ocr_text: str, speech: str) -> str:
    """A caption in fixed words, e.g. `A video of castle, palace. Text: "OPEN". Speech: "Hello."`; empty if all are.

    Args:
        kind: `image`, `video` or `audio`.
        tags, ocr_text, speech: what was found; double quotes in the last two become single ones.
    """
    what = "video" if kind == "video" else "picture"
    text, said = (clean(part).replace('"', "'") for part in (ocr_text, speech))
    parts = [
        f"A {what} of {', '.join(tags)}." if tags else "",
        f'Text: "{text}".' if text else "",
        f'Speech: "{said}"' + ("" if said.endswith((".", "!", "?")) else ".") if said else "",
    ]
    return " ".join(part for part in parts if part)


# Zero-width joiners are part of words and emoji and stay; marks that turn the direction of what follows do not.
_DIRECTION = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")


def clean(text: str) -> str:
    """The text on one line: white space folded to single spaces, without control and direction characters or lone
    surrogates, in Unicode's composed form (NFC)."""
    folded = " ".join(text.split())
    kept = "".join(c for c in folded if unicodedata.category(c) not in ("Cc", "Cs"))
    return " ".join(unicodedata.normalize("NFC", _DIRECTION.sub("", kept)).split())


def cut(text: str, max_chars: int) -> str:
    """The text, cut before the word that would pass `max_chars`; inside a word only where the first is too long."""
    if len(text) <= max_chars:
        return text
    head, _, _ = text[: max_chars + 1].rpartition(" ")
    return head.rstrip() or text[:max_chars]

"""How far a caption and the text that came with the sample say the same."""

from __future__ import annotations

import numpy as np

from curate.schema.errors import CurateError
from curate.schema.fields import Resources
from curate.signals import base
from curate.signals.base import Batch, Float
from curate.signals.caption import clean
from curate.signals.sentences import SentenceEncoder
from curate.signals.texts import GIVEN, TextSignal


class CaptionAgreement(TextSignal):
    """Cosine of the sentence vectors of the field and of the text that came with the sample.

    The encoder is all-MiniLM-L6-v2, which knows English. A low cosine says that one of the two is of something else: a
    caption that is made up, or given text that advertises or names a file. Of `caption` it is 1 wherever the caption is
    the given text: let `of` name a captioner's field.
    """

    name = "caption_agreement"
    gives = (
        Float(
            "caption_agreement",
            "cosine",
            -1,
            1,
            about="Cosine of it and the given text as sentence vectors; null where either is missing.",
        ),
    )
    cost = Resources(cpus=1, model=True)

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        if self.options.of == GIVEN:
            raise CurateError(f"{self.name} would compare the given text with itself", "of: a captioner's field")

    def load(self) -> None:
        self._sentence = SentenceEncoder()

    def version(self) -> str:
        return f"1+{SentenceEncoder.version()}"

    def of_text(self, text: str, batch: Batch, i: int) -> tuple[float | None]:
        given = clean(batch.text[i] or "")
        if not given:
            return (None,)
        one, other = self._sentence(text), self._sentence(given)
        return (float(np.clip((one * other).sum(dtype=np.float64), -1, 1)),)

"""Signals of a text: the caption, what a captioner or another signal says, or the text that came with the sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import pyarrow as pa
from pydantic import Field

from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.schema.nearest import meant
from curate.signals import base
from curate.signals.base import Batch, Result, Signal, map_samples
from curate.signals.caption import clean

GIVEN = "text"
"""What the text that came with a sample is called, in a prompt too."""

CAPTION = "caption"


class TextOptions(base.Options):
    """Options of every signal of a text.

    Attributes:
        of: a field that holds text, or `text`: what came with the sample. Names of the signal and of its fields begin
            with it, so several of one sort may stand in a recipe.
    """

    of: str = Field(CAPTION, pattern="^[a-z][a-z0-9_]*$")


class TextSignal(Signal):
    """A signal of a text, as `curate.signals.caption.clean` has it: on one line. A sample without text has null.

    Write `of_text`; or `__call__`, where a model computes several texts at once. `name` and `gives` begin with
    `caption`, of which the field of `of` takes the place.
    """

    Options: ClassVar[type[base.Options]] = TextOptions
    options: TextOptions

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        of = self.options.of
        self.after = () if of == GIVEN else (of,)
        self.name = of + self.name.removeprefix(CAPTION)
        self.gives = tuple(replace(field, name=of + field.name.removeprefix(CAPTION)) for field in self.gives)

    def check(self, fields: Mapping[str, SignalField]) -> None:
        """Refuse a field that holds no text.

        Args:
            fields: of probing and of all signals, by name; the one of `of` is among them.

        Raises:
            CurateError: with the nearest that does.
        """
        of = self.options.of
        texts = [GIVEN, *(name for name, field in fields.items() if field.type == pa.string())]
        if of not in texts:
            raise CurateError(
                f"{self.name} is of `{of}`, which holds {fields[of].type_text()} and no text{meant(of, texts)}",
                f"fields with text: {', '.join(texts)}",
            )

    def text_of(self, batch: Batch, i: int) -> str:
        """The text of a sample on one line; empty where there is none."""
        of = self.options.of
        return clean((batch.text[i] if of == GIVEN else batch.columns[of][i]) or "")

    def of_text(self, text: str, batch: Batch, i: int) -> Sequence[Any]:
        """The value of each field of `gives`, in order.

        Args:
            text: not empty.
            batch, i: the sample that it is of.
        """
        raise NotImplementedError(f"the signal {self.name} has neither `of_text` nor `__call__`")

    def __call__(self, batch: Batch) -> list[Result]:
        names = [field.name for field in self.gives]

        def fields(i: int) -> dict[str, Any]:
            text = self.text_of(batch, i)
            return dict(zip(names, self.of_text(text, batch, i), strict=True)) if text else dict.fromkeys(names)

        return map_samples(f"annotate:{self.name}", batch, fields)

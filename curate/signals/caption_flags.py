"""What is wrong with a text by its looks: length, repetition, refusals, markup, another script than was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import regex
from pydantic import Field

from curate.models.package_files import package_version
from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.schema.ids import digest
from curate.schema.package_data import data_folder
from curate.signals import base
from curate.signals.base import Batch, Float
from curate.signals.refusals import REFUSAL
from curate.signals.texts import TextOptions, TextSignal

TOKENIZER = "text-bpe-8k"
"""The shipped text tokenizer, whose ids are counted."""

_WORD = regex.compile(r"(?w)\b\w.*?\b")
_LETTER = regex.compile(r"\p{Letter}")

# What is begun and not ended goes on to the end, as browsers and CommonMark read it; so time grows with length alone.
_MARKUP = regex.compile(
    r"<!--(?:.*?-->|.*)"
    r"|<(script|style)\b(?:.*?</\1\s*>|.*)"
    r"|</?[a-z!?][^<>]*>"
    r"|&(?:\#\d{1,7}|\#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});"
    r"|```(?:.*?```|.*)|`[^`]+`"
    r"|!?\[(?=[^\[\]]*\]\()|\]\([^()\s]*\)?"
    r"|(?:https?|ftp)://\S+|\bwww\.\S+"
    r"|(?<!\S)[\w.%+-]+\.(?:jpe?g|png|gif|webp|avif|svg|tiff?|bmp|mp4|webm|mov|avi|mkv|html?|php)\b"
    r"|(?<!\S)\#{1,6}(?=\s)|\*\*|__|~~|\|(?:\s*:?-+:?\s*\|)+|\|"
    r"|\{[^{};:]*[;:][^{}]*\}",
    regex.IGNORECASE,
)


class CaptionFlagsOptions(TextOptions):
    """Options of `caption_flags`.

    Attributes:
        n: words of the n-grams that are looked for twice.
        script: Unicode scripts that letters may be of, by the names of Unicode's Scripts.txt: `latin`, or several,
            `[han, hiragana, katakana]`. Absent: scripts are not looked at, and the field is not there.
    """

    n: int = Field(5, ge=1, le=100)
    script: str | tuple[str, ...] = ()

    @property
    def scripts(self) -> tuple[str, ...]:
        return (self.script,) if isinstance(self.script, str) else self.script


class CaptionFlags(TextSignal):
    """Numbers of a text that rules can bound.

    Words are those between Unicode's word boundaries (UAX 29) that begin with a letter, digit or underscore: `don't` is
    one, `well-known` two, and each Chinese character one.
    Repetition follows the duplicate n-grams of Gopher (Rae et al. 2021, "Scaling language models", table A1, where
    n = 5 may have 0.15), of words, in any case, in place of characters: the share of them that lie in an n-gram which
    the text has twice or more, its first time among them.
    Refusals are told by their beginnings in ten languages (`curate.signals.refusals`).
    Markup is HTML (tags, comments, entities, scripts, styles), Markdown (fences, code, links, headings, emphasis,
    tables), addresses, names of files, and braces with `:` or `;` in them (JSON, CSS, code).
    """

    name = "caption_flags"
    gives: tuple[SignalField, ...] = (
        SignalField("caption_words", pa.int32(), "count", (0, None), about="Words, by Unicode's word boundaries."),
        SignalField("caption_tokens", pa.int32(), "count", (0, None), about=f"Ids that {TOKENIZER} makes of it."),
        Float("caption_repeated", "fraction", 0, 1, about="Share of words in n-grams that are there more than once."),
        SignalField(
            "caption_refusal",
            pa.int32(),
            "true 1, false 0",
            (0, 1),
            about="1 if it begins as a model's refusal does (I'm sorry, I can't; As an AI).",
        ),
        Float("caption_markup", "fraction", 0, 1, about="Share of characters in HTML, Markdown, addresses and code."),
        Float("caption_other_script", "fraction", 0, 1, about="Share of letters in other scripts than `script` asks."),
    )
    Options = CaptionFlagsOptions
    options: CaptionFlagsOptions

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        self._asked = _letters_of(self.options.scripts)
        if not self.options.scripts:
            self.gives = self.gives[:-1]

    def load(self) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Any = Tokenizer.from_buffer(_vocabulary())

    def version(self) -> str:
        return f"1+{TOKENIZER}-{digest(_vocabulary())[:16]}+regex-{package_version('regex')}"

    def of_text(self, text: str, batch: Batch, i: int) -> tuple[float, ...]:
        words = words_of(text)
        flags = (
            len(words),
            len(self._tokenizer.encode(text, add_special_tokens=False).ids),
            repeated(words, self.options.n),
            int(REFUSAL.match(text) is not None),
            markup(text),
        )
        if not self.options.scripts:
            return flags
        letters = len(_LETTER.findall(text))
        return (*flags, 1 - len(self._asked.findall(text)) / letters if letters else 0.0)


def words_of(text: str) -> list[str]:
    """Words of a text, case folded; see `CaptionFlags`."""
    return [word.casefold() for word in _WORD.findall(text)]


def repeated(words: Sequence[str], n: int) -> float:
    """Share of words that lie in an n-gram which is there twice or more; 0 where there is no word."""
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    times = Counter(grams)
    covered, end = 0, 0
    for start, gram in enumerate(grams):
        if times[gram] > 1:
            covered += start + n - max(start, end)
            end = start + n
    return covered / len(words) if words else 0.0


def markup(text: str) -> float:
    """Share of characters that belong to markup; see `CaptionFlags`. 0 of an empty text."""
    return sum(len(found[0]) for found in _MARKUP.finditer(text)) / len(text) if text else 0.0


def _vocabulary() -> bytes:
    return (data_folder("tokenizers") / TOKENIZER / "tokenizer.json").read_bytes()


def _letters_of(scripts: Sequence[str]) -> Any:
    """Pattern of a letter of any of some scripts, or of none in particular.

    Raises:
        CurateError: Unicode has no such script.
    """
    for script in scripts:
        if not _is_script(script):
            raise CurateError(f"Unicode has no script `{script}`", "e.g. latin, cyrillic, greek, arabic, han")
    one = "".join(rf"\p{{Script_Extensions={script}}}" for script in (*scripts, "Common", "Inherited"))
    return regex.compile(rf"(?V1)[\p{{Letter}}&&[{one}]]")


def _is_script(name: str) -> bool:
    try:
        regex.compile(rf"\p{{Script={name}}}")
    except regex.error:
        return False
    return name.isidentifier()

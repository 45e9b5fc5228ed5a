"""Captions, titles and plain sentences of packages, for the text tokenizer."""

from __future__ import annotations

import gzip
import html
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from curate.schema.errors import CurateError
from curate.schema.ids import unit_interval
from curate.training.packages import PackageSource

log = logging.getLogger(__name__)

_SPACE = re.compile(r"\s+")


class TextSource(PackageSource):
    """Texts of one package."""

    format: Literal["captions", "svg", "html", "transcripts", "columns"] = Field(
        description="`captions` (tuxpaint: an English first line, then `lang.utf8=text`), `svg` (title, description "
        "and keywords of openclipart), `html` (alternative texts and paragraphs), `transcripts` (`name: text`), "
        "`columns` (the last tab-separated column)"
    )
    repeat: int = Field(1, ge=1, description="how often each text counts")


def texts_of(source: TextSource, debian: Path = Path("/")) -> Iterator[tuple[str, str]]:
    """`(language, text)` of a source in the order of its files; the language is `en` unless the file names another."""
    root = source.root(debian)
    if root is None:
        log.warning("package %s is not installed: its texts are left out", source.package)
        return
    read = {"captions": _captions, "svg": _svg, "html": _html, "transcripts": _transcripts, "columns": _columns}
    for name in source.names(root):
        raw = (root / name).read_bytes()
        if name.endswith(".gz"):
            raw = gzip.decompress(raw)
        for language, text in read[source.format](raw.decode("utf-8", "replace")):
            text = _SPACE.sub(" ", html.unescape(text)).strip()
            # an address is a person's, and text that did not decode is nobody's
            if text and "@" not in text and "\ufffd" not in text:
                yield language, text


def gather(
    sources: list[TextSource], seed: int, held_share: float, debian: Path = Path("/")
) -> tuple[list[str], dict[str, list[str]]]:
    """Texts to train on (repeated as their sources say) and texts held out, by package and language.

    A text is held out by the hash of itself, so a sentence that occurs twice is on one side only.

    Raises:
        CurateError: none of the packages is on this machine.
    """
    train: list[str] = []
    held: dict[str, list[str]] = {}
    for source in sources:
        seen: set[str] = set()
        for language, text in texts_of(source, debian):
            if text in seen:
                continue
            seen.add(text)
            if unit_interval(seed, text) < held_share:
                group = f"{source.package} ({'English' if language.startswith('en') else 'other languages'})"
                held.setdefault(group, []).append(text)
            else:
                train += [text] * source.repeat
        log.info("%s: %d texts", source.package, len(seen))
    if not train:
        raise CurateError(
            "None of the packages with training texts is on this machine.",
            "Install the packages that train.yaml names, or unpack the Debian ones and say where.",
        )
    return train, held


def _captions(text: str) -> Iterator[tuple[str, str]]:
    first, *rest = text.split("\n")
    yield "en", first
    for line in rest:
        key, found, value = line.partition("=")
        if found and key.endswith(".utf8"):
            yield key.removesuffix(".utf8"), value


def _svg(text: str) -> Iterator[tuple[str, str]]:
    head = text[:20000]  # the metadata comes first; the rest is geometry
    for tag in ("title", "description"):
        for value in re.findall(rf"<dc:{tag}>([^<]+)<", head):
            yield "en", value
    keywords = [k for k in re.findall(r"<rdf:li>([^<]+)<", head) if k.strip()]
    if keywords:
        yield "en", ", ".join(keywords)


def _html(text: str) -> Iterator[tuple[str, str]]:
    for value in re.findall(r'\balt="([^"]{12,})"', text):
        yield "en", value
    for value in re.findall(r"<p>(.*?)</p>", text, re.DOTALL):
        yield "en", re.sub(r"<[^>]+>", "", value)


def _transcripts(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        name, found, value = line.partition(": ")
        if found and not name.startswith(";"):
            yield "en", value


def _columns(text: str) -> Iterator[tuple[str, str]]:
    for line in text.split("\n"):
        yield "en", line.rpartition("\t")[2]

"""Jinja2 set up so that no template can forget to escape."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import jinja2
from markupsafe import Markup

from curate.card import text


@cache
def html() -> jinja2.Environment:
    """For HTML: hidden characters are made visible, then everything is escaped."""
    return _environment(autoescape=True, finalize=text.finalize)


@cache
def markdown() -> jinja2.Environment:
    """For Markdown: every string is one line in which nothing is markup, but what went through `raw` or `code`."""
    env = _environment(
        autoescape=False,  # HTML's escaping is not enough here; finalize does it
        finalize=lambda x: text.markdown(x) if isinstance(x, str) and not isinstance(x, Markup) else text.finalize(x),
    )
    env.filters.update(raw=Markup, code=_code)
    return env


def _environment(**options: Any) -> jinja2.Environment:
    env = jinja2.Environment(
        loader=jinja2.PackageLoader("curate.card", "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **options,
    )
    env.filters.update(
        num=text.number,
        percent=text.percent,
        size=text.size,
        seconds=text.seconds,
        clip=text.clip,
        shape=_shape,
    )
    return env


def _shape(shape: Sequence[int | None]) -> str:
    """`n × 32 × 32`, n for the free axis."""
    return " × ".join("n" if n is None else str(n) for n in shape)


def _code(line: str) -> Markup:
    """A line inside a fenced block of Markdown, where entities would be shown as they are: it cannot end the fence."""
    return Markup(re.sub(r"[`\r\n]", "", text.visible(line)))

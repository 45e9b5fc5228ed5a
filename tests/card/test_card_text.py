from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from curate.card import text


def test_characters_that_reorder_or_hide_text_are_made_visible() -> None:
    assert text.visible("cat\u202egnp.exe\u2066\u200b") == "cat⟨U+202E⟩gnp.exe⟨U+2066⟩⟨U+200B⟩"
    assert text.visible("line\nline\ttab\x00") == "line\nline\ttab⟨U+0000⟩"
    assert text.visible("नमस्\u200dते 👩\u200d🚀") == "नमस्\u200dते 👩\u200d🚀"


@given(st.text())
def test_nothing_that_was_visible_can_be_encoded_wrongly(value: str) -> None:
    text.visible(value).encode("utf-8")


def test_long_text_is_cut_and_says_how_long_it_was() -> None:
    assert text.clip("a " * 5000, 8) == "a a a a… (9,999 characters)"
    assert text.clip(None, 8) == ""
    assert text.middle("https://example.org/a/very/long/path.jpg", 17) == "https://…path.jpg"


@given(st.text(max_size=60))
@example("__0__")
def test_markdown_cells_hold_no_markup(value: str) -> None:
    html = MarkdownIt("commonmark").enable("table").render(f"| a |\n| --- |\n| x{text.markdown(value)} |\n")
    cell = html.split("<tbody>")[1]
    assert cell.count("<") == 6  # tr, td, their ends, and the ends of tbody and table
    assert cell.count("<td>") == 1


@pytest.mark.parametrize(
    "hostile", ["<script>x</script>", "[a](javascript:x)", "www.evil.example", "https://evil.example", "`a`|b"]
)
def test_markdown_of_hostile_text_is_no_link(hostile: str) -> None:
    html = MarkdownIt("gfm-like", {"linkify": False}).render(text.markdown(hostile))
    assert "<a" not in html
    assert "<script" not in html
    assert "<code" not in html


def test_numbers_read_well() -> None:
    assert [text.number(x) for x in (12345, 0.0712999, 1234567.0, 12345.6, None)] == [
        "12,345",
        "0.0713",
        "1,234,567",
        "12,346",
        "–",
    ]
    assert text.percent(1, 3) == "33.3 %"
    assert text.percent(1, 1000) == "0.1 %"
    assert text.percent(1, 0) == "–"
    assert text.size(999) == "999 B"
    assert text.size(1_400_000) == "1.4 MB"
    assert text.seconds(59.94) == "59.9 s"
    assert text.seconds(185) == "3 min 5 s"
    assert text.seconds(7800) == "2 h 10 min"

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signal_media import hand_batch

from curate.schema.recipe import Caption
from curate.signals.caption import CaptionSignal, clean, compose, cut

FOUND = {
    "conse_tags": [["espresso", "cup"], [], None],
    "ocr_text": ["OPEN\nALL DAY", "", None],
    "asr_text": [None, 'He said "no"', "Hello."],
}


def captions(recipe, text, columns, kinds=("image", "video", "audio")):
    signal = CaptionSignal.of(recipe, columns)
    return [(r["caption"], r["caption_source"]) for r in signal(hand_batch(list(kinds), {}, text, **columns))]


def test_the_given_text_wins_and_the_rest_is_composed():
    assert captions(Caption(), ["A cup,\n on a table", None, " \t"], FOUND) == [
        ("A cup, on a table", "given"),
        ("Speech: \"He said 'no'\".", "composed"),
        ('Speech: "Hello."', "composed"),
    ]


def test_the_recipe_may_prefer_the_composed_caption_or_forbid_it():
    first = Caption(prefer=["composed", "given"])
    assert captions(first, ["A cup", None, None], FOUND)[0] == (
        'A picture of espresso, cup. Text: "OPEN ALL DAY".',
        "composed",
    )
    only_given = Caption(prefer=["given"])
    assert captions(only_given, [None] * 3, FOUND) == [(None, "none")] * 3
    assert CaptionSignal.of(only_given, FOUND).after == ()


def test_it_works_without_the_signals_that_it_would_compose_from():
    assert CaptionSignal.of(Caption(), {"sharpness"}).after == ()
    assert captions(Caption(), ["Given", None, None], {}) == [("Given", "given"), (None, "none"), (None, "none")]
    assert CaptionSignal.of(Caption(), {"ocr_text", "conse_tags", "x"}).after == ("conse_tags", "ocr_text")


def test_nothing_known_is_null_and_never_an_empty_string():
    assert captions(Caption(), ["\x00\u202e", "", None], {"ocr_text": ["", " ", None]}) == [(None, "none")] * 3


def test_the_fixed_words():
    assert compose("video", ["palace"], "OPEN", "Come in") == 'A video of palace. Text: "OPEN". Speech: "Come in".'
    assert compose("image", [], "", "") == ""


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("a\x00b\x1b[31m c", "ab[31m c"),
        ("one\r\n\ttwo  three\u00a0", "one two three"),
        ("txt.\u202egpj", "txt.gpj"),  # "right-to-left override" would show the rest backwards
        ("lone \ud800 surrogate", "lone surrogate"),
        ("e\u0301", "\u00e9"),
        (
            "👩\u200d🚀 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "👩\u200d🚀 \u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("<|endoftext|> <b>", "<|endoftext|> <b>"),  # the tokenizer's and the card's business: text stays text
    ],
)
def test_cleaning(raw, expected):
    assert clean(raw) == expected


@given(st.text())
def test_clean_text_is_one_line_of_encodable_characters_and_cleaning_it_again_changes_nothing(text):
    once = clean(text)
    once.encode()
    assert not any(unicodedata.category(c) == "Cc" for c in once)
    assert once == once.strip() == clean(once)


@given(st.text(alphabet="ab ", max_size=40).map(lambda s: " ".join(s.split())), st.integers(1, 20))
def test_a_cut_caption_is_whole_words_of_the_beginning(text, limit):
    short = cut(text, limit)
    assert len(short) <= limit
    assert text.startswith(short)
    if short != text and " " in text[: limit + 1]:
        assert text[len(short)] == " "
    assert bool(short) == bool(text)

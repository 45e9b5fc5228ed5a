"""Flags of captions: lengths, repetition, refusals, markup, scripts."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signal_media import hand_batch, loaded

from curate.pipeline.plan import make_plan
from curate.schema.errors import CurateError
from curate.schema.recipe import SignalUse
from curate.schema.recipe_file import RecipeFile
from curate.schema.verdict import Failure
from curate.signals import registry
from curate.signals.caption import CaptionSignal
from curate.signals.caption_flags import TOKENIZER, markup, repeated, words_of
from curate.signals.refusals import REFUSAL, REFUSALS
from curate.tokenizers import zoo


def flags(text: str | None, **options: Any) -> Any:
    (said,) = loaded("caption_flags", **options)(hand_batch(["image"], {}, caption=[text]))
    return said


def test_a_caption_without_faults() -> None:
    text = "A tabby cat doesn't look at the well-known camera."
    (ids,) = zoo.load(TOKENIZER).encode([text])
    assert flags(text) == {
        "caption_words": 10,
        "caption_tokens": len(ids),
        "caption_repeated": 0,
        "caption_refusal": 0,
        "caption_markup": 0,
    }


@pytest.mark.parametrize("text", [None, "", " \n\t"])
def test_no_caption_has_null(text: str | None) -> None:
    assert set(flags(text).values()) == {None}


def test_names_follow_the_field_and_several_stand_side_by_side() -> None:
    uses = [SignalUse(name="caption_flags", of=of) for of in ("caption", "text", "caption_source")]
    ordered = registry.order([*map(registry.build, uses), CaptionSignal()])
    assert [signal.name for signal in ordered] == ["text_flags", "caption", "caption_flags", "caption_source_flags"]
    text = ordered[0]
    text.load()
    said = text(hand_batch(["image", "audio"], {}, text=["Two\nwords", None]))
    assert [one["text_words"] for one in said] == [2, None]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"of": "width"}, "caption_flags|width_flags is of `width`, which holds 1 to inf px and no text"),
        ({"of": "captions"}, "needs the field `captions`, which none gives"),
        ({"script": "latn1"}, "Unicode has no script `latn1`"),
        ({"script": "latin}|\\p{Script=han"}, "Unicode has no script"),
        ({"n": 0}, "option `n`"),
    ],
)
def test_what_cannot_be_is_said_before_anything_runs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CurateError, match=message):
        registry.order([registry.build(SignalUse(name="caption_flags", **options)), CaptionSignal()])


# ---- repetition


def by_definition(words: list[str], n: int) -> float:
    grams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
    inside = {i + k for i, gram in enumerate(grams) if grams.count(gram) > 1 for k in range(n)}
    return len(inside) / len(words) if words else 0.0


@given(st.lists(st.sampled_from("abc"), max_size=30), st.integers(1, 6))
def test_the_share_of_words_in_repeated_n_grams(words: list[str], n: int) -> None:
    assert repeated(words, n) == by_definition(words, n)


def test_repetition_in_sentences() -> None:
    once = "A man in a red shirt walks along the street."
    assert flags(once)["caption_repeated"] == 0
    assert flags(f"{once} {once.upper()}")["caption_repeated"] == 1
    assert flags("cup cup cup cup", n=2)["caption_repeated"] == 1
    assert flags("一只猫坐在地上。一只猫坐在地上。")["caption_repeated"] == 1, "without spaces"
    assert words_of("U.S. prices: 3.14, don't") == ["u.s", "prices", "3.14", "don't"]


# ---- refusals

EXAMPLES = {
    "en": ["I'm sorry, I can't help with that.", "As an AI, I cannot see.", "I’m unable to describe"],
    "de": ["Es tut mir leid, aber das kann ich nicht.", "Als KI-Modell", "Leider kann ich dieses Bild nicht"],
    "fr": ["Je suis désolé, mais", "En tant qu’intelligence artificielle, je", "Je ne peux pas décrire"],
    "es": ["Lo siento, pero no puedo", "Como modelo de lenguaje"],
    "pt": ["Desculpe, mas não posso", "Não consigo ver", "Como uma IA"],
    "it": ["Mi dispiace, ma non posso", "Come modello linguistico"],
    "ru": ["Извините, я не могу", "К сожалению, я не могу", "Как ИИ, я"],
    "zh": ["很抱歉，我无法描述", "作为一个人工智能", "對不起"],
    "ja": ["申し訳ありませんが", "AIとして", "私は言語モデルです"],
    "ko": ["죄송하지만", "저는 AI로서"],
}


@pytest.mark.parametrize("language", REFUSALS)
def test_refusals_in_each_language(language: str) -> None:
    own = re.compile(rf"\W*(?:{'|'.join(REFUSALS[language])})", re.IGNORECASE)
    for text in EXAMPLES[language]:
        assert own.match(text), text
        assert flags(f"“{text}”")["caption_refusal"] == 1


@pytest.mark.parametrize(
    "text",
    [
        "A woman says sorry to her friend.",
        "The sign reads: I can't help you.",
        "Als der Zug kam, war es Nacht",
        "Ein Mann sagt, es tut ihm leid",
        "Une femme désolée",
        "Comme un tableau",
        "Un hombre que lo siente",
        "我们的照片",
        "Кактус в горшке",
        "AI 사진",
    ],
)
def test_captions_that_begin_otherwise(text: str) -> None:
    assert not REFUSAL.match(text)


# ---- markup


@pytest.mark.parametrize(
    ("text", "marked"),
    [
        ("A cup of tea", ""),
        ("3 < 4 & 5 > 2, R&D, $4 * 3", ""),
        ("<b>A cup</b> of<br/>tea", "<b></b><br/>"),
        ("A &amp; B &#39;", "&amp;&#39;"),
        ("cup <!-- a <b> --> tea", "<!-- a <b> -->"),
        ("cup <script>let a = 1</script> tea", "<script>let a = 1</script>"),
        ("cup <style>p", "<style>p"),
        ("see https://a.example/b?c=d now", "https://a.example/b?c=d"),
        ("see www.a.example", "www.a.example"),
        ("IMG_2031.JPG a cup", "IMG_2031.JPG"),
        ("![a cup](http://a.example/c.png)", "![](http://a.example/c.png)"),
        ("a [cup] of tea (green)", ""),
        ("# Title of **it**", "#****"),
        ("run `ls -l` now", "`ls -l`"),
        ("so: ```python print(1)", "```python print(1)"),
        ("| a | b | |---|---|", "||||---|---|"),
        ('{"a": 1} and .b {color: red}', '{"a": 1}{color: red}'),
        ("a {cup}", ""),
    ],
)
def test_characters_of_markup(text: str, marked: str) -> None:
    assert markup(text) == len(marked) / len(text)


@given(st.text("<>!-&#;`[](){}:|*_~ abs/.\\", max_size=300))
def test_markup_of_anything_is_a_share(text: str) -> None:
    assert 0 <= markup(text) <= 1


@pytest.mark.parametrize(
    "part", ["<!--", "<script>", "<a", "```", "`", "[", "](", "{;", "{:", "&a", "|-", "http://", "x.", "__"]
)
def test_time_grows_with_length_alone(part: str) -> None:
    begun = time.monotonic()
    markup(part * 20_000)
    assert time.monotonic() - begun < 5, "a text that is made to be slow"


# ---- scripts


@pytest.mark.parametrize(
    ("text", "script", "share"),
    [
        ("A cup, 3 €", "latin", 0),
        ("Кофе cup", "latin", 4 / 7),
        ("Кофе cup", ["latin", "cyrillic"], 0),
        ("カーテンの色", ["han", "hiragana", "katakana"], 0),
        ("カーテンの色", "han", 5 / 6),
        ("123 !?", "latin", 0),
    ],
)
def test_letters_of_another_script(text: str, script: Any, share: float) -> None:
    options = {"script": tuple(script) if isinstance(script, list) else script}
    assert flags(text, **options)["caption_other_script"] == pytest.approx(share)


def test_without_a_script_there_is_no_such_field() -> None:
    names = [field.name for field in registry.build(SignalUse(name="caption_flags")).gives]
    assert "caption_other_script" not in names


def test_a_bad_member_fails_alone() -> None:
    said = loaded("caption_flags")(hand_batch(["image"] * 3, {}, caption=["a", 7, "b"]))
    assert [isinstance(one, Failure) for one in said] == [False, True, False]
    assert said[1].stage == "annotate:caption_flags"


def test_the_docs_name_every_language() -> None:
    page = (Path(__file__).parents[2] / "docs" / "captions.md").read_text()
    assert all(f"`{language}`" in page for language in REFUSALS)


def test_the_rules_of_the_shipped_recipe_can_be() -> None:
    plan = make_plan(RecipeFile.load("captions"))
    assert {rule.field for rule in plan.file.recipe.decide.rules} >= {"caption_refusal", "lengths_medium_agreement"}

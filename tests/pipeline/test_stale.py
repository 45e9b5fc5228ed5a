"""What an earlier run left is taken where it still holds, and nowhere else (laws 6 and 13). No Ray here."""

from __future__ import annotations

from curate.pipeline.partitions import Partition
from curate.pipeline.paths import Paths
from curate.pipeline.tokenize import StreamPlan
from curate.schema.recipe import Caption, Cut, Stream
from curate.signals.caption import CaptionSignal
from curate.tokenizers import zoo

SOME = Partition("web-0123456789abcdef", "web", 3)


def prefixes(caption: Caption) -> dict[str, str]:
    """How names of fragments begin, of a stream of text and one of pictures."""
    paths = Paths.of({"web": None}, Cut(), [CaptionSignal.of(caption, [])])
    names = {"caption": "text-bpe-8k", "tok_rgb@256": "image-fsq-64k"}
    plans = [StreamPlan(Stream(name=name, tokenizer=t), zoo.card(t), t) for name, t in names.items()]
    return {plan.use.name: plan.prefix(paths, SOME) for plan in plans}


def test_tokens_of_text_are_those_of_the_captions_that_the_recipe_makes() -> None:
    before, after = prefixes(Caption()), prefixes(Caption(max_chars=10))
    assert before["caption"] != after["caption"]
    assert before["tok_rgb@256"] == after["tok_rgb@256"], "pictures are not tokenized again"

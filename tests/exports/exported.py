"""A build to export: images, clips and sounds whose samples lack a modality here and there, in two splits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from tiny import CARDS, COMMON, STREAMS, Tokens, commit, finish, make_samples

from curate.schema.codec import CodecCard
from curate.shards.schema import StreamSpec
from curate.tokenizers import zoo

WORDS = "text-bpe-8k"
FEATURES = CodecCard(
    name="clip",
    modality="image",
    stream="clip_global",
    quantiser="none",
    vocabulary=0,
    dtype="float16",
    features=5,
    **COMMON,
)


def exported_samples() -> list[Tokens]:
    """60 samples with captions that are text, one of them empty, and features of what can be seen."""
    words, rng = zoo.load(WORDS), np.random.default_rng(5)
    out = []
    for i, sample in enumerate(make_samples(60)):
        (caption,) = words.encode(["" if i == 3 else f"Number {i}: a café, dans l’été"])
        seen = None if sample.kind == "audio" else rng.normal(0, 9, (1, 5)).astype(np.float16)
        out.append(replace(sample, ids={**sample.ids, "caption": caption, "clip_global": seen}))
    return out


def make_exported(build: Path) -> None:
    """A finished build of `exported_samples`, 16 a shard."""
    caption = zoo.card(WORDS).model_copy(update={"stream": "caption"})
    streams = [s for s in STREAMS if s.name != "caption"]
    streams += [StreamSpec.of("caption", caption), StreamSpec.of("clip_global", FEATURES)]
    cards = {name: card for name, card in CARDS.items() if name != "words"} | {WORDS: caption, "clip": FEATURES}
    manifest = finish(build, exported_samples(), streams=streams, cards=cards)
    uses = [{"name": name, "tokenizer": of} for of, name in ((of, card.stream) for of, card in cards.items())]
    recipe = {**manifest.recipe, "tokenize": {"streams": uses}}
    commit(build, manifest.model_copy(update={"recipe": recipe}))

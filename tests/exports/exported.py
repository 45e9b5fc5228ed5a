"""Builds to export: of images, clips and sounds whose samples lack a modality here and there; and one with media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from card_build import Builder, Item
from tiny import CARDS, COMMON, STREAMS, Tokens, commit, finish, make_samples, packed, tokenized

from curate.schema.codec import CodecCard
from curate.schema.ids import content_id
from curate.schema.recipe import Pack
from curate.shards.lists import write_lists
from curate.shards.pack import splits_of, stream_entries
from curate.shards.schema import KEY_NAMES, StreamSpec
from curate.storage import Folder
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


DEPTH = CARDS["pictures"].model_copy(
    update={"name": "depths", "stream": "tok_depth@32", "quantiser": "vq", "levels": [8192], "vocabulary": 8192}
)


def make_media_build(build: Path, items: Sequence[Item]) -> dict[str, Item]:
    """A finished build with media, tables and signals of `items`, about four samples a shard; what can be seen has
    `tok_rgb@32` and `tok_depth@32` where the item says `encode`, all have captions. The item of each sample."""
    builder, rng = Builder(build, items), np.random.default_rng(9)
    words, store = zoo.load(WORDS), Folder(build)
    caption = words.card.model_copy(update={"stream": "caption"})
    cards = {"pictures": CARDS["pictures"], "depths": DEPTH, WORDS: caption}
    streams = [StreamSpec.of(card.stream, card) for card in cards.values()]
    by_content, samples = {content_id(item.data): item for item in items}, []
    for row in builder.tokens:
        item = by_content[row["content_id"]]
        ids: dict[str, Any] = {"caption": words.encode([item.text or ""])[0]}
        if row["kind"] != "audio" and item.encode:
            ids |= {card.stream: rng.integers(0, card.vocabulary, (1, 4, 4)) for card in (CARDS["pictures"], DEPTH)}
        samples.append(Tokens(*(row[key] for key in KEY_NAMES), ids))
    partitions = tokenized(store, samples, 15, streams)
    plans, shards = packed(store, partitions, Pack(shard_samples=4, splits={"train": 1.0}), 1, streams, 7)
    files = [file for file in builder.files if not file.path.startswith("tokens/")]
    store.remove({file.path for file in builder.files} - {file.path for file in files})
    store.remove(path for one in partitions for path in (one.verdicts, *one.paths))
    uses = [{"name": card.stream, "tokenizer": name} for name, card in cards.items()]
    manifest = builder.manifest()
    said: dict[str, Any] = {
        "recipe": {**manifest.recipe, "tokenize": {"streams": uses}},
        "splits": splits_of(["train"], plans, shards),
        "streams": stream_entries(shards, streams, {c.stream: (n, c.modality) for n, c in cards.items()}),
        "codecs": cards,
        "lists": write_lists(store, [*files, *(shard.file for shard in shards)]),
    }
    commit(build, manifest.model_copy(update=said))
    return {sample.sample_id: by_content[sample.content_id] for sample in samples}

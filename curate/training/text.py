"""Trains the text tokenizer and makes its folder with a measured card; the same texts give the same file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from curate.schema.codec import CodecCard, Quality, smallest_unsigned
from curate.schema.ids import digest
from curate.tokenizers.codecs.text_bpe import OFFSET, SPECIAL, TextBPE, bytes_per_token
from curate.tokenizers.folders import code_version, write_folder
from curate.tokenizers.measures.usage import CodebookUsage
from curate.tokenizers.quantisers.difference import batch_difference
from curate.training.session import Session
from curate.training.text_corpus import TextSource, gather
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

log = logging.getLogger(__name__)


class TextConfig(BaseModel):
    """`train.yaml` of a text tokenizer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: Literal["text-bpe"] = "text-bpe"
    seed: int = Field(0, ge=0)
    vocabulary: int = Field(8192, gt=OFFSET + 256, description="ids in all, with those below the offset")
    min_frequency: int = Field(2, ge=1, description="a pair that occurs less often is not merged")
    held_share: float = Field(0.05, ge=0, lt=1, description="share of texts, by hash, that are only measured")
    licence: str = Field("", description="of the vocabulary that comes out")
    texts: list[TextSource] = []


def train_bpe(texts: Sequence[str], vocabulary: int, min_frequency: int = 2) -> HuggingFaceTokenizer:
    """Byte-level BPE (Sennrich et al. 2016 over bytes, as GPT-2) of at most `vocabulary - OFFSET` symbols."""
    bpe = HuggingFaceTokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - OFFSET,
        min_frequency=min_frequency,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return bpe


def write_text_card(
    bpe: HuggingFaceTokenizer, folder: Path, trained_on: str, licence: str, held: Mapping[str, Sequence[str]]
) -> CodecCard:
    """Writes `tokenizer.json` and `card.json`, whose figures are of the texts `held`, by group."""
    raw = bpe.to_str(pretty=False).encode("utf-8")
    vocabulary = bpe.get_vocab_size() + OFFSET
    card = CodecCard(
        name=folder.name,
        architecture="text-bpe",
        modality="text",
        stream="caption",
        quantiser="bpe",
        index_order=f"id = BPE id + {OFFSET}; the ids below {OFFSET} are special or reserved and never come from text",
        vocabulary=vocabulary,
        dtype=smallest_unsigned(vocabulary),
        input="any Unicode string without lone surrogates; UTF-8 bytes as they are, no normalisation, no added space",
        chunking="none: a text is encoded whole",
        padding="none",
        valid_length="all ids are valid",
        code_version=code_version("tokenizers"),
        special_tokens=SPECIAL,
        weights_digest=digest(raw),
        trained_on=trained_on,
        licence=licence,
    )
    tokenizer = TextBPE(card, bpe)
    quality = []
    for group, texts in sorted(held.items()):
        ids = tokenizer.encode(texts)
        exact = tokenizer.decode(ids) == list(texts)
        usage = CodebookUsage(vocabulary - OFFSET)
        for x in ids:
            usage.add(x)
        density = bytes_per_token(tokenizer, texts)
        log.info("%s: %d texts, %.3f bytes a token, %s", group, len(texts), density, "exact" if exact else "NOT EXACT")
        quality.append(
            Quality(
                media=f"{group}, held out by hash: {density:.2f} bytes a token",
                items=len(texts),
                codebook_usage=round(usage.share, 4),
                lossless=exact,
            )
        )
    every = [text for texts in held.values() for text in texts]
    invariance = batch_difference(tokenizer, every) if every else None
    card = card.model_copy(update={"quality": quality, "batch_invariance": invariance})
    write_folder(folder, card, {"tokenizer.json": raw})
    return card


def train_text(config: TextConfig, out: Path, session: Session) -> CodecCard:
    """Trains and writes tokenizer and card to `out`; see `curate.training.train`."""
    texts, held = gather(config.texts, config.seed, config.held_share, session.debian)
    bpe = train_bpe(texts, config.vocabulary, config.min_frequency)
    there = [s for s in config.texts if s.root(session.debian) is not None]
    packages = ", ".join(f"{s.package} ({s.licence or 'licence as stated by the package'})" for s in there)
    return write_text_card(bpe, out, f"{len(set(texts))} texts of {packages}", config.licence, held)

"""Training of the text tokenizer; the same texts give the same file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from curate.schema.codec import CodecCard, Quality, smallest_unsigned
from curate.schema.ids import digest
from curate.tokenizers.codecs.text_bpe import OFFSET, SPECIAL, TextBPE, bytes_per_token
from curate.tokenizers.folders import code_version, write_folder
from curate.training.config import read_config
from curate.training.text_corpus import TextSource, gather
from tokenizers import Tokenizer as HuggingFaceTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

log = logging.getLogger(__name__)


class TextTrainConfig(BaseModel):
    """`train.yaml` of a text tokenizer.

    Attributes:
        vocabulary: ids in all, with those below the offset.
        min_frequency: a pair that occurs less often is not merged.
        held_share: share of texts, by hash, that are only measured.
        licence: of the vocabulary that comes out.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)
    vocabulary: int = Field(default=8192, gt=OFFSET + 256)
    min_frequency: int = Field(default=2, ge=1)
    held_share: float = Field(default=0.05, ge=0, lt=1)
    licence: str = ""
    texts: list[TextSource] = []


def load_config(path: Path) -> TextTrainConfig:
    """Reads `train.yaml`.

    Raises:
        CurateError: the file does not fit the schema.
    """
    return read_config(TextTrainConfig, path)


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


def write(
    bpe: HuggingFaceTokenizer, folder: Path, name: str, trained_on: str, licence: str, held: dict[str, list[str]]
) -> TextBPE:
    """Writes `tokenizer.json` and `card.json` and returns the tokenizer; `held` is what its card's figures are of."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = bpe.to_str(pretty=False).encode("utf-8")
    vocabulary = bpe.get_vocab_size() + OFFSET
    card = CodecCard(
        name=name,
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
    differ = total = 0
    for group, texts in sorted(held.items()):
        ids = tokenizer.encode(texts)
        exact = tokenizer.decode(ids) == texts
        used = len({int(i) for x in ids for i in x})
        density = bytes_per_token(tokenizer, texts)
        log.info("%s: %d texts, %.3f bytes a token, %s", group, len(texts), density, "exact" if exact else "NOT EXACT")
        media = f"{group}, held out by hash: {density:.2f} bytes a token"
        share = round(used / (vocabulary - OFFSET), 4)
        quality.append(
            Quality(
                media=media,
                items=len(texts),
                psnr_db=None,
                ssim=None,
                si_sdr_db=None,
                codebook_usage=share,
                lossless=exact,
            )
        )
        alone = [tokenizer.encode([t])[0] for t in texts]
        differ += sum(int((a != b).sum()) for a, b in zip(ids, alone, strict=True))
        total += sum(len(a) for a in alone)
    invariance = differ / total if total else None
    card = card.model_copy(update={"quality": quality, "batch_invariance": invariance})
    write_folder(folder, card, {"tokenizer.json": raw})
    return TextBPE.load(folder)


def train_text(folder: Path, out: Path, debian_root: Path = Path("/")) -> TextBPE:
    """`curate tokenizers train text`: from `folder/train.yaml` to a tokenizer and its card in `out`."""
    config = load_config(folder / "train.yaml")
    texts, held = gather(config.texts, config.seed, config.held_share, debian_root)
    bpe = train_bpe(texts, config.vocabulary, config.min_frequency)
    there = [s for s in config.texts if s.root(debian_root) is not None]
    packages = ", ".join(f"{s.package} ({s.licence or 'licence as stated by the package'})" for s in there)
    return write(bpe, out, out.name, f"{len(set(texts))} texts of {packages}", config.licence, held)

"""Measures any tokenizer on any folder of media, which are decoded as the pipeline decodes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.guarded import decode, probe
from curate.schema.codec import Quality
from curate.schema.errors import CurateError, MediaError
from curate.signals.labels import LabelSignal
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.labels import LabelTokenizer, label_of
from curate.tokenizers.measures.audio import si_sdr
from curate.tokenizers.measures.image import score_clip
from curate.tokenizers.measures.usage import CodebookUsage
from curate.tokenizers.views import frames_of, items_of, view_of

TEXTS = (".txt",)


@dataclass(frozen=True)
class Measured:
    """What was measured, and which files could not be: name and reason."""

    quality: Quality
    skipped: list[tuple[str, str]] = field(default_factory=list)


def evaluate_folder(
    tokenizer: Tokenizer,
    folder: Path,
    media: str = "given media",
    fps: float | None = None,
    max_frames: int | None = None,
) -> Measured:
    """The round trip of each file under a folder that the tokenizer can take; others are skipped, and said.

    Images and clips are scored frame by frame (PSNR, SSIM) and by their motion, audio by SI-SDR, texts by being the
    same, words about an image by saying its label exactly; features, and what has an encoder alone, have no figure
    but their number.

    Args:
        media: what they are, in words.
        fps, max_frames: of videos, as in a recipe's stream.

    Raises:
        CurateError: nothing there that the tokenizer takes.
    """
    card = tokenizer.card
    scores: dict[str, list[float]] = {}
    skipped: list[tuple[str, str]] = []
    usage = CodebookUsage(card.vocabulary, card.n_codebooks)
    lossless: list[bool] = []
    items = count = 0
    read_item = reader(tokenizer, fps, max_frames)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        name = path.relative_to(folder).as_posix()
        try:
            item = read_item(path)
            if item is None:
                skipped.append((name, f"has nothing for a tokenizer of {card.modality}"))
                continue
            [ids] = tokenizer.encode([item])
            found = _round_trip(tokenizer, item, ids)
        except (MediaError, ValueError) as error:
            skipped.append((name, " ".join(str(error).split())))
            continue
        for what, value in found.items():
            if what == "lossless":
                lossless.append(bool(value))
            elif math.isfinite(value):
                scores.setdefault(what, []).append(value)
        items += 1
        count += ids.size
        if card.vocabulary:
            usage.add(ids)
    if not items:
        first = f": {skipped[0][0]} {skipped[0][1]}" if skipped else ""
        raise CurateError(f"no media for this tokenizer under {folder}{first}", f"it takes {card.modality}")
    means = {what: round(float(np.mean(values)), 4) for what, values in scores.items()}
    return Measured(
        Quality(
            media=media,
            items=items,
            **{name: means.get(name) for name in ("psnr_db", "ssim", "temporal_psnr_db", "si_sdr_db", "cosine")},
            ids_per_item=count / items,
            codebook_usage=usage.share if card.vocabulary else None,
            lossless=all(lossless) if lossless else None,
        ),
        skipped,
    )


def reader(tokenizer: Tokenizer, fps: float | None = None, max_frames: int | None = None) -> Callable[[Path], Any]:
    """A function that gives what `encode` takes of a file; None where the file has no such modality.

    A text file is a text; of media the text beside it (the same name with .txt) is the caption. It raises MediaError
    for a file that cannot be decoded, or is no media, and ValueError for a text that is not UTF-8, or a label that
    could not be made.
    """
    card = tokenizer.card
    if isinstance(tokenizer, LabelTokenizer):
        signal = tokenizer.signal(frames_of(card, fps, max_frames))
        signal.load()
        return lambda path: _label(signal, path)
    view = view_of(card, fps, max_frames)

    def read(path: Path) -> Any:
        if (path.suffix.lower() in TEXTS) != (view is None):
            return None
        if view is None:
            return path.read_text("utf-8")
        data = path.read_bytes()
        array = decode(data, probe(data, name=path.name).kind, [view], name=path.name).views.get(view)
        return items_of(card, [array])[0]

    return read


def _label(signal: LabelSignal, path: Path) -> Any:
    if path.suffix.lower() in TEXTS:
        return None
    data = path.read_bytes()
    facts = probe(data, name=path.name)
    array = decode(data, facts.kind, [signal.view], name=path.name).views.get(signal.view)
    beside = path.with_suffix(".txt")
    text = beside.read_text("utf-8") if beside.is_file() else None
    return label_of(signal, array, text, (facts.width, facts.height))


def _round_trip(tokenizer: Tokenizer, item: Any, ids: NDArray[np.generic]) -> dict[str, float]:
    card = tokenizer.card
    if isinstance(tokenizer, LabelTokenizer) and card.modality == "text":
        same = tokenizer.lossless(item, ids)
        return {} if same is None else {"lossless": float(same)}
    if not card.vocabulary:
        return {}
    try:
        match card.modality:
            case "image" | "video":
                return _images(tokenizer, item, ids)
            case "audio":
                return _audio(tokenizer, item, ids)
            case "text":
                return _text(tokenizer, item, ids)
    except CurateError:  # an encoder alone says so when it is asked to decode
        return {}
    return {}


def _images(tokenizer: Tokenizer, item: Any, ids: NDArray[np.generic]) -> dict[str, float]:
    if isinstance(tokenizer, LabelTokenizer):  # its maps, which is what its ids are of, as images
        item, decoded = tokenizer.drawn(item), tokenizer.redrawn(ids)
    else:
        [decoded] = tokenizer.decode([ids])
    if decoded.dtype != np.uint8:  # features, which are no image
        return {}
    found = score_clip(decoded, item)
    motion = {"temporal_psnr_db": found.temporal_psnr_db} if found.temporal_psnr_db is not None else {}
    return {"psnr_db": found.psnr_db, "ssim": found.ssim} | motion


def _audio(tokenizer: Tokenizer, item: NDArray[np.float32], ids: NDArray[np.generic]) -> dict[str, float]:
    if not item.any():
        raise ValueError("is silent, for which SI-SDR is not defined")
    [decoded] = tokenizer.decode([ids], [len(item)])
    return {"si_sdr_db": si_sdr(item, decoded)}


def _text(tokenizer: Tokenizer, item: str, ids: NDArray[np.generic]) -> dict[str, float]:
    return {"lossless": float(tokenizer.decode([ids])[0] == item)}

"""Measures any tokenizer on any folder of media, which are decoded as the pipeline decodes them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.guarded import decode, probe
from curate.schema.codec import CodecCard, Quality
from curate.schema.errors import CurateError, MediaError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.labels.labelled import Labelled
from curate.tokenizers.measures.audio import si_sdr
from curate.tokenizers.measures.image import score_clip
from curate.tokenizers.views import items_of, view_of

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

    Pictures and clips are scored frame by frame (PSNR, SSIM) and by their motion, sounds by SI-SDR, texts by being the
    same, words about a picture by saying its label exactly; features, and what has an encoder alone, have no figure
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
    used: list[set[int]] = [set() for _ in range(card.n_codebooks)]
    lossless: list[bool] = []
    items = count = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        name = path.relative_to(folder).as_posix()
        try:
            item = read_item(card, path, fps, max_frames)
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
            _note(used, ids)
    if not items:
        first = f": {skipped[0][0]} {skipped[0][1]}" if skipped else ""
        raise CurateError(f"no media for this tokenizer under {folder}{first}", f"it takes {card.modality}")
    means = {what: round(float(np.mean(values)), 4) for what, values in scores.items()}
    usage = sum(map(len, used)) / (len(used) * card.vocabulary) if card.vocabulary else None
    return Measured(
        Quality(
            media=media,
            items=items,
            **{name: means.get(name) for name in ("psnr_db", "ssim", "temporal_psnr_db", "si_sdr_db", "cosine")},
            ids_per_item=count / items,
            codebook_usage=usage,
            lossless=all(lossless) if lossless else None,
        ),
        skipped,
    )


def read_item(card: CodecCard, path: Path, fps: float | None = None, max_frames: int | None = None) -> Any:
    """What `encode` takes of a file; None where the file has no such modality.

    A text file is a text; of media the text beside it (the same name with .txt) is the caption.

    Raises:
        MediaError: the file cannot be decoded, or is no media.
        ValueError: a text that is not UTF-8.
    """
    view = view_of(card, fps, max_frames)
    if view is None:
        if path.suffix.lower() not in TEXTS:
            return None
        return items_of(card, [], [path.read_text("utf-8")], [(None, None)])[0]
    if path.suffix.lower() in TEXTS:
        return None
    data = path.read_bytes()
    facts = probe(data, name=path.name)
    array = decode(data, facts.kind, [view], name=path.name).views.get(view)
    beside = path.with_suffix(".txt")
    text = beside.read_text("utf-8") if beside.is_file() else None
    return items_of(card, [array], [text], [(facts.width, facts.height)])[0]


def _note(used: Sequence[set[int]], ids: NDArray[np.generic]) -> None:
    flat = ids.reshape(-1)
    for book, seen in enumerate(used):
        seen.update(np.unique(flat[book :: len(used)]).tolist())


def _round_trip(tokenizer: Tokenizer, item: Any, ids: NDArray[np.generic]) -> dict[str, float]:
    card = tokenizer.card
    if isinstance(tokenizer, Labelled) and not tokenizer.of_maps:
        same = tokenizer.lossless(item, ids)
        return {} if same is None else {"lossless": float(same)}
    if card.needs or not card.vocabulary:
        return {}
    try:
        match card.modality:
            case "image" | "video":
                return _pictures(tokenizer, item, ids)
            case "audio":
                return _sound(tokenizer, item, ids)
            case "text":
                return _text(tokenizer, item, ids)
    except CurateError:  # an encoder alone says so when it is asked to decode
        return {}
    return {}


def _pictures(tokenizer: Tokenizer, item: NDArray[np.uint8], ids: NDArray[np.generic]) -> dict[str, float]:
    if isinstance(tokenizer, Labelled):  # its maps, which is what its ids are of, as pictures
        item, decoded = tokenizer.drawn(item), tokenizer.redrawn(ids)
    else:
        [decoded] = tokenizer.decode([ids])
    if decoded.dtype != np.uint8:  # features, which are no picture
        return {}
    found = score_clip(decoded, item)
    motion = {"temporal_psnr_db": found.temporal_psnr_db} if found.temporal_psnr_db is not None else {}
    return {"psnr_db": found.psnr_db, "ssim": found.ssim} | motion


def _sound(tokenizer: Tokenizer, item: NDArray[np.float32], ids: NDArray[np.generic]) -> dict[str, float]:
    if not item.any():
        raise ValueError("is silent, for which SI-SDR is not defined")
    [decoded] = tokenizer.decode([ids], [len(item)])
    return {"si_sdr_db": si_sdr(item, decoded)}


def _text(tokenizer: Tokenizer, item: str, ids: NDArray[np.generic]) -> dict[str, float]:
    return {"lossless": float(tokenizer.decode([ids])[0] == item)}

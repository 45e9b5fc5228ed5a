"""Originals beside what their tokens decode to, for some kept samples: all streams of a sample side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.card.gallery import Gallery
from curate.card.media import Media, data_uri, jpeg, loudest_line, span_of, spectrogram
from curate.card.rows import Key, Rows, find
from curate.card.shard_rows import shard_rows
from curate.card.text import clip, middle
from curate.media.requests import Audio, Frames
from curate.schema.errors import CurateError, MediaError
from curate.schema.manifest import StreamEntry
from curate.schema.recipe import Recipe, Stream
from curate.shards.tables import Tables
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.labels import LabelTokenizer
from curate.tokenizers.views import frames_of, view_of

IMAGES, VIDEOS, AUDIO = 6, 3, 3
FRAMES = 3
SECONDS = 4.0  # of audio that stands in the page
_TEXT, _IDS = 300, 24


@dataclass(frozen=True)
class ImageRoundTrip:
    """An image or frame: original, its ids in false colour, decoded; data URIs of JPEGs.

    Attributes:
        time: seconds from the sample's start.
        psnr_db, ssim: of decoded against original, both at the tokenizer's size.
    """

    original: str
    ids: str
    decoded: str
    grid: tuple[int, int]
    time: float
    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class AudioRoundTrip:
    """Audio: two WAV files and two spectrograms as data URIs, on one scale of loudness.

    Attributes:
        seconds: how much of the sample is here.
        si_sdr_db: of decoded against original (Le Roux et al. 2019); None for silence.
    """

    original: str
    decoded: str
    original_image: str
    decoded_image: str
    seconds: float
    ids: int
    si_sdr_db: float | None


@dataclass(frozen=True)
class Text:
    """A caption and its tokens; `exact` says whether they decode to it, and is None for words about an image."""

    decoded: str
    tokens: int
    ids: list[int]
    exact: bool | None


@dataclass
class Panel:
    """One sample. Maps go from stream name to what it holds; `problems` say what could not be shown, and why."""

    id: str
    kind: str
    uri: str
    caption: str
    provenance: str
    duration: float | None
    start: float
    images: dict[str, list[ImageRoundTrip]] = field(default_factory=dict)
    audio: dict[str, AudioRoundTrip] = field(default_factory=dict)
    texts: dict[str, Text] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def panels(
    tables: Tables, gallery: Gallery, media: Media, recipe: Recipe, load: Callable[[str], Tokenizer]
) -> list[Panel]:
    """Panels of kept samples, the first of each kind by id: images, then videos, then audio."""
    kinds = (("image", IMAGES), ("video", VIDEOS), ("audio", AUDIO))
    rows = [row for kind, count in kinds for row in gallery.kept_of(kind, count)]
    return _panels(tables, rows, media, recipe, load)


def panel_of(tables: Tables, key: Key, media: Media, recipe: Recipe, load: Callable[[str], Tokenizer]) -> Panel:
    """The panel of one kept sample.

    Raises:
        CurateError: there is no such sample.
    """
    row = Rows(tables, [key], ["caption", "caption_source"]).of(key.level, key.id)
    [panel] = _panels(tables, [row], media, recipe, load)
    return panel


def _panels(
    tables: Tables, rows: list[dict[str, Any]], media: Media, recipe: Recipe, load: Callable[[str], Tokenizer]
) -> list[Panel]:
    tokens = shard_rows(tables, [row["sample_id"] for row in rows])
    streams = {s.name: s for s in recipe.tokenize.streams}
    crops = recipe.tokenize.crops
    drawn = [c.needs[0] for c in tables.manifest.codecs.values() if c.needs and c.modality == "image"]
    if drawn:
        labels = Rows(tables, find(tables, [("sample", row["sample_id"]) for row in rows]), drawn)
        rows = [{**row, **labels.of("sample", row["sample_id"])} for row in rows]
    out = []
    for row in rows:
        caption, provenance = _caption(row)
        panel = Panel(
            row["sample_id"],
            row["kind"],
            middle(row["uri"], 120),
            clip(caption, _TEXT),
            provenance,
            row["duration"],
            row["start_us"] / 1e6,
        )
        for entry in tables.manifest.streams:
            found = tokens.get(row["sample_id"])
            ids = found.ids.get(entry.name) if found else None
            if ids is None:
                panel.missing.append(entry.name)
                continue
            try:
                _add(panel, entry, streams.get(entry.name), crops, load(entry.tokenizer), ids, row, media, caption)
            except (MediaError, CurateError, ValueError) as exc:  # the page says it in the panel's place
                panel.problems.append(f"{entry.name}: {exc}")
        out.append(panel)
    return out


def _add(
    panel: Panel,
    entry: StreamEntry,
    stream: Stream | None,
    crops: int,
    tokenizer: Tokenizer,
    flat: NDArray[Any],
    row: dict[str, Any],
    media: Media,
    caption: str,
) -> None:
    ids = flat.reshape([-1 if n is None else n for n in entry.shape])
    if not entry.vocabulary or tokenizer.card.modality == "array":
        return
    card = tokenizer.card
    if card.needs and card.modality == "text":
        [label] = tokenizer.decode([ids])
        panel.texts[entry.name] = Text(clip(str(label), _TEXT), ids.size, ids.reshape(-1)[:_IDS].tolist(), None)
    elif card.modality in ("image", "video"):
        if drawn := _images(tokenizer, stream, crops, ids, row, media):
            panel.images[entry.name] = drawn
    elif card.modality == "audio":
        panel.audio[entry.name] = _audio(tokenizer, ids, row, media)
    else:
        [decoded] = tokenizer.decode([ids])
        panel.texts[entry.name] = Text(clip(decoded, _TEXT), len(ids), ids[:_IDS].tolist(), decoded == caption)


def _images(
    tokenizer: Tokenizer, stream: Stream | None, crops: int, ids: NDArray[Any], row: dict[str, Any], media: Media
) -> list[ImageRoundTrip]:
    from curate.media.guarded import decode
    from curate.tokenizers.measures.image import score

    card = tokenizer.card
    if stream is None:
        raise CurateError("the recipe of this build has no such stream")
    if isinstance(tokenizer, LabelTokenizer):
        view: Any = frames_of(card, stream.fps, stream.max_frames, crops)
    else:
        view = view_of(card, stream.fps, stream.max_frames, stream.pad, crops)
    assert isinstance(view, Frames)
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(FRAMES, len(ids))).round().astype(np.int64))
    if isinstance(tokenizer, LabelTokenizer):
        decoded, places = tokenizer.redrawn(ids[chosen]), chosen
    elif card.temporal_stride is None:
        [decoded] = tokenizer.decode([ids[chosen]])
        places = chosen
    else:  # each latent frame stands on those before it
        [decoded] = tokenizer.decode([ids])
        places = chosen * card.temporal_stride
        decoded = decoded[places]
    if decoded.dtype != np.uint8:  # features, which are no image
        return []
    got = decode(media.read(row), row["kind"], [view], span=span_of(row), key=row["sample_id"])
    originals, times = got.views[view], got.times[view]
    if len(originals) != (len(ids) - 1) * (card.temporal_stride or 1) + 1:
        raise MediaError(f"{len(ids)} steps were tokenized and {len(originals)} frames decoded now")
    if isinstance(tokenizer, LabelTokenizer):
        originals = tokenizer.drawn(row[card.needs[0]])
    grids = ids.reshape(len(ids), -1, ids.shape[-1])  # a row where ids have no place
    out = []
    for step, place, image in zip(chosen.tolist(), places.tolist(), decoded, strict=True):
        quality = score(image, originals[place])
        out.append(
            ImageRoundTrip(
                jpeg(originals[place]),
                jpeg(false_colour(grids[step], card.levels, card.vocabulary)),
                jpeg(image),
                (grids.shape[1], grids.shape[2]),
                float(times[place]),
                quality.psnr_db,
                quality.ssim,
            )
        )
    return out


def _audio(tokenizer: Tokenizer, ids: NDArray[Any], row: dict[str, Any], media: Media) -> AudioRoundTrip:
    from curate.media.encode import encode_wav
    from curate.media.guarded import decode
    from curate.tokenizers.measures.audio import si_sdr

    card = tokenizer.card
    if card.sample_rate is None:
        raise CurateError(f"the codec card of {card.name} names no sample rate")
    view = Audio(rate=card.sample_rate)
    whole = decode(media.read(row), row["kind"], [view], span=span_of(row)).views.get(view)
    if whole is None:
        raise MediaError("no audio could be decoded")
    length = min(len(whole), int(SECONDS * card.sample_rate))
    [heard] = tokenizer.decode([ids], lengths=[len(whole)])
    original = whole[:length].astype(np.float32) / 32768
    decoded = np.clip(heard[:length], -1, 1)
    loudest = loudest_line(original)
    wavs = [encode_wav(np.round(x * 32767).astype(np.int16), card.sample_rate) for x in (original, decoded)]
    return AudioRoundTrip(
        original=data_uri(wavs[0], "audio/wav"),
        decoded=data_uri(wavs[1], "audio/wav"),
        original_image=jpeg(spectrogram(original, loudest)),
        decoded_image=jpeg(spectrogram(decoded, loudest)),
        seconds=length / card.sample_rate,
        ids=ids.size,
        si_sdr_db=si_sdr(original, decoded) if original.any() else None,
    )


def false_colour(ids: NDArray[Any], levels: Sequence[int], vocabulary: int, side: int = 128) -> NDArray[np.uint8]:
    """Ids `(h, w)` as an image, so that equal ids have equal colours.

    With FSQ levels the three lowest digits of the mixed radix are red, green and blue; else the id's place in the
    vocabulary is the grey level.

    Returns:
        uint8 `(h * k, w * k, 3)` with k the whole number that brings the long side nearest to `side` from below.
    """
    wide = ids.astype(np.int64)
    if len(levels) >= 3:
        digits, rest = [], wide
        for base in levels[:3]:
            digits.append((rest % base) / max(1, base - 1))
            rest = rest // base
        colour = np.stack(digits, axis=-1)
    else:
        colour = np.repeat((wide / max(1, vocabulary - 1))[..., None], 3, axis=-1)
    k = max(1, side // max(ids.shape))
    return np.repeat(np.repeat(np.round(30 + 205 * colour).astype(np.uint8), k, axis=0), k, axis=1)


def _caption(row: dict[str, Any]) -> tuple[str, str]:
    """The caption of a sample and where it is from: given, captioner, composed, none."""
    if "caption" not in row:
        return (row["text"] or "", "given" if row["text"] else "none")
    return row["caption"] or "", row.get("caption_source") or "none"

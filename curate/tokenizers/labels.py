"""Streams of labels: ids of what a signal says of an image (`curate.signals.labels`), in place of the image's own.

A folder holds the card, whose `needs` names the field, and `labels.json`: which signal gives it, and which tokenizer
its labels are written with. Maps become images or arrays (`curate.tokenizers.codecs.label_maps`), lists become words.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from curate import plugins
from curate.media.requests import Frames
from curate.schema.codec import CodecCard, Preprocessing
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.schema.recipe import SignalUse
from curate.schema.verdict import Failure
from curate.signals import registry
from curate.signals.base import Batch
from curate.signals.labels import MAPS, Kind, LabelSignal, MapOptions
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.folders import code_version, read_folder, write_folder
from curate.tokenizers.inputs import IMAGE_INPUT

MAPS_BY, LISTS_BY = "labelled", "4m-labels"
"""Architectures that write labels of `MAPS`, and the others."""

_FILE = "labels.json"
_FRAMES = set(MapOptions.model_fields) - {"field"}
"""Options of a signal that say what it looks at: a stream sets them."""


class LabelsFile(BaseModel):
    """`labels.json`; the card's `weights_digest` is of its bytes.

    Attributes:
        signal: name of the signal, or `package.module:Class`; options: its own, without those of its frames.
        kind: of its labels; classes: names of their classes or points.
        tokenizer: a name of the zoo, a folder, or `package.module:Class`; tokenizer_digest: its card's weights digest.
        parts: the tokenizer of what the words hold codes of, masks or poses, named as `tokenizer` is; parts_digest:
            its card's weights digest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    signal: str
    options: dict[str, Any] = {}
    kind: Kind
    classes: tuple[str, ...] = ()
    tokenizer: str
    tokenizer_digest: str
    parts: str | None = None
    parts_digest: str | None = None


class LabelTokenizer(ABC):
    """Labels to ids and back (a `Tokenizer`). An item is a label as its field has it (`curate.signals.labels.TYPES`).

    Class attributes:
        inner: the tokenizer that writes labels where none is named; empty: one must be.
    """

    inner: ClassVar[str] = ""

    def __init__(self, card: CodecCard, file: LabelsFile, inner: Tokenizer, part: Tokenizer | None = None) -> None:
        for which, found, wanted in (
            ("tokenizer", inner.card.weights_digest, file.tokenizer_digest),
            ("tokenizer of parts", None if part is None else part.card.weights_digest, file.parts_digest),
        ):
            if found != wanted:
                raise CurateError(
                    f"the {which} of {card.name} is not the one that it was made with",
                    "its weights differ; make the folder again, and tokenise again what was made with the other",
                )
        self.card, self.file, self._inner = card, file, inner

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", batch: int | None = None) -> Self:
        """Reads `card.json` and `labels.json`; the tokenizers must be those that the folder was made with."""
        card, file = _read(folder)
        part = None if file.parts is None else zoo.load(file.parts, device, batch=batch)
        return cls(card, file, zoo.load(file.tokenizer, device, batch=batch), part)

    def signal(self, view: Frames) -> LabelSignal:
        """The signal whose labels it writes, looking at `view`; not loaded."""
        return label_signal(_use(self.file, view))

    @abstractmethod
    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Labels to ids; ValueError for one that cannot be written."""

    @abstractmethod
    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids to labels, as far as they say them."""

    def lossless(self, label: Any, ids: NDArray[np.generic]) -> bool | None:
        """True if ids say a label exactly; None of labels that hold arrays."""
        return None

    def drawn(self, label: Any) -> NDArray[np.uint8]:
        """A label as images, uint8 `(N, H, W, 3)`; CurateError where it is a list."""
        raise CurateError(f"{self.card.name} writes {self.file.kind} in words", "words are not drawn")

    def redrawn(self, ids: NDArray[np.generic]) -> NDArray[np.uint8]:
        """What ids `(N, *grid)` say, as `drawn`."""
        return self.drawn(self.decode([ids])[0])


def signal_for(tokenizer: str, card: CodecCard, view: Frames) -> SignalUse:
    """The signal that the folder of a tokenizer of labels names, looking at what a stream is of.

    Args:
        tokenizer: as `zoo.load` takes it.
        view: `curate.tokenizers.views.frames_of` of the stream.

    Raises:
        CurateError: it is another's class, which names no signal, or its folder cannot be read.
    """
    if plugins.is_foreign("tokenizer", tokenizer):
        raise CurateError(
            f"{card.name} reads the field `{card.needs[0]}`, which no signal gives", "name its signal under annotate"
        )
    return _use(_read(zoo.folder(tokenizer))[1], view)


def label_of(signal: LabelSignal, frames: NDArray[np.generic] | None, text: str | None, size: Sequence[Any]) -> Any:
    """What a loaded signal says of one sample by itself.

    Args:
        frames: of the signal's view.
        text: the caption.
        size: width and height of the original in pixels; two None where they are not known.

    Raises:
        ValueError: the signal failed.
        CurateError: it reads fields of other signals.
    """
    columns: dict[str, list[Any]] = {"caption": [text], "width": [size[0]], "height": [size[1]]}
    if others := sorted(set(signal.after) - columns.keys()):
        raise CurateError(f"{signal.name} reads {', '.join(others)} of other signals", "only a build has both")
    [found] = signal(Batch([""], ["image"], [text], {signal.view: [frames]}, columns))
    if isinstance(found, Failure):
        raise ValueError(found.message)
    return found[signal.gives[0].name]


def label_signal(use: SignalUse) -> LabelSignal:
    """The signal, not loaded; CurateError where it gives no label."""
    made = registry.build(use)
    if not isinstance(made, LabelSignal):
        raise CurateError(f"the signal `{use.name}` gives no label", "see curate.signals.labels for those that do")
    return made


def make_labels(
    folder: Path,
    signal: str,
    options: Mapping[str, Any],
    stream: str,
    tokenizer: str | None = None,
    parts: str | None = None,
) -> CodecCard:
    """Writes `card.json` and `labels.json`, whose folder's name becomes the tokenizer's.

    Args:
        signal, options: as a recipe's `annotate` names them. Paths among the options are kept as they are given.
        stream: e.g. `tok_canny_edge@256`, `metadata`, `color_palette`, `det`.
        tokenizer: of the zoo, a folder, or a class: an image tokenizer for maps, or 4M's own of edges, depth or
            classes; for lists 4M's closed vocabulary, where none is given.
        parts: a tokenizer of masks for instances, of poses for bodies.

    Raises:
        CurateError: there is no such signal or tokenizer, or the one cannot write the other's labels.
    """
    own = {name: value for name, value in options.items() if name not in _FRAMES}
    kind = label_signal(SignalUse(name=signal, **options)).kind
    cls: type[LabelTokenizer] = zoo.class_of(MAPS_BY if kind in MAPS else LISTS_BY)
    tokenizer = tokenizer or cls.inner
    if not tokenizer:
        raise CurateError(f"{kind} are maps, which a tokenizer of images writes", "name one, e.g. image-fsq-64k")
    inner, part = zoo.load(tokenizer), None if parts is None else zoo.load(parts)
    sized = {"size": inner.card.input_size} if inner.card.input_size else {}
    made = label_signal(SignalUse(name=signal, **{**options, **sized, "fps": 1.0, "max_frames": 1}))
    made.load()
    side = made.view.size
    file = LabelsFile(
        signal=signal,
        options=own,
        kind=kind,
        classes=made.classes,
        tokenizer=tokenizer,
        tokenizer_digest=inner.card.weights_digest,
        parts=parts,
        parts_digest=None if part is None else part.card.weights_digest,
    )
    raw = (json.dumps(file.model_dump(mode="json", exclude_none=True), indent=2, sort_keys=True) + "\n").encode()
    field, whole, lists = made.gives[0].name, not made.view.crop, kind not in MAPS
    pixels = f"({side}, {side}, 3)" if not whole else f"(H, W, 3), the whole picture, long side at most {side},"
    changed = {
        "name": folder.name,
        "version": 1,
        "architecture": MAPS_BY if kind in MAPS else LISTS_BY,
        "stream": stream,
        "input_size": side,
        "channels": 3,
        "modality": "text" if lists else "image",
        "needs": [field],
        "input": (
            f"the field `{field}` ({kind}) of the signal {signal}, of uint8 sRGB {pixels} or a stack of them; "
            f"{inner.card.name} writes it{IMAGE_INPUT}"
        ),
        "preprocessing": inner.card.preprocessing or _images_of(whole),
        "chunking": "the middle picture of a stack, number N // 2" if lists else "each picture alone",
        "padding": "none",
        "valid_length": "all ids are valid",
        "weights_digest": digest(raw),
        "code_version": code_version("numpy", "opencv-python-headless"),
        "trained_on": "see the signal and the tokenizer",
        "licence": "that of the signal's weights, as their publisher states",
        "quality": [],
        "batch_invariance": None,  # measured below
        "bf16_difference": None,  # that of the inner card is of photographs
    }
    try:
        card = CodecCard.model_validate(inner.card.model_dump() | changed)
    except ValidationError as error:
        raise CurateError(f"{tokenizer} cannot carry labels of {signal}: {error}") from error
    difference = _batch_difference(cls(card, file, inner, part), made)
    write_folder(folder, card.model_copy(update={"batch_invariance": difference}), {_FILE: raw})
    return card.model_copy(update={"batch_invariance": difference})


def _read(folder: Path) -> tuple[CodecCard, LabelsFile]:
    card, raw = read_folder(folder, _FILE)
    try:
        return card, LabelsFile.model_validate_json(raw)
    except ValueError as error:
        raise CurateError(
            f"the tokenizer {folder.name} cannot be read: {error}", "make it again with `curate tokenizers label`"
        ) from error


def _use(file: LabelsFile, view: Frames) -> SignalUse:
    crops = {"crops": view.crops} if view.crops > 1 else {}
    options = file.options | {"size": view.size, "fps": view.fps, "max_frames": view.max_frames, **crops}
    return SignalUse(name=file.signal, **options)


def _images_of(whole: bool) -> Preprocessing:
    """How images come to a signal whose labels no tokenizer of images writes."""
    return Preprocessing(
        resize="long_side" if whole else "short_side", resample="lanczos", crop=None if whole else "centre"
    )


def _batch_difference(tokenizer: LabelTokenizer, signal: LabelSignal) -> float | None:
    """The share of ids that differ when labels of three synthetic images are encoded alone and together; None without
    ids."""
    from curate.tokenizers.grid import probes  # imports torch, which a plan does not need
    from curate.tokenizers.quantisers.difference import share_of_all

    side = signal.view.size
    frames = [*probes(2, side), np.zeros((1, side, side, 3), np.uint8)]
    labels = [label_of(signal, f, "a red ball", (side, side)) for f in frames]
    pairs = [(tokenizer.encode([label])[0], ids) for label, ids in zip(labels, tokenizer.encode(labels), strict=True)]
    if any(alone.shape != among.shape for alone, among in pairs):
        return 1.0
    return share_of_all(pairs) if any(ids.size for ids, _ in pairs) else None

"""ml-4m's data sets: a tar a modality, the same keys in the same order in each (apple/ml-4m at cda590f,
`fourm/data/unified_datasets.py`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from curate.exports.base import Export, Sample, Selection
from curate.exports.fourm.caption import write as escaped
from curate.exports.kept import Kept
from curate.media.crops import crop_settings
from curate.media.encode import encode_jpeg
from curate.media.guarded import decode
from curate.media.requests import Frames
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError, MediaError
from curate.shards.schema import StreamSpec

RGB, CROPS = "rgb", "crop_settings"
_INT16 = 1 << 15
_QUALITY = 95


class Ml4m(Export):
    """`SPLIT/MODALITY/shard-NNNNN.tar`, with KEY.jpg of `rgb`, the whole upright image; KEY.npy of `crop_settings`,
    int64 `(crops, 5)`, and of each grid of image ids, int16 `(crops, ids)`; KEY.json of each free text, a list of it
    for each crop, with 4M's special words escaped. KEY is the sample's id: 32 hex digits, without the dots that its
    reader would cut it at.

    Its loader loses data where modalities do not match, without a word. So all that it would lose or corrupt is
    refused: ids that int16 does not hold, other streams than these, a sample that lacks one, a gap in the numbers of
    shards.
    """

    name: ClassVar[str] = "ml-4m"

    def begin(self, selection: Selection) -> None:
        manifest = selection.manifest
        cards = {entry.name: manifest.codecs[entry.tokenizer] for entry in manifest.streams}
        for stream in selection.streams:
            _check_stream(stream, cards[stream.name])
        self._texts = selection.texts
        self._grids = [stream.name for stream in selection.streams if stream.name not in self._texts]
        _check_presence(selection)
        _check_numbers(selection)
        self._crops = int(manifest.recipe["tokenize"].get("crops", 1))
        self._kept = Kept(selection)
        if other := sorted(self._kept.kinds - {"image"}):
            raise CurateError(f"ml-4m reads images, and there are samples of {other[0]}", "make a build of images")

    def paths(self, split: str, shard: str) -> Sequence[str]:
        return [f"{split}/{modality}/{_number(shard)}.tar" for modality in self._modalities]

    def shard(self, samples: Iterator[Sample], *files: Path) -> int:
        from webdataset import TarWriter

        written = 0
        with ExitStack() as stack:
            opened = [stack.enter_context(file.open("wb")) for file in files]
            tars = [stack.enter_context(TarWriter(f, user="", group="", mode=0o644, mtime=0)) for f in opened]
            for sample, row in self._kept.beside(samples):
                members = self._members(sample, row)
                for tar, modality in zip(tars, self._modalities, strict=True):
                    tar.write({"__key__": sample.sample_id, **members[modality]})
                written += 1
        return written

    @property
    def _modalities(self) -> list[str]:
        return [RGB, CROPS, *self._grids, *self._texts]

    def _members(self, sample: Sample, row: dict[str, Any]) -> dict[str, dict[str, Any]]:
        for name in (*self._grids, *self._texts):
            if name not in sample.ids:
                raise _refused(name, f"sample {sample.sample_id} lacks it, and its reader would drop what follows")
        crops = crop_settings(sample.sample_id, row["width"], row["height"], self._crops)
        try:
            whole = _jpeg(self._kept.media(row), max(row["width"], row["height"]))
        except MediaError as error:
            raise CurateError(f"sample {sample.sample_id} of {row['uri']} cannot be decoded: {error}") from error
        members: dict[str, dict[str, Any]] = {RGB: {"jpg": whole}, CROPS: {"npy": crops}}
        for name in self._grids:
            members[name] = {"npy": sample.ids[name].reshape(self._crops, -1).astype(np.int16)}
        return members | {name: {"json": [escaped(sample.text[name])] * self._crops} for name in self._texts}


def _check_stream(stream: StreamSpec, card: CodecCard) -> None:
    """CurateError for a stream that its reader cannot take."""
    if not re.fullmatch(r"[\w@-]+", stream.name) or stream.name in (RGB, CROPS):
        raise _refused(stream.name, "a folder of its data set cannot be called so")
    if card.modality == "text" and not card.needs:
        return
    if card.modality != "image" or not stream.vocabulary:
        raise _refused(stream.name, "it is neither ids of images nor free text")
    if stream.vocabulary > _INT16:
        raise _refused(stream.name, f"its {stream.vocabulary} ids do not fit the int16 of its files")
    if card.preprocessing is not None and card.preprocessing.resize == "long_side":
        raise _refused(stream.name, "its ids are of whole images, not of crops")
    if not stream.name.startswith("tok_"):
        raise _refused(stream.name, "its reader knows ids by a name that begins with tok_")


def _check_presence(selection: Selection) -> None:
    """CurateError for a stream that samples lack, as far as the manifest tells: it counts all splits together."""
    names = {stream.name for stream in selection.streams}
    have = sum(split.samples for split in selection.manifest.splits)
    for entry in selection.manifest.streams:
        if entry.name in names and entry.samples < have and len(selection.splits) == len(selection.manifest.splits):
            lacking = have - entry.samples
            raise _refused(entry.name, f"{lacking} of {have} samples lack it, and its reader would drop them")


def _check_numbers(selection: Selection) -> None:
    """CurateError where a shard is not there because no sample fell into it."""
    for split in selection.splits:
        if [_number(shard) for shard in split.shards] != [f"shard-{i:05d}" for i in range(len(split.shards))]:
            raise CurateError(
                f"the numbers of the shards of {split.name} have a gap, which shard-{{00000..N}}.tar cannot say",
                "make the build with more samples a shard (pack: {shard_samples: ...})",
            )


def _refused(stream: str, why: str) -> CurateError:
    return CurateError(f"ml-4m cannot hold stream {stream!r}: {why}", "choose others with --stream")


def _number(shard: str) -> str:
    """`shard-00003` of a shard's path or name, which ends in its digest."""
    found = re.search(r"shard-\d+", shard)
    assert found is not None, shard
    return found[0]


def _jpeg(data: bytes, side: int) -> bytes:
    """A JPEG that nothing turns as it is; any other image decoded upright, and encoded."""
    plain = data.startswith(b"\xff\xd8\xff") and b"Exif\0\0" not in data and b"rientation" not in data
    if plain:
        return data
    view = Frames(side, max_frames=1, crop=False)
    return encode_jpeg(np.asarray(decode(data, "image", [view]).views[view][0], np.uint8), _QUALITY)

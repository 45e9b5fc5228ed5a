"""A finished build of made-up measurements, as many samples as wanted, written by columns: no media are decoded.

Twelve signals of several shapes, failures, rules on five of them, pairs of near duplicates, captions. Verdicts are
those of `curate.decide`. All samples share a few hundred real JPEGs of one tar, so any of them can be looked at.

    python -m parts.made_build FOLDER ROWS [FAILED]
"""

from __future__ import annotations

import io
import sys
import tarfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.decide.decide import decide
from curate.decide.engine import LocalEngine
from curate.decide.keys import Keys, keys_of, names_of
from curate.decide.ledger import checked_counts
from curate.decide.methods import LINKS
from curate.decide.near import ALIKE, CELL_ROWS, EXACT_ROWS
from curate.decide.partitions import PartitionFiles
from curate.media.encode import encode_jpeg
from curate.schema.fields import SignalField
from curate.schema.ids import digest, digest_of_rows, key_of
from curate.schema.manifest import MANIFEST, Counts, File, Manifest
from curate.schema.recipe import Recipe
from curate.schema.tables import FAILURE, RECORDS, SAMPLES
from curate.shards.lists import write_lists
from curate.storage import Folder
from curate.storage.tables import write_named_table, write_table

PARTITION = 4096
PHOTOS = 256
TAR = "media/photos-0.tar"
DIM = 64
WORDS = (
    "a red bus in the rain",
    "two cats on a sofa",
    "an empty beach",
    "hands that knead dough",
    "city lights at night",
)
RULES = [
    {"field": "sharpness", "min": 40.0},
    {"field": "aesthetic", "min": 3.5},
    {"field": "nsfw", "max": 0.8},
    {"field": "clip_score", "min_percentile": 5.0},
    {"field": "text_area", "max": 0.5},
]
CAUSES = (
    ("FetchError", "HTTP 404 of"),
    ("FetchError", "no answer within 10 s of"),
    ("MediaError", "cannot decode, invalid data found:"),
    ("SourceError", "it has changed since it was listed:"),
)
"""Of failed records: their error, and how the message begins that ends with the uri."""

SHAPES = {
    "sharpness": ("gamma", 2.0, 120.0),
    "brightness": ("normal", 118.0, 40.0),
    "contrast": ("gamma", 6.0, 9.0),
    "aesthetic": ("normal", 5.0, 1.1),
    "clip_score": ("normal", 0.24, 0.06),
    "nsfw": ("beta", 0.3, 4.0),
    "text_area": ("beta", 0.4, 5.0),
    "motion": ("gamma", 1.2, 0.2),
    "faces": ("beta", 1.0, 9.0),
    "colourfulness": ("gamma", 4.0, 11.0),
    "noise": ("gamma", 3.0, 2.0),
    "saturation": ("beta", 2.0, 3.0),
}
"""Signals: how their values are drawn."""


@dataclass(frozen=True)
class _Part:
    files: PartitionFiles
    written: list[File]
    ids: Keys


def make(folder: Path, rows: int, failed: int | None = None, seed: int = 0) -> dict[str, int]:
    """Write a build of `rows` samples, each of a record of its own, and of so many `failed` records, else one for each
    hundred samples; its counts of samples."""
    failed = rows // 100 if failed is None else failed
    store, rng = Folder(folder), np.random.default_rng(seed)
    recipe = Recipe.model_validate(
        {
            "name": "made-up",
            "sources": [{"kind": "folder", "name": "photos", "path": "photos"}],
            "annotate": [{"name": "light"}],
            "cut": {"min_seconds": 0},
            "decide": {
                "rules": RULES,
                "near_duplicates": [{"embedding": "tiny", "threshold": 0.9, "keep": ["pixels", "aesthetic"]}],
            },
            "tokenize": {"streams": [{"name": "caption", "tokenizer": "text-bpe-8k"}]},
        }
    )
    fields = {name: SignalField(name, pa.float32(), "score") for name in SHAPES}
    fields["tiny"] = SignalField("tiny", pa.list_(pa.float32(), DIM), kinds=("image", "video"))
    fields["caption"] = SignalField("caption", pa.string())
    files = [_photos(store, rng)]
    sizes = np.array([m.size for m in _members(store)])
    starts = np.array([m.offset_data for m in _members(store)])
    count = -(-(rows + failed) // PARTITION)
    cuts = [(rows * i // count, failed * i // count) for i in range(count + 1)]
    parts = [
        _partition(store, rng, number, start + gone, stop - start, end - gone, starts, sizes)
        for number, ((start, gone), (stop, end)) in enumerate(pairwise(cuts))
    ]
    files += [file for part in parts for file in part.written]
    _links(store, rng, recipe, [part.files for part in parts], np.concatenate([part.ids for part in parts]))
    homes = dict.fromkeys(fields, "signals/light")
    found = decide(
        store,
        [part.files for part in parts],
        recipe.decide,
        fields,
        homes,
        {"light": "signals/light"},
        recipe.seed,
        LocalEngine(),
    )
    files += [fragment.file for fragment in found.fragments]
    counts = Counts(**checked_counts(f.counts for f in found.fragments))
    told = [
        {"name": f.name, "type": str(f.type), "unit": f.unit, "range": f.range, "kinds": f.kinds, "about": f.about}
        for f in fields.values()
    ]
    manifest = Manifest(
        name=recipe.name,
        recipe=recipe.model_dump(mode="json"),
        seed=recipe.seed,
        counts=counts,
        splits=[],
        streams=[],
        signals=[{"name": "light", "version": "1", "options": {}, "fields": told}],
        codecs={},
        versions={},
        hardware="made up",
        lists=write_lists(store, files),
    )
    store.write(MANIFEST, manifest.model_dump_json().encode())
    return counts.samples


def _photos(store: Folder, rng: np.random.Generator) -> File:
    out = io.BytesIO()
    y, x = np.mgrid[0:240, 0:320] / 40
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(PHOTOS):
            a, b, c = rng.uniform(0.2, 3, 3)
            waves = np.stack([np.sin(a * x + number), np.sin(b * y), np.sin(c * (x + y) / 2)], axis=2)
            data = encode_jpeg((127 + 120 * waves).astype(np.uint8))
            member = tarfile.TarInfo(f"{number:04d}.jpg")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    store.write(TAR, out.getvalue())
    return File(path=TAR, digest=digest(out.getvalue()), bytes=len(out.getvalue()), rows=PHOTOS)


def _members(store: Folder) -> list[tarfile.TarInfo]:
    with tarfile.open(store.root / TAR) as tar:
        return tar.getmembers()


def _partition(
    store: Folder,
    rng: np.random.Generator,
    number: int,
    start: int,
    n: int,
    gone: int,
    offsets: NDArray[np.int64],
    sizes: NDArray[np.int64],
) -> _Part:
    """Fragments of one partition: `n` samples, then `gone` records that failed; `start` records are before it."""
    name = f"photos-{number:06d}"
    total = n + gone
    record, sample = _ids(rng, total), _ids(rng, n)
    photo = np.arange(start, start + n) % PHOTOS
    width, height = rng.integers(256, 4000, (2, n)).astype(np.int32)
    places = pa.array(np.arange(start, start + total)).cast(pa.string())
    uri = pc.binary_join_element_wise("photos/", places, ".jpg", "")
    words = pa.array(WORDS).take(pa.array(rng.integers(len(WORDS), size=n)))
    about: dict[str, pa.Array] = {
        "record_id": record.slice(0, n),
        "content_id": sample,
        "source": pa.repeat("photos", n),
        "uri": uri.slice(0, n),
        "kind": pa.repeat("image", n),
        "text": pc.binary_join_element_wise(words, places.slice(0, n), ", number "),
        "licence": pa.array(["CC0-1.0", "CC-BY-4.0", None]).take(pa.array(rng.integers(3, size=n))),
        "media": pa.repeat(TAR, n),
        "member": pc.binary_join_element_wise(pa.array([f"{p:04d}" for p in photo]), "jpg", "."),
        "offset": pa.array(offsets[photo]),
        "bytes": pa.array(sizes[photo]),
        "width": pa.array(width),
        "height": pa.array(height),
        "codec": pa.repeat("jpeg", n),
    }
    zero = pa.repeat(pa.scalar(0, pa.int64()), n)
    records = {k: pa.concat_arrays([v, pa.nulls(gone, v.type)]) for k, v in about.items()}
    causes = pa.array(rng.integers(len(CAUSES), size=gone))
    errors, begins = (pa.array(said).take(causes) for said in zip(*CAUSES, strict=True))
    failed = {
        "stage": pa.repeat("ingest", gone),
        "error": errors,
        "message": pc.binary_join_element_wise(begins, uri.slice(n), " "),
        "attempt": pa.repeat(1, gone),
    }
    for field in FAILURE:
        records[field.name] = pa.concat_arrays([pa.nulls(n, field.type), failed[field.name].cast(field.type)])
    records |= {"record_id": record, "uri": uri, "source": pa.repeat("photos", total), "meta": pa.repeat("{}", total)}
    written = [
        _written(store, f"records/{name}", records, RECORDS, total),
        _written(
            store, f"samples/{name}", {**about, "sample_id": sample, "start_us": zero, "end_us": zero}, SAMPLES, n
        ),
    ]
    light: dict[str, pa.Array] = {"sample_id": sample}
    for signal, (how, a, b) in SHAPES.items():
        values = (rng.gamma if how == "gamma" else rng.beta if how == "beta" else rng.normal)(a, b, n)
        light[signal] = pa.array(values.astype(np.float32))
    light["caption"] = about["text"]
    vectors = rng.standard_normal(n * DIM, dtype=np.float32)
    light["tiny"] = pa.FixedSizeListArray.from_arrays(vectors, DIM)
    why = {"stage": "annotate:light", "error": "MediaError", "message": "cannot decode", "attempt": 1}
    light["failure:light"] = pa.array([why if lost else None for lost in rng.random(n) < 0.005], pa.struct(FAILURE))
    written.append(write_named_table(store, f"signals/light/{name}", pa.table(light)))
    paths = [file.path for file in written]
    return _Part(PartitionFiles(name, paths[0], paths[1], {"signals/light": paths[2]}), written, keys_of(sample))


def _written(store: Folder, stem: str, given: dict[str, pa.Array], schema: pa.Schema, rows: int) -> File:
    columns = [given.get(f.name, pa.nulls(rows, f.type)) for f in schema]
    return write_named_table(store, stem, pa.table(columns, names=schema.names).cast(schema))


def _links(store: Folder, rng: np.random.Generator, recipe: Recipe, parts: list[PartitionFiles], ids: Keys) -> None:
    """5 % of the samples are made near duplicates of another: what comparing them would have found."""
    [spec] = recipe.decide.near_duplicates
    fragments = [part.signals["signals/light"] for part in parts]
    made_from = [digest_of_rows(fragments), spec.embedding, spec.cells, recipe.seed, EXACT_ROWS, CELL_ROWS, ALIKE]
    key = key_of(["cosine", *made_from])[:16]
    ends = ids[rng.permutation(len(ids))[: len(ids) // 10]].reshape(2, -1)
    ends.sort(axis=0)
    table = pa.table(
        {"a": names_of(ends[0]), "b": names_of(ends[1]), "similarity": rng.uniform(0.9, 1, ends.shape[1])}, LINKS
    )
    write_table(store, f"pairs/{key}-{spec.threshold!r}/part-00000-of-00001.parquet", table)


def _ids(rng: np.random.Generator, count: int) -> pa.Array:
    return names_of(np.frombuffer(rng.bytes(16 * count), "S16"))


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), *map(int, sys.argv[2:])))

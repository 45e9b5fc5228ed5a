"""Small whole builds, written by the functions that the pipeline calls: fragments, shards, verdicts, manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.schema import ids
from curate.schema.codec import CodecCard
from curate.schema.manifest import MANIFEST, Counts, File, Manifest
from curate.schema.recipe import Pack
from curate.schema.tables import LEDGER, SAMPLES
from curate.schema.verdict import Failure
from curate.shards.commit import describe_file, write_manifest
from curate.shards.fragments import write_fragment
from curate.shards.lists import write_lists
from curate.shards.pack import (
    ShardResult,
    Tokenized,
    count_kept,
    pack_range,
    plan_pack,
    splits_of,
    stream_entries,
)
from curate.shards.pack_plan import PackTask
from curate.shards.schema import KEY_NAMES, StreamSpec
from curate.storage import Folder, Store
from curate.storage.tables import write_table

COMMON = {
    "index_order": "as written",
    "input": "none",
    "weights_digest": "0" * 64,
    "trained_on": "nothing",
    "licence": "Apache-2.0",
}
CARDS = {
    "pictures": CodecCard(
        name="pictures",
        modality="image",
        stream="tok_rgb@32",
        quantiser="fsq",
        levels=[8, 8, 8, 5, 5, 5],
        vocabulary=64000,
        dtype="uint16",
        grid=(4, 4),
        **COMMON,
    ),
    "sounds": CodecCard(
        name="sounds",
        modality="audio",
        stream="tok_audio@16k",
        quantiser="rvq",
        levels=[1024] * 8,
        vocabulary=1024,
        dtype="uint16",
        rate_hz=50,
        ids_per_frame=8,
        **COMMON,
    ),
    "words": CodecCard(
        name="words",
        modality="text",
        stream="caption",
        quantiser="bpe",
        vocabulary=300,
        dtype="uint16",
        special_tokens={"[PAD]": 0, "[EOS]": 1, "[S_0]": 2, "[S_1]": 3, "[S_2]": 4, "[S_3]": 5},
        **COMMON,
    ),
}
STREAMS = [StreamSpec.of(card.stream, card) for card in CARDS.values()]


@dataclass(frozen=True)
class Tokens:
    """One sample's ids; a stream that is absent from `ids`, or None there, is missing for this sample."""

    sample_id: str
    content_id: str
    kind: str
    start_us: int
    end_us: int
    ids: Mapping[str, Any]


def make_samples(n: int) -> list[Tokens]:
    """Sample i of n: image, clip with sound, clip without, sound, in turn; two samples share each content."""
    rng = np.random.default_rng(7)
    out = []
    for i in range(n):
        kind = ("image", "video", "video", "audio")[i % 4]
        content = ids.content_id(f"media {i // 2}".encode())
        start, end = (0, 0) if kind == "image" else (i * 1_000_000, i * 1_000_000 + 500_000)
        sample = ids.sample_id(content, start, end) if end else ids.content_id(f"picture {i}".encode())
        tokens: dict[str, Any] = {"caption": rng.integers(6, 300, i % 9), "tok_rgb@32": None}
        if kind != "audio":
            tokens["tok_rgb@32"] = rng.integers(0, 64000, (1 if kind == "image" else 1 + i % 5, 4, 4))
        if i % 4 in (1, 3):
            tokens["tok_audio@16k"] = rng.integers(0, 1024, (3 + i % 7, 8))
        out.append(Tokens(sample, content, kind, start, end, tokens))
    return out


def make_ledger(samples: list[Tokens]) -> pa.Table:
    """Each kept sample and its record, and one of each other outcome."""
    rows: list[dict[str, Any]] = []

    def add(level: str, what: str, record: str, outcome: str, **more: Any) -> None:
        row = dict.fromkeys(LEDGER.names) | {"level": level, "id": what, "record_id": record, "outcome": outcome}
        rows.append(row | {"source": "here", "uri": f"file:{record}"} | more)

    records = sorted({s.content_id for s in samples})
    for record in records:
        add("record", record, record, "sampled")
    for s in samples:
        span = {"kind": s.kind, "start_us": s.start_us, "end_us": s.end_us}
        add("sample", s.sample_id, s.content_id, "kept", **span)
    one = records[0]
    add("record", "r-dropped", "r-dropped", "dropped", rule="cut.min_seconds", value=0.4, threshold=1.0)
    add("record", "r-duplicate", "r-duplicate", "duplicate", duplicate_of=one, match="exact")
    failure = {"stage": "ingest", "error": "MediaError", "message": "cannot be opened", "attempt": 1}
    add("record", "r-failed", "r-failed", "failed", **failure)
    add("sample", "s-dropped", one, "dropped", kind="image", rule="sharpness >= 20", value=3.0, threshold=20.0)
    near = {"duplicate_of": samples[0].sample_id, "match": "near", "similarity": 0.97}
    add("sample", "s-duplicate", one, "duplicate", kind="image", **near)
    add("sample", "s-failed", one, "failed", kind="video", **(failure | {"stage": "annotate"}))
    return pa.Table.from_pylist(rows, schema=LEDGER)


def finish(
    build: Path,
    samples: list[Tokens],
    *,
    partition: int = 15,
    tasks: int = 2,
    order: Literal["hash", "partition"] = "hash",
    shard_samples: int = 16,
    splits: Mapping[str, float] | None = None,
    seed: int = 3,
    compression: Literal["none", "zstd"] = "none",
    extra: list[tuple[str, int]] | None = None,
    streams: Sequence[StreamSpec] = STREAMS,
    cards: Mapping[str, CodecCard] = CARDS,
) -> Manifest:
    """Write a whole build of `samples`, which come in partitions of `partition` samples."""
    shares = splits or {"train": 0.75, "held": 0.25}
    store = Folder(build)
    pack = Pack(shard_samples=shard_samples, splits=dict(shares), order=order, compression=compression)
    partitions = tokenized(store, samples, partition, streams)
    plans, shards = packed(store, partitions, pack, tasks, streams, seed)
    store.remove(path for one in partitions for paths in one.fragments.values() for path in paths)
    files = [shard.file for shard in shards]
    ledger = make_ledger(samples)
    store.remove(one.verdicts for one in partitions)
    for folder in ("verdicts", "samples"):
        (build / folder).mkdir(parents=True, exist_ok=True)
    # in two fragments, records and samples of one partition in both
    half = ledger.num_rows // 2
    for name, part in (("here-0", ledger.slice(0, half)), ("here-1", ledger.slice(half))):
        pq.write_table(part, build / f"verdicts/{name}.parquet")
        files.append(describe_file(store, f"verdicts/{name}.parquet", part.num_rows))
    table = pa.Table.from_pylist([_sample_row(s) for s in samples], schema=SAMPLES)
    pq.write_table(table, build / "samples/here-0.parquet")
    files.append(describe_file(store, "samples/here-0.parquet", len(samples)))
    files += [describe_file(store, path, rows) for path, rows in extra or []]
    records = len({s.content_id for s in samples})
    manifest = Manifest(
        name="tiny",
        recipe={"pack": pack.model_dump(mode="json")},
        seed=seed,
        counts=Counts(
            records={"total": records + 3, "sampled": records, "dropped": 1, "duplicate": 1, "failed": 1},
            samples={"total": len(samples) + 3, "kept": len(samples), "dropped": 1, "duplicate": 1, "failed": 1},
        ),
        splits=splits_of(list(shares), plans, shards),
        streams=stream_entries(shards, streams, {c.stream: (n, c.modality) for n, c in cards.items()}),
        signals=[],
        codecs=dict(cards),
        versions={},
        hardware="cpu",
        lists=write_lists(store, files),
    )
    commit(build, manifest)
    return manifest


def tokenized(
    store: Store,
    samples: Sequence[Tokens],
    partition: int,
    streams: Sequence[StreamSpec] = STREAMS,
    failures: Mapping[str, Failure] | None = None,
) -> list[Tokenized]:
    """Partitions of so many samples, all kept, as tokenize leaves them. `failures`: of samples, in the first stream."""
    out = []
    for number, start in enumerate(range(0, len(samples), partition)):
        name, some = f"here-{number}", samples[start : start + partition]
        fragments = {}
        for at, spec in enumerate(streams):
            failed = [(failures or {}).get(s.sample_id) if at == 0 else None for s in some]
            ids_of = [None if f else s.ids.get(spec.name) for s, f in zip(some, failed, strict=True)]
            fragments[spec.name] = [f"tokenized/{spec.name}/{name}.arrow"]
            write_fragment(store, fragments[spec.name][0], spec, keys_of(some), ids_of, failed)
        verdicts = f"verdicts/{name}.parquet"
        write_table(store, verdicts, make_ledger(list(some)))
        out.append(Tokenized(name, verdicts, fragments))
    return out


def keys_of(samples: Sequence[Tokens]) -> pa.Table:
    """The key columns of some samples."""
    return pa.table({name: [getattr(s, name) for s in samples] for name in KEY_NAMES})


def packed(
    store: Store, partitions: list[Tokenized], pack: Pack, tasks: int, streams: Sequence[StreamSpec], seed: int
) -> tuple[list[PackTask], list[ShardResult]]:
    """Count, plan and pack, as the pipeline does."""
    counts = [count_kept(store, one, seed, pack.splits) for one in partitions]
    plans = plan_pack(counts, pack, tasks)
    return plans, [shard for plan in plans for shard in pack_range(store, partitions, plan, streams, seed)]


def rewrite_files(build: Path, manifest: Manifest, files: list[File]) -> None:
    """Commit a manifest with other lists, and remove the lists that were there."""
    old = [file.path for file in manifest.lists]
    lists = write_lists(Folder(build), files)
    Folder(build).remove(set(old) - {file.path for file in lists})
    commit(build, manifest.model_copy(update={"lists": lists}))


def commit(build: Path, manifest: Manifest) -> None:
    """Put a manifest in place as a run does."""
    with Folder(build).acquire(MANIFEST) as lease:
        write_manifest(lease, manifest)


def _sample_row(s: Tokens) -> dict[str, Any]:
    row = dict.fromkeys(SAMPLES.names) | {"record_id": s.content_id, "source": "here", "uri": "file:x"}
    row |= {"media": "media/shard-00000.tar", "member": "x", "has_audio": s.ids.get("tok_audio@16k") is not None}
    return row | {k: getattr(s, k) for k in ("sample_id", "content_id", "kind", "start_us", "end_us")}


TinyBuild = Callable[..., Path]
"""Type of the fixture `tiny_build`."""

"""A small build with real media, working tokenizers and tables in their true schemas, made by hand."""

from __future__ import annotations

import io
import tarfile
import wave
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import skimage
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from toy_tokenizers import ColourGrid, Steps

from curate.card.facts import gather
from curate.card.write import write_card
from curate.schema.ids import content_id, digest, record_id, sample_id
from curate.schema.manifest import MANIFEST, Counts, File, Manifest, ModelEntry, Split, StreamEntry
from curate.schema.tables import FAILURE, FAILURE_NAMES, LEDGER, RECORDS, SAMPLES
from curate.shards.commit import write_manifest
from curate.shards.lists import write_lists
from curate.shards.order import order_keys, shard_of
from curate.shards.tables import Tables, open_tables
from curate.storage import Folder
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer

Streams = dict[str, tuple[str, list[int | None]]]
STREAMS: Streams = {
    "tok_rgb@256": ("colour-grid", [None, 32, 32]),
    "tok_audio@16k": ("steps", [None, 8]),
    "caption": ("text-bpe-8k", [None]),
}
TRAINED: Streams = {
    "tok_rgb@256": ("image-fsq-64k", [None, 32, 32]),
    "tok_audio@16k": ("audio-rvq-4kbps", [None, 8]),
    "caption": ("text-bpe-8k", [None]),
}
RULES = [
    {"field": "brightness", "min": 16, "max": 250},
    {"field": "sharpness", "min": 20},
    {"field": "loudness", "min_percentile": 25, "kinds": ["audio"]},
]
SIGNALS: list[dict[str, Any]] = [
    {
        "name": "sharpness",
        "version": "1",
        "options": {},
        "fields": [
            {
                "name": "sharpness",
                "unit": "grey levels^2",
                "range": [0, 1040400],
                "kinds": ["image", "video"],
                "about": "Variance of the Laplacian of luma.",
                "type": "float",
            }
        ],
    },
    {
        "name": "brightness",
        "version": "1",
        "options": {},
        "fields": [
            {
                "name": "brightness",
                "unit": "luma",
                "range": [0, 255],
                "kinds": ["image", "video"],
                "about": "Mean luma.",
                "type": "float",
            }
        ],
    },
    {
        "name": "loudness",
        "version": "1+numpy",
        "options": {"window": 0.4},
        "fields": [
            {
                "name": "loudness",
                "unit": "dB",
                "range": [-100, 0],
                "kinds": ["video", "audio"],
                "about": "RMS level.",
                "type": "float",
            }
        ],
    },
    {
        "name": "tags",
        "version": "2",
        "options": {},
        "fields": [
            {"name": "tags", "unit": "", "range": [None, None], "kinds": ["image"], "about": "Labels.", "type": "list"},
            {
                "name": "vector",
                "unit": "",
                "range": [None, None],
                "kinds": ["image"],
                "about": "An embedding.",
                "type": "fixed_size_list",
            },
        ],
    },
    {
        "name": "caption",
        "version": "1",
        "options": {},
        "fields": [
            {"name": "caption", "unit": "", "range": [None, None], "about": "What it shows.", "type": "string"},
            {"name": "caption_source", "unit": "", "range": [None, None], "about": "Whence.", "type": "string"},
        ],
    },
]
FIELD_TYPES = {
    "sharpness": pa.float32(),
    "brightness": pa.float32(),
    "loudness": pa.float32(),
    "tags": pa.list_(pa.string()),
    "vector": pa.list_(pa.float32(), 4),
    "caption": pa.string(),
    "caption_source": pa.string(),
}
GROUPS = {"light": ("sharpness", "brightness", "loudness"), "tags": ("tags",), "caption": ("caption",)}
SEED = 7
PARTITION = 4
"""Records of a partition."""


@dataclass
class Item:
    """What goes into a build: a record, its samples, and what becomes of them.

    `clips` are spans in seconds; None is one sample of the whole. `outcome` is that of the record where it is not
    `sampled`, else that of its samples.
    """

    name: str
    data: bytes
    kind: str | None
    text: str | None = None
    duration: float | None = None
    size: tuple[int, int] | None = None
    clips: Sequence[tuple[float, float]] | None = None
    outcome: str = "kept"
    of_record: bool = False
    why: dict[str, Any] = field(default_factory=dict)
    same_as: str | None = None
    source: str = "folder"
    licence: str | None = "CC-BY-4.0"
    caption_source: str = "given"
    encode: bool = True

    @property
    def record(self) -> str:
        return record_id(self.source, self.name)


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()


def photo(name: str, long_side: int = 400) -> Image.Image:
    """An image that scikit-image ships."""
    with Image.open(Path(skimage.__file__).parent / "data" / name) as opened:
        image = opened.convert("RGB")
    image.thumbnail((long_side, long_side))
    return image


def tone(seconds: float, hertz: float, level: float = 0.4) -> NDArray[np.int16]:
    """A chirp over a hum, 16 kHz."""
    t = np.arange(int(seconds * 16000)) / 16000
    waveform = level * (0.7 * np.sin(2 * np.pi * (hertz + 120 * t) * t) + 0.3 * np.sin(2 * np.pi * 110 * t))
    return np.round(waveform * 32767).astype(np.int16)


def wav(waveform: NDArray[np.int16]) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(waveform.tobytes())
    return out.getvalue()


def video(seconds: float = 4.0, fps: int = 10) -> bytes:
    """Two shots of moving parts of two photographs, with sound."""
    one, two = (np.asarray(photo(n, 420).resize((420, 300))) for n in ("coffee.png", "rocket.jpg"))
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        images = container.add_stream("libx264", rate=fps)
        images.width, images.height, images.pix_fmt = 320, 240, "yuv420p"
        images.options = {"threads": "1", "crf": "20"}
        audio = container.add_stream("aac", rate=16000, layout="mono")
        for i in range(int(seconds * fps)):
            shot, at = (one, i) if i < seconds * fps / 2 else (two, i - seconds * fps / 2)
            x = int(4 * at)
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(shot[20:260, x : x + 320]), format="rgb24")
            container.mux(images.encode(frame))
        container.mux(images.encode())
        samples = av.AudioFrame.from_ndarray(tone(seconds, 330)[None], format="s16", layout="mono")
        samples.sample_rate = 16000
        container.mux(audio.encode(samples))
        container.mux(audio.encode())
    return out.getvalue()


def luma_facts(image: Image.Image) -> tuple[float, float]:
    """Sharpness and brightness."""
    grey = np.asarray(image.convert("L").resize((224, 224)), dtype=np.float64)
    laplace = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
    return float(laplace.var()), float(grey.mean())


def image_item(name: str, image: Image.Image, text: str | None, **more: Any) -> Item:
    return Item(name, jpeg(image), "image", text, size=image.size, **more)


def items() -> list[Item]:
    """Everything that can happen, once or more."""
    photos = {
        "astronaut.png": "An astronaut in an orange suit before a flag",
        "chelsea.png": "A ginger cat looks at the camera",
        "coffee.png": "A cup of espresso on a saucer with a spoon",
        "rocket.jpg": "A rocket on its launch pad",
        "motorcycle_left.png": "A motorcycle in a garage",
        "brick.png": None,
    }
    out = [image_item(n, photo(n), t, caption_source="given" if t else "composed") for n, t in photos.items()]
    cat = photo("chelsea.png")
    small = cat.resize((cat.width * 6 // 10, cat.height * 6 // 10))
    out += [
        image_item(
            "copies/cat small.jpg", small, "cat", outcome="duplicate", same_as="chelsea.png", why={"similarity": 0.973}
        ),
        Item(
            "copies/rocket again.jpg",
            jpeg(photo("rocket.jpg")),
            "image",
            size=photo("rocket.jpg").size,
            outcome="duplicate",
            of_record=True,
            same_as="rocket.jpg",
        ),
        image_item(
            "faults/blurred.jpg",
            photo("astronaut.png").filter(ImageFilter.GaussianBlur(9)),
            "an astronaut, blurred",
            outcome="dropped",
            why={"rule": "sharpness >= 20", "threshold": 20.0, "field": "sharpness"},
        ),
        image_item(
            "faults/dark.jpg",
            photo("coffee.png").point(lambda v: v // 18),
            "coffee in the dark",
            outcome="dropped",
            why={"rule": "brightness >= 16", "threshold": 16.0, "field": "brightness"},
        ),
        Item(
            "faults/short.wav",
            wav(tone(0.4, 500)),
            "audio",
            duration=0.4,
            outcome="dropped",
            of_record=True,
            why={"rule": "cut.min_seconds", "value": 0.4, "threshold": 1.0},
        ),
        Item("faults/empty.mp4", b"", None, outcome="failed", of_record=True, why=fault("ingest", "the file is empty")),
        Item(
            "faults/text called.jpg",
            b"no image",
            None,
            outcome="failed",
            of_record=True,
            why=fault("ingest", "not an image, video or sound"),
            source="web",
        ),
        Item(
            "film.mp4",
            video(),
            "video",
            "Coffee, then a rocket",
            4.0,
            (320, 240),
            clips=[(0, 2), (2, 4)],
            licence="MIT",
        ),
        Item(
            "faults/tail missing.mp4",
            video(2.0),
            "video",
            None,
            3.0,
            (320, 240),
            clips=[(0.5, 3)],
            outcome="failed",
            why=fault("annotate", "the video ends at 2.0 s"),
        ),
    ]
    for i, hertz in enumerate((220, 440, 880)):
        text = f"A rising tone from {hertz} Hz"
        out.append(
            Item(f"sound {i}.wav", wav(tone(2.5 + i, hertz, 0.4 - 0.1 * i)), "audio", text, 2.5 + i, source="web")
        )
    # loudness falls with each, -12.5, -13.5 and -14.5 dB: their 25th percentile is -14
    out[-1].outcome, out[-1].why = "dropped", {"rule": "loudness >= p25", "threshold": -14.0, "field": "loudness"}
    return out


def fault(stage: str, message: str) -> dict[str, Any]:
    return {"stage": stage, "error": "MediaError", "message": message, "attempt": 1}


class Builder:
    """Writes a build's folder and gives its manifest."""

    def __init__(
        self,
        build: Path,
        items: Sequence[Item],
        rules: Sequence[dict[str, Any]] = RULES,
        name: str = "tiny",
        streams: Streams = STREAMS,
        order: str = "hash",
        shard_samples: int = 4,
    ) -> None:
        self.order = order
        self.shard_samples = shard_samples
        self.build = build
        self.streams = streams
        self.name = name
        self.rules = list(rules)
        self.files: list[File] = []
        self.ledger: list[dict[str, Any]] = []
        self.signals: list[dict[str, Any]] = []
        self.tokens: list[dict[str, Any]] = []
        self.by_name = {i.name: i for i in items}
        sources = sorted({i.source for i in items})
        for source in sources:
            own = [i for i in items if i.source == source]
            for start in range(0, len(own), PARTITION):
                plain = "".join(c if c.isalnum() else "_" for c in source)
                self._partition(f"{plain}-{start:016x}", own[start : start + PARTITION])
        self._shards()

    def _partition(self, name: str, items: Sequence[Item]) -> None:
        self.partition = name
        self.records: list[dict[str, Any]] = []
        self.samples: list[dict[str, Any]] = []
        self.rows: list[dict[str, Any]] = []  # of signals, one a sample
        self.verdicts: dict[str, list[dict[str, Any]]] = {"record": [], "sample": []}
        self.offsets: dict[str, int] = {}
        self._media(items)
        for item in items:
            self._add(item)
        self._tables()

    def manifest(self) -> Manifest:
        counts: dict[str, dict[str, int]] = {}
        outcomes = {
            "record": ("sampled", "dropped", "duplicate", "failed"),
            "sample": ("kept", "dropped", "duplicate", "failed"),
        }
        for level, names in outcomes.items():
            rows = [r["outcome"] for r in self.ledger if r["level"] == level]
            counts[f"{level}s"] = {"total": len(rows), **{n: rows.count(n) for n in names}}
        split = [f for f in self.files if f.path.startswith("tokens/")]
        streams = []
        for stream, (name, shape) in self.streams.items():
            card = tokenizer(name).card
            values = [t[stream] for t in self.tokens if t[stream] is not None]
            streams.append(
                StreamEntry(
                    name=stream,
                    tokenizer=name,
                    modality=card.modality,
                    vocabulary=card.vocabulary,
                    dtype=card.dtype,
                    shape=shape,
                    ids=sum(v.size for v in values),
                    samples=len(values),
                )
            )
        return Manifest(
            name=self.name,
            recipe={
                "name": "tiny",
                "about": "Images, a film and sounds, and everything that can go wrong with them.",
                "sources": [{"name": "folder", "kind": "folder", "path": "media"}],
                "annotate": [{"name": s["name"]} for s in SIGNALS[:4]],
                "decide": {"rules": self.rules, "near_duplicates": [{"embedding": "vector", "threshold": 0.95}]},
                "tokenize": {"streams": [{"name": n, "tokenizer": t} for n, (t, _) in self.streams.items()]},
                "pack": {"order": self.order, "shard_samples": self.shard_samples, "splits": {"train": 1.0}},
            },
            seed=SEED,
            counts=Counts(**counts),
            splits=[
                Split(
                    name="train",
                    samples=len(self.tokens),
                    shards=[f.path for f in split],
                    shard_rows=[f.rows for f in split],
                )
            ],
            streams=streams,
            signals=SIGNALS,
            models=[ModelEntry(name="vector", of="signal", device="cuda", dtype="bfloat16", batch=32)],
            codecs={t: tokenizer(t).card for t, _ in self.streams.values()},
            versions={"curate": "0.1", "numpy": np.__version__},
            hardware="x86_64, 1 thread",
            lists=write_lists(Folder(self.build), self.files),
        )

    def _add(self, item: Item) -> None:
        content = content_id(item.data)
        probe = {
            "width": item.size[0] if item.size else None,
            "height": item.size[1] if item.size else None,
            "duration": item.duration,
            "fps": 10.0 if item.kind == "video" else None,
            "has_audio": item.kind != "image",
            "codec": None,
            "audio_rate": None,
        }
        where: dict[str, Any] = {"media": None, "member": None, "offset": None, "bytes": len(item.data)}
        if item.kind:
            where |= {"media": self._media_path, "member": content, "offset": self.offsets[content]}
        common = {"record_id": item.record, "source": item.source, "uri": item.name, "kind": item.kind}
        failure = {k: v for k, v in item.why.items() if k in ("stage", "error", "message", "attempt")}
        self.records.append(
            {
                **common,
                **probe,
                **where,
                "text": item.text,
                "licence": item.licence,
                "meta": "{}",
                "content_id": content,
                **(failure if item.of_record else {}),
            }
        )
        record = {"level": "record", "id": item.record, **common, "start_us": None, "end_us": None}
        if item.of_record:
            keeper = self.by_name[item.same_as].record if item.same_as else None
            why = {k: v for k, v in item.why.items() if k != "field"}
            match = "exact" if keeper else None
            why |= {"duplicate_of": keeper, "match": match}
            self.verdicts["record"].append({**record, "outcome": item.outcome, **why})
        else:
            self.verdicts["record"].append({**record, "outcome": "sampled"})
        if item.outcome == "failed" and item.of_record:
            return  # nothing could be cut from it
        for start, end in item.clips or [(0, (item.duration or 0) if item.kind == "audio" else 0)]:
            self._sample(item, content, common, {**probe, **where}, round(1e6 * (start or 0)), round(1e6 * (end or 0)))

    def _sample(
        self, item: Item, content: str, common: dict[str, Any], rest: dict[str, Any], start: int, end: int
    ) -> None:
        sample = sample_id(content, start, end)
        span = {"start_us": start, "end_us": end}
        duration = (end - start) / 1e6 if end else None
        row = {"sample_id": sample, "content_id": content, **common, **rest, **span, "duration": duration}
        self.samples.append({**row, "text": item.text, "licence": item.licence})
        signals = self._signals(item)
        failure = {k: v for k, v in item.why.items() if k in FAILURE_NAMES}
        failures = {f"failure:{s['name']}": failure or None for s in SIGNALS}
        self.rows.append({"sample_id": sample, **signals, **failures})
        if item.of_record:
            return  # a sample of a record that was dropped or is a duplicate has no verdict
        self.signals.append({"sample_id": sample, **signals})
        verdict = {"level": "sample", "id": sample, **common, **span, "outcome": item.outcome, **failure}
        if item.outcome == "dropped":
            verdict |= {k: item.why[k] for k in ("rule", "threshold")} | {"value": signals[item.why["field"]]}
        if item.same_as:
            keeper = sample_id(content_id(self.by_name[item.same_as].data))
            verdict |= {"duplicate_of": keeper, "match": "near", "similarity": item.why["similarity"]}
        self.verdicts["sample"].append(verdict)
        if item.outcome == "kept":
            self.tokens.append(
                {"sample_id": sample, "content_id": content, "kind": item.kind, **span, **self._ids(item, span)}
            )

    def _signals(self, item: Item) -> dict[str, Any]:
        out: dict[str, Any] = dict.fromkeys(FIELD_TYPES)
        if item.outcome == "failed":
            return out
        if item.kind == "image":
            out["sharpness"], out["brightness"] = luma_facts(Image.open(io.BytesIO(item.data)))
            out["tags"], out["vector"] = ["object", item.name.split(".")[0]], [1.0, 0.0, 0.0, 0.0]
        if item.kind == "video":
            out["sharpness"], out["brightness"] = 900.0, 120.0
        if item.kind in ("audio", "video"):
            out["loudness"] = -12.5 if item.kind == "video" else -10.0 - (item.duration or 0)
        out["caption"] = item.text or "A picture of brick."
        out["caption_source"] = item.caption_source
        return out

    def _ids(self, item: Item, span: dict[str, int]) -> dict[str, NDArray[Any] | None]:
        """Ids as the pipeline would make them; videos by the project's own decoder."""
        from curate.media.decode import Span, decode
        from curate.media.requests import Audio, DecodeRequest, Frames

        out: dict[str, NDArray[Any] | None] = dict.fromkeys(self.streams)
        image, audio, text = (tokenizer(t) for t, _ in self.streams.values())
        if not item.encode:
            return out
        frames, audio_view = Frames(256), Audio(16000)
        by_kind: dict[str, list[DecodeRequest]] = {
            "image": [frames],
            "video": [frames, audio_view],
            "audio": [audio_view],
        }
        views = by_kind[str(item.kind)]
        clip = Span(span["start_us"], span["end_us"]) if span["end_us"] else None
        got = decode(item.data, str(item.kind), views, span=clip).views
        if frames in got:
            out["tok_rgb@256"] = image.encode([got[frames]])[0].ravel()
        if audio_view in got:
            out["tok_audio@16k"] = audio.encode([got[audio_view].astype(np.float32) / 32768])[0].ravel()
        out["caption"] = text.encode([item.text or "A picture of brick."])[0]
        return out

    @property
    def _media_path(self) -> str:
        return f"media/{self.partition}-{'a' * 16}.tar"

    def _media(self, items: Sequence[Item]) -> None:
        path = self._path(self._media_path)
        names: set[str] = set()
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for item in items:
                name = content_id(item.data)
                if item.kind and name not in names:
                    names.add(name)
                    self.offsets[name] = tar.offset + 512  # behind its header
                    info = tarfile.TarInfo(name)
                    info.size = len(item.data)
                    tar.addfile(info, io.BytesIO(item.data))
        self._list(self._media_path, len(names))

    def _tables(self) -> None:
        name = f"{self.partition}-{'b' * 16}"
        self._parquet(f"records/{name}.parquet", self.records, RECORDS)
        self._parquet(f"samples/{name}.parquet", self.samples, SAMPLES)
        for group, members in GROUPS.items():
            fields = [f["name"] for s in SIGNALS for f in s["fields"] if s["name"] in members]
            schema = pa.schema(
                [
                    pa.field("sample_id", pa.string(), False),
                    *(pa.field(f, FIELD_TYPES[f]) for f in fields),
                    *(pa.field(f"failure:{s}", pa.struct(FAILURE)) for s in members),
                ]
            )
            self._parquet(f"signals/{group}/{name}.parquet", self.rows, schema)
        rows = self.verdicts["record"] + self.verdicts["sample"]
        self._parquet(f"verdicts/{self.partition}-{'c' * 16}.parquet", rows, LEDGER)
        self.ledger += rows

    def _shards(self) -> None:
        types = {n: pa.list_(pa.from_numpy_dtype(tokenizer(t).card.numpy_dtype)) for n, (t, _) in self.streams.items()}
        plain = [("sample_id", pa.string()), ("content_id", pa.string()), ("kind", pa.string())]
        schema = pa.schema([*plain, ("start_us", pa.int64()), ("end_us", pa.int64()), *types.items()])
        rows, places = self.tokens, np.arange(len(self.tokens)) // self.shard_samples
        if self.order == "hash":
            keys = order_keys(SEED, pa.array([str(t["sample_id"]) for t in rows], pa.string()))
            rows = [rows[i] for i in np.argsort(keys)]
            places = shard_of(np.sort(keys), max(1, -(-len(rows) // self.shard_samples)))
        for number in sorted(set(places.tolist())):
            own = [row for row, place in zip(rows, places, strict=True) if place == number]
            path = f"tokens/train/shard-{number:05d}-{'d' * 16}.arrow"
            with pa.ipc.new_file(self._path(path), schema) as writer:
                writer.write_table(pa.Table.from_pylist(own, schema=schema), max_chunksize=2)
            self._list(path, len(own))

    def _parquet(self, path: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
        full = [{name: row.get(name) for name in schema.names} for row in rows]
        pq.write_table(pa.Table.from_pylist(full, schema=schema), self._path(path))
        self._list(path, len(rows))

    def _path(self, relative: str) -> Path:
        path = self.build / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _list(self, path: str, rows: int) -> None:
        data = (self.build / path).read_bytes()
        self.files.append(File(path=path, digest=digest(data), bytes=len(data), rows=rows))


_LOADED: dict[str, Tokenizer] = {"colour-grid": ColourGrid(), "steps": Steps()}


def tokenizer(name: str) -> Tokenizer:
    """The toy tokenizers and the project's own, loaded once for all tests."""
    if name not in _LOADED:
        _LOADED[name] = zoo.load(name)
    return _LOADED[name]


@dataclass(frozen=True)
class Card:
    build: Path
    manifest: Manifest
    files: list[File]
    html: str
    readme: str


@dataclass(frozen=True)
class Watched(Folder):
    """A folder that counts how often each file is opened."""

    opened: Counter[str] = field(default_factory=Counter)

    def local(self, path: str) -> Path:
        self.opened[path] += 1
        return super().local(path)


@contextmanager
def opened(builder: Builder) -> Iterator[Tables]:
    """The tables of a build, after the pass that the card begins with."""
    with open_tables(Folder(builder.build), builder.manifest(), builder.files) as tables:
        gather(tables)
        yield tables


def committed(builder: Builder) -> Path:
    """The folder of a build with its manifest in place."""
    build = Folder(builder.build)
    with build.acquire(MANIFEST) as lease:
        write_manifest(lease, builder.manifest())
    return builder.build


def make_card(build: Path, items: Sequence[Item], **more: Any) -> Card:
    """A build of `items` and its card."""
    builder = Builder(build, items, **more)
    manifest = builder.manifest()
    assert write_card(Folder(build), manifest, builder.files, tokenizer) == ["card/index.html", "card/README.md"]
    texts = [(build / "card" / name).read_text("utf-8") for name in ("index.html", "README.md")]
    return Card(build, manifest, builder.files, *texts)

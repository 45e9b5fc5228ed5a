"""The recipe: one YAML file that says all of a build. `schemas/recipe.schema.json` is made from these classes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from curate.schema.fields import KINDS

Kind = Literal["image", "video", "audio", "array"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Fetch(_Part):
    """How http(s) uris of a table are fetched."""

    concurrency: int = Field(8, ge=1, le=1024, description="requests at once in one worker")
    timeout: float = Field(30, gt=0, le=3600, description="seconds for one attempt at a file, connect to last byte")
    attempts: int = Field(
        4, ge=1, le=20, description="tries at a file whose error may pass: 408, 425, 429, 5xx, timeout, connection lost"
    )
    max_wait: float = Field(
        30,
        ge=0,
        le=3600,
        description="longest seconds between two attempts, whatever the server's Retry-After asks for",
    )
    max_bytes: int = Field(512 << 20, gt=0, description="larger files are refused")
    allow_private: bool = Field(False, description="allow loopback, private and link-local addresses")
    user_agent: str = Field(
        "curate-tokens/0.1 (+dataset building; see docs)",
        min_length=1,
        description="User-Agent that servers are sent",
    )


class _Source(_Part):
    name: Name = Field(description="unique; part of each record's id")
    licence: str | None = Field(None, description="licence of records that state none of their own")


class FolderSource(_Source):
    """Every media file under a folder or an s3:// prefix; text from a sidecar of its stem (.txt or .json), if any."""

    kind: Literal["folder"] = Field(description="this source")
    path: str = Field(description="a folder, or s3://bucket/prefix")


class TarSource(_Source):
    """WebDataset tars: members of one key are one record; text from .txt, or from .json's `caption` or `text`."""

    kind: Literal["webdataset"] = Field(description="this source")
    path: str = Field(description="one tar or a glob; both also as s3://bucket/...")


class TableSource(_Source):
    """A parquet, csv or jsonl table of uris: paths (relative to the table), file://, s3:// or http(s)://."""

    kind: Literal["table"] = Field(description="this source")
    path: str = Field(description="a file, or s3://bucket/key")
    uri: str = Field("uri", description="column of the uri")
    text: str | None = Field("text", description="column of the text, where there is one")
    licence_column: str | None = Field(None, description="column of each record's own licence")
    base_url: str | None = Field(
        None, description="http(s):// or s3://, put before relative uris; may hold ${VARIABLE}"
    )
    fetch: Fetch = Field(Fetch(), description="how http(s) uris are fetched")


SOURCES = ("folder", "webdataset", "table")


class PluginSource(_Source):
    """A source of your own, by its entry point or `package.module:Class`; other keys are its options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    kind: str = Field(
        json_schema_extra={"not": {"enum": [*SOURCES]}}, description="entry point, or package.module:Class"
    )
    path: str = Field(description="what it reads; relative to the recipe's folder, where it is a path")
    fetch: Fetch = Field(Fetch(), description="how http(s) uris are fetched")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _kind(source: Any) -> str | None:
    """The tag of a source: its kind, or `plugin`."""
    kind = source.get("kind") if isinstance(source, dict) else getattr(source, "kind", None)
    return kind if kind is None or kind in SOURCES else "plugin"


Source = Annotated[
    Annotated[FolderSource, Tag("folder")]
    | Annotated[TarSource, Tag("webdataset")]
    | Annotated[TableSource, Tag("table")]
    | Annotated[PluginSource, Tag("plugin")],
    Discriminator(_kind),
]


class Shots(_Part):
    """Where a video is cut."""

    detector: str = Field(
        "content",
        description="content: differences of neighbouring frames; adaptive: those above their rolling mean; or "
        "`package.module:function` of one of your own (a plugin of the kind `detector`)",
    )
    threshold: float | None = Field(None, gt=0, description="the detector's own default (27 and 3) where absent")
    min_frames: int = Field(15, ge=1, description="shortest shot the detector makes")


class Media(_Part):
    """How media are decoded."""

    reader: Literal["pyav", "decord"] = Field(
        "pyav",
        description="what makes the pixels of video. `decord` (of the extra `decord`) does of upright H.264 of a "
        "constant rate in MP4 and Matroska; of all else PyAV does, which also says where frames, shots and damage "
        "are. The frames are the same, their chroma is interpolated otherwise: signals and tokens are made anew",
    )


class Cut(_Part):
    """From records to samples. Every second of a record ends in some sample; the ledger says which were too short."""

    shots: Shots = Field(Shots(), description="how shots of a video are found; clips never cross a cut")
    min_seconds: float = Field(1.0, ge=0, description="shorter clips and segments are dropped, rule `cut.min_seconds`")
    max_seconds: float = Field(
        10.0, gt=0, description="longer shots and audio are cut into equal parts no longer than this"
    )
    max_samples: int = Field(
        10_000,
        ge=1,
        description="a record that would be cut into more fails: a small file may seem to last a day. 24 hours in "
        "parts of 10 s are 8,640",
    )

    @model_validator(mode="after")
    def _order(self) -> Cut:
        if self.max_seconds < 2 * self.min_seconds:
            raise ValueError("max_seconds must be at least twice min_seconds, or equal parts could be too short")
        return self


class SignalUse(_Part):
    """A signal to compute: its name and its options."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = Field(description="built-in, an entry point, or package.module:Class; other keys are its options")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Caption(_Part):
    """Text of a sample: what the source gave, else a captioner's, else composed of tags, OCR text and speech."""

    prefer: list[Literal["given", "captioner", "composed"]] = Field(
        ["given", "captioner", "composed"], description="origins of the text in order: the first that has one gives it"
    )
    captioner: str | None = Field(None, description="local folder or hub id of a transformers image-to-text model")
    max_chars: int = Field(2000, gt=0, description="longer captions are cut to that many characters")


class Rule(_Part):
    """Keep samples whose field lies within bounds. Bounds are absolute, or percentiles of all samples that have it."""

    field: str = Field(description="a number that a signal or probing gives, e.g. sharpness, duration, width")
    min: float | None = Field(None, description="lower values are dropped; in the field's unit and range")
    max: float | None = Field(None, description="greater values are dropped; in the field's unit and range")
    min_percentile: float | None = Field(None, ge=0, le=100, description="values below this percentile are dropped")
    max_percentile: float | None = Field(None, ge=0, le=100, description="values above this percentile are dropped")
    kinds: list[Kind] = Field(list(KINDS), description="kinds of samples that the rule looks at")  # type: ignore[arg-type]

    @model_validator(mode="after")
    def _some_bound(self) -> Rule:
        if self.min is None and self.max is None and self.min_percentile is None and self.max_percentile is None:
            raise ValueError("a rule needs one of min, max, min_percentile, max_percentile")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min:g} is above max {self.max:g}: nothing could pass")
        return self


class NearDuplicates(_Part):
    """Pairs of one kind whose embeddings have a cosine of at least `threshold`; groups are connected components, over
    all samples that have the embedding, dropped ones too."""

    method: str = Field("cosine", description="how pairs are found; `cosine` compares embeddings, others are plugins")
    embedding: str = Field(description="a vector field of a signal")
    threshold: float = Field(0.95, gt=0, le=1, description="cosine")
    keep: list[str] = Field(["pixels", "duration"], description="largest first; ties go to the smallest sample_id")
    cells: int | None = Field(
        None, ge=1, description="k-means cells; sqrt(n) rounded up to a power of two where absent"
    )


class Decide(_Part):
    """Verdicts. `records` rules look at probed columns, `rules` at signals."""

    records: list[Rule] = Field([], description="rules for records, before they are cut; on probed fields only")
    rules: list[Rule] = Field([], description="rules for samples; the first that a sample breaks drops it")
    near_duplicates: list[NearDuplicates] = Field([], description="searches; their pairs count together")


class Stream(_Part):
    """One token stream."""

    name: Name = Field(description="of its column in the shards, e.g. tok_rgb@256; unique")
    tokenizer: str = Field(
        description="a name of `curate tokenizers list`, a folder with card.json, or package.module:Class"
    )
    fps: float | None = Field(
        None,
        gt=0,
        le=120,
        description="of video: frames per second. Absent: 1 for images' tokenizers, the card's or 8 for video's",
    )
    max_frames: int | None = Field(
        None,
        ge=1,
        description="most frames of a sample, 1 + stride * k for tokenizers of video. Absent: 8 for images' "
        "tokenizers, 17 for video's",
    )
    pad: bool = Field(
        False,
        description="tokenizers of video take 1 + stride * k frames: repeat a clip's last frame up to that count "
        "(shards say so, and which frames are its own follows from its span), or leave out the frames too many; the "
        "manifest counts both",
    )


class Tokenize(_Part):
    streams: list[Stream] = Field(min_length=1, description="token streams; each is a column of the shards")
    crops: int = Field(
        1,
        ge=1,
        le=64,
        description="of each image, for streams of images: the centre square, then random resized crops drawn from "
        "the sample's id, the same for every stream (4M's crop_settings: curate.media.crops)",
    )


class Pack(_Part):
    shard_samples: int = Field(
        1024, ge=1, description="samples in one shard: about so many, or with `order: partition` exactly"
    )
    order: Literal["hash", "partition"] = Field(
        "hash",
        description="hash: an order drawn from the seed, shards are ranges of it. partition: as partitions come, for "
        "those who shuffle while streaming; packing then reads each partition once",
    )
    splits: dict[Name, float] = Field(
        {"train": 1.0}, description="share of each split; all samples of one record go to one"
    )

    @model_validator(mode="after")
    def _sum(self) -> Pack:
        if not self.splits or any(v <= 0 for v in self.splits.values()) or abs(sum(self.splits.values()) - 1) > 1e-6:
            raise ValueError("shares of splits must be above 0 and add up to 1")
        return self


class Recipe(_Part):
    """A whole build."""

    name: Name = Field(description="of the build")
    about: str = Field("", description="what the dataset is for, in a sentence or two; shown on its card")
    demo: Literal["quickstart"] | None = Field(
        None, description="prepare this demonstration's media, and serve a part over http"
    )
    seed: int = Field(0, ge=0, description="of the order of samples, of splits and of k-means")
    partition: int = Field(
        1024,
        ge=1,
        le=65_536,
        description="most records in one partition, a slice of a tar, of a table's row group or of a page of a folder: "
        "what one worker does at a time, what is done again after a crash, and a file of each stage. A partition also "
        "ends at 32 records named as video or audio, and at 128 MiB of listed files. A smaller number lets "
        "more CPUs share a few hundred images; a larger one makes fewer files",
    )
    sources: list[Source] = Field(min_length=1, description="where records come from")
    media: Media = Field(Media(), description="how media are decoded")
    cut: Cut = Field(Cut(), description="how records become samples")
    annotate: list[SignalUse] = Field(min_length=1, description="signals to compute; none of them drops anything")
    caption: Caption = Field(Caption(), description="where a sample's text comes from")
    decide: Decide = Field(Decide(), description="what is dropped, and what is a duplicate")
    tokenize: Tokenize = Field(description="what becomes ids")
    pack: Pack = Field(Pack(), description="how shards are written")
    max_failed: float = Field(
        0.5,
        ge=0,
        le=1,
        description="when failed records / all records, or failed samples / all samples, is above this, `curate run` "
        "exits with 3 and names the causes. The build is made all the same. Dropped and duplicate are not failed",
    )

    @property
    def sample_rules(self) -> list[Rule]:
        """The rules for samples: the shortest length that `cut` sets, then those of `decide`."""
        shortest = self.cut.min_seconds
        first = [Rule(field="duration", min=shortest, kinds=["video", "audio"])] if shortest > 0 else []
        return [*first, *self.decide.rules]

    @model_validator(mode="after")
    def _unique(self) -> Recipe:
        for what, names in (
            ("source", [s.name for s in self.sources]),
            ("signal", [s.name for s in self.annotate]),
            ("stream", [s.name for s in self.tokenize.streams]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{what} names must be unique; twice: {', '.join(twice)}")
        return self

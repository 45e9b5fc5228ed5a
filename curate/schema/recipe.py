"""The recipe: one YAML file that says all of a build. `schemas/recipe.schema.json` is made from these classes."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from curate.schema.fields import KINDS

Kind = Literal["image", "video", "audio", "array"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@-]*$")]


class _Part(BaseModel):
    # written by the names that a recipe reads, so that what the manifest holds is a recipe again
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)


class Fetch(_Part):
    """How http(s) uris of a table are fetched."""

    concurrency: int = Field(8, ge=1, le=1024, description="requests at once in one worker")
    timeout: float = Field(30.0, gt=0, le=3600, description="seconds for one attempt at a file, connect to last byte")
    attempts: int = Field(
        4, ge=1, le=20, description="tries at a file whose error may pass: 408, 425, 429, 5xx, timeout, connection lost"
    )
    max_wait: float = Field(
        30.0,
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


class Compute(_Part):
    """What a model runs on. What is left out of a use's `compute` is as in the recipe's own."""

    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="cuda: a GPU, or an error. auto: a GPU where the cluster has one and the model can use it"
    )
    dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None,
        description="numbers that networks compute in; quantisers stay in float32. Absent: the model's own, of most "
        "float32. Another one makes the model's values anew",
    )
    batch: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="items of one pass through a network on a GPU. Absent: the model's own. Another one makes its "
        "values anew, since last bits depend on it; on CPUs networks see items one by one",
    )
    gpus: float | None = Field(
        None, gt=0, le=1, description="share of a GPU that one worker of the model takes. Absent: the model's own"
    )
    workers: int | None = Field(
        None, ge=1, description="most workers of the model's pool. Absent: as many as the cluster has room for"
    )

    def over(self, base: Compute) -> Compute:
        """What is said here, and else in `base`."""
        return base.model_copy(update={name: getattr(self, name) for name in self.model_fields_set})


When = Literal["all", "kept"]
"""Samples that a signal is computed of: all, or those that rules and duplicates left (a second look)."""


class SignalUse(_Part):
    """A signal to compute: its name, what it runs on, and its options."""

    model_config = ConfigDict(extra="allow")
    name: str = Field(description="built-in, an entry point, or package.module:Class; other keys are its options")
    for_: When = Field(
        "all",
        alias="for",
        description="kept: only samples that rules and duplicates left are looked at, then decisions are made again; "
        "of the others the ledger says `not evaluated`. For dear models",
    )
    compute: Compute = Field(Compute(), description="what its model runs on")

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


def _is_base_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return False
    secret = parts.query or parts.fragment or "@" in parts.netloc
    return parts.scheme in ("http", "https") and bool(parts.hostname) and not secret and not re.search(r"\s", text)


class Sampling(_Part):
    """How a captioner's model draws its words."""

    temperature: float | None = Field(
        0.0, ge=0, le=2, description="0: the likeliest words. null: the server's own choice, nothing is sent"
    )
    max_tokens: int | None = Field(
        None,
        ge=1,
        description="most tokens of an answer. Absent: 512 of an endpoint, whose answer fails if cut off; else 128",
    )
    seed: int | None = Field(None, description="sent to the server where given; another one asks all samples anew")
    extra: dict[str, Any] = Field({}, description="further keys of the request to an endpoint, e.g. top_p")

    @model_validator(mode="after")
    def _own(self) -> Sampling:
        taken = {"model", "messages", "response_format", "stream", "n"} & self.extra.keys()
        if taken:
            raise ValueError(f"extra cannot set {', '.join(sorted(taken))}")
        return self


class Calls(_Part):
    """How an endpoint is called. Nothing of this changes a caption, so a change asks no sample again."""

    api_key_env: str | None = Field(
        None,
        json_schema_extra={"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
        description="environment variable that holds the key, e.g. OPENAI_API_KEY, where curate runs and on every "
        "worker; absent: no key is sent",
    )
    concurrency: int = Field(8, ge=1, le=256, description="requests at once of one worker")
    requests_per_minute: float | None = Field(None, gt=0, description="of all workers of the run together")
    tokens_per_minute: float | None = Field(
        None, gt=0, description="of all workers together, as the server counts: a request waits for a minute's worth"
    )
    attempts: int = Field(
        4,
        ge=1,
        le=20,
        description="tries at a request whose error may pass: 408, 425, 429, 5xx, timeout, no connection",
    )
    timeout: float = Field(60.0, gt=0, le=600, description="seconds for one attempt, connect to last byte")
    max_requests: int | None = Field(
        None, ge=1, description="budget of one run, each attempt counts; when it is spent the run stops"
    )
    max_tokens: int | None = Field(
        None, ge=1, description="budget of one run, of prompts and answers; requests under way are let end"
    )

    @model_validator(mode="before")
    @classmethod
    def _no_key(cls, given: Any) -> Any:
        # a pattern's message would show the value, which may be a key
        name = given.get("api_key_env") if isinstance(given, dict) else None
        if name is not None and not (isinstance(name, str) and name.isascii() and name.isidentifier()):
            raise ValueError("api_key_env is the name of an environment variable, never the key itself")
        return given


class CaptionerUse(_Part):
    """One captioner: what it is asked of each sample, and who is asked. It gives the text field `name`, `name_by` (who
    answered, to which prompt, with which sampling), and a field `name_PROPERTY` for each property of its `schema`."""

    name: str = Field(pattern="^[a-z][a-z0-9_]*$", description="field that it gives, e.g. caption_short; unique")
    model: str = Field(
        min_length=1,
        description="what the endpoint calls it. Without an endpoint: local folder or hub id of a transformers "
        "image-to-text model, an entry point, or package.module:Class",
    )
    endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="base url of an OpenAI-compatible server, e.g. http://127.0.0.1:8000/v1; chat completions are "
        "asked. Where a model is served changes no caption",
    )
    serve: str | None = Field(
        None,
        min_length=1,
        description="in place of an endpoint: command that serves the model on a worker's own GPU, one a worker, e.g. "
        "`vllm serve {model} --port {port}`. Any server of OpenAI's chat completions on 127.0.0.1 will do",
    )
    prompt: str | None = Field(
        None,
        min_length=1,
        description="template; `{text}` (given with the sample), `{kind}`, and any field of an earlier signal or "
        "captioner, e.g. `{ocr_text}`, are filled in, `{{` is a brace. Absent: the schema's, or a plain question",
    )
    schema_: str | dict[str, Any] | None = Field(
        None,
        alias="schema",
        description="a JSON schema of an object that the answer must be, or the name of a preset: hunyuanvideo, "
        "skyreels, lengths, rewrite, howtovqa",
    )
    of: str | None = Field(
        None, description="for the preset `rewrite`: field of the caption that it merges with `{text}`"
    )
    frames: int | None = Field(
        None,
        ge=0,
        le=64,
        description="frames of a clip, evenly spread, in order; an image has one. Absent: the preset's or 1",
    )
    size: int = Field(448, ge=16, le=4096, description="pixels of a frame's long side, at most")
    format: Literal["jpeg", "png"] = Field("jpeg", description="how frames are sent; jpeg of quality 90")
    audio: bool = Field(False, description="send audio too, as wav of 16 kHz mono")
    unless_given: bool = Field(False, description="ask only for samples that came without text")
    max_chars: int = Field(4000, ge=1, description="a longer text is a failure, not a caption")
    sampling: Sampling = Field(Sampling(), description="how words are drawn")
    calls: Calls = Field(Calls(), description="how the endpoint is called")
    for_: When = Field("kept", alias="for", description="samples that are captioned, as of a signal")
    compute: Compute = Field(Compute(), description="what a model that is no endpoint runs on")

    @model_validator(mode="before")
    @classmethod
    def _address(cls, given: Any) -> Any:
        # as above: no message may show what a person wrote into an address
        endpoint = given.get("endpoint") if isinstance(given, dict) else None
        if isinstance(endpoint, str) and not _is_base_url(endpoint):
            raise ValueError("endpoint is a base url, http://HOST:PORT/PATH, without user, password, ? or #")
        return given

    @property
    def is_asked(self) -> bool:
        """True if chat completions are asked of a server."""
        return self.endpoint is not None or self.serve is not None

    @model_validator(mode="after")
    def _local(self) -> CaptionerUse:
        if self.endpoint is not None and self.serve is not None:
            raise ValueError("give endpoint or serve: one is a server that is there, the other starts one")
        if not self.is_asked:
            for key, is_set in (
                ("schema", self.schema_ is not None),
                ("audio", self.audio),
                ("frames", self.frames not in (None, 1)),
                ("calls", self.calls != Calls()),
                ("all of sampling but max_tokens", self.sampling != Sampling(max_tokens=self.sampling.max_tokens)),
            ):
                if is_set:
                    raise ValueError(f"{key} is for an endpoint or serve, and captioner {self.name} names none")
        return self


class Caption(_Part):
    """Text of a sample: what the source gave, else a captioner's, else composed of tags, OCR text and speech."""

    prefer: list[str] = Field(
        [],
        description="origins of the text in order, the first that has one gives it: given, composed, text fields of "
        "captioners. Absent: given, the captioners in their order (without those that have a schema), composed",
    )
    captioner: str | None = Field(
        None,
        description="short for one captioner of that model, named `captioner` and asked for samples without text: a "
        "local folder or hub id of a transformers image-to-text model, an entry point, or package.module:Class",
    )
    captioners: list[CaptionerUse] = Field([], description="captioners; each may read what those before it say")
    max_chars: int = Field(2000, gt=0, description="longer captions are cut to that many characters")

    @property
    def uses(self) -> list[CaptionerUse]:
        """All captioners."""
        if self.captioner is None:
            return self.captioners
        return [CaptionerUse(name="captioner", model=self.captioner, unless_given=True)]

    @model_validator(mode="after")
    def _one_way(self) -> Caption:
        if self.captioner is not None and self.captioners:
            raise ValueError("give captioner or captioners: one of captioners is {name: captioner, model: ...}")
        names = [use.name for use in self.captioners]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"names of captioners must be unique; twice: {', '.join(twice)}")
        return self


Word = Annotated[bool | int | float | str, Field(union_mode="smart")]
"""What a rule on words may name, as YAML reads it."""


class Rule(_Part):
    """Keep samples whose field lies within bounds. Bounds are absolute, or percentiles of all samples that have it. Or
    keep those whose text not too many samples carry: `{copies_of: caption, max: 100}`."""

    field: str = Field("", description="a number that a signal or probing gives, e.g. sharpness, duration, width")
    copies_of: str = Field(
        "",
        description="in place of `field`: a text that a signal gives, e.g. caption. The value is how many samples have "
        "that text, this one among them, whatever its case and white space; samples that failed or that an earlier "
        "rule drops are not counted",
    )
    min: float | None = Field(None, description="lower values are dropped; in the field's unit and range")
    max: float | None = Field(None, description="greater values are dropped; in the field's unit and range")
    min_percentile: float | None = Field(None, ge=0, le=100, description="values below this percentile are dropped")
    max_percentile: float | None = Field(None, ge=0, le=100, description="values above this percentile are dropped")
    in_: list[Word] = Field(
        [], alias="in", description="words: values that are not one of these are dropped; of a list one item must be"
    )
    not_in: list[Word] = Field([], description="words: values that are one of these are dropped; of a list any item")
    matches: str = Field(
        "",
        description="words: values in which this regular expression (RE2) is not found are dropped; of a list one item "
        "must match. It may match a part of the value: ^ and $ are its ends",
    )
    missing: Literal["keep", "drop", "fail"] = Field(
        "keep",
        description="what becomes of samples without a value, of kinds that can have one; `fail` counts them as failed",
    )
    kinds: list[Kind] = Field(list(KINDS), description="kinds of samples that the rule looks at")  # type: ignore[arg-type]

    @property
    def on_numbers(self) -> bool:
        """True if the rule says how small or large a number may be."""
        return (self.min, self.max, self.min_percentile, self.max_percentile) != (None,) * 4

    @property
    def on_words(self) -> bool:
        """True if the rule says which words may be there."""
        return bool(self.in_ or self.not_in or self.matches)

    @model_validator(mode="after")
    def _some_bound(self) -> Rule:
        if bool(self.field) == bool(self.copies_of):
            raise ValueError("a rule needs one of field, copies_of")
        others = (self.min, self.min_percentile, self.max_percentile) != (None,) * 3 or self.on_words
        if self.copies_of and (self.max is None or self.max < 1 or others):
            raise ValueError("a rule with copies_of has a max of at least 1 and no other bound")
        if self.copies_of and self.missing != "keep":
            raise ValueError("copies of what is missing are not counted: give `missing` in a rule with that field")
        if self.on_numbers and self.on_words:
            raise ValueError("a rule bounds a number (min, max, ...) or words (in, not_in, matches), not both")
        if not self.on_numbers and not self.on_words and self.missing == "keep":
            raise ValueError(
                "a rule needs one of min, max, min_percentile, max_percentile, in, not_in, matches, "
                "missing: drop or fail"
            )
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
    compute: Compute = Field(Compute(), description="what the tokenizer runs on")


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
    compression: Literal["none", "zstd"] = Field(
        "none",
        description="of shards. none: they are mapped into memory and read where they lie. zstd: fewer bytes over a "
        "network; whoever reads such a shard unpacks it first",
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
    compute: Compute = Field(
        Compute(), description="what models run on, where their own `compute` says nothing and they can do it"
    )
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
        description="when failed records / all records, or failed samples / all samples, of the whole or of one "
        "source, is above this, `curate run` exits with 3 and names the causes. The build is made all the same. "
        "Dropped and duplicate are not failed. Below 1, a source that fails whole ends the run before the build is "
        "made: where all records fail of the partition that is read first, if that has 32 or more or is all of the "
        "source; and else when verdicts are made",
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
            ("stream", [s.name for s in self.tokenize.streams]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{what} names must be unique; twice: {', '.join(twice)}")
        return self

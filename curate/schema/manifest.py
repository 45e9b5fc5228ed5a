"""The manifest: the one commit point of a build. It names the lists of its files, each file with its digest and its
rows; nothing else counts."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from curate.schema.codec import CodecCard

FORMAT = 2
MANIFEST = "manifest.json"

WORK = ("tokenized/", "pairs/", "units/", "looked/")
"""Folders of what a run keeps for the next one, and that the manifest does not name: they may hold more than a build
shows (samples that were kept before a threshold moved), and a build follows from input and recipe alone."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class File(_Part):
    """A file of the build."""

    path: str = Field(description="relative to the build, with forward slashes")
    digest: str = Field(description="its whole BLAKE3, hex")
    bytes: int = Field(description="its size")
    rows: int = Field(description="of a table its rows, of a tar its records, of a list its files, of a card 0")


class Clock(_Part):
    """How steps of a stream of video stand in time: step 0 is the frame at the sample's start, step j the `stride`
    frames up to number j * stride (`curate.media.requests.clip_frames`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    fps: float = Field(description="frames are 1 / fps seconds apart")
    stride: int = Field(description="frames of a step")
    pad: bool = Field(
        description="true if the last frame may be repeated; of a sample of d seconds the first "
        "ceil((d - 1.5e-6) * fps) frames are its own, since the ends of spans are rounded to microseconds"
    )


class FrameCounts(_Part):
    """Frames of a stream of video, over all shards."""

    own: int = Field(0, description="of the clips")
    left_out: int = Field(
        0, description="of the clips and not in the ids: beyond `max_frames`, or too many for 1 + stride * k"
    )
    repeated: int = Field(0, description="not of the clips: the last frame once more")


class FlatBlock(_Part):
    """Where a stream's ids lie in the one vocabulary of `curate.SequenceView`: id i of level l is token
    first + l * vocabulary + i. Tokens 0, 1 and 2 are padding, the begin and the end of a sequence."""

    begin: int = Field(description="token before the stream's ids")
    end: int = Field(description="token behind them")
    first: int = Field(description="token of id 0 of level 0")
    levels: int = Field(
        description="blocks of `vocabulary` tokens: codebooks of residual or product quantisation, else 1"
    )


class StreamEntry(_Part):
    """A token stream: what its column holds."""

    name: str = Field(description="of the column, e.g. tok_rgb@256")
    tokenizer: str = Field(description="name of its codec card in `codecs`")
    modality: str = Field(description="of the tokenizer: image, video, audio, text or array")
    vocabulary: int = Field(description="ids are 0 <= id < vocabulary; 0 for features, which are numbers")
    dtype: str = Field(description="of the column, numpy's name")
    shape: list[int | None] = Field(description="of one sample's ids, null where it varies, e.g. [null, 32, 32]")
    ids: int = Field(description="all ids over all shards, or all values of features")
    samples: int = Field(description="samples that have the stream")
    clock: Clock | None = Field(None, description="of video: how its steps stand in time")
    frames: FrameCounts | None = Field(None, description="of video: frames that became ids, and those that did not")
    flat: FlatBlock | None = Field(None, description="of ids: where they lie in one vocabulary of all streams")


class ModelEntry(_Part):
    """What a model of the build ran on."""

    name: str = Field(description="of the signal, or of the stream")
    of: Literal["signal", "stream"] = Field(description="what the model is of")
    device: Literal["cpu", "cuda"] = Field(description="class of device that it ran on; `hardware` says more")
    dtype: str = Field(description="numbers that its network computed in")
    batch: int = Field(description="items of one pass through its network; 1 on CPUs")


class Split(_Part):
    """A part of the samples for one use, e.g. train."""

    name: str = Field(description="as in the recipe")
    samples: int = Field(description="sum of `shard_rows`")
    shards: list[str] = Field(description="paths in their final order")
    shard_rows: list[int] = Field(description="samples in each shard")


class Counts(_Part):
    """Sums of the ledger; each adds up to its total (law 1)."""

    records: dict[str, int] = Field(description="total = sampled + dropped + duplicate + failed")
    samples: dict[str, int] = Field(description="total = kept + dropped + duplicate + failed")


class SecondLook(_Part):
    """What was computed only of samples that rules and duplicates left."""

    signals: list[str] = Field(description="signals of the second look; of other samples they were not evaluated")
    models: list[str] = Field(description="of these, those that call a model")
    samples: int = Field(description="samples that were looked at")


class TrialSource(_Part):
    """What a trial drew of a source, beside what the whole source has as far as that tells."""

    name: str = Field(description="of the source")
    records: int = Field(description="drawn")
    of_records: int = Field(description="of the whole source; estimated where not all of its units were read")
    units: int = Field(description="drawn: tars, row groups, pages of a folder")
    of_units: int = Field(description="of the whole source")
    partitions: int = Field(description="of the trial")
    of_partitions: int = Field(description="of the whole source; estimated as `of_records` is")


class Trial(_Part):
    """What a build is that was made with `--limit` or `--sample`: a part of the sources, drawn by hashes of ids."""

    limit: int | None = Field(description="records that were asked for; null: a share was")
    sample: float | None = Field(description="the share that was asked for, above 0 and below 1; null: a limit was")
    sources: list[TrialSource] = Field(description="in the recipe's order")

    @property
    def asked(self) -> str:
        """As the command line says it."""
        return f"--limit {self.limit}" if self.limit is not None else f"--sample {self.sample!r}"

    @property
    def records(self) -> int:
        return sum(source.records for source in self.sources)

    @property
    def of_records(self) -> int:
        return sum(source.of_records for source in self.sources)


class Manifest(_Part):
    """`manifest.json`. No wall clock, host name or random id occurs in it (law 6)."""

    format: int = Field(FORMAT, description="of the manifest and of the folder")
    version: int = Field(1, description="of the build: 1, and one more for each that follows")
    parent: str | None = Field(None, description="digest of the manifest of the version before; null: none")
    name: str = Field(description="of the recipe")
    recipe: dict[str, Any] = Field(description="the recipe, with its defaults filled in")
    seed: int = Field(description="of the recipe")
    trial: Trial | None = Field(None, description="null: the build is of all that the sources have")
    counts: Counts = Field(description="sums of the ledger")
    second_look: SecondLook | None = Field(None, description="null where the recipe asks for none")
    splits: list[Split] = Field(description="in the recipe's order")
    streams: list[StreamEntry] = Field(description="token streams, in the recipe's order")
    signals: list[dict[str, Any]] = Field(description="what each signal is: name, version, options, fields")
    models: list[ModelEntry] = Field(
        [],
        description="what the models of signals and streams ran on in the last run of this build; values that earlier "
        "runs left on other hardware were taken over",
    )
    codecs: dict[str, CodecCard] = Field(description="codec cards of the tokenizers, by name")
    versions: dict[str, str] = Field(description="of the packages that bytes depend on, by name")
    hardware: str = Field(description="class of hardware that it was made on; elsewhere models' last bits may differ")
    lists: list[File] = Field(
        description="tables of all other files of the build, a row each: path, digest, bytes, rows, sorted by path"
    )

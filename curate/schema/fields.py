"""Signal fields: a typed column with a unit and a range (law 5)."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

KINDS = ("image", "video", "audio", "array")
TIMED = ("video", "audio")
"""Kinds whose samples are spans of time."""


@dataclass(frozen=True)
class SignalField:
    """One column that a signal gives.

    Attributes:
        name: column name, unique over all signals of a recipe.
        type: Arrow type. Scalars that rules and histograms use are float32 or int32.
        unit: e.g. `cosine`, `fraction`, `px`, `s`, `LUFS`; empty for text and vectors.
        range: closed interval of possible values, None for an open end; thresholds outside are refused.
        kinds: kinds of samples that have it; the others have null ("not applicable").
        about: one sentence for the card.
    """

    name: str
    type: pa.DataType
    unit: str = ""
    range: tuple[float | None, float | None] = (None, None)
    kinds: tuple[str, ...] = KINDS
    about: str = ""

    @property
    def is_number(self) -> bool:
        return bool(pa.types.is_floating(self.type) or pa.types.is_integer(self.type))

    @property
    def is_embedding(self) -> bool:
        return bool(pa.types.is_fixed_size_list(self.type))

    def type_text(self) -> str:
        """What a person reads of its values: a number's range, else what they are made of."""
        if self.is_number:
            return self.range_text()
        if self.is_embedding:
            return f"vector of {self.type.list_size}"
        if pa.types.is_struct(self.type):
            return "map" if "shape" in self.type.names else ", ".join(self.type.names)
        if pa.types.is_list(self.type) and pa.types.is_struct(self.type.value_type):
            return f"list of ({', '.join(self.type.value_type.names)})"
        return str(self.type)

    def contains(self, value: float) -> bool:
        """True if `value` lies in the range."""
        lo, hi = self.range
        return (lo is None or value >= lo) and (hi is None or value <= hi)

    def range_text(self) -> str:
        """The range as a person reads it, e.g. `0 to 1 fraction`."""
        lo, hi = self.range
        low = "-inf" if lo is None else f"{lo:g}"
        high = "inf" if hi is None else f"{hi:g}"
        return f"{low} to {high} {self.unit}".strip()


@dataclass(frozen=True)
class Resources:
    """What one worker of a model takes.

    Attributes:
        cpus: CPU threads that it uses; threads per model are fixed to this (law 6).
        gpus: share of one GPU, used where the cluster has GPUs; 0 of a model that runs on CPUs alone.
        memory: bytes of main memory beside what any worker takes; 0 where that is little.
        batch: items of one pass through the network on a GPU, in batches padded to this; on a CPU it sees one by one.
        dtypes: numbers that it can compute in, its own first.
        model: True when the stage holds a model and so runs in an actor pool; False for a stateless task.
    """

    cpus: float = 1
    gpus: float = 0
    memory: int = 0
    batch: int = 1
    dtypes: tuple[str, ...] = ("float32",)
    model: bool = False


@dataclass(frozen=True)
class RunsOn:
    """What a model runs on, settled before it is loaded.

    Attributes:
        device: `cpu` or `cuda`.
        dtype: of `Resources.dtypes`.
        batch: items of one pass through a network on a GPU.
    """

    device: str = "cpu"
    dtype: str = "float32"
    batch: int = 1

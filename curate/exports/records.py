"""One schema for all samples of a build, for formats whose records have the same columns throughout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from curate.exports.base import Sample, Selection
from curate.schema.errors import CurateError
from curate.shards.schema import StreamSpec

STRINGS = ("sample_id", "content_id", "kind")
TIMES = ("start_us", "end_us")
MISSING = "missing"


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a record.

    They are the keys of `Sample`; each stream, by its name; `STREAM_text` of each text stream, what its ids say; and
    `missing`, the names of the streams that the sample lacks, which are empty arrays, or empty texts, there.
    """

    streams: list[StreamSpec]
    texts: dict[str, str]

    @classmethod
    def of(cls, selection: Selection) -> Columns:
        """The columns of what is exported.

        Raises:
            CurateError: two of one name.
        """
        texts = {f"{name}_text": name for name in selection.texts}
        taken = {*STRINGS, *TIMES, MISSING, *texts}
        if twice := [stream.name for stream in selection.streams if stream.name in taken]:
            raise CurateError(
                f"stream {twice[0]!r} has the name of another column of the export", "leave it out with --stream"
            )
        return cls(selection.streams, texts)

    def record(self, sample: Sample) -> dict[str, Any]:
        """A sample's columns: strings, integers, arrays in the stream's shape and type, and the list `missing`."""
        lacking = [stream.name for stream in self.streams if stream.name not in sample.ids]
        return {
            "sample_id": sample.sample_id,
            **sample.about,
            **{column: sample.text.get(stream, "") for column, stream in self.texts.items()},
            **{stream.name: sample.ids.get(stream.name, _nothing(stream)) for stream in self.streams},
            MISSING: lacking,
        }


def _nothing(stream: StreamSpec) -> Any:
    return np.empty((0, *stream.shape[1:]), stream.numpy_dtype)

"""An export: JSON lines, a sample a line, for those who read nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path

from curate.exports import Export, Sample


class JsonLines(Export):
    """`{"id", "kind", "start_us", "end_us", "text": {stream: str}, "ids": {stream: nested lists}}`."""

    name = "jsonl"
    suffix = ".jsonl"

    def shard(self, samples: Iterator[Sample], file: Path) -> int:
        written = 0
        with file.open("w", encoding="utf-8") as lines:
            for sample in samples:
                span = {"kind": sample.kind, "start_us": sample.start_us, "end_us": sample.end_us}
                ids = {stream: array.tolist() for stream, array in sample.ids.items()}
                lines.write(json.dumps({"id": sample.sample_id, **span, "text": sample.text, "ids": ids}) + "\n")
                written += 1
        return written

"""Read a build's samples with pyarrow and numpy alone: `python examples/read_shards.py build/quickstart train`."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def samples(build: Path, split: str = "train"):
    """Each sample of a split in final order: its keys, and an array a stream, None where it has no such modality."""
    manifest = json.loads((build / "manifest.json").read_text())
    assert manifest["format"] == 2, "another format"
    listed = pa.concat_tables([pq.read_table(build / one["path"]) for one in manifest["lists"]])
    rows = dict(zip(listed["path"].to_pylist(), listed["rows"].to_pylist(), strict=True))
    for shard in next(s["shards"] for s in manifest["splits"] if s["name"] == split):
        table = pa.ipc.open_file(pa.memory_map(str(build / shard))).read_all()
        assert table.num_rows == rows[shard], f"{shard} is not the one that was listed"
        streams = {s["name"]: s["shape"] for s in json.loads(table.schema.metadata[b"curate.streams"])}
        for row in range(table.num_rows):
            sample = {name: table[name][row] for name in table.column_names}
            for name, value in sample.items():
                shape = [-1 if n is None else n for n in streams.get(name, [])]
                array = value.values.to_numpy().reshape(shape) if shape and value.is_valid else None
                sample[name] = array if shape else value.as_py()
            yield sample


if __name__ == "__main__":
    for one in samples(Path(sys.argv[1]), sys.argv[2]):
        print({name: value.shape if hasattr(value, "shape") else value for name, value in one.items()})

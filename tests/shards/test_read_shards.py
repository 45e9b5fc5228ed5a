"""`examples/read_shards.py` reads shards without this package, by what `schemas/tables.md` says."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import STREAMS, finish, make_samples

from curate.shards.stream import stream

EXAMPLE = Path(__file__).parents[2] / "examples/read_shards.py"

STRANGER = """
import importlib.util, pickle, sys
from pathlib import Path
sys.modules["curate"] = None  # to import it is an error
spec = importlib.util.spec_from_file_location("read_shards", sys.argv[1])
spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
Path(sys.argv[3]).write_bytes(pickle.dumps(list(module.samples(Path(sys.argv[2]), "train"))))
assert not [name for name in sys.modules if name.startswith("curate.")]
"""


def test_it_has_thirty_lines_and_needs_pyarrow_and_numpy_only() -> None:
    lines = EXAMPLE.read_text().splitlines()
    assert len([line for line in lines if line]) <= 30
    imported = {line.split()[1].split(".")[0] for line in lines if line.startswith(("import ", "from "))}
    assert imported <= {"json", "sys", "pathlib", "pyarrow", "numpy"}


@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_stranger_reads_what_a_stream_gives(tmp_path: Path, compression: Any) -> None:
    build, said = tmp_path / "build", tmp_path / "said"
    finish(build, make_samples(60), compression=compression)
    subprocess.run([sys.executable, "-I", "-c", STRANGER, EXAMPLE, build, said], check=True)
    found = pickle.loads(said.read_bytes())
    ours = list(stream(build, shuffle=False))
    assert len(found) == len(ours) > 20
    for one, other in zip(found, ours, strict=True):
        assert set(one) == {*other, "content_id"}
        for name, value in other.items():
            if name not in {s.name for s in STREAMS} or value is None:
                assert one[name] == value
            else:
                assert (one[name].dtype, one[name].shape) == (value.dtype, value.shape)
                np.testing.assert_array_equal(one[name], value)

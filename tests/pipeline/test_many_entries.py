"""The driver is not in the data's way (law 12): what it holds and asks for grows with partitions, not with entries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from many_entries import PARTITION

FEW, MANY = 5_000, 50_000


def test_fifty_thousand_entries_cost_the_driver_a_few_objects_a_partition(tmp_path: Path) -> None:
    script = Path(__file__).with_name("many_entries.py")
    # the first one pays for what is imported on the way
    command = [sys.executable, script, tmp_path, 1000, FEW, MANY]
    done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout
    _, few, many = (json.loads(line) for line in done.splitlines() if line.startswith("{"))
    for count, found in ((FEW, few), (MANY, many)):
        assert f"{count} failed" in found["said"], "each entry has its verdict"
    partitions = [-(-count // PARTITION) for count in (FEW, MANY)]
    more = partitions[1] - partitions[0]
    assert (many["objects"] - few["objects"]) / more < 100, "objects a partition"
    assert (many["driver"] - few["driver"]) / more < 3, "requests of the driver a partition"
    assert many["tasks"] / partitions[1] < 1.25 * few["tasks"] / partitions[0] < 60, "requests of tasks a partition"

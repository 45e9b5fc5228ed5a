"""A run on one's own media with the default tokenizers imports neither training nor the demonstration."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import curate.card.write, curate.cli.run_recipe, curate.pipeline.run
from curate.tokenizers import zoo
for name in zoo.DEFAULTS.values():
    zoo.load(name)
names = ("curate.training", "curate_demo_quickstart", "torchmetrics", "skvideo", "iscc_samples")
print(*(name for name in names if name in sys.modules))
"""


def test_a_run_of_ones_own_imports_neither_training_nor_demo() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []

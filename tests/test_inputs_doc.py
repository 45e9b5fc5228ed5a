"""`docs/inputs.md` promises what happens to each kind of input; every line names the test that holds it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROWS = [
    line
    for line in (ROOT / "docs/inputs.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| input |", "| --- |"))
]


def functions_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", ROWS)
def test_a_line_names_a_test_that_is_there(row: str) -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.rsplit("|", 2)[1])
    assert named, "the last column reads `tests/FOLDER/FILE.py::FUNCTION`"
    for file, function in named:
        assert function in functions_of(ROOT / file)

"""Weights files: what is refused, and how ours are written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from curate.models.weights import read_state
from curate.schema.errors import CurateError
from curate.tokenizers.folders import write_weights


def test_an_empty_checkpoint_says_so(tmp_path: Path) -> None:
    (tmp_path / "zero.pt").write_bytes(b"")
    with pytest.raises(CurateError, match=r"zero\.pt holds more than tensors"):
        read_state(tmp_path / "zero.pt")


def test_an_imported_tokenizers_header_has_one_entry() -> None:
    """Several would be written in an order that changes from process to process, and the digest with it (law 6)."""
    raw = write_weights({"a": torch.zeros(2)}, {"one": 1, "two": [2]})
    head = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert list(head["__metadata__"]) == ["curate"]

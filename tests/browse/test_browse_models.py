"""What is said where a text cannot be embedded."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.browse.models import Service
from curate.schema.errors import CurateError


def test_weights_that_are_gone_or_others_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # as the service sets it; here it is taken back
    service, weights = Service(str(tmp_path)), tmp_path / "small.safetensors"
    options = {"model": "ViT-S-32", "pretrained": str(weights)}
    with pytest.raises(CurateError, match=r"texts cannot be compared with images here: .* does not exist"):
        service.text(options, "2+of-a-build", "a cat")
    weights.write_bytes(b"of another model")
    with pytest.raises(CurateError, match="has other weights than those that the build was made with"):
        service.text(options, "2+of-a-build", "a cat")
    with pytest.raises(CurateError, match="not in the hub's cache on this machine, and"):
        service.text({"model": "ViT-B-32", "pretrained": "hf-hub:nobody/nothing"}, "1", "a cat")

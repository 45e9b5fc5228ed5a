"""TiTok: what its configuration says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from golden import CASES
from published import publish

from curate.schema.errors import CurateError
from curate.tokenizers.codecs.titok import TiTok


def test_titok_needs_its_config_and_refuses_vae(tmp_path: Path) -> None:
    publish(tmp_path / "hub", CASES["titok"].state())
    with pytest.raises(CurateError, match=r"config\.json"):
        TiTok.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo")
    config = {"model": {"vq_model": {"use_l2_norm": False, "quantize_mode": "vae"}}}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CurateError, match="gives no ids"):
        TiTok.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo")

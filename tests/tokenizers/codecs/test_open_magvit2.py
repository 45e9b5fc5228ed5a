"""Open-MAGVIT2: its bits, its sides, its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from golden import CASES
from published import publish

from curate.schema.errors import CurateError
from curate.tokenizers.codecs.open_magvit2 import OpenMagvit2
from curate.tokenizers.quantisers.lfq import lfq_codes, lfq_ids


def test_a_side_that_the_stride_does_not_divide_is_refused(tmp_path: Path) -> None:
    publish(tmp_path / "hub", CASES["open-magvit2"].state())
    with pytest.raises(CurateError, match="multiple of 16, not 100"):
        OpenMagvit2.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo", size=100)


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    publish(tmp_path / "hub", CASES["open-magvit2"].state())
    OpenMagvit2.import_checkpoint(str(tmp_path / "hub"), tmp_path / "zoo", size=32)
    weights = tmp_path / "zoo" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CurateError, match="not those of its card"):
        OpenMagvit2.load(tmp_path / "zoo")


def test_lfq_bits_are_those_of_the_specification() -> None:
    net = OpenMagvit2.net_of(CASES["open-magvit2"].shape)
    z = torch.randn(2, 18, 4, 4, generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    net.encoder.forward = lambda x: z  # type: ignore[method-assign]
    net.decoder.forward = lambda codes: seen.append(codes) or codes  # type: ignore[method-assign, func-returns-value]
    ids = net.ids(torch.zeros(2, 3, 64, 64))
    np.testing.assert_array_equal(ids.numpy(), lfq_ids(z.permute(0, 2, 3, 1).numpy(), "lsb"))
    net.images(ids)
    np.testing.assert_array_equal(seen[0].permute(0, 2, 3, 1).numpy(), lfq_codes(ids.numpy(), 18, "lsb"))

"""VQGAN's family: moving averages of Lightning checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from golden import CASES
from published import sample_image

from curate.tokenizers.codecs.vqgan import IBQ


def test_a_lightning_checkpoint_gives_its_moving_averages(tmp_path: Path) -> None:
    """As SEED-Voken publishes: `state_dict` of the last weights, `model_ema.` + name without dots, and losses."""
    case = CASES["ibq"]
    state = case.state()
    held = {name: torch.zeros_like(value) for name, value in state.items()}
    held |= {"model_ema." + name.replace(".", ""): value for name, value in state.items()}
    held |= {"model_ema.decay": torch.tensor(0.999), "loss.discriminator.main.0.weight": torch.zeros(3)}
    torch.save({"state_dict": held, "epoch": 3}, tmp_path / "imagenet256.ckpt")
    IBQ.import_checkpoint(str(tmp_path / "imagenet256.ckpt"), tmp_path / "zoo", size=64)
    assert IBQ.load(tmp_path / "zoo").encode([sample_image()])[0].ravel().tolist() == case.golden

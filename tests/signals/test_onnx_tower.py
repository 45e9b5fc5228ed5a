"""The ONNX form of a network is the network: equal features, or PyTorch itself."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor, nn

from curate.models.onnx_tower import TOLERANCE, on_cpu
from curate.models.torchvision_shim import ensure_torchvision

SHAPE = (1, 3, 160, 160)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))


def _photograph() -> Tensor:
    crop = data.astronaut()[40:200, 160:320]
    return ((torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 255 - 0.45) / 0.25).contiguous()


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_resnet"])
def test_a_network_of_timm_gives_the_same_features_as_in_pytorch(name: str, tmp_path: Path) -> None:
    ensure_torchvision()
    import timm

    torch.manual_seed(0)
    net = timm.create_model(name, num_classes=0).eval()
    run = on_cpu(name, net, SHAPE)
    with torch.inference_mode():
        true = net(_photograph())
    assert run is not net
    np.testing.assert_allclose(run(_photograph()), true, atol=TOLERANCE * float(true.norm()))
    assert [p.suffix for p in (tmp_path / "cache" / "models").iterdir()] == [".onnx"]


def test_the_same_weights_are_exported_once_and_others_again(tmp_path: Path) -> None:
    def net(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten()).eval()

    for seed in (0, 0, 1):
        on_cpu("small", net(seed), SHAPE)
    assert len(list((tmp_path / "cache" / "models").iterdir())) == 2


class _Scaled(nn.Module):
    """Equal weights and layers, another computation: as when one's own code is edited."""

    def __init__(self, by: float) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.by = nn.Conv2d(3, 4, 8, 8), by

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y * self.by


def test_networks_of_equal_weights_that_compute_other_things_are_told_apart() -> None:
    for by in (1.0, 2.0, 1.0):
        net = _Scaled(by).eval()
        run = on_cpu("scaled", net, SHAPE)
        assert run is not net
        with torch.inference_mode():
            torch.testing.assert_close(run(_photograph()), net(_photograph()), rtol=1e-4, atol=1e-4)


def test_another_pooling_of_the_same_weights_is_another_file(tmp_path: Path) -> None:
    ensure_torchvision()
    import timm

    for pool in ("avg", "max"):
        torch.manual_seed(0)
        net = timm.create_model("test_resnet", num_classes=0, global_pool=pool).eval()
        with torch.inference_mode():
            torch.testing.assert_close(
                on_cpu("resnet", net, SHAPE)(_photograph()), net(_photograph()), rtol=1e-3, atol=1e-4
            )
    assert len(list((tmp_path / "cache" / "models").iterdir())) == 2


class _Branches(nn.Module):
    """What it computes depends on values, which no graph of fixed form can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        while float(y.detach().abs().max()) > 1:
            y = y / 2
        return y


class _Draws(nn.Module):
    """Something else at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return y + torch.randn_like(y)


@pytest.mark.parametrize("net", [_Branches(), _Draws()], ids=["cannot be exported", "is another one exported"])
def test_what_onnx_cannot_hold_runs_in_pytorch_and_the_log_says_so(
    net: nn.Module, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        run = on_cpu("odd", net.eval(), SHAPE)
    assert run is net
    assert "odd runs in PyTorch" in caplog.text
    assert not list((tmp_path / "cache" / "models").iterdir())  # nothing half-made stays

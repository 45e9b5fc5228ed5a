"""What tests of published codecs share: seeded weights, folders as published, the contract of a tokenizer."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from curate.tokenizers.base import Tokenizer

SIZE = 64


def holds_the_contract(tokenizer: Any, items: list[NDArray[np.uint8]], shape: tuple[int, ...]) -> None:
    """Grid, dtype, range, independence of neighbours, and a way back whose second round is a function of the ids."""
    assert isinstance(tokenizer, Tokenizer)
    ids = tokenizer.encode(items)
    assert [one.shape for one in ids] == [shape] * len(items)
    assert {one.dtype for one in ids} == {tokenizer.card.numpy_dtype}
    assert 0 <= min(int(one.min()) for one in ids) <= max(int(one.max()) for one in ids) < tokenizer.card.vocabulary
    assert len(np.unique(np.stack(ids))) > 3
    for i in (len(items) - 1, 0):
        np.testing.assert_array_equal(tokenizer.encode([items[i]])[0], ids[i])
    back = tokenizer.decode(ids)
    assert [(one.dtype, one.shape) for one in back] == [(np.dtype(np.uint8), one.shape) for one in items]
    np.testing.assert_array_equal(tokenizer.decode([ids[-1]])[0], back[-1])
    # what comes back is of the ids: other ids, other pixels, and no blank
    assert not np.array_equal(ids[0], ids[-1])
    assert not np.array_equal(back[0], back[-1])
    assert np.stack(back).std() > 1
    np.testing.assert_array_equal(np.stack(tokenizer.encode(back)), np.stack(tokenizer.encode(back[::-1])[::-1]))


def is_golden(tokenizer: Any, item: NDArray[np.uint8], ids: list[int], pixels: list[list[int]]) -> None:
    """The first ids of an item (of a clip its last step) and four pixels that come back, from seeded weights."""
    [found] = tokenizer.encode([item])
    [back] = tokenizer.decode([found])
    assert (found if found.ndim == 2 else found[-1]).reshape(-1)[:8].tolist() == ids
    seen = (back if back.ndim == 3 else back[-1])[[5, 20, 25, 30], [7, 13, 30, 12]]
    np.testing.assert_allclose(seen.astype(int), pixels, atol=2)


def seeded(make: Callable[[], Any], embedding: float = 1.0) -> Any:
    """A network with the weights of PyTorch's own layers: those of `transformers` give nearly constant latents."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        net = make().eval()
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
                nn.init.normal_(module.weight, std=1.4 / float(module.weight[0].numel()) ** 0.5)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=embedding)
    return net


class Marks:
    """Unpickling it would leave a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


def formula(name: str, shape: torch.Size) -> torch.Tensor:
    """Weights from the tensor's name alone, scaled so that signals neither vanish nor explode."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape)).astype(np.float32)
    if len(shape) > 1:
        x /= max(1, np.prod(shape[1:])) ** 0.5 if "embed" not in name else 1
    else:
        x = x * 0.1 + (1 if name.endswith("weight") else 0)
    return torch.from_numpy(x)


def sample_image(size: int = 64) -> NDArray[np.uint8]:
    """Two gradients and, in colour, a checkerboard of 8 pixels."""
    y, x = np.mgrid[:size, :size]
    board = 40 * ((x // 8 + y // 8) % 2)
    return np.stack([(x * (3 + c) + y * (5 - c) + board * c) % 256 for c in range(3)], -1).astype(np.uint8)


def publish(folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any] | None = None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, str(folder / "model.safetensors"))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))

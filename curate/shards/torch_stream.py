"""The token stream as a torch data set. Imported only where torch is."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import from_numpy
from torch.utils.data import IterableDataset

from curate.shards.rows import Ragged
from curate.shards.token_stream import TokenStream
from curate.shards.torch_place import TorchPlace


class TorchTokenStream(TorchPlace, TokenStream, IterableDataset[Any]):
    """`TokenStream` that a `torch.utils.data.DataLoader` takes; its workers share a rank's items in turn."""

    def __init__(self, *args: Any, tensors: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tensors = tensors

    def _given(self, item: dict[str, Any]) -> dict[str, Any]:
        return {key: as_tensor(value) for key, value in item.items()} if self._tensors else item


def as_tensor(value: Any) -> Any:
    """Numbers in numpy as a tensor of the same memory and type, those of a `Ragged` too; anything else as it is."""
    if isinstance(value, Ragged):
        values, offsets, present = (as_tensor(a) for a in (value.values, value.offsets, value.present))
        return Ragged(values, offsets, present, value.varies)
    return from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "buif" else value

"""The token stream as a torch data set. Imported only where torch is."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterableDataset

from curate.shards.token_stream import TokenStream
from curate.shards.torch_place import TorchPlace


class TorchTokenStream(TorchPlace, TokenStream, IterableDataset[Any]):
    """`TokenStream` that a `torch.utils.data.DataLoader` takes; its workers share a rank's items in turn."""

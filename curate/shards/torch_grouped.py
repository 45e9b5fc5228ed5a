"""Streams of groups as torch data sets. Imported only where torch is."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterableDataset

from curate.shards.bucketed_stream import BucketedStream
from curate.shards.grouped import GroupedStream
from curate.shards.packed_stream import PackedStream
from curate.shards.torch_place import TorchPlace
from curate.shards.torch_stream import as_tensor


class _Torch(TorchPlace, GroupedStream):
    """A stream that a `torch.utils.data.DataLoader` takes; its workers share a rank's items in turn."""

    def __init__(self, *args: Any, tensors: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tensors = tensors

    def _given(self, item: dict[str, Any]) -> dict[str, Any]:
        return {key: as_tensor(value) for key, value in item.items()} if self._tensors else item


class TorchPackedStream(_Torch, PackedStream, IterableDataset[Any]):
    """`PackedStream` for DataLoaders."""


class TorchBucketedStream(_Torch, BucketedStream, IterableDataset[Any]):
    """`BucketedStream` for DataLoaders."""

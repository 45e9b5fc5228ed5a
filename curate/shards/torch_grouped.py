"""Streams of groups as torch data sets. Imported only where torch is."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterableDataset

from curate.shards.bucketed_stream import BucketedStream
from curate.shards.packed_stream import PackedStream
from curate.shards.torch_place import TorchPlace


class TorchPackedStream(TorchPlace, PackedStream, IterableDataset[Any]):
    """`PackedStream` that a `torch.utils.data.DataLoader` takes; its workers share a rank's items in turn."""


class TorchBucketedStream(TorchPlace, BucketedStream, IterableDataset[Any]):
    """`BucketedStream` that a `torch.utils.data.DataLoader` takes; its workers share a rank's items in turn."""

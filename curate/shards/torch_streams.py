"""Streams as torch data sets: workers of a `DataLoader` share a rank's items in turn. Imported only where torch is."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterableDataset

from curate.shards.bucketed_stream import BucketedStream
from curate.shards.mixture import Mixture
from curate.shards.packed_stream import PackedStream
from curate.shards.place import Place
from curate.shards.token_stream import TokenStream
from curate.shards.torch_place import TorchPlace


class TorchTokenStream(TorchPlace, TokenStream, IterableDataset[Any]):
    """`TokenStream` for DataLoaders."""


class TorchMixture(TorchPlace, Mixture, IterableDataset[Any]):
    """`Mixture` for DataLoaders."""


class TorchPackedStream(TorchPlace, PackedStream, IterableDataset[Any]):
    """`PackedStream` for DataLoaders."""


class TorchBucketedStream(TorchPlace, BucketedStream, IterableDataset[Any]):
    """`BucketedStream` for DataLoaders."""


KINDS: dict[type[Place], type[TorchPlace]] = {
    TokenStream: TorchTokenStream,
    Mixture: TorchMixture,
    PackedStream: TorchPackedStream,
    BucketedStream: TorchBucketedStream,
}

"""The mixture as a torch data set. Imported only where torch is."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterableDataset

from curate.shards.mixture import Mixture
from curate.shards.torch_place import TorchPlace


class TorchMixture(TorchPlace, Mixture, IterableDataset[Any]):
    """`Mixture` that a `torch.utils.data.DataLoader` takes; its workers share a rank's items in turn."""

"""The token stream as a torch data set. Imported only where torch is."""

from __future__ import annotations

from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from curate.shards.token_stream import TokenStream


class TorchTokenStream(TokenStream, IterableDataset[Any]):
    """`TokenStream` that a `torch.utils.data.DataLoader` takes; its workers share a rank's items in turn."""

    def _worker(self) -> tuple[int, int]:
        info = get_worker_info()
        return (0, 1) if info is None else (info.id, info.num_workers)

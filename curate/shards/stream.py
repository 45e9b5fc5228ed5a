"""The way into a build for a trainer: `curate.stream`."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from curate.shards.token_stream import TokenStream
from curate.shards.views import View
from curate.storage import Store


def stream(
    build: Store | Path | str,
    split: str = "train",
    view: View | None = None,
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    rank: int = 0,
    world: int = 1,
    batch: int | None = None,
) -> TokenStream:
    """Stream a split of a build into a trainer: each sample once an epoch, in an order drawn anew for each epoch.

        for batch in curate.stream("build/quickstart", view=MaskedView(128, 128), batch=32):
            ...

    A torch `IterableDataset` where torch is installed, else the same without torch. Iterating gives the rest of the
    current epoch; iterating again gives the next one. `state()` and `resume()` go on at the very next sample.

    With a DataLoader, set `batch` here and `batch_size=None` there: any number of workers then gives the same batches
    in the same order, and each time the loader begins it is the next epoch, whether its workers are forked or spawned,
    persistent or not. Workers make items ahead, so only you know how many were taken: say it, `state(items=...)`. An
    epoch that is broken off is not gone on with by itself, as it is without workers; call `resume(state(items=...))`.

    Samples are dealt to ranks in turn, so at the end of an epoch some ranks have one sample less than others. A build
    in a bucket needs `multiprocessing_context="forkserver"` too: a connection does not survive a fork.

    Args:
        build: folder of a finished build, or its `s3://` uri.
        split: name of the split.
        view: what an item looks like: `RawView` (the default), `MaskedView`, `SequenceView`, or your own.
        seed, epoch: what the order and the view's chance are drawn from.
        shuffle: False for the stored order.
        rank, world: this process among those that share the epoch.
        batch: samples an item; None for single samples. The last batch of an epoch may be smaller.

    Raises:
        CurateError: no finished build, no such split or stream, or shards that are not those of the manifest.
    """
    kind: type[TokenStream] = TokenStream
    if find_spec("torch") is not None:
        from curate.shards.torch_stream import TorchTokenStream

        kind = TorchTokenStream
    return kind(build, split, view, seed=seed, epoch=epoch, shuffle=shuffle, rank=rank, world=world, batch=batch)

"""The way into a build for a trainer: `curate.stream`."""

from __future__ import annotations

from pathlib import Path

from curate.shards.dealing import OnError, Tail
from curate.shards.epoch import Shuffle
from curate.shards.kinds import maker
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
    shuffle: Shuffle = True,
    rank: int = 0,
    world: int = 1,
    batch: int | None = None,
    tail: Tail = "uneven",
    where: str | None = None,
    on_error: OnError = "raise",
    verify: bool = False,
    tensors: bool = False,
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

    Samples are dealt to ranks in turn, so at the end of an epoch some ranks may have a sample, or a batch, less than
    others, and training that waits for all ranks hangs: say `tail="drop"` or `tail="repeat"` there. A build in a bucket
    needs `multiprocessing_context="forkserver"` with a DataLoader's workers: a connection does not survive a fork.

    Args:
        build: folder of a finished build, or its `s3://` uri.
        split: name of the split.
        view: what an item looks like: `RawView` (the default), `MaskedView`, `SequenceView`, or your own.
        seed, epoch: what the order and the view's chance are drawn from.
        shuffle: True for an order of all samples drawn anew for each epoch; "blocks" for one of shards and then of the
            samples of a few shards at a time, so that a build in a bucket is read as it is fetched, a few shards ahead;
            False for the stored order.
        rank, world: this process among those that share the epoch.
        batch: samples an item; None for single samples. The last batch of an epoch may be smaller.
        tail: what of samples that do not fill an item on every rank: "uneven" gives them out, so that each sample comes
            once an epoch; "drop" leaves them out (others in each epoch); "repeat" fills up with the first of the epoch.
            With the last two every rank has equally many items, all full.
        where: only samples of which this is true: an SQL expression (DuckDB's) over fields of signals and columns of
            samples (`kind`, `source`, `uri`, `licence`, `width`, ...), e.g. `clip_score > 0.28 AND kind = 'image'`.
        on_error: what a shard does that is missing, cut short, or not what was committed: "raise" ends the stream with
            an error that names it; "skip" leaves its samples out, so that batches are smaller by them, logs it once,
            and counts them in `skipped`.
        verify: True to compare the digest of each shard when it is first opened, which reads all of it.
        tensors: True for torch tensors in place of numpy arrays, of the same memory.

    Raises:
        CurateError: no finished build, no such split or stream, or shards that are not those of the manifest.
    """
    made: TokenStream = maker(TokenStream, tensors)(
        *(build, split, view),
        seed=seed,
        epoch=epoch,
        shuffle=shuffle,
        rank=rank,
        world=world,
        batch=batch,
        tail=tail,
        where=where,
        on_error=on_error,
        verify=verify,
    )
    return made

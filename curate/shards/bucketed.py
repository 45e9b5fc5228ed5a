"""The way to batches of one shape for a trainer: `curate.bucketed`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curate.shards.bucketed_stream import BucketedStream
from curate.shards.dealing import OnError, Tail
from curate.shards.epoch import Shuffle
from curate.shards.kinds import maker
from curate.shards.views import RawView, View
from curate.storage import Store


def bucketed(
    build: Store | Path | str,
    batch: int,
    split: str = "train",
    view: View | None = None,
    *,
    by: Sequence[str] | None = None,
    seed: int = 0,
    epoch: int = 0,
    shuffle: Shuffle = True,
    rank: int = 0,
    world: int = 1,
    tail: Tail = "uneven",
    where: str | None = None,
    on_error: OnError = "raise",
    verify: bool = False,
    tensors: bool = False,
) -> BucketedStream:
    """Stream batches whose samples have equally many steps in each stream, or lack it all: images beside images, clips
    beside clips of their duration, and of their resolution and aspect where these are streams of their own.

        for batch in curate.bucketed("build/clips", 32):
            batch["tok_video@128"].stacked  # uint16 (32, steps, 16, 16)

    The samples of `BucketedStream.window` positions of the epoch's order are put into buckets together; what then does
    not fill a batch is given as a smaller one, left out, or filled up with the first of its bucket, as `tail` says.

    Args:
        batch: samples of a batch; a state is of one batch size.
        by: the streams that count; of those that the view reads all but text where None.
        build, split, view, seed, epoch, shuffle, rank, world, tail, where, on_error, verify, tensors: as of
            `curate.stream`.

    Raises:
        CurateError: what `curate.stream` raises, or an unknown stream.
    """
    made: BucketedStream = maker(BucketedStream, tensors)(
        build,
        RawView() if view is None else view,
        batch,
        split,
        by=by,
        seed=seed,
        epoch=epoch,
        shuffle=shuffle,
        rank=rank,
        world=world,
        tail=tail,
        where=where,
        on_error=on_error,
        verify=verify,
    )
    return made

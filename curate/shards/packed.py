"""The way to packed rows for a trainer: `curate.packed`."""

from __future__ import annotations

from pathlib import Path

from curate.shards.dealing import OnError, Tail
from curate.shards.epoch import Shuffle
from curate.shards.kinds import maker
from curate.shards.packed_stream import Documents, PackedStream, TooLong
from curate.shards.sequence import SequenceView
from curate.storage import Store


def packed(
    build: Store | Path | str,
    view: SequenceView,
    length: int,
    split: str = "train",
    *,
    seed: int = 0,
    epoch: int = 0,
    shuffle: Shuffle = True,
    rank: int = 0,
    world: int = 1,
    batch: int = 1,
    tail: Tail = "uneven",
    where: str | None = None,
    on_error: OnError = "raise",
    verify: bool = False,
    too_long: TooLong = "error",
    documents: Documents = "sample",
    tensors: bool = False,
) -> PackedStream:
    """Stream sequences packed into rows of `length` tokens, each sequence once an epoch and never divided.

        for batch in curate.packed("build/mine", SequenceView(["caption", "tok_rgb@256"]), 4096, batch=8):
            ...

    An item is a dict, with B the batch and n the sequences in it:

        sample_id, sample_row    U32 (n,), row by row, and int32 (n,), the row of each
        tokens                   int64 (B, length), 0 where there is none
        loss                     bool (B, length), as of `SequenceView`; False of padding
        positions                int32 (B, length), each token's place in its sequence; 0 of padding
        documents                int32 (B, length), the sequence's number in its row; -1 of padding
        cu_seqlens, max_seqlen   int32 (m + 1,), where each sequence or padding begins in all rows one after the other,
                                 and the longest of these: what attention kernels for sequences of varying lengths take
        a continuous stream      float16 (slots, d), the vectors of its slots, row by row

    `state()`, `resume()`, DataLoaders and the arguments that are not named here are as of `curate.stream`; `tail` is of
    rows. `padding()` says what share of an epoch is padding. How many rows an epoch has is known when it was packed.

    Args:
        view: what a sequence is.
        length: tokens of a row.
        too_long: what becomes of a sequence that is longer: "error", or "skip", which leaves it out.
        documents: what a sequence is of. "sample": one sample. "record": all samples of a record in the order of time,
            interleaved as MINT and VL-GPT take them, e.g. clip, caption, next clip, next caption: `<bos> a b ... <eos>`
            around all of them, and positions that go on. What does not fit into a row is divided between samples. The
            order is one of records, over all shards.

    Raises:
        CurateError: what `curate.stream` raises; while it is iterated, a sequence that is too long.
    """
    made: PackedStream = maker(PackedStream, tensors)(
        build,
        view,
        length,
        split,
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
        too_long=too_long,
        documents=documents,
    )
    return made

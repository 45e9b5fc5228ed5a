"""Where builds and sources lie: a folder, or a bucket on an object store. One small interface for both.

The commit protocol (laws 6 and 7)
----------------------------------

What is written, and in which order. A stage writes one *fragment* for each *partition*, a fixed slice of a source. Its
name carries the digests of what is in the partition and of the code, options and models that made it, so two runs of
one recipe write the same bytes under the same name, and a fragment that is there is right. Of two fragments that belong
together the one that counts comes last (`fetched/` after `media/`, `records/` after `samples/`). Verdicts, tokenized
fragments and shards carry digests of what they hold in their names as well. After all of them come the card, then the
lists of all files with their digests (`versions/`), and last `manifest.json`, which names the lists: **the manifest is
the one commit point**. When it is in place, what neither it nor its lists name is removed.

How a file is written. In a folder: beside its place, synced to disk, renamed. In a bucket: one put (or one multipart
upload that is completed at the end), which a reader sees whole or not at all. Two tasks that write the same file
write the same bytes; the last one wins, and nothing is lost.

What a reader may trust. With a manifest: everything that its lists name (`curate verify` checks it), nothing else. A
run with a changed recipe adds files under other names while the old manifest still holds; from the moment the new one
is in place it holds, and files of the old are removed: a reader that has the old manifest open may then miss files,
and opens the new one. The exceptions are the few files whose names say nothing of their content: the card's pages,
which are written just before the manifest. Without a manifest: nothing, except to run the same command again.

What a rerun does. It lists the names of fragments, skips those that are there, makes the others, and commits. Killed
anywhere it ends with the bytes of an undisturbed run. Temporary files of killed writers (`.NAME.HEX.part`, which
no listing shows; in a bucket, uploads that were never completed, which no reader sees and which a lifecycle rule of
the bucket should expire) are removed before the manifest is written.

Two runs of one build at once. In a folder the kernel's lock on it (`flock`, dropped with the process) lets one run
in. In a bucket it is a *lease*: the object `.curate/lease.json`, created with `If-None-Match: *` and renewed with
`If-Match`. It names its holder's process and machine. On that machine the kernel knows whether the holder lives: then
nobody else gets in, even if it is stopped; if it is dead, the next run follows at once. On other machines the lease
is taken over when it was not renewed for 30 s. The run that does not get in says who holds it, and ends.

A run renews its lease right before it commits, so one that was followed while it slept does not commit. The manifest
itself is put on condition that it is still the one (or none) that this run found at its start. So even if a run
sleeps between these two requests for so long that another follows it, only one of the two can commit, and the other
says so.

Where a store has no conditional writes (it ignores the headers, or refuses them: tried out at the start of a run), a
lease that is there is respected in the same way; a new one is written without a condition and read back, and the run
warns: two runs that start within the same moment are then not told apart. What they write is still the same bytes for
the same recipe; never start two recipes at once on one build there.
"""

from __future__ import annotations

from pathlib import Path

from curate.storage.base import Stat, Store
from curate.storage.bucket import Bucket
from curate.storage.folder import Folder

__all__ = ["Bucket", "Folder", "Stat", "Store", "is_remote", "open_store"]


def is_remote(place: str | Path) -> bool:
    """True if a path of a recipe or of the command line names an object store (`s3://bucket/prefix`)."""
    return isinstance(place, str) and "://" in place


def open_store(place: str | Path | Store) -> Store:
    """The store at a path or an `s3://bucket/prefix` uri. Nothing is read or made yet.

    Raises:
        CurateError: a uri of another kind, without a bucket, or with credentials in it.
    """
    if isinstance(place, Store):
        return place
    if is_remote(place):
        return Bucket.of(str(place))
    return Folder(Path(place).absolute())

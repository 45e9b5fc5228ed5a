"""The bytes of an object as they come from the network, all of one version of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import obstore
from obstore import exceptions
from obstore.store import S3Store

from curate.storage.retry import status_of

if TYPE_CHECKING:
    from obstore import GetOptions

SPAN = 32 << 20
"""Bytes of one request for a part of a large object."""


class Download:
    """Bytes of an object from one place to another, in order.

    Args:
        client: of the bucket.
        path: of the object.
        size: of the pieces, at least, where so much is left of a request; the network's own pieces are added up to it.
        start, stop: which bytes; to the end where `stop` is None.
        etag: of the version that is wanted; the one that is found where None.
    """

    def __init__(
        self, client: S3Store, path: str, size: int, start: int = 0, stop: int | None = None, etag: str | None = None
    ) -> None:
        self._client, self._path, self._size = client, path, size
        self._at, self._stop, self._etag = start, stop, etag
        self._total: int | None = None
        self._coming: Iterator[bytes] | None = None
        self._until = start

    def more(self) -> bytes:
        """The next bytes, none at the end. Called again after an error, it asks for what has not come yet.

        Raises:
            PreconditionError: the object is of another version by now.
            FileNotFoundError: there is none.
            BaseError, OSError: of the client; an answer that ends early is one.
        """
        coming = self._coming or self._asked()
        if coming is None:
            return b""
        self._coming = None  # after an error it is asked for anew
        data = next(coming, b"")
        left = self._until - self._at - len(data)
        if left < 0 or (left and not data):
            raise ConnectionError("the answer was cut off")
        self._at += len(data)
        self._coming = coming if left else None
        return data

    def _asked(self) -> Iterator[bytes] | None:
        """The answer to the next request; None where nothing is left to ask for."""
        ends = [end for end in (self._stop, self._total) if end is not None]
        stop = min([self._at + SPAN, *ends])
        if self._at >= stop:
            return None
        options: GetOptions = {"range": (self._at, stop)}
        if self._etag is not None:
            options["if_match"] = self._etag
        try:
            found = obstore.get(self._client, self._path, options=options)
        except exceptions.BaseError as exc:
            if status_of(exc) == 416:  # the object is empty, or ends before
                return None
            raise
        self._total, self._etag = int(found.meta["size"]), found.meta["e_tag"]
        self._until = min(stop, self._total)
        return iter(found.stream(min_chunk_size=self._size))

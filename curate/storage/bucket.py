"""A store that is a prefix of a bucket on an S3-compatible object store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore import exceptions
from obstore.store import S3Store

from curate.schema.errors import CurateError
from curate.storage import copies
from curate.storage.base import Lease, Stat, Store
from curate.storage.download import SPAN, Download
from curate.storage.lease import leased
from curate.storage.retry import retried, status_of

if TYPE_CHECKING:
    from obstore import PutMode

T = TypeVar("T")

PIECE = 1 << 18
"""Bytes that are written to a local copy at a time: few enough that they are still in the CPU's cache."""

PART = 8 << 20
"""Bytes of one part of an upload; what has no more goes up in one request."""

AT_ONCE = 8
"""Requests on their way together."""

CONNECT_SECONDS = 5.0
SILENT_SECONDS = 20.0
REQUEST_SECONDS = 120.0
"""How long a connection may take, the store may be silent, and one request may last."""

AGAIN = 3
"""How often one part of an upload, or one page of a list, is asked for again before the whole is: of hundreds of
requests one always fails. All else is tried again, counted and explained in one place, `retry.retried`."""

ENDPOINT = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
REGION = ("AWS_REGION", "AWS_DEFAULT_REGION")


@dataclass(frozen=True)
class Bucket(Store):
    """Objects below a prefix.

    Credentials are no part of it: each process takes them from its own environment (AWS_ACCESS_KEY_ID,
    AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN) or from its machine's role, so they are never sent to workers, written or
    printed.

    Attributes:
        bucket, prefix: the prefix without slashes at its ends, "" for the whole bucket.
        endpoint: url of the server; None for AWS.
        region: as the server wants it signed.
    """

    bucket: str
    prefix: str
    endpoint: str | None
    region: str

    @classmethod
    def of(cls, uri: str) -> Bucket:
        """The store at `s3://bucket/prefix`, with endpoint and region of this process's environment.

        Raises:
            CurateError: not such a uri.
        """
        parts = urlsplit(uri)
        if parts.scheme != "s3":
            raise CurateError(
                f"{parts.scheme}:// is not a place that curate can read or write", "use a path, or s3://bucket/prefix"
            )
        if "@" in parts.netloc:
            raise CurateError(
                "credentials do not belong into an s3:// uri, which is shown and kept",
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY instead",
            )
        names = parts.path.strip("/").split("/")
        if ":" in parts.netloc:
            raise CurateError(
                "an s3:// uri begins with the name of a bucket, which has no port",
                "write s3://bucket/prefix, and set AWS_ENDPOINT_URL to the server's url",
            )
        if not parts.netloc or parts.query or parts.fragment or {"", ".", ".."} & set(names if names != [""] else []):
            raise CurateError(f"s3://{parts.netloc}{parts.path} names no bucket and prefix", "write s3://bucket/prefix")
        return cls(parts.netloc, "/".join(names), _env(ENDPOINT), _env(REGION) or "us-east-1")

    @property
    def remote(self) -> bool:
        return True

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, path: str) -> bytes:
        return b"".join(self.chunks(path, SPAN))

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        if size <= 0:
            return b""
        return b"".join(self._pieces(path, SPAN, offset, offset + size))

    def tail(self, path: str, size: int) -> tuple[bytes, int]:
        def last() -> tuple[bytes, int]:
            try:
                found = obstore.get(self.client, path, options={"range": {"suffix": size}})
            except exceptions.BaseError as exc:
                if status_of(exc) == 416:  # the object is empty
                    return b"", 0
                raise
            data, total = bytes(found.bytes()), int(found.meta["size"])
            if len(data) != min(size, total):
                raise ConnectionError("the answer was cut off")
            return data, total

        try:
            return self._retried(last)
        except FileNotFoundError:
            raise FileNotFoundError(self.name(path)) from None

    def chunks(self, path: str, size: int = 1 << 24) -> Iterator[bytes]:
        return self._pieces(path, size)

    def _pieces(
        self, path: str, size: int, start: int = 0, stop: int | None = None, etag: str | None = None
    ) -> Iterator[bytes]:
        """An object's bytes; see `Download`."""
        coming = Download(self.client, path, size, start, stop, etag)
        try:
            while data := self._retried(coming.more):
                yield data
        except exceptions.PreconditionError:
            raise FileNotFoundError(f"{self.name(path)} changed while it was read") from None
        except FileNotFoundError:
            raise FileNotFoundError(self.name(path)) from None

    def stat(self, path: str) -> Stat | None:
        found = self._head(path)
        return None if found is None else Stat(path, found["size"], found["e_tag"] or "")

    def _head(self, path: str) -> Any:
        try:
            return self._retried(lambda: obstore.head(self.client, path))
        except FileNotFoundError:
            return None

    def files(self, folder: str = "") -> list[Stat]:
        def listed() -> list[Stat]:
            batches = obstore.list(self._client(AGAIN), prefix=folder or None, chunk_size=1000)
            found = [Stat(o["path"], o["size"]) for batch in batches for o in batch]
            if not all(stat.bytes for stat in found):
                # consoles and other tools put empty objects where folders would be, with a slash that the client drops
                above = {folder, *(str(place) for stat in found for place in PurePosixPath(stat.path).parents)}
                found = [stat for stat in found if stat.bytes or stat.path not in above]
            return sorted(found, key=lambda stat: stat.path)

        return self._retried(listed)

    def existing(self, paths: Iterable[str]) -> set[str]:
        wanted = set(paths)
        folders = {path.rpartition("/")[0] for path in wanted}
        return {stat.path for folder in sorted(folders) for stat in self.files(folder)} & wanted

    def write(self, path: str, data: bytes) -> None:
        self.put(path, data, "overwrite")

    def put(self, path: str, data: bytes | Path, mode: PutMode) -> str | None:
        """One put; the ETag of what is there now.

        Raises:
            AlreadyExistsError, PreconditionError: what `mode` asks does not hold. After a lost answer this may be so
                because of this very put. FileNotFoundError: nothing is there that could be replaced.
            NotSupportedError: the store has no conditional writes, and says so.
        """
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        client = self._client(AGAIN if mode == "overwrite" and size > PART else 0)

        def put() -> str | None:
            try:
                return obstore.put(client, path, data, mode=mode, chunk_size=PART)["e_tag"]
            except exceptions.BaseError as exc:
                if mode != "overwrite" and status_of(exc) == 501:
                    raise exceptions.NotSupportedError("conditional writes") from None
                raise
            except FileNotFoundError as exc:
                if mode == "overwrite" and "<Code>NoSuchUpload</Code>" in str(exc):
                    raise ConnectionError("the upload was ended, and the answer lost") from None
                raise

        return self._retried(put)

    def etag(self, path: str) -> str | None:
        """The ETag of an object, or None where there is none."""
        found = self._head(path)
        return None if found is None else found["e_tag"]

    @contextmanager
    def atomic_write(self, path: str) -> Iterator[Path]:
        with TemporaryDirectory(prefix="curate-") as folder:
            temporary = Path(folder) / Path(path).name
            yield temporary
            self.put(path, temporary, "overwrite")

    def remove(self, paths: Iterable[str]) -> None:
        gone = list(paths)
        for start in range(0, len(gone), 1000):
            some = gone[start : start + 1000]
            self._retried(partial(obstore.delete, self.client, some))

    def local(self, path: str) -> Path:
        return self._copied(path, copies.passing())

    @contextmanager
    def pinned(self, paths: Sequence[str]) -> Iterator[list[Path]]:
        with copies.Pins() as pins, ThreadPoolExecutor(AT_ONCE) as pool:
            yield list(pool.map(lambda path: self._copied(path, pins), paths))

    def _copied(self, path: str, pins: copies.Pins) -> Path:
        while True:
            found = self._head(path)
            if found is None:
                raise FileNotFoundError(self.name(path))
            name = [self.endpoint, self.bucket, self.prefix, path, found["e_tag"], found["size"]]
            try:
                return copies.cached_copy(
                    name, Path(path).suffix, partial(self._pieces, path, PIECE, etag=found["e_tag"]), pins
                )
            except FileNotFoundError:
                continue  # it was replaced, or removed, since we looked

    def acquire(self, commit_point: str) -> AbstractContextManager[Lease]:
        return leased(self, commit_point)

    @property
    def client(self) -> S3Store:
        """The client of this process."""
        return self._client(0)

    def _client(self, again: int) -> S3Store:
        return _client(self, hash(tuple(os.environ.get(name) for name in CREDENTIALS)), again)

    def _retried(self, call: Callable[[], T]) -> T:
        return retried(call, str(self))


_made_by: set[int] = set()
"""Processes of this line of forks that have made a client."""


def _client(at: Bucket, credentials: int, again: int) -> S3Store:
    """A client of this process. Threads come with it that do not live on in a fork, where each call would hang."""
    if _made_by - {os.getpid()}:
        raise CurateError(
            "this process was forked from one that had opened an object store, which its clients do not survive",
            'start it anew: a DataLoader takes multiprocessing_context="forkserver"',
        )
    _made_by.add(os.getpid())
    return _made(at, credentials, again)


@lru_cache(maxsize=128)
def _made(at: Bucket, credentials: int, again: int) -> S3Store:
    """A client. It reads the credentials from the environment itself; those who changed them need another one.

    Args:
        credentials: a number that tells them from others.
        again: how often the client tries a request again by itself.
    """
    return S3Store(
        at.bucket,
        prefix=at.prefix or None,
        endpoint=at.endpoint,
        region=at.region,
        client_options={
            "allow_http": (at.endpoint or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=SILENT_SECONDS),
            "timeout": timedelta(seconds=REQUEST_SECONDS),
        },
        retry_config={"max_retries": again, "retry_timeout": timedelta(seconds=REQUEST_SECONDS)},
    )


def endpoint_env() -> dict[str, str]:
    """Endpoint and region of this process's environment, to hand to workers on other nodes. No credentials."""
    return {name: os.environ[name] for name in (*ENDPOINT, *REGION) if os.environ.get(name)}


def apply_endpoint_env(given: Mapping[str, str]) -> None:
    """Take over what `endpoint_env` gave on the driver, where this process's own environment says nothing."""
    for names in (ENDPOINT, REGION):
        if _env(names) is None:
            os.environ.update({name: given[name] for name in names if name in given})


def _env(names: Sequence[str]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)

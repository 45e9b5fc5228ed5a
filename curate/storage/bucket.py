"""A store that is a prefix of a bucket on an S3-compatible object store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import obstore
from obstore.store import S3Store

from curate.schema.errors import CurateError
from curate.storage.base import Hold, Stat, Store
from curate.storage.copies import copy_of
from curate.storage.retry import retried

if TYPE_CHECKING:
    from obstore import PutMode

T = TypeVar("T")

SPAN = 32 << 20
"""Bytes of one request for a part of a large object: what is cut off is fetched again, not the whole."""

AT_ONCE = 8
"""Requests on their way together."""

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
        if not parts.netloc or parts.query or parts.fragment:
            raise CurateError(f"{uri} names no bucket and prefix", "write s3://bucket/prefix")
        return cls(parts.netloc, parts.path.strip("/"), _env(ENDPOINT), _env(REGION) or "us-east-1")

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
        spans = [(at, min(SPAN, offset + size - at)) for at in range(offset, offset + size, SPAN)]
        return b"".join(self._span(path, at, length) for at, length in spans)

    def _span(self, path: str, offset: int, size: int) -> bytes:
        """Some bytes; fewer, or none, where the object ends."""

        def get() -> bytes:
            stat = None
            try:
                data = bytes(obstore.get_range(self.client, path, start=offset, length=size))
            except FileNotFoundError:
                raise
            except (obstore.exceptions.BaseError, ValueError):
                # a range that begins behind the end is refused; so the size decides what is an error
                stat = self.stat(path)
                if stat is None:
                    raise FileNotFoundError(self.name(path)) from None
                if offset < stat.bytes:
                    raise
                return b""
            if len(data) < size:
                stat = self.stat(path)
                if stat is None or len(data) < min(size, stat.bytes - offset):
                    raise ConnectionError("the answer was cut off")
            return data

        return self._retried(get)

    def chunks(self, path: str, size: int = 1 << 24) -> Iterator[bytes]:
        stat = self.stat(path)
        if stat is None:
            raise FileNotFoundError(self.name(path))
        for at in range(0, stat.bytes, size):
            want = min(size, stat.bytes - at)
            data = self.read_range(path, at, want)
            if len(data) != want:
                raise FileNotFoundError(f"{self.name(path)} changed while it was read")
            yield data

    def stat(self, path: str) -> Stat | None:
        found = self._head(path)
        return None if found is None else Stat(path, found["size"])

    def _head(self, path: str) -> Any:
        try:
            return self._retried(lambda: obstore.head(self.client, path))
        except FileNotFoundError:
            return None

    def files(self, folder: str = "") -> list[Stat]:
        def listed() -> list[Stat]:
            batches = obstore.list(self.client, prefix=folder or None)
            return sorted((Stat(o["path"], o["size"]) for batch in batches for o in batch), key=lambda stat: stat.path)

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
                because of this very put.
        """
        return self._retried(lambda: obstore.put(self.client, path, data, mode=mode))["e_tag"]

    def etag(self, path: str) -> str | None:
        """The ETag of an object, or None where there is none."""
        found = self._head(path)
        return None if found is None else found["e_tag"]

    @contextmanager
    def placed(self, path: str) -> Iterator[Path]:
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
        found = self._head(path)
        if found is None:
            raise FileNotFoundError(self.name(path))
        name = [self.endpoint, self.bucket, self.prefix, path, found["e_tag"], found["size"]]
        return copy_of(name, Path(path).suffix, lambda: self.chunks(path, SPAN))

    def locals(self, paths: Sequence[str]) -> list[Path]:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(self.local, paths))

    def held(self, commit_point: str) -> AbstractContextManager[Hold]:
        from curate.storage.lease import leased

        return leased(self, commit_point)

    @property
    def client(self) -> S3Store:
        """The client of this process."""
        return _client(self, hash(tuple(os.environ.get(name) for name in CREDENTIALS)))

    def _retried(self, call: Callable[[], T]) -> T:
        return retried(call, str(self))


@lru_cache(maxsize=64)
def _client(at: Bucket, credentials: int) -> S3Store:
    """A client, which reads the credentials from the environment; other credentials need another one."""
    return S3Store(
        at.bucket,
        prefix=at.prefix or None,
        endpoint=at.endpoint,
        region=at.region,
        client_options={
            "allow_http": (at.endpoint or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=5),
            "read_timeout": timedelta(seconds=20),
            "timeout": timedelta(seconds=120),
        },
        # tries are counted and explained in one place, `retry.retried`
        retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
    )


def _env(names: Sequence[str]) -> str | None:
    return next((os.environ[name] for name in names if os.environ.get(name)), None)

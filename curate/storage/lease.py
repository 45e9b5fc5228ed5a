"""One run at a time on a bucket: a lease that is renewed while the run lives (`docs/commit-protocol.md`)."""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

from curate.schema.errors import CurateError
from curate.storage.base import Lease

if TYPE_CHECKING:
    from obstore import PutMode

LEASE = ".curate/lease.json"
RENEW_SECONDS = 8.0
EXPIRES_SECONDS = 30.0
"""A lease that was not renewed for so long, as seen by the run that waits, belongs to a run that is dead."""

NO_ETAG = '"of nothing"'

NO_CONDITIONS = (
    "this object store has no conditional writes (If-None-Match, If-Match): a second run that is started on this build "
    "at the same moment is not noticed; start only one"
)


class Objects(Protocol):
    """What a lease needs of a bucket; `curate.storage.bucket.Bucket` says what each method does."""

    def put(self, path: str, data: bytes, mode: PutMode) -> str | None: ...
    def etag(self, path: str) -> str | None: ...
    def read(self, path: str) -> bytes: ...
    def write(self, path: str, data: bytes) -> None: ...
    def remove(self, paths: Iterable[str]) -> None: ...


@contextmanager
def leased(bucket: Objects, commit_point: str) -> Iterator[Lease]:
    """Hold a bucket's prefix.

    Raises:
        CurateError: another run holds it, or it cannot be written.
    """
    lease = BucketLease(bucket, commit_point)
    lease.acquire()
    renewing = threading.Thread(target=lease.renew_until_released, name="lease", daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        lease.released.set()
        renewing.join()
        lease.release()


class BucketLease(Lease):
    """The lease of this run."""

    def __init__(self, bucket: Objects, commit_point: str) -> None:
        self._bucket = bucket
        self._commit_point = commit_point
        self._me = {"run": secrets.token_hex(8), **_process()}
        self._said = 0
        self._etag: str | None = None
        self._lost = False
        self._conditions = True
        self._found: str | None = None
        self._renewing = threading.Lock()
        self.released = threading.Event()

    def acquire(self) -> None:
        """Get the lease, from nobody or from a run that is dead."""
        etag = self._wait_for_stale_lease()
        self._conditions = self._put_if(etag) and self._honours_conditions()
        if not self._conditions:
            self.warning = NO_CONDITIONS
            self._bucket.write(LEASE, self._words())
            time.sleep(RENEW_SECONDS / 8)  # for one that began at the same moment to write its own
            if not self._is_mine():
                raise self._taken(self._look()[1])
        self._found = self._bucket.etag(self._commit_point)

    def _wait_for_stale_lease(self) -> str | None:
        """The ETag of a lease that nobody holds any more, or None where there is none.

        No clocks are compared: a lease is dead when it does not change while this run watches, or when its process
        ran on this very machine and is gone. A process of this machine that is there holds it, even if it is stopped.

        Raises:
            CurateError: it is held.
        """
        etag, holder = self._look()
        began = time.monotonic()
        while etag is not None and not _gone(holder):
            if _lives(holder):
                raise self._taken(holder)
            if time.monotonic() - began > EXPIRES_SECONDS:
                break
            time.sleep(min(1.0, RENEW_SECONDS / 8))
            now, holder_now = self._look()
            if now is not None and now != etag:
                raise self._taken(holder_now)
            etag = now
        return etag

    def _put_if(self, etag: str | None) -> bool:
        """Write the lease in place of the one with this ETag; whether the store knows such conditions.

        Raises:
            CurateError: another run was faster.
        """
        mode: PutMode = "create" if etag is None else {"e_tag": etag}
        try:
            self._etag = self._bucket.put(LEASE, self._words(), mode)
        except NotSupportedError:
            return False
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            if not self._is_mine():
                raise self._taken(self._look()[1]) from None
        return True

    def _honours_conditions(self) -> bool:
        """True if the store refuses to create the lease a second time, and to replace one that is not there."""
        for mode in ("create", {"e_tag": NO_ETAG}):
            try:
                self._bucket.put(LEASE, self._words(), cast("PutMode", mode))
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                continue
            except NotSupportedError:
                return False
            return False
        return True

    def _taken(self, holder: dict[str, Any]) -> CurateError:
        who = f" (process {holder['pid']} on {holder['host']})" if {"pid", "host"} <= holder.keys() else ""
        return CurateError(f"another run is at work on {self._bucket}{who}", "wait for it, or choose another --out")

    def _words(self) -> bytes:
        self._said += 1  # so that each renewal has another ETag
        return json.dumps({**self._me, "said": self._said}, sort_keys=True).encode()

    def _look(self) -> tuple[str | None, dict[str, Any]]:
        """ETag and words of the lease that is there. Read in this order, so that a change in between is noticed."""
        etag = self._bucket.etag(LEASE)
        if etag is None:
            return None, {}
        try:
            words = json.loads(self._bucket.read(LEASE))
        except (FileNotFoundError, ValueError):
            return etag, {}
        return etag, words if isinstance(words, dict) else {}

    def _is_mine(self) -> bool:
        """True if the lease that is there is this run's: a put may land although its answer is lost."""
        etag, words = self._look()
        mine = bool(words.get("run") == self._me["run"])
        if mine:
            self._etag = etag
        return mine

    def renew_until_released(self) -> None:
        """Renew the lease, in a thread of its own. What goes wrong here is judged by `commit`."""
        while not self.released.wait(RENEW_SECONDS):
            try:
                if not self._renewed():
                    return
            except CurateError:
                continue  # not to be reached just now; the lease may still be ours when it is back

    def _renewed(self) -> bool:
        """Write the lease anew, if it is still this run's; whether it is.

        Raises:
            CurateError: the store cannot be asked.
        """
        with self._renewing:
            if not self._lost:
                try:
                    if self._conditions:
                        self._etag = self._bucket.put(LEASE, self._words(), {"e_tag": self._etag})
                    elif self._is_mine():
                        self._bucket.write(LEASE, self._words())
                    else:
                        self._lost = True
                except (PreconditionError, FileNotFoundError):
                    self._lost = not self._is_mine()
            return not self._lost

    def release(self) -> None:
        """Remove the lease, if it is still this run's."""
        try:
            if not self._lost and self._is_mine():
                self._bucket.remove([LEASE])
        except CurateError:
            return  # the store is gone, and the lease expires by itself

    def commit(self, data: bytes) -> None:
        mode: PutMode = "overwrite"
        if self._conditions:
            mode = "create" if self._found is None else {"e_tag": self._found}
        try:
            if not self._renewed():  # a run that slept long has not noticed yet
                raise PreconditionError
            self._found = self._bucket.put(self._commit_point, data, mode)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            if not self._lost and self._committed() == data:
                self._found = self._bucket.etag(self._commit_point)
                return  # the put landed and its answer was lost
            raise CurateError(
                f"another run has taken {self._bucket} over meanwhile, so this one does not commit",
                "look at what is there, or run the same command again",
            ) from None

    def _committed(self) -> bytes | None:
        try:
            return self._bucket.read(self._commit_point)
        except FileNotFoundError:
            return None

    def retract(self) -> None:
        if self._renewed() and self._bucket.etag(self._commit_point) == self._found:
            self._bucket.remove([self._commit_point])
            self._found = None


def _process() -> dict[str, Any]:
    """This process, such that the same machine can tell whether it still lives."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "began": _began(os.getpid())}


def _machine() -> str:
    """Boot id and container id; process ids are only comparable within one."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"  # noqa: PTH116 - a namespace is no path


def _began(pid: int) -> str:
    """When a process began, in the kernel's ticks; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _gone(holder: dict[str, Any]) -> bool:
    """True if the holder ran on this machine and is dead for certain."""
    return _here(holder) and _began(holder["pid"]) != holder.get("began")


def _lives(holder: dict[str, Any]) -> bool:
    """True if the holder runs on this machine."""
    return _here(holder) and _began(holder["pid"]) == holder.get("began")


def _here(holder: dict[str, Any]) -> bool:
    return holder.get("machine") == _machine() and isinstance(holder.get("pid"), int)

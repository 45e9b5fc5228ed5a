"""Local copies of remote objects, shared by the processes of a machine, within a budget of disk space.

A copy in use is never evicted. Who uses one holds a hard link of it, a *pin*, in a folder of its own process, and is
given the link's path; so the kernel counts the users (`st_nlink`), and a sweep passes by what has any. A process keeps
a lock on its folder of pins, which the kernel drops with the process: folders without a lock are removed by the next
sweep, so a killed process holds nothing.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from curate.schema.ids import key_of
from curate.storage.place import atomic_write

BUDGET = 20 << 30
"""Bytes of all copies; CURATE_CACHE_BYTES sets another number. The longest unused go first."""

PASSING = 64
"""Copies of a process that stay pinned when nobody says for how long; then the first ones are let go."""

_SWEEP_SECONDS = 30.0
_swept = 0.0


CACHE_HINT = "set the environment variable CURATE_CACHE to a folder that can be written"


def cache_folder() -> Path:
    """Where this user's copies, exported models and prepared media lie: CURATE_CACHE, or `~/.cache/curate-tokens`."""
    given = os.environ.get("CURATE_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "curate-tokens"


class Pins:
    """Copies that stay, until the block ends or more than `most` others were pinned."""

    def __init__(self, most: int | None = None) -> None:
        self.owner = _own_folder()
        self._folder = self.owner / secrets.token_hex(8)
        self._most = most
        self._held: OrderedDict[Path, None] = OrderedDict()
        self._lock = threading.Lock()

    def pin(self, copy: Path, name: str) -> Path:
        """A link of a copy, called `name`; FileNotFoundError where it is gone."""
        link = self._folder / name
        with self._lock:
            self._folder.mkdir(parents=True, exist_ok=True)  # somebody may have emptied the cache
            with suppress(FileExistsError):
                link.hardlink_to(copy)
            self._held[link] = None
            self._held.move_to_end(link)
            while self._most is not None and len(self._held) > self._most:
                self._held.popitem(last=False)[0].unlink(missing_ok=True)
        return link

    def __enter__(self) -> Pins:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)  # what is left goes with the process


def cached_copy(name: Any, suffix: str, chunks: Callable[[], Iterable[bytes]], pins: Pins) -> Path:
    """The local copy of an object, made where it is not there, and pinned.

    Args:
        name: JSON value that tells the object and its version from all others.
        suffix: of the file.
        chunks: gives the bytes.
        pins: what it is pinned by.
    """
    key = key_of([name, _boot()])
    place = cache_folder() / "objects" / key[:2] / f"{key}{suffix}"
    while True:
        try:
            link = pins.pin(place, place.name)
            os.utime(link)  # used now
            return link
        except FileNotFoundError:
            with atomic_write(place, CACHE_HINT, sync=False) as temporary:
                with temporary.open("wb") as file:
                    for chunk in chunks():
                        file.write(chunk)
                pins.pin(temporary, place.name)  # before it has its place, so that no sweep finds it there unused
            _evict(cache_folder(), keep=place)


@cache
def _boot() -> str:
    """What tells this start of the machine from others. A copy is not synced to disk, which would take longer than to
    fetch it: after a crash of the machine it may be damaged, so it is one of this start alone."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return str(int(time.time() - time.monotonic()))


def _evict(folder: Path, keep: Path) -> None:
    """Remove the longest unused copies above the budget, but none that is in use."""
    global _swept
    if time.monotonic() - _swept < _SWEEP_SECONDS:
        return
    _swept = time.monotonic()
    for lock in (folder / "pins").glob("*.lock"):
        _remove_if_dead(lock)
    budget = int(os.environ.get("CURATE_CACHE_BYTES") or BUDGET)
    found = []
    total = 0
    for path in (folder / "objects").glob("*/*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue  # another process was first
        total += stat.st_size
        if stat.st_nlink == 1 and path != keep:
            found.append((stat.st_mtime, stat.st_size, path))
    for _, size, path in sorted(found):
        if total <= budget:
            break
        path.unlink(missing_ok=True)  # who has pinned it since it was looked at keeps the data by that link
        total -= size


_pid = 0
_own: Path | None = None
_passing: Pins | None = None
_making = threading.RLock()


def passing() -> Pins:
    """Pins of this process for copies that are opened at once."""
    global _passing
    with _making:
        folder = _own_folder()
        if _passing is None or _passing.owner != folder:
            _passing = Pins(PASSING)
        return _passing


def _own_folder() -> Path:
    """This process's folder of pins: after a fork, or where the cache has moved, another one."""
    global _pid, _own
    with _making:
        pins = cache_folder() / "pins"
        if _own is None or _pid != os.getpid() or _own.parent != pins or not _own.is_dir():
            pins.mkdir(parents=True, exist_ok=True)
            folder = pins / secrets.token_hex(8)
            lock = folder.with_suffix(".lock")
            while not _locked(lock):
                pass
            folder.mkdir()
            atexit.register(_remove_own_pins, folder, os.getpid())
            _pid, _own = os.getpid(), folder
        return _own


def _locked(lock: Path) -> bool:
    """Make a lock file that is held as long as this process lives; False where a sweep took it meanwhile for dead."""
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
    fcntl.flock(handle, fcntl.LOCK_EX)
    if os.fstat(handle).st_nlink:
        return True  # and the handle stays open
    os.close(handle)
    return False


def _remove_if_dead(lock: Path) -> None:
    """Remove the pins of a process that has ended, however it did."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
        lock.unlink(missing_ok=True)
    except BlockingIOError:
        return  # it lives
    finally:
        os.close(handle)


def _remove_own_pins(folder: Path, pid: int) -> None:
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
        folder.with_suffix(".lock").unlink(missing_ok=True)

"""Helper processes really die here, in every way that native code does, and the next call works."""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from curate.helper.errors import HelperDied, HelperError, HelperNotStarted, WireError
from curate.helper.process import Helper
from curate.schema.errors import CurateError, MediaError

SERVICE = "helper_services:Native"
MIB = 1 << 20


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    """One for all tests: each leaves it fit for the next, whatever it did to the process."""
    with Helper(SERVICE, memory_bytes=64 * MIB, name="native") as helper:
        yield helper


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody has collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def until(done: Callable[[], bool], seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_one_process_serves_many_calls(helper: Helper) -> None:
    first = helper.call("pid", limit_s=30)
    assert first == helper.pid != os.getpid()
    frames = np.random.default_rng(0).integers(0, 256, (2, 480, 640, 3), np.uint8)
    assert np.array_equal(helper.call("echo", frames, limit_s=30), frames)
    assert helper.call("echo", 1, None, limit_s=30) == [1, None]
    assert helper.call("echo", a="b", limit_s=30) == {"a": "b"}
    assert helper.call("pid", limit_s=30) == first


@pytest.mark.parametrize(
    ("method", "args", "error", "message"),
    [
        ("segfault", (), "Crashed", "was killed by SIGSEGV"),
        ("kill", (signal.SIGKILL,), "Crashed", "was killed by SIGKILL"),
        ("kill", (signal.SIGRTMIN + 7,), "Crashed", f"was killed by signal {signal.SIGRTMIN + 7}"),
        ("exit", (3,), "Crashed", "ended with exit code 3"),
        ("sleep", (), "TimeLimit", "took longer than its limit of 0.4 s"),
        ("backtrack", (), "TimeLimit", "took longer than its limit of 0.4 s"),
        ("chatter_for_ever", (), "TimeLimit", "took longer than its limit of 0.4 s"),
        ("eat", (), "MemoryLimit", "needed more memory than its limit of 64 MiB"),
        ("eat_in_cpp", (), "MemoryLimit", "needed more memory than its limit of 64 MiB"),
        ("fork_and_die", (), "Crashed", "was killed by SIGSEGV"),
    ],
)
def test_each_death_has_its_name_and_the_next_call_works(
    helper: Helper, method: str, args: tuple[Any, ...], error: str, message: str
) -> None:
    before = helper.call("pid", limit_s=30)
    limit = 0.4 if error == "TimeLimit" else 30
    started = time.monotonic()
    with pytest.raises(HelperDied) as died:
        helper.call(method, *args, limit_s=limit)
    assert (died.value.error, died.value.message) == (error, message)
    assert time.monotonic() - started < 10
    assert not alive(before)
    assert helper.call("echo", "well", limit_s=30) == "well"
    assert helper.pid != before


def test_a_death_between_calls_is_not_seen(helper: Helper) -> None:
    pidfd = os.pidfd_open(helper.call("pid", limit_s=30))
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0]  # all its threads have ended
    os.close(pidfd)
    assert helper.call("echo", 1, limit_s=30) == 1


def test_a_process_that_closes_its_end_is_killed(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.helper.process._ENDING_SECONDS", 0.2)
    before = helper.call("pid", limit_s=30)
    with pytest.raises(HelperDied, match="closed its connection"):
        helper.call("close_socket", limit_s=30)
    assert not alive(before)


def test_what_a_crash_leaves_on_stderr_is_for_the_reader_only(helper: Helper) -> None:
    with pytest.raises(HelperDied) as died:
        helper.call("segfault", limit_s=30)
    assert "Segmentation fault" in died.value.debug
    assert "in segfault" in died.value.debug
    assert "Segmentation" not in str(died.value)


def test_libraries_may_print_as_much_as_they_like(helper: Helper) -> None:
    assert helper.call("chatter", 10, limit_s=30) == 10
    with pytest.raises(HelperDied) as died:
        helper.call("kill", signal.SIGKILL, limit_s=30)
    assert died.value.debug.endswith("the last line\n")
    assert len(died.value.debug) <= 8192


def test_promised_exceptions_arrive_and_others_are_named(helper: Helper) -> None:
    before = helper.call("pid", limit_s=30)
    with pytest.raises(MediaError, match=r"^The video is damaged at 1\.000 s\.$"):
        helper.call("promised", limit_s=30)
    with pytest.raises(CurateError, match="no shot detector") as mend:
        helper.call("to_mend", limit_s=30)
    assert mend.value.hint == "Use content."
    for method, error, message in (
        ("odd", "Odd", "it is\nodd"),
        ("a_set", "WireError", "a builtins.set cannot be sent"),
        ("nothing_like_it", "AttributeError", "'Native' object has no attribute 'nothing_like_it'"),
    ):
        with pytest.raises(HelperError) as failed:
            helper.call(method, limit_s=30)
        assert (failed.value.error, failed.value.message) == (error, message)
    with pytest.raises(WireError, match="set cannot be sent"):
        helper.call("echo", {1}, limit_s=30)
    assert helper.call("pid", limit_s=30) == before  # none of this costs a process


def test_inputs_do_not_count_against_the_memory_limit(helper: Helper) -> None:
    assert helper.call("size", bytes(100 * MIB), limit_s=30) == 100 * MIB
    helper.call("hold", bytes(100 * MIB), limit_s=30)
    before = helper.pid
    assert helper.call("size", bytes(100 * MIB), limit_s=30) == 100 * MIB
    with pytest.raises(HelperDied, match="more memory than its limit of 64 MiB"):
        helper.call("eat", limit_s=30)
    assert helper.call("echo", 1, limit_s=30) == 1
    assert helper.pid != before


def framed(table: bytes, tree: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<III", len(table), len(tree), 0) + table + tree + rest


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\xff" * 12, "gave an answer that cannot be read: a header longer than the protocol has"),
        (framed(b'[["bytes",1000000000000]]', b"0"), "an answer that cannot be read: buffers longer than its memory"),
        (framed(b'[["array","|O",[1]]]', b'["gave",{"$":0}]', b"12345678"), "gave an answer that cannot be read"),
        (framed(b"[]", b'["raised",1,2,3]'), "gave an answer that is none"),
    ],
)
def test_a_process_that_was_taken_over_is_not_believed(helper: Helper, raw: bytes, message: str) -> None:
    with pytest.raises(HelperDied) as died:
        helper.call("say", raw, limit_s=30)
    assert died.value.error == "Crashed"
    assert message in died.value.message
    assert helper.call("echo", 1, limit_s=30) == 1


def test_only_promised_classes_are_made_of_an_answer(helper: Helper) -> None:
    """No name that comes out of the process chooses what runs in the worker."""
    with pytest.raises(HelperError, match="SystemExit: 0"):
        helper.call("say", framed(b"[]", b'["raised","SystemExit","0",""]'), limit_s=30)
    helper.close()


def test_a_start_that_fails_is_no_inputs_fault(helper: Helper) -> None:
    with (
        Helper(SERVICE, {"start": "raises"}, memory_bytes=None, name="x") as missing,
        pytest.raises(CurateError, match="weights are missing") as mend,
    ):
        missing.call("pid", limit_s=30)
    assert mend.value.hint == "Install them."
    for service, options, sentence in (
        (SERVICE, {"start": "segfaults"}, "'x' was killed by SIGSEGV when it started"),
        ("no_such_module:Native", {}, "No module named 'no_such_module'"),
    ):
        with (
            Helper(service, options, memory_bytes=None, name="x") as broken,
            pytest.raises(HelperNotStarted, match=sentence),
        ):
            broken.call("pid", limit_s=30)


def test_what_it_started_dies_with_it(helper: Helper, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    with pytest.raises(HelperDied, match="SIGSEGV"):
        helper.call("start_process_and_die", str(ready), limit_s=30)
    assert until(lambda: not alive(int(ready.read_text())), 1)
    other = helper.call("start_process", limit_s=30)
    assert alive(other)
    helper.close()
    assert until(lambda: not alive(other), 1)


def test_it_dies_with_its_worker_whatever_it_does(tmp_path: Path) -> None:
    """The worker is killed by SIGKILL while the helper holds the interpreter's lock, and has a process of its own."""
    ready = tmp_path / "ready"
    script = (
        "import sys; from curate.helper.process import Helper\n"
        f"Helper({SERVICE!r}, memory_bytes=None, name='x').call('backtrack_with_children', sys.argv[1], limit_s=60)\n"
    )
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    worker = subprocess.Popen([sys.executable, "-c", script, str(ready)], env={**os.environ, "PYTHONPATH": paths})
    try:
        assert until(ready.exists, 30)
        pids = [int(pid) for pid in ready.read_text().split()]
        assert all(map(alive, pids))
    finally:
        worker.kill()
        worker.wait()
    assert until(lambda: not any(map(alive, pids)), 1)


def test_it_outlives_the_thread_that_started_it(helper: Helper) -> None:
    helper.close()
    pids: list[int] = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: pids.append(helper.call("pid", limit_s=30)))
        thread.start()
        thread.join()
    assert pids[0] == pids[1] == helper.call("pid", limit_s=30)


def test_threads_wait_for_each_other(helper: Helper) -> None:
    wrong: list[int] = []

    def echoes(number: int) -> None:
        wrong.extend(i for i in range(50) if helper.call("echo", [number, i], limit_s=60) != [number, i])

    threads = [threading.Thread(target=echoes, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_fork_of_the_worker_gets_a_process_of_its_own(helper: Helper) -> None:
    ours = helper.call("pid", limit_s=30)
    read, write = os.pipe()
    fork = os.fork()
    if fork == 0:
        try:
            os.write(write, str(helper.call("pid", limit_s=30)).encode())
            helper.close()
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        theirs = int(answer.read())
    os.waitpid(fork, 0)
    assert theirs != ours
    assert not alive(theirs)
    assert helper.call("pid", limit_s=30) == ours


def test_no_other_open_file_reaches_it(helper: Helper, tmp_path: Path) -> None:
    helper.close()
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        files = helper.call("open_files", limit_s=30)
    # stdin and stdout, the memory of both directions, stderr and the lifeline, the socket
    kinds = sorted(name.partition(":")[0] for name in files)
    assert kinds == ["/dev/null", "/dev/null", "/memfd", "/memfd", "pipe", "pipe", "socket"]


@pytest.mark.parametrize("restarts", [3, pytest.param(50, marks=pytest.mark.long)])
def test_nothing_leaks_over_restarts_and_calls(helper: Helper, restarts: int) -> None:
    def counts() -> tuple[int, int, int]:
        mine = [p for p in Path("/proc").glob("[0-9]*/stat") if parent(p) == os.getpid()]
        return len(list(Path("/proc/self/fd").iterdir())), len(mine), threading.active_count()

    def parent(stat: Path) -> int:
        try:
            return int(stat.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            return 0

    helper.call("pid", limit_s=30)
    before = counts()
    for _ in range(restarts):
        with pytest.raises(HelperDied):
            helper.call("exit", 1, limit_s=30)
        for i in range(40):
            assert helper.call("echo", i, limit_s=30) == i
    assert counts() == before


def test_it_ends_when_nothing_refers_to_it() -> None:
    forgotten = Helper(SERVICE, memory_bytes=None, name="x")
    pid = forgotten.call("pid", limit_s=30)
    del forgotten
    assert not alive(pid)

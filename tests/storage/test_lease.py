"""One run at a time on a bucket, whatever happens to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import obstore
import pytest
from faulty_proxy import BUSY, NOT_IMPLEMENTED, RESET_AFTER, FaultyProxy, Request
from object_store import ObjectStore

from curate.schema.errors import CurateError
from curate.storage import Bucket, lease, open_store

MANIFEST = "manifest.json"


class Run:
    """Another process that holds a store."""

    def __init__(self, uri: str, renew: float, expires: float, machine: str | None) -> None:
        script = Path(__file__).with_name("lease_holder.py")
        command = [sys.executable, script, uri, renew, expires, *([machine] if machine else [])]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([str(part) for part in command], stdin=pipe, stdout=pipe, text=True)
        assert self.hears() == "ready"

    def says(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hears(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def asked(self, line: str) -> str:
        self.says(line)
        return self.hears()

    def ends(self) -> None:
        """Let it end as a run does that is done."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(20) == 0

    def killed(self) -> None:
        self.process.kill()
        self.process.wait()


StartRun = Callable[..., Run]


@pytest.fixture
def start() -> Iterator[StartRun]:
    """Starts other runs; none is left over."""
    runs: list[Run] = []

    def started(store: Bucket, renew: float = 0.15, expires: float = 0.9, machine: str | None = None) -> Run:
        runs.append(Run(str(store), renew, expires, machine))
        return runs[-1]

    yield started
    for run in runs:
        run.process.kill()
        run.process.wait()
        for stream in (run.process.stdin, run.process.stdout):
            assert stream is not None
            stream.close()


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of this process that is renewed and given up in a hurry."""
    monkeypatch.setattr(lease, "RENEW_SECONDS", 0.15)
    monkeypatch.setattr(lease, "EXPIRES_SECONDS", 0.9)


def test_of_two_that_start_at_once_one_wins_and_the_other_says_who(in_bucket: Bucket, start: StartRun) -> None:
    runs = [start(in_bucket) for _ in range(2)]
    for _ in range(20):
        for run in runs:
            run.says("go")
        said = [run.hears() for run in runs]
        assert sorted(word.partition(":")[0] for word in said) == ["holds", "refused"], said
        winner = said.index("holds")
        who = f"(process {runs[winner].process.pid} on {socket.gethostname()})"
        assert said[1 - winner] == f"refused: another run is at work on {in_bucket} {who}"
        assert runs[winner].asked("done") == "free"
    assert in_bucket.files() == [], "the lease is given back"


def test_a_killed_run_of_this_machine_is_followed_at_once(in_bucket: Bucket, start: StartRun) -> None:
    run = start(in_bucket, expires=60)
    assert run.asked("go") == "holds"
    run.killed()
    began = time.monotonic()
    with in_bucket.acquire(MANIFEST) as ours:
        assert time.monotonic() - began < 2
        ours.commit(b"mine")
    assert [stat.path for stat in in_bucket.files()] == [MANIFEST]


def test_a_killed_run_of_another_machine_is_followed_when_its_lease_has_expired(
    in_bucket: Bucket, start: StartRun, brief: None
) -> None:
    run = start(in_bucket, machine="other boot 1")
    assert run.asked("go") == "holds"
    run.killed()
    began = time.monotonic()
    with in_bucket.acquire(MANIFEST):
        assert 0.8 < time.monotonic() - began < 6


def test_a_living_run_of_another_machine_is_never_robbed(in_bucket: Bucket, start: StartRun, brief: None) -> None:
    run = start(in_bucket, machine="other boot 1")
    assert run.asked("go") == "holds"
    for _ in range(3):
        with pytest.raises(CurateError, match=f"process {run.process.pid} on"), in_bucket.acquire(MANIFEST):
            raise AssertionError("robbed")
    assert run.asked("commit theirs") == "committed"
    assert in_bucket.read(MANIFEST) == b"theirs"


def test_a_stopped_run_of_this_machine_is_not_robbed(in_bucket: Bucket, start: StartRun, brief: None) -> None:
    """It lives, so it may go on at any time: whoever waits is told its number, and can end it."""
    run = start(in_bucket)
    assert run.asked("go") == "holds"
    run.process.send_signal(signal.SIGSTOP)
    with pytest.raises(CurateError, match=f"process {run.process.pid} on"), in_bucket.acquire(MANIFEST):
        raise AssertionError("robbed")
    run.process.send_signal(signal.SIGCONT)
    assert run.asked("commit theirs") == "committed"


@pytest.mark.parametrize(("there_before", "follower_commits"), [(None, False), (b"of an earlier run", True)])
def test_a_run_that_wakes_up_after_its_lease_was_taken_does_not_commit(
    in_bucket: Bucket, start: StartRun, brief: None, there_before: bytes | None, follower_commits: bool
) -> None:
    if there_before is not None:
        in_bucket.write(MANIFEST, there_before)
    run = start(in_bucket, renew=60, machine="other boot 1")  # so long that its thread notices nothing
    assert run.asked("go") == "holds"
    run.process.send_signal(signal.SIGSTOP)
    with in_bucket.acquire(MANIFEST) as ours:
        if follower_commits:
            ours.commit(b"the follower's")
        run.process.send_signal(signal.SIGCONT)
        assert run.asked("commit too late") == (
            f"refused: another run has taken {in_bucket} over meanwhile, so this one does not commit"
        )
        run.ends()
        assert in_bucket.stat(lease.LEASE) is not None, "it does not give back what is not its own"
        ours.commit(b"the follower's last word")
    assert in_bucket.read(MANIFEST) == b"the follower's last word"
    assert [stat.path for stat in in_bucket.files()] == [MANIFEST]


def test_a_manifest_that_changed_in_spite_of_all_is_not_replaced(in_bucket: Bucket) -> None:
    with in_bucket.acquire(MANIFEST) as ours:
        in_bucket.write(MANIFEST, b"of somebody who knows no leases")
        with pytest.raises(CurateError, match="over meanwhile, so this one does not commit"):
            ours.commit(b"mine")
        ours.retract()
    assert in_bucket.read(MANIFEST) == b"of somebody who knows no leases"


def test_a_lease_is_renewed_and_another_process_number_is_no_proof(in_bucket: Bucket, brief: None) -> None:
    with in_bucket.acquire(MANIFEST):
        first = json.loads(in_bucket.read(lease.LEASE))
        time.sleep(0.4)
        later = json.loads(in_bucket.read(lease.LEASE))
        assert later["said"] > first["said"]
        assert later["pid"] == os.getpid()
    # the number was given to another process since: the holder is gone
    in_bucket.write(lease.LEASE, json.dumps({**later, "began": "1"}).encode())
    began = time.monotonic()
    with in_bucket.acquire(MANIFEST):
        assert time.monotonic() - began < 1


@pytest.mark.parametrize("words", [b"\xff no json", b'{"pid": "x", "machine": 3}'])
def test_a_lease_that_nobody_understands_expires(in_bucket: Bucket, brief: None, words: bytes) -> None:
    in_bucket.write(lease.LEASE, words)
    with in_bucket.acquire(MANIFEST) as ours:
        ours.commit(b"mine")


def lost_once(path: str) -> Callable[[Request], str | None]:
    """The first put of an object lands, and its answer is lost."""
    return lambda r: RESET_AFTER if r.method == "PUT" and r.path.endswith(path) and not r.before else None


@pytest.mark.parametrize("there_before", [None, b"of an earlier run"])
def test_a_commit_whose_answer_was_lost_is_recognised(
    behind_proxy: Bucket, proxy: FaultyProxy, there_before: bytes | None
) -> None:
    if there_before is not None:
        obstore.put(open_store(str(behind_proxy)).client, MANIFEST, there_before)
        proxy._seen.clear()
    proxy.choose = lost_once(MANIFEST)
    with behind_proxy.acquire(MANIFEST) as ours:
        ours.commit(b"one")
        assert proxy.injected[RESET_AFTER] == 1
        ours.commit(b"two")
        ours.retract()
        assert behind_proxy.stat(MANIFEST) is None


def test_a_lease_whose_answer_was_lost_is_recognised(behind_proxy: Bucket, proxy: FaultyProxy) -> None:
    proxy.choose = lost_once(lease.LEASE)
    with behind_proxy.acquire(MANIFEST) as ours:
        assert proxy.injected[RESET_AFTER] == 1
        assert ours.warning is None
        ours.commit(b"mine")


def test_renewals_whose_answers_are_lost_do_not_lose_the_lease(
    behind_proxy: Bucket, proxy: FaultyProxy, brief: None
) -> None:
    with behind_proxy.acquire(MANIFEST) as ours:
        proxy.choose = lambda r: RESET_AFTER if r.method == "PUT" and r.before % 2 else None
        time.sleep(1.0)
        assert proxy.injected[RESET_AFTER] >= 2
        ours.commit(b"mine")
    assert [stat.path for stat in behind_proxy.files()] == [MANIFEST]


def test_a_store_that_is_away_for_a_while_does_not_end_the_run(
    behind_proxy: Bucket, proxy: FaultyProxy, brief: None
) -> None:
    with behind_proxy.acquire(MANIFEST) as ours:
        proxy.choose = lambda r: BUSY
        time.sleep(1.0)
        proxy.choose = lambda r: None
        ours.commit(b"mine")
    assert proxy.injected[BUSY] > 8, "more than one renewal has given up"
    assert [stat.path for stat in behind_proxy.files()] == [MANIFEST]


def _ignored(proxy: FaultyProxy) -> None:
    proxy.ignore_conditions = True


def _refused(proxy: FaultyProxy) -> None:
    proxy.choose = lambda r: NOT_IMPLEMENTED if r.conditional and r.method == "PUT" else None


def _replacing_refused(proxy: FaultyProxy) -> None:
    proxy.choose = lambda r: NOT_IMPLEMENTED if "if-match" in r.head and r.method == "PUT" else None


@pytest.mark.parametrize("without", [_ignored, _refused, _replacing_refused])
def test_a_store_without_conditional_writes_works_with_a_warning(
    behind_proxy: Bucket, proxy: FaultyProxy, start: StartRun, brief: None, without: Callable[[FaultyProxy], None]
) -> None:
    without(proxy)
    with behind_proxy.acquire(MANIFEST) as ours:
        assert ours.warning is not None
        assert "no conditional writes" in ours.warning
        ours.commit(b"one")
        time.sleep(0.3)  # renewed meanwhile
        ours.commit(b"two")
        run = start(behind_proxy)
        assert re.match(rf"refused: another run is at work .*process {os.getpid()} on", run.asked("go"))
        elsewhere = start(behind_proxy, machine="other boot 1")
        assert re.match(rf"refused: another run is at work .*process {os.getpid()} on", elsewhere.asked("go"))
        ours.commit(b"three")
    assert behind_proxy.read(MANIFEST) == b"three"
    assert [stat.path for stat in behind_proxy.files()] == [MANIFEST]


def test_without_conditional_writes_a_run_that_wakes_up_late_still_sees_that_it_was_followed(
    behind_proxy: Bucket, proxy: FaultyProxy, start: StartRun, brief: None
) -> None:
    proxy.ignore_conditions = True
    run = start(behind_proxy, machine="other boot 1")
    assert run.asked("go") == "holds"
    run.process.send_signal(signal.SIGSTOP)
    with behind_proxy.acquire(MANIFEST) as ours:
        run.process.send_signal(signal.SIGCONT)
        assert run.asked("commit too late").startswith("refused: another run has taken")
        ours.commit(b"the follower's")
    assert behind_proxy.read(MANIFEST) == b"the follower's"


def test_the_lease_tells_nothing_secret(in_bucket: Bucket, s3: ObjectStore) -> None:
    with in_bucket.acquire(MANIFEST):
        words = in_bucket.read(lease.LEASE).decode()
    assert s3.secret not in words
    assert set(json.loads(words)) == {"run", "host", "pid", "machine", "began", "said"}

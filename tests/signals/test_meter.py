"""What all workers of a run ask of endpoints is counted in one place."""

from __future__ import annotations

import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from curate.schema.errors import CurateError
from curate.schema.recipe import Calls
from curate.signals.meter import Meter, RemoteMeter, served


def test_requests_are_spread_and_those_of_another_captioner_do_not_count() -> None:
    meter = Meter({"a": Calls(requests_per_minute=60), "b": Calls()})
    assert [meter.turn("a") for _ in range(4)] == pytest.approx([0, 1, 2, 3], abs=0.5)
    assert meter.turn("b") == 0


def test_tokens_beyond_a_minutes_worth_are_waited_for() -> None:
    meter = Meter({"a": Calls(tokens_per_minute=600)})
    meter.add("a", 600)
    assert meter.turn("a") == pytest.approx(0, abs=0.1)
    meter.add("a", 100)
    assert meter.turn("a") == pytest.approx(10, abs=1)


def test_workers_share_a_budget() -> None:
    with served({"a": Calls(max_requests=50)}, "127.0.0.1") as address, ThreadPoolExecutor(16) as pool:

        def turn(_: int) -> str:
            try:
                return str(RemoteMeter(address).turn("a"))
            except CurateError as exc:
                return exc.message

        said = Counter(pool.map(turn, range(80)))
    assert said == {"0.0": 50, "captioner a: its budget of this run is spent (max_requests: 50)": 30}


def test_tokens_are_told_over_the_wire() -> None:
    with served({"a": Calls(max_tokens=100)}, "127.0.0.1") as address:
        meter = RemoteMeter(address)
        meter.turn("a")
        meter.add("a", 100)
        with pytest.raises(CurateError, match="max_tokens: 100"):
            meter.turn("a")


def test_only_workers_are_answered() -> None:
    with served({"a": Calls(max_requests=1)}, "127.0.0.1") as address:
        where, _, secret = address.partition("/")
        for wrong in (f"{where}/{'0' * len(secret)}", f"{where}/é"):
            with pytest.raises(CurateError, match="cannot be reached"):
                RemoteMeter(wrong).turn("a")
        with pytest.raises(CurateError, match="cannot be reached"):
            RemoteMeter(address).turn("b")
        host, _, port = where.rpartition(":")
        for said in (b"\n", b"7\n", b"[1,2,3]\n", b"\xff" * 9000):
            with socket.create_connection((host, int(port))) as stranger:
                stranger.sendall(said)
        assert RemoteMeter(address).turn("a") == 0


def test_a_run_that_ended_says_so() -> None:
    with served({"a": Calls()}, "127.0.0.1") as address:
        pass
    with pytest.raises(CurateError, match="cannot be reached"):
        RemoteMeter(address).turn("a")

"""A bucket behind a proxy that does what networks and busy servers do."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from faulty_proxy import BUSY, CUT, DRIP, ERROR_AFTER, PASSING, SHORT, STALL, FaultyProxy, seeded

from curate.storage import Bucket, retry
from curate.storage.retry import StoreUnavailable

QUICK = [fault for fault in PASSING if fault != STALL]

MESSAGES = {
    BUSY: "the object store answers 503",
    ERROR_AFTER: "the object store answers 500",
    CUT: "the connection to the object store was lost",
    STALL: "the object store takes too long to answer",
}

CALLS: dict[str, Callable[[Bucket], object]] = {
    "read": lambda store: store.read("there"),
    "read_range": lambda store: store.read_range("there", 1, 900),
    "local": lambda store: store.local("there").read_bytes(),
    "list": lambda store: store.files(),
    "stat": lambda store: store.stat("there"),
    "write": lambda store: store.write("new", b"new" * 100),
    "remove": lambda store: store.remove(["gone"]),
}


@pytest.mark.parametrize("fault", QUICK)
@pytest.mark.parametrize("call", sorted(CALLS))
def test_what_fails_once_is_tried_again(behind_proxy: Bucket, proxy: FaultyProxy, call: str, fault: str) -> None:
    behind_proxy.write("there", bytes(range(250)) * 4)
    behind_proxy.write("gone", b"1")
    expected = CALLS[call](behind_proxy)
    asked = proxy.requests
    proxy.choose = lambda request: fault if proxy.requests == asked + 1 else None
    retry.retries.take()
    assert CALLS[call](behind_proxy) == expected
    assert proxy.injected == {fault: 1}
    tried_again = retry.retries.take()
    # a list asks for its page again by itself, unless its answer was cut off in the middle
    assert tried_again == (0 if fault == DRIP or (call == "list" and fault != CUT) else 1)
    assert behind_proxy.stat("new") is None or behind_proxy.read("new") == b"new" * 100


@pytest.mark.parametrize("call", ["read", "write"])
def test_a_silent_store_is_asked_again(impatient: None, behind_proxy: Bucket, proxy: FaultyProxy, call: str) -> None:
    behind_proxy.write("there", b"1")
    asked = proxy.requests
    proxy.stall_seconds = 30
    proxy.choose = lambda request: STALL if proxy.requests == asked + 1 else None
    retry.retries.take()
    began = time.monotonic()
    CALLS[call](behind_proxy)
    assert 0.3 < time.monotonic() - began < 10
    assert retry.retries.take() >= 1


@pytest.mark.parametrize("fault", [BUSY, ERROR_AFTER, CUT, pytest.param(STALL, marks=pytest.mark.long)])
def test_what_fails_every_time_is_given_up(
    request: pytest.FixtureRequest, behind_proxy: Bucket, proxy: FaultyProxy, fault: str
) -> None:
    behind_proxy.write("there", b"1" * 1000)
    if fault == STALL:
        request.getfixturevalue("impatient")
    proxy.choose = lambda request: fault
    retry.retries.take()
    with pytest.raises(StoreUnavailable) as caught:
        behind_proxy.read("there")
    assert caught.value.message == f"{behind_proxy}: {MESSAGES[fault]}, {retry.TRIES} times in a row"
    assert "what was committed is kept" in caught.value.hint
    assert retry.retries.take() == retry.TRIES - 1
    assert proxy.injected.total() == retry.TRIES


def test_an_answer_that_lacks_bytes_is_not_believed(behind_proxy: Bucket, proxy: FaultyProxy) -> None:
    behind_proxy.write("there", bytes(range(250)) * 4)
    proxy.choose = lambda request: SHORT if not request.before else None
    retry.retries.take()
    assert behind_proxy.read("there") == bytes(range(250)) * 4
    assert (proxy.injected[SHORT], retry.retries.take()) == (1, 1)


def test_waits_grow(behind_proxy: Bucket, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", waits.append)
    monkeypatch.setattr(retry, "FIRST_WAIT", 0.2)
    monkeypatch.setattr(retry, "LONGEST_WAIT", 3.0)
    proxy.choose = lambda request: BUSY
    with pytest.raises(StoreUnavailable):
        behind_proxy.read("there")
    longest = (0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0)
    assert len(waits) == len(longest)
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))


def run_against_a_model(store: Bucket, seed: int, operations: int) -> None:
    """Seeded operations, each with the result that a dict gives."""
    draw, model = random.Random(seed), dict[str, bytes]()
    names = [f"{folder}/{i}" for folder in ("a", "ab", "a/b") for i in range(4)]
    for _ in range(operations):
        name = draw.choice(names)
        match draw.choice(
            ["write", "write", "atomic_write", "read", "range", "list", "remove", "stat", "existing", "local"]
        ):
            case "write":
                model[name] = draw.randbytes(draw.randrange(3000))
                store.write(name, model[name])
            case "atomic_write":
                model[name] = draw.randbytes(draw.randrange(3000))
                with store.atomic_write(name) as temporary:
                    temporary.write_bytes(model[name])
            case "read" if name in model:
                assert store.read(name) == model[name]
            case "local" if name in model:
                assert store.local(name).read_bytes() == model[name]
            case "range" if name in model:
                offset, size = draw.randrange(3000), draw.randrange(3000)
                assert store.read_range(name, offset, size) == model[name][offset : offset + size]
            case "read" | "range" | "local":
                with pytest.raises(FileNotFoundError):
                    store.read(name)
            case "list":
                folder = draw.choice(["", "a", "ab", "a/b"])
                within = sorted(name for name in model if name.startswith(f"{folder}/" if folder else ""))
                assert [(s.path, s.bytes) for s in store.files(folder)] == [(n, len(model[n])) for n in within]
            case "remove":
                gone = draw.sample(names, draw.randrange(3))
                store.remove(gone)
                for other in gone:
                    model.pop(other, None)
            case "stat":
                found = store.stat(name)
                assert (found and found.bytes) == (len(model[name]) if name in model else None)
            case "existing":
                assert store.existing(names) == set(model)
    assert {stat.path: store.read(stat.path) for stat in store.files()} == model


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12))])
def test_three_hundred_operations_give_what_they_should(
    impatient: None, behind_proxy: Bucket, proxy: FaultyProxy, seed: int
) -> None:
    # few stalls, each of which takes a time limit
    proxy.choose = seeded(seed, 0.25, [STALL, *QUICK * 8])
    retry.retries.take()
    run_against_a_model(behind_proxy, seed, 300)
    assert retry.retries.take() > 30
    assert proxy.injected.keys() >= set(QUICK), str(proxy)


def test_a_large_upload_gets_through(behind_proxy: Bucket, proxy: FaultyProxy) -> None:
    """Its parts are tried again one by one: with this many faults the whole would never get through in one piece."""
    data = random.Random(3).randbytes(1 << 20) * 42
    proxy.choose = seeded(4, 0.4, [fault for fault in QUICK if fault != DRIP])
    behind_proxy.write("large", data)
    assert proxy.injected.total() >= 3
    proxy.choose = seeded(2, 0.5, [fault for fault in QUICK if fault != DRIP])
    proxy.injected.clear()
    assert behind_proxy.read("large") == data
    assert proxy.injected.total() >= 1

"""Connections: kept, bounded, to checked addresses only; the second address of a host; proxies of the environment."""

from __future__ import annotations

import multiprocessing
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from http_faults import BODY, LOOPBACK, wire

from curate.schema.recipe import Fetch
from curate.schema.verdict import Failure
from curate.sources import network
from curate.sources.fetch import Request, fetch_all

OPEN = Fetch(timeout=5, attempts=1, allow_private=True)
GUARDED = Fetch(timeout=5, attempts=1)
FILE = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def file(head: str) -> bytes:
    return FILE


def get(url: str, limits: Fetch = OPEN) -> bytes | Failure:
    return fetch_all([Request(url, limits)])[0]


def resolved(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name has these addresses."""

    async def resolve(host: str, port: int) -> list[str]:
        return list(addresses)

    monkeypatch.setattr(network, "resolve", resolve)


def test_connections_are_kept_between_calls_and_threads():
    with wire(file, keep=True) as server:
        for _ in range(10):
            assert fetch_all([Request(f"{server.base}/{i}", OPEN) for i in range(8)]) == [BODY] * 8
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(get, [f"{server.base}/{i}" for i in range(80)])) == [BODY] * 80
    assert server.connections <= OPEN.concurrency
    assert len(server.heads) == 160


def test_connections_of_several_threads_are_bounded_together():
    def slowly(head: str) -> bytes:
        nonlocal most
        with lock:
            at_work.append(head)
            most = max(most, len(at_work))
        time.sleep(0.02)
        with lock:
            at_work.pop()
        return FILE

    at_work: list[str] = []
    most, lock = 0, threading.Lock()
    limits = OPEN.model_copy(update={"concurrency": 3})
    with wire(slowly, keep=True) as server, ThreadPoolExecutor(4) as pool:
        batch = [Request(f"{server.base}/x", limits)] * 6
        assert list(pool.map(fetch_all, [batch] * 4)) == [[BODY] * 6] * 4
    assert most == 3
    assert server.connections <= 3


def test_a_connection_that_the_server_closed_meanwhile_costs_no_attempt():
    with wire(file) as server:  # it closes each after one answer and does not say so
        assert fetch_all([Request(f"{server.base}/x", OPEN)] * 300) == [BODY] * 300


def test_a_408_that_closes_a_kept_connection_costs_no_attempt_and_another_does():
    late = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    asked: set[str] = set()

    def answer(head: str) -> bytes:
        path = head.split(" ")[1]
        if path == "/never" or (path.startswith("/again") and path not in asked):
            asked.add(path)
            return late
        return FILE

    with wire(answer, keep=True) as server:
        for i in range(5):
            assert get(f"{server.base}/first{i}") == BODY
            assert get(f"{server.base}/again{i}") == BODY
        before = len(server.heads)
        got = get(f"{server.base}/never", OPEN.model_copy(update={"attempts": 2, "max_wait": 0}))
    assert isinstance(got, Failure)
    assert (got.message, got.attempt) == ("status 408", 2)
    assert len(server.heads) - before == 2  # not of the pool of the others, so both are on connections of their own


def test_what_follows_a_file_is_never_taken_for_the_next_answer():
    # bytes after Content-Length that look like an answer: of a kept connection they would be the next file
    with wire(lambda head: FILE + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", keep=True) as server:
        for _ in range(20):
            assert get(f"{server.base}/x") == BODY
    assert server.connections == 20


def test_a_kept_connection_to_a_private_address_serves_no_guarded_request():
    with wire(file, keep=True) as server:
        assert get(f"{server.base}/x", OPEN) == BODY
        got = get(f"{server.base}/x", GUARDED)
        assert got.message.startswith("127.0.0.1 is not a public address")
        assert len(server.heads) == 1


def test_a_kept_connection_is_not_used_for_an_address_that_is_refused_by_now(monkeypatch):
    with wire(file, keep=True) as server:
        with monkeypatch.context() as patch:
            patch.setattr(network, "is_public", lambda address: True)
            assert get(f"{server.base}/x", GUARDED) == BODY
        assert isinstance(get(f"{server.base}/x", GUARDED), Failure)
        assert len(server.heads) == 1


def test_the_socket_itself_opens_to_public_addresses_only(monkeypatch):
    # the list of addresses was checked; a fault there must not be enough
    monkeypatch.setattr(network.Pool, "_allowed", lambda self, addresses: addresses)
    with wire(file) as server:
        assert get(f"{server.base}/x", GUARDED).message == "its server cannot be connected to"
        assert server.connections == 0


def _child(url: str, results: multiprocessing.SimpleQueue) -> None:
    results.put(get(url))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_that_was_started_has_connections_of_its_own(method):
    context = multiprocessing.get_context(method)
    with wire(file, keep=True) as server:
        assert get(f"{server.base}/parent") == BODY
        results = context.SimpleQueue()
        child = context.Process(target=_child, args=(f"{server.base}/child", results))
        child.start()
        assert results.get() == BODY
        child.join(20)
        assert child.exitcode == 0
        assert get(f"{server.base}/parent") == BODY
    assert server.connections == 2


@pytest.mark.long
def test_ray_tasks_of_one_worker_share_connections():
    import ray  # here, so that the child of the test above starts at once

    with wire(file, keep=True) as server:
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        try:
            task = ray.remote(num_cpus=1)(fetch_all)
            for i in range(6):
                assert ray.get(task.remote([Request(f"{server.base}/{i}", OPEN)])) == [BODY]
        finally:
            ray.shutdown()
        assert server.connections == 1


@contextmanager
def silent(port: int) -> Iterator[None]:
    """127.0.0.1 at a port whose backlog is full: what connects hears nothing, as behind a broken IPv6 route."""
    with socket.socket() as hole:
        hole.bind(("127.0.0.1", port))
        hole.listen(0)
        filling = [socket.socket() for _ in range(4)]
        for sock in filling:
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
        time.sleep(0.1)
        yield
        for sock in filling:
            sock.close()


def test_the_second_address_is_tried_when_the_first_is_silent(monkeypatch):
    resolved(monkeypatch, "127.0.0.1", "127.0.0.2")
    with wire(file, host="127.0.0.2") as server, silent(server.port):
        start = time.monotonic()
        assert get(f"http://two.example.test:{server.port}/x") == BODY
        assert time.monotonic() - start < 1  # RFC 8305, section 5: 100 ms to 2 s, 250 ms recommended


@pytest.mark.parametrize("addresses", [["127.0.0.3", "127.0.0.1"], ["::1", "127.0.0.1"], ["127.0.0.1", "127.0.0.3"]])
def test_the_second_address_is_tried_when_the_first_refuses(addresses, monkeypatch):
    resolved(monkeypatch, *addresses)
    with wire(file) as server:
        assert get(f"http://two.example.test:{server.port}/x") == BODY


def test_of_a_private_and_a_public_address_the_public_one_is_used(monkeypatch):
    # 127.0.0.2 plays the public one; both answer
    monkeypatch.setattr(network, "is_public", lambda address: address == "127.0.0.2")
    resolved(monkeypatch, "127.0.0.1", "127.0.0.2")
    with wire(file, host="127.0.0.2") as public, wire(file, port=public.port) as private:
        assert get(f"http://two.example.test:{public.port}/x", GUARDED) == BODY
        assert (public.connections, private.connections) == (1, 0)


def test_a_name_is_resolved_once_a_minute(monkeypatch):
    asked = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    monkeypatch.setattr(network, "resolve", resolve)
    with wire(file) as server:
        for _ in range(3):
            assert get(f"http://once.example.test:{server.port}/x") == BODY
    assert asked == ["once.example.test"]


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_http_goes_through_the_proxy_of_the_environment(name, scheme, monkeypatch):
    with wire(file) as proxy:
        monkeypatch.setenv(name, f"{scheme}127.0.0.1:{proxy.port}")
        assert get("http://media.example.test/a.png?x=1", GUARDED) == BODY  # the proxy itself may be private
    assert proxy.targets == ["http://media.example.test/a.png?x=1"]


def test_lower_case_goes_first_and_upper_case_is_not_taken_from_a_cgi_client(monkeypatch):
    with wire(file) as lower, wire(file) as upper:
        monkeypatch.setenv("HTTP_PROXY", upper.base)
        monkeypatch.setenv("http_proxy", lower.base)
        assert get("http://media.example.test/x") == BODY
        monkeypatch.delenv("http_proxy")
        monkeypatch.setenv("REQUEST_METHOD", "GET")
        assert get("http://no-such-host.invalid/x").message == "its host has no address"
    assert (lower.connections, upper.connections) == (1, 0)


def test_credentials_of_the_proxy_are_sent_to_it_and_never_told(monkeypatch):
    with wire(lambda head: b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n") as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:s3cret@127.0.0.1:{proxy.port}")
        got = get("http://media.example.test/x")
    assert "Proxy-Authorization: Basic dXNlcjpzM2NyZXQ=" in proxy.heads[0]
    assert got.message == "status 407"


def test_https_goes_through_a_tunnel_that_shows_the_proxy_nothing(monkeypatch):
    def answer(head: str) -> bytes:
        return b"HTTP/1.1 200 OK\r\n\r\n" if head.startswith("CONNECT") else FILE

    with wire(answer) as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:s3cret@127.0.0.1:{proxy.port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(LOOPBACK))
        assert get("https://me:mine@media.example.test/a.png", GUARDED) == BODY
    connect, request = proxy.heads
    assert connect.startswith("CONNECT media.example.test:443 ")
    assert "Proxy-Authorization" in connect
    assert "\r\nAuthorization" not in connect
    assert "\r\nAuthorization: Basic bWU6bWluZQ==" in request
    assert "Proxy-Authorization" not in request


@pytest.mark.parametrize(("status", "attempts"), [(403, 1), (407, 1), (503, 2)])
def test_a_proxy_that_gives_no_tunnel_is_an_error_with_its_status(status, attempts, monkeypatch):
    with wire(lambda head: b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status) as proxy:
        monkeypatch.setenv("https_proxy", proxy.base)
        got = get("https://media.example.test/a.png", OPEN.model_copy(update={"attempts": 2, "max_wait": 0}))
    assert (got.message, got.attempt) == (f"the proxy of the environment answers status {status}", attempts)


def test_a_proxy_that_is_not_there_is_named(monkeypatch):
    with wire(file) as gone:
        pass
    monkeypatch.setenv("http_proxy", gone.base)
    assert get("http://media.example.test/x").message == "the proxy of the environment cannot be connected to"
    monkeypatch.setenv("http_proxy", "http://no-such-host.invalid:1")
    assert get("http://media.example.test/x").message == "the proxy of the environment has no address"


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1080", "SOCKS5H://127.0.0.1:1080", "socks4://127.0.0.1:1080"])
@pytest.mark.parametrize("name", ["all_proxy", "http_proxy"])
def test_socks_is_refused_in_one_sentence(proxy, name, monkeypatch):
    monkeypatch.setenv(name, proxy)
    kind = proxy.partition(":")[0].lower()
    got = get("http://media.example.test/x")
    assert got.message == f"the environment states a {kind} proxy: only http and https proxies are used"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x",
        "http://169.254.169.254/latest/meta-data/",
        "http://2130706433/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://localhost/x",
        "http://a.localhost./x",
    ],
)
def test_behind_a_proxy_private_addresses_are_refused_where_they_are_spelled_out(url, monkeypatch):
    with wire(file) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base)
        assert "is not a public address: refused" in get(url, GUARDED).message
        assert proxy.connections == 0
        assert get(url, OPEN) == BODY


@pytest.mark.parametrize(
    "stated",
    ["*", "127.0.0.1", "a.test, 127.0.0.1", "127.0.0.0/8", "127.0.0.1:PORT", "::1,127.0.0.1/32"],
)
@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_no_proxy_excepts_addresses(stated, name, monkeypatch):
    with wire(file) as server:
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        monkeypatch.setenv(name, stated.replace("PORT", str(server.port)))
        assert get(f"{server.base}/x") == BODY
        assert isinstance(get(f"{server.base}/x", GUARDED), Failure)  # it is on its own way, and guarded there


@pytest.mark.parametrize(
    ("stated", "direct"),
    [
        ("example.test", True),
        (".example.test", True),
        ("*.example.test", True),
        ("MEDIA.example.test", True),
        ("media.example.test:PORT", True),
        ("media.example.test:81", False),
        ("ample.test", False),
        ("other.test,127.0.0.0/8", False),
        ("", False),
    ],
)
def test_no_proxy_excepts_names(stated, direct, monkeypatch):
    resolved(monkeypatch, "127.0.0.1")
    with wire(file) as server, wire(file) as proxy:
        monkeypatch.setenv("http_proxy", proxy.base)
        monkeypatch.setenv("no_proxy", stated.replace("PORT", str(server.port)))
        assert get(f"http://media.example.test:{server.port}/x") == BODY
    assert (server.connections, proxy.connections) == ((1, 0) if direct else (0, 1))


def test_certificates_are_checked_against_the_name_and_the_authorities(monkeypatch):
    resolved(monkeypatch, "127.0.0.1")
    with wire(file, tls=True) as server:
        url = f"https://media.example.test:{server.port}/x"
        got = get(url)
        assert "its certificate is not trusted: self" in got.message
        monkeypatch.setenv("SSL_CERT_FILE", str(LOOPBACK))
        assert get(url) == BODY
        assert get(f"https://127.0.0.1:{server.port}/x") == BODY
        other = get(f"https://other.example.test:{server.port}/x")
        assert other.message.startswith("its certificate is not trusted: no alternative certificate subject name")
        assert str(server.port) not in got.message + other.message

"""Fetching, against a real server on loopback that answers well and badly."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from http_faults import BODY, fault_server
from hypothesis import example, given
from hypothesis import strategies as st

from curate.schema.recipe import Fetch
from curate.schema.verdict import Failure
from curate.sources import fetch as fetching
from curate.sources import network
from curate.sources.fetch import Request, fetch_all
from curate.sources.network import is_public
from curate.storage.retry import retries

LIMITS = Fetch(timeout=1, attempts=2, max_wait=0.05, max_bytes=30_000, allow_private=True, user_agent="curate-test/1")


@pytest.fixture
def web() -> Iterator[tuple[str, list[tuple[str, dict[str, str]]]]]:
    with fault_server() as server:
        yield server


def get(url: str, limits: Fetch = LIMITS) -> bytes | Failure:
    return fetch_all([Request(url, limits)])[0]


def failure(url: str, limits: Fetch = LIMITS) -> Failure:
    got = get(url, limits)
    assert isinstance(got, Failure), f"{len(got)} bytes came"
    assert (got.stage, got.error) == ("ingest", "FetchError")
    return got


@pytest.mark.parametrize("path", ["good", "unsized", "early", "more_later"])
def test_whole_bodies_come(web, path):
    assert get(f"{web[0]}/{path}") == BODY


def test_a_file_ends_where_its_content_length_says(web):
    # as in browsers, and as RFC 9112, 6.3 has it: what follows belongs to no file
    assert get(f"{web[0]}/more") == BODY[: len(BODY) // 2]


def test_chunks_are_joined(web):
    assert get(f"{web[0]}/chunked") == b"hello world"


def test_the_user_agent_is_stated_and_nothing_compressed_is_asked_for(web):
    get(f"{web[0]}/good")
    _, headers = web[1][0]
    assert headers["User-Agent"] == "curate-test/1"
    assert headers["Accept-Encoding"] == "identity"
    assert headers["Host"] == web[0].removeprefix("http://")


@pytest.mark.parametrize(
    ("path", "says", "attempt"),
    [
        ("status/404", "status 404", 1),
        ("status/410", "status 410", 1),
        ("status/403", "status 403", 1),
        ("status/204", "status 204", 1),
        ("status/503", "status 503", 2),
        ("status/429", "status 429", 2),
        ("fewer", "cut off", 2),
        ("chunked_cut", "cut off", 2),
        ("reset", "cut off", 2),
        ("drip", "not complete within 1 s", 2),
        ("silent", "not complete within 1 s", 2),
        ("gzip", "compressed (gzip)", 1),
        ("nonsense", "does not answer in HTTP", 2),
    ],
)
def test_bad_answers_say_what_is_wrong_and_only_transient_ones_are_tried_again(web, path, says, attempt):
    got = failure(f"{web[0]}/{path}")
    assert says in got.message
    assert got.attempt == attempt
    assert len([p for p, _ in web[1] if p == f"/{path}"]) == attempt


@pytest.mark.parametrize("fault", ["503", "429", "408", "reset", "fewer", "chunked_cut", "nonsense"])
def test_a_later_attempt_can_succeed_and_the_recipe_says_how_many_there_are(web, fault):
    limits = LIMITS.model_copy(update={"attempts": 3})
    assert get(f"{web[0]}/then_good/{fault}/2", limits) == BODY
    assert len(web[1]) == 3
    assert failure(f"{web[0]}/then_good/{fault}/3", limits).attempt == 3
    assert len(web[1]) == 6


def test_a_request_that_took_too_long_is_made_again(web):
    assert get(f"{web[0]}/then_good/silent/1") == BODY


def test_tries_are_counted_for_the_progress_line(web):
    retries.take()
    get(f"{web[0]}/then_good/503/1")
    assert retries.take() == 1


def test_waits_grow_and_no_two_requests_wait_the_same():
    waits = [[fetching._wait(attempt, 0, 60) for _ in range(50)] for attempt in range(1, 6)]
    for i, some in enumerate(waits):
        longest = fetching.BACK_OFF * 2**i
        assert all(longest / 2 <= wait <= longest for wait in some)
        assert len(set(some)) > 40
    assert {fetching._wait(attempt, 0, 7) for attempt in (6, 100, 10**6)} == {7}


def seconds_for(url: str, limits: Fetch) -> float:
    start = time.monotonic()
    assert get(url, limits) == BODY
    return time.monotonic() - start


def test_retry_after_is_waited_for_up_to_the_recipes_bound(web):
    assert seconds_for(f"{web[0]}/then_good/429/1/1", LIMITS.model_copy(update={"max_wait": 30})) >= 1
    assert seconds_for(f"{web[0]}/then_good/503/1/3600", LIMITS) < 1


@given(st.one_of(st.text(max_size=40), st.integers(-(10**20), 10**20).map(str), st.datetimes().map(format_datetime)))
@example("Wed, 31 Dec 9999 23:59:59 -2359")
@example("Wed, 01 Jan 0001 00:00:00 +2359")
@example("1 Jan 2024 00:00:00 +99999999999")
def test_no_retry_after_breaks_anything(text):
    asked = fetching.retry_after({"retry-after": text})
    assert asked >= 0


def test_retry_after_can_be_a_date():
    soon = datetime.now(UTC) + timedelta(seconds=90)
    for text in (format_datetime(soon, usegmt=True), format_datetime(soon.replace(tzinfo=None))):
        assert 85 < fetching.retry_after({"retry-after": text}) <= 90


def test_a_request_that_waits_gives_its_turn_to_others(web):
    limits = LIMITS.model_copy(update={"concurrency": 1, "max_wait": 30})
    got = fetch_all([Request(f"{web[0]}/{path}", limits) for path in ("then_good/503/1/1", "good")])
    assert got == [BODY, BODY]
    assert [path.split("/")[1] for path, _ in web[1]] == ["then_good", "good", "then_good"]


@pytest.mark.parametrize("path", ["good", "unsized"])
def test_too_large_files_are_refused_whether_or_not_they_state_their_size(web, path):
    assert "more than 5000" in failure(f"{web[0]}/{path}", LIMITS.model_copy(update={"max_bytes": 5000})).message


def test_a_file_of_the_largest_size_is_not_refused(web):
    assert get(f"{web[0]}/good", LIMITS.model_copy(update={"max_bytes": len(BODY)})) == BODY


def test_five_redirects_are_followed_and_a_sixth_is_not(web):
    assert get(f"{web[0]}/redirect/5/good") == BODY
    assert "redirected more than 5 times" in failure(f"{web[0]}/redirect/6/good").message


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_redirects_lead_to_http_only(web, target):
    assert "not fetched" in failure(f"{web[0]}/redirect/1/{target}").message


def test_private_addresses_are_refused_before_anything_is_asked(web):
    got = failure(f"{web[0]}/good", Fetch(timeout=1))
    assert got.message == "127.0.0.1 is not a public address: refused (fetch.allow_private allows it)"
    assert got.attempt == 1
    assert web[1] == []


def test_a_redirect_to_a_private_address_is_refused(web, monkeypatch):
    # 127.0.0.1 plays the public server that answers with the address of a private one
    monkeypatch.setattr(network, "is_public", lambda address: address == "127.0.0.1" or is_public(address))
    port = web[0].rpartition(":")[2]
    got = failure(f"{web[0]}/redirect/1/http://127.0.0.2:{port}/good", Fetch(timeout=1))
    assert got.message.startswith("127.0.0.2 is not a public address")
    assert [path.split("/")[1] for path, _ in web[1]] == ["redirect"]


def test_the_address_that_was_checked_is_the_one_connected_to(web, monkeypatch):
    # a name that answers once with the server and then with nothing that could be reached (DNS rebinding)
    answers = [["127.0.0.1"], ["192.0.2.1"]]
    real = socket.getaddrinfo

    def rebinding(host, port, *args, **kwargs):
        if host in ("rebind.example", b"rebind.example"):
            (address,) = answers.pop(0)
            return real(address, port, *args, **kwargs)
        return real(host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    port = web[0].rpartition(":")[2]
    assert get(f"http://rebind.example:{port}/good") == BODY
    assert len(answers) == 1
    assert web[1][0][1]["Host"] == f"rebind.example:{port}"


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_other_spellings_of_loopback_are_refused(host):
    assert "not a public address" in failure(f"http://{host}:9/x", Fetch(timeout=5)).message


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),  # the metadata service of clouds
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::a00:1", False),  # NAT64 of 10.0.0.1
        ("64:ff9b::808:808", True),
        ("2002:7f00:1::", False),  # 6to4 of 127.0.0.1
    ],
)
def test_which_addresses_are_public(address, public):
    assert is_public(address) is public


def test_a_host_without_an_address_and_a_port_without_a_server():
    assert failure("http://no-such-host.invalid/x", Fetch(timeout=20)).message == "its host has no address"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    got = failure(f"http://127.0.0.1:{port}/x")
    assert (got.message, got.attempt) == ("its server cannot be connected to", 2)


@pytest.mark.parametrize("url", ["http://", "http://[::1/x", "http://a b/x", "mailto:x@example.org", "http://x:99999/"])
def test_addresses_that_are_none(url):
    assert failure(url).attempt == 1


def test_tls_is_not_taken_for_granted(web):
    assert failure(web[0].replace("http", "https") + "/good").message == "its server cannot be connected to"


def test_credentials_are_sent_and_neither_told_nor_logged(web, caplog):
    caplog.set_level(logging.DEBUG)
    host = web[0].removeprefix("http://")
    got = failure(f"http://user:s3cret@{host}/status/404?token=hidden")
    assert web[1][0][1]["Authorization"] == "Basic dXNlcjpzM2NyZXQ="
    said = got.message + caplog.text
    assert "s3cret" not in said
    assert "dXNlcjpzM2NyZXQ" not in said


def test_one_bad_answer_takes_no_other_along_and_the_order_is_kept(web):
    paths = ["good", "status/404", "chunked", "drip", "fewer", "good"]
    got = fetch_all([Request(f"{web[0]}/{path}", LIMITS) for path in paths])
    assert [isinstance(item, bytes) for item in got] == [True, False, True, False, False, True]
    assert got[2] == b"hello world"


def test_requests_run_at_once_up_to_the_stated_number(web):
    def seconds(concurrency: int) -> float:
        limits = LIMITS.model_copy(update={"timeout": 0.4, "attempts": 1, "concurrency": concurrency})
        start = time.monotonic()
        fetch_all([Request(f"{web[0]}/silent", limits)] * 4)
        return time.monotonic() - start

    assert seconds(4) < 1.2
    assert seconds(1) >= 1.6

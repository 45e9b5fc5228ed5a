"""Answers that break the rules and that browsers take all the same, byte by byte; and those that they refuse too."""

from __future__ import annotations

import gzip
import threading
import time
import tracemalloc
import zlib

import pyarrow as pa
import pytest
from http_faults import BODY, wire

from curate.schema.errors import FetchError
from curate.schema.recipe import Fetch
from curate.schema.verdict import Failure
from curate.sources import network
from curate.sources.encodings import decoded
from curate.sources.fetch import Request, fetch_all

LIMITS = Fetch(timeout=3, attempts=1, max_bytes=200_000, allow_private=True)
LONG = BODY * 15
OK = b"HTTP/1.1 200 OK\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(BODY)
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n"


def get(url: str, limits: Fetch = LIMITS) -> bytes | Failure:
    return fetch_all([Request(url, limits)])[0]


def answered(answer: bytes) -> bytes | Failure:
    with wire(lambda head: answer) as server:
        return get(f"{server.base}/x.jpg")


LENIENT = {
    "LF": b"HTTP/1.1 200 OK\n" + LENGTH.replace(b"\r", b"") + b"\n" + BODY,
    "LF, long": b"HTTP/1.1 200 OK\nContent-Length: %d\n\n" % len(LONG) + LONG,
    "LF, no length": b"HTTP/1.0 200 OK\nServer: x\n\n" + BODY,
    "LF, then CRLF": b"HTTP/1.1 200 OK\nServer: x\r\n" + LENGTH + b"\n" + BODY,
    "CRLF, then LF": OK + b"Server: x\n" + LENGTH + b"\n" + BODY,
    "LF before a body that begins with CRLF": b"HTTP/1.1 200 OK\n\n\r\n\r\n" + BODY,
    "LF in 103 and after it": b"HTTP/1.1 103 Early Hints\nLink: </x>\n\nHTTP/1.1 200 OK\n\n" + BODY,
    "LF in chunks": CHUNKED + b"\r\n2800\n" + BODY + b"\n0\n\n",
    "a space before the colon": OK + b"Server : x\r\n" + LENGTH.replace(b":", b" :") + b"\r\n" + BODY,
    "a tab before the colon": OK + b"Server\t: x\r\n" + LENGTH + b"\r\n" + BODY,
    "a name with spaces": OK + b"X Bad Header: 1\r\n" + LENGTH + b"\r\n" + BODY,
    "a name of Latin-1": OK + b"X-caf\xe9[1]: 1\r\n" + LENGTH + b"\r\n" + BODY,
    "no name": OK + b": 1\r\n" + LENGTH + b"\r\n" + BODY,
    "a value in Latin-1": OK + b'Content-Disposition: inline; filename="caf\xe9"\r\n' + LENGTH + b"\r\n" + BODY,
    "control characters in a value": OK + b"X: a\x01\x7fb\r\n" + LENGTH + b"\r\n" + BODY,
    "a folded line": OK + b"X: a\r\n  b: c\r\n" + LENGTH + b"\r\n" + BODY,
    "300 lines and a long one": OK + b"X: 1\r\n" * 300 + b"Y: " + b"y" * 20_000 + b"\r\n" + LENGTH + b"\r\n" + BODY,
    "no reason": b"HTTP/1.1 200\r\n" + LENGTH + b"\r\n" + BODY,
    "a reason in Latin-1": b"HTTP/1.1 200 \xe7a va\r\n" + LENGTH + b"\r\n" + BODY,
    "a lower-case protocol": b"http/1.1 200 ok\r\n" + LENGTH + b"\r\n" + BODY,
    "ICY": b"ICY 200 OK\r\n" + LENGTH + b"\r\n" + BODY,
    "the length twice": OK + LENGTH * 2 + b"\r\n" + BODY,
    "the length as a list": OK + b"Content-Length: 10240, 10240\r\n\r\n" + BODY,
    "an empty length": OK + b"Content-Length: \r\n\r\n" + BODY,
    "a length that is no number": OK + b"Content-Length: unknown\r\n\r\n" + BODY,
    "a negative length": OK + b"Content-Length: -1\r\n\r\n" + BODY,
    "a length beside chunks": CHUNKED + b"Content-Length: 5\r\n\r\n2800\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunked twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n2800\r\n" + BODY + b"\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": CHUNKED.replace(b"1.1", b"1.0") + b"\r\n2800\r\n" + BODY + b"\r\n0\r\n\r\n",
    "gzip as a transfer coding": OK + b"Transfer-Encoding: gzip\r\n\r\n" + gzip.compress(BODY, mtime=0),
    "CRLF after the file": OK + LENGTH + b"\r\n" + BODY + b"\r\n",
    "as much again after the file": OK + LENGTH + b"\r\n" + BODY * 2,
    "more after the last chunk": CHUNKED + b"\r\n2800\r\n" + BODY + b"\r\n0\r\n\r\nmore",
    "203": b"HTTP/1.1 203 Changed\r\n" + LENGTH + b"\r\n" + BODY,
    "206 that is whole": b"HTTP/1.1 206 Part\r\nContent-Range: bytes 0-10239/10240\r\n" + LENGTH + b"\r\n" + BODY,
}
STRICT = {
    "HTTP/1.0 without headers": b"HTTP/1.0 200 OK\r\n\r\n" + BODY,
    "chunks with extensions and a trailer": CHUNKED + b"\r\n2800 ;a=b\r\n" + BODY + b"\r\n000\r\nX: 404 no\r\n\r\n",
    "chunk sizes with zeros": CHUNKED + b"\r\n0002800\r\n" + BODY + b"\r\n0\r\n\r\n",
    "102 and 103": b"HTTP/1.1 102 X\r\nLocation: /y\r\n\r\nHTTP/1.1 103 Y\r\n\r\n" + OK + b"\r\n" + BODY,
    "an offer to upgrade": OK + b"Connection: upgrade\r\nUpgrade: h2c\r\n" + LENGTH + b"\r\n" + BODY,
    "identity": OK + b"Content-Encoding: identity\r\n" + LENGTH + b"\r\n" + BODY,
    "201": b"HTTP/1.1 201 Made\r\n" + LENGTH + b"\r\n" + BODY,
}  # fmt: skip


@pytest.mark.parametrize("answer", LENIENT.values(), ids=LENIENT)
def test_what_browsers_take_is_taken(answer):
    assert answered(answer) in (BODY, LONG, b"\r\n\r\n" + BODY)


@pytest.mark.parametrize("answer", STRICT.values(), ids=STRICT)
def test_what_follows_the_rules_is_taken(answer):
    assert answered(answer) == BODY


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (OK + b"X: a\0b\r\n" + LENGTH + b"\r\n" + BODY, "does not answer in HTTP"),
        (OK + b"X: a\rb\r\n" + LENGTH + b"\r\n" + BODY, "does not answer in HTTP"),
        (OK + b"no colon\r\n" + LENGTH + b"\r\n" + BODY, "does not answer in HTTP"),
        (OK + LENGTH + b"Content-Length: 5\r\n\r\n" + BODY, "does not answer in HTTP"),
        (BODY, "does not answer in HTTP"),
        (b"", "the connection was lost"),
        (OK + b"X: 1\r\n" * 100_000 + b"\r\n", "its headers are too long"),
        (OK + b"X: " + b"x" * 200_000 + b"\r\n\r\n", "its headers are too long"),
        (CHUNKED + b"\r\n2800\r\n" + BODY + b"\r\n", "cut off"),
        (b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-10239/20480\r\n" + LENGTH + b"\r\n" + BODY, "status 206: a part"),
        (b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-10239/*\r\n" + LENGTH + b"\r\n" + BODY, "status 206: a part"),
        (b"HTTP/1.1 206 Part\r\n" + LENGTH + b"\r\n" + BODY, "status 206: a part"),
        (b"HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n", "status 205"),
        (b"HTTP/1.1 202 Later\r\nContent-Length: 0\r\n\r\n", "status 202"),
        (b"HTTP/1.1 304 Same\r\n\r\n", "status 304"),
        (b"HTTP/1.1 302 Found\r\nLocation: \r\n\r\n", "status 302"),
        (b"HTTP/1.1 300 Choose\r\n\r\n" + BODY, "status 300"),
        (b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: 200\r\n\r\n", "status 404"),
        (b"HTTP/1.1 404 No\r\nContent-Length: 100\r\n\r\nand then silence", "status 404"),
    ],
)  # fmt: skip
def test_what_browsers_refuse_is_refused(answer, says):
    got = answered(answer)
    assert isinstance(got, Failure)
    assert says in got.message


@pytest.mark.parametrize("length", [100, LIMITS.max_bytes + 1])
def test_an_answer_without_a_file_is_not_waited_for(length):
    # 302 whose body never comes, on a connection that stays open
    def answer(head: str) -> bytes:
        if "/there" in head:
            return OK + LENGTH + b"\r\n" + BODY
        return b"HTTP/1.1 302 Found\r\nLocation: /there\r\nContent-Length: %d\r\n\r\n" % length

    with wire(answer, keep=True) as server:
        assert get(f"{server.base}/x") == BODY


def with_coding(coding: str, body: bytes, kind: str = "image/jpeg") -> bytes | Failure:
    head = f"Content-Encoding: {coding}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return answered(OK + head.encode() + body)


RAW = zlib.compressobj(wbits=-15)
RAW_DEFLATE = RAW.compress(BODY) + RAW.flush()
ZSTD, BROTLI = pa.compress(BODY, "zstd", asbytes=True), pa.compress(BODY, "brotli", asbytes=True)


@pytest.mark.parametrize(
    "word", ["UTF-8", "utf8", "none", "None", "binary", "aws-chunked", "", " ", "identity", "8bit"]
)
def test_content_codings_that_are_none_change_nothing(word):
    assert with_coding(word, BODY) == BODY


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)),
        ("x-gzip", gzip.compress(BODY, mtime=0)),
        (" GZip ", gzip.compress(BODY, mtime=0)),
        ("gzip", gzip.compress(BODY[:99]) + gzip.compress(BODY[99:])),  # members (RFC 1952, 2.2)
        ("gzip", gzip.compress(BODY, mtime=0) + bytes(512)),  # padding of tape and of some servers
        ("deflate", zlib.compress(BODY)),
        ("deflate", zlib.compress(BODY, 1, 9)),  # a window of 512 bytes: another header
        ("deflate", RAW_DEFLATE),
        ("br", BROTLI),
        ("zstd", ZSTD),
        ("gzip, gzip", gzip.compress(gzip.compress(BODY, mtime=0))),
        ("gzip\r\nContent-Encoding: br", pa.compress(gzip.compress(BODY, mtime=0), "brotli", asbytes=True)),
        ("aws-chunked,gzip", gzip.compress(BODY, mtime=0)),
        ("gzip,aws-chunked", gzip.compress(BODY, mtime=0)),
        ("gzip, UTF-8,, identity", gzip.compress(BODY, mtime=0)),
    ],
)
def test_compressed_files_are_unpacked(coding, body):
    assert with_coding(coding, body) == BODY


def test_an_archive_that_states_its_own_gzip_as_a_coding_is_the_archive():
    # Apache's AddEncoding; Firefox leaves it, so that a.tar.gz is what was uploaded
    packed = gzip.compress(BODY, mtime=0)
    assert with_coding("gzip", packed, "application/x-gzip") == packed
    assert with_coding("gzip", b"", "image/jpeg") == b""


@pytest.mark.parametrize(
    ("coding", "body", "says"),
    [
        ("gzip", gzip.compress(BODY, mtime=0)[:-9], "cut off"),
        ("gzip", gzip.compress(BODY, mtime=0)[:5], "cut off"),
        ("deflate", zlib.compress(BODY)[:-9], "cut off"),
        ("br", BROTLI[:-9], "cut off"),
        ("zstd", ZSTD[:-9], "cut off"),
        ("gzip", BODY, "came compressed (gzip) and cannot be unpacked"),
        (
            "gzip",
            gzip.compress(BODY, mtime=0)[:-8] + bytes(8),
            "came compressed (gzip) and cannot be unpacked",
        ),  # a wrong CRC
        ("deflate", b"\xff" * 99, "came compressed (deflate) and cannot be unpacked"),
        ("br", b"\xff" * 99, "came compressed (br) and cannot be unpacked"),
        ("zstd", BODY, "came compressed (zstd) and cannot be unpacked"),
        ("gzip", gzip.compress(bytes(200_001), mtime=0), "more than 200000 bytes when it is unpacked"),
    ],
)
def test_what_is_not_in_the_stated_coding_is_an_error(coding, body, says):
    got = with_coding(coding, body)
    assert isinstance(got, Failure)
    assert says in got.message


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_bomb_is_not_unpacked_whole(coding):
    zeros = bytes(32 << 20)
    if coding in ("br", "zstd"):
        bomb = pa.compress(zeros, "brotli" if coding == "br" else coding, asbytes=True)
    else:
        bomb = gzip.compress(zeros) if coding == "gzip" else zlib.compress(zeros)
    del zeros
    tracemalloc.start()
    with pytest.raises(FetchError, match="more than 200000 bytes when it is unpacked"):
        decoded(bomb, coding, "image/jpeg", 200_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


EMPTY = {"gzip": gzip.compress(b"", mtime=0), "zstd": pa.compress(b"", "zstd", asbytes=True)}


def test_a_hundred_thousand_members_of_gzip_are_one_file():
    # 2 MB, of which each member was once copied with all that follow it: minutes
    assert decoded(EMPTY["gzip"] * 99_999 + gzip.compress(BODY), "gzip", "image/jpeg", 200_000) == BODY


@pytest.mark.parametrize("coding", EMPTY)
def test_unpacking_ends_soon_after_it_is_stopped(coding):
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    with pytest.raises(FetchError, match="not unpacked in time"):
        decoded(EMPTY[coding] * 5_000_000, coding, "image/jpeg", 200_000, stop)


def test_unpacking_ends_with_the_time_of_the_attempt():
    body = EMPTY["gzip"] * 1_000_000  # many seconds
    limits = LIMITS.model_copy(update={"timeout": 0.5, "max_bytes": len(body)})
    with wire(lambda head: OK + b"Content-Encoding: gzip\r\n\r\n" + body) as server:
        got = get(f"{server.base}/x.jpg", limits)
    assert isinstance(got, Failure)
    assert got.message == "not complete within 0.5 s"
    time.sleep(0.2)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.15  # no thread is at it still, which the process would wait for


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (OK + b"Content-Length: 200001\r\n\r\n", "it has 200001 bytes, more than 200000"),
        (OK + b"\r\n" + BODY * 20, "it has more than 200000 bytes"),
        (CHUNKED + b"\r\n32000\r\n" + BODY * 20 + b"\r\n0\r\n\r\n", "it has more than 200000 bytes"),
        (OK + b"Transfer-Encoding: gzip\r\n\r\n" + gzip.compress(BODY * 20), "it has more than 200000 bytes"),
    ],
)
def test_a_file_that_is_too_large_is_not_read_to_its_end(answer, says):
    got = answered(answer)
    assert isinstance(got, Failure)
    assert says in got.message


@pytest.mark.parametrize(
    ("location", "asked"),
    [
        (b"next?x=1#fragment", "/a/next?x=1"),
        (b"/next", "/next"),
        (b"../next", "/next"),
        (b"?x=2", "/a/b?x=2"),
        (b"//127.0.0.1:PORT/next", "/next"),
        (b"HTTP://127.0.0.1:PORT/next", "/next"),
        (b"/caf\xc3\xa9 1.png", "/caf%C3%A9%201.png"),
        (b"/caf\xe9.png", "/caf%E9.png"),
        (b"/a|b.png?q=[1]", "/a|b.png?q=[1]"),
        (b"\\next\\b", "/next/b"),
        (b"  /next\t", "/next"),
    ],
)
@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
def test_redirects_lead_where_browsers_go(location, asked, status):
    def answer(head: str) -> bytes:
        if head.startswith("GET /a/b "):
            to = location.replace(b"PORT", str(server.port).encode())
            return b"HTTP/1.1 %d Go\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, to)
        return OK + LENGTH + b"\r\n" + BODY

    with wire(answer) as server:
        assert get(f"{server.base}/a/b") == BODY
    assert server.targets == ["/a/b", asked]


SPELLINGS = [
    ("/a b.png", "/a%20b.png"),
    ("/a%20b.png", "/a%20b.png"),
    ("/café.png", "/caf%C3%A9.png"),
    ("/你好.png?你=好", "/%E4%BD%A0%E5%A5%BD.png?%E4%BD%A0=%E5%A5%BD"),
    ("/a.png?a=%e4%bd%a0&x=%2F&y=a+b&z=%zz", "/a.png?a=%e4%bd%a0&x=%2F&y=a+b&z=%zz"),
    ("/a%2Fb.png", "/a%2Fb.png"),
    ("/100%.png", "/100%.png"),
    ("/x?u=http://h/p?q=1&r=[1]", "/x?u=http://h/p?q=1&r=[1]"),
    ("/x.png?sig=ab%2Bc%3D%3D&e=1", "/x.png?sig=ab%2Bc%3D%3D&e=1"),
    ("/a|b^c`d{e}.png", "/a|b%5Ec%60d%7Be%7D.png"),
    ("/it's(1)!*~;=@$.png", "/it's(1)!*~;=@$.png"),
    ('/x.png?q="<>"', "/x.png?q=%22%3C%3E%22"),
    ("/x.png#fragment", "/x.png"),
    ("/x.png?", "/x.png?"),
    ("/a\\b.png", "/a/b.png"),
    ("/./a/../b//c.png", "/b//c.png"),
    ("/a/%2e%2e/b.png", "/b.png"),
    ("/tab\there\n.png", "/tabhere.png"),
    ("", "/"),
    ("?x=1", "/?x=1"),
]


def test_addresses_are_sent_as_browsers_send_them():
    with wire(lambda head: OK + LENGTH + b"\r\n" + BODY, keep=True) as server:
        for spelling, _ in SPELLINGS:
            assert get(server.base + spelling) == BODY
    assert server.targets == [sent for _, sent in SPELLINGS]


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("faß.example", "xn--fa-hia.example"),  # IDNA 2008, as browsers; 2003 has fass
        ("under_score.example", "under_score.example"),
        ("dot.example.", "dot.example."),
        ("%65x.example", "ex.example"),
    ],
)
def test_hosts_are_spelled_as_browsers_spell_them(host, sent, monkeypatch):
    async def resolve(name: str, port: int) -> list[str]:
        assert name == sent
        return ["127.0.0.1"]

    monkeypatch.setattr(network, "resolve", resolve)
    with wire(lambda head: OK + LENGTH + b"\r\n" + BODY) as server:
        assert get(f" http://{host}:{server.port}/x\n") == BODY
    assert f"Host: {sent.rstrip('.')}" in server.heads[0]


@pytest.mark.parametrize(
    "url", ["http://a b/", "http://h:80:80/", "http://a%zz/", "http://1.2.3.4.5/", "x.jpg", "//h/x", "http://\ud800/"]
)
def test_addresses_that_browsers_refuse_are_not_valid(url):
    assert get(url).message == "its address is not valid"


COOKIES = [
    # what the first answer sets, the host that it leads to, what the second request sends
    ("seen=1; Path=/", "one.example.test", "seen=1"),
    ("seen=1", "one.example.test", "seen=1"),
    ("seen=1; Domain=example.test", "two.example.test", "seen=1"),
    ("seen=1", "two.example.test", None),
    ("seen=1; Domain=two.example.test", "two.example.test", None),
    ("seen=1; Domain=test", "two.example.test", None),  # a public suffix
    ("seen=1; Path=/elsewhere", "one.example.test", None),
    ("seen=1; Secure", "one.example.test", None),
    ("seen=1; Max-Age=0", "one.example.test", None),
]


@pytest.mark.parametrize(("cookie", "host", "sent"), COOKIES)
def test_cookies_go_along_one_chain_of_redirects_by_their_rules(cookie, host, sent, monkeypatch):
    async def resolve(name: str, port: int) -> list[str]:
        return ["127.0.0.1"]

    def answer(head: str) -> bytes:
        if head.startswith("GET /first"):
            return (
                f"HTTP/1.1 302 Go\r\nSet-Cookie: {cookie}\r\nLocation: http://{host}:{server.port}/b\r\n\r\n".encode()
            )
        return OK + LENGTH + b"\r\n" + BODY

    monkeypatch.setattr(network, "resolve", resolve)
    with wire(answer) as server:
        assert get(f"http://one.example.test:{server.port}/first") == BODY
        assert get(f"http://one.example.test:{server.port}/other") == BODY
    has = ["Cookie: " + sent + "\r\n" in head if sent else "Cookie:" in head for head in server.heads]
    assert has == [False, sent is not None, False]

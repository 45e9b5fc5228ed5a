"""What only a bucket does: addresses, credentials, and errors that a person understands."""

from __future__ import annotations

import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable

import pytest
from object_store import ObjectStore, free_ports

from curate.schema.errors import CurateError
from curate.storage import Bucket, bucket, download, open_store, retry
from curate.storage.retry import StoreUnavailable

CALLS: dict[str, Callable[[Bucket], object]] = {
    "read": lambda store: store.read("f"),
    "list": lambda store: store.files(),
    "stat": lambda store: store.stat("f"),
    "write": lambda store: store.write("f", b"1"),
    "write much": lambda store: store.write("f", bytes(9 << 20)),
    "remove": lambda store: store.remove(["f"]),
    "acquire": lambda store: store.acquire("manifest.json").__enter__(),
}


def refusal(store: Bucket, call: str, secret: str) -> CurateError:
    """The error of a call, of which nothing is secret, however it is printed."""
    with pytest.raises(CurateError) as caught:
        CALLS[call](store)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + str(pickle.dumps(caught.value))
    context: BaseException | None = caught.value
    while context is not None:  # also what `from None` only hides
        shown += str(context)
        context = context.__context__
    assert secret not in shown
    return caught.value


@pytest.mark.parametrize("call", sorted(CALLS))
@pytest.mark.parametrize("name", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials(in_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, call: str, name: str) -> None:
    in_bucket.stat("f")  # the client that was made with the right ones is not used further
    monkeypatch.setenv(name, "WRONG-but-still-nobodys-business")
    began = time.monotonic()
    error = refusal(in_bucket, call, "WRONG-but")
    assert error.message == f"{in_bucket}: the object store refuses these credentials"
    assert time.monotonic() - began < 2, "at once: no other try could help"


def test_right_credentials_after_wrong_ones(in_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as wrong:
        wrong.setenv("AWS_SECRET_ACCESS_KEY", "WRONG")
        with pytest.raises(CurateError):
            in_bucket.read("f")
    in_bucket.write("f", b"1")


@pytest.mark.parametrize("call", sorted(CALLS.keys() - {"read", "stat"}))
def test_a_bucket_that_is_not_there(s3: ObjectStore, call: str) -> None:
    store = open_store("s3://no-such-bucket/prefix")
    assert isinstance(store, Bucket)
    began = time.monotonic()
    error = refusal(store, call, s3.secret)
    assert error.message == "s3://no-such-bucket/prefix: the object store has no such bucket"
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("call", ["read", "acquire"])
@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://127.0.0.1:{free}", "the object store refuses connections"),
        ("http://no-such-host.invalid", "the object store's host is not known"),
    ],
)
def test_a_server_that_cannot_be_reached(
    s3: ObjectStore, quick: None, monkeypatch: pytest.MonkeyPatch, endpoint: str, words: str, call: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint.format(free=free_ports(1)[0]))
    store = open_store("s3://bucket/prefix")
    assert isinstance(store, Bucket)
    retry.retries.take()
    error = refusal(store, call, s3.secret)
    assert isinstance(error, StoreUnavailable)
    assert error.message == f"s3://bucket/prefix: {words}, {retry.TRIES} times in a row"
    assert retry.retries.take() == retry.TRIES - 1


def test_how_long_it_tries() -> None:
    """All waits together, at most: what a user waits for a refused connection, and how long a store may be away."""
    waits, wait = 0.0, retry.FIRST_WAIT
    for _ in range(retry.TRIES - 1):
        waits, wait = waits + wait, min(2 * wait, retry.LONGEST_WAIT)
    assert 15 < waits < 30


def test_no_credentials(s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client then asks the machine's role service; here, a port where none is."""
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free_ports(1)[0]}")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = open_store("s3://bucket/prefix")
    assert isinstance(store, Bucket)
    began = time.monotonic()
    error = refusal(store, "read", s3.secret)
    assert error.message == "s3://bucket/prefix: there are no credentials for the object store"
    assert "AWS_ACCESS_KEY_ID" in error.hint
    assert time.monotonic() - began < 2 * bucket.CONNECT_SECONDS


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://key:PRIVATE@bucket/prefix", "credentials do not belong into"),
        ("s3://key:PRIVATE/prefix", "which has no port"),
        ("s3://127.0.0.1:9000/bucket", "which has no port"),
        ("s3://bucket/prefix?X-Amz-Signature=PRIVATE", "names no bucket and prefix"),
        ("s3:///prefix", "names no bucket and prefix"),
        ("s3://", "names no bucket and prefix"),
        ("s3://bucket/a/../b", "names no bucket and prefix"),
        ("s3://bucket/a//b", "names no bucket and prefix"),
        ("s3://bucket/a#b", "names no bucket and prefix"),
        ("gs://bucket/prefix", "gs:// is not a place"),
        ("https://bucket/prefix", "https:// is not a place"),
    ],
)
def test_addresses_that_are_none(uri: str, words: str) -> None:
    with pytest.raises(CurateError, match=words) as caught:
        open_store(uri)
    assert "PRIVATE" not in str(caught.value)


def test_addresses(s3: ObjectStore) -> None:
    for uri in ("s3://bucket", "s3://bucket/", "s3://bucket//"):
        assert str(open_store(uri)) == "s3://bucket"
    for uri in ("s3://bucket/a/b", "s3://bucket/a/b/"):
        assert str(open_store(uri)) == "s3://bucket/a/b"
        assert open_store(uri).name("c/d") == "s3://bucket/a/b/c/d"
    assert open_store("s3://bucket").name("c") == "s3://bucket/c"


def test_a_whole_bucket_is_a_store_too(s3: ObjectStore) -> None:
    store = open_store(s3.bucket("whole-bucket"))
    store.write("a/b", b"1")
    assert [stat.path for stat in store.files()] == ["a/b"]
    assert store.read("a/b") == b"1"


def test_neighbours_are_out_of_sight(in_bucket: Bucket) -> None:
    """`s3://bucket/x` and `s3://bucket/xy` share letters, and nothing else."""
    neighbour = open_store(f"{in_bucket}y")
    neighbour.write("theirs", b"1")
    in_bucket.write("mine", b"1")
    assert [stat.path for stat in in_bucket.files()] == ["mine"]
    assert in_bucket.existing(["theirs"]) == set()


def test_nothing_secret_is_part_of_a_store(in_bucket: Bucket, s3: ObjectStore) -> None:
    in_bucket.write("f", b"1")  # it has a client now
    for shown in (
        str(in_bucket),
        repr(in_bucket),
        str(pickle.dumps(in_bucket)),
        str(vars(in_bucket)),
        in_bucket.name("f"),
    ):
        assert s3.secret not in shown
        assert s3.key not in shown


def test_an_object_that_changes_while_it_is_read_is_never_mixed(
    in_bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "SPAN", 400)
    in_bucket.write("f", b"a" * 1000)
    chunks = in_bucket.chunks("f", 400)
    assert next(chunks) == b"a" * 400
    in_bucket.write("f", b"b" * 1000)
    with pytest.raises(FileNotFoundError, match="changed while it was read"):
        next(chunks)
    assert in_bucket.read("f") == b"b" * 1000


def test_another_client_sees_the_same(in_bucket: Bucket, s3: ObjectStore) -> None:
    """pyarrow's client, which shares no code with ours, finds bytes and names as we wrote them."""
    in_bucket.write("ü/a b%20.bin", b"\x00\xff" * 100)
    key = f"{in_bucket.bucket}/{in_bucket.prefix}/ü/a b%20.bin"
    with s3.arrow().open_input_stream(key) as stream:
        assert stream.read() == b"\x00\xff" * 100
    with s3.arrow().open_output_stream(f"{in_bucket.bucket}/{in_bucket.prefix}/theirs") as stream:
        stream.write(b"theirs")
    assert in_bucket.read("theirs") == b"theirs"


def test_empty_objects_that_stand_for_folders_are_no_files(in_bucket: Bucket, s3: ObjectStore) -> None:
    in_bucket.write("pairs/near-0.98/part-0-of-1.parquet", b"1")
    in_bucket.write("pairs/empty", b"")
    for folder in ("", "pairs", "pairs/near-0.98"):
        s3.arrow().create_dir(f"{str(in_bucket).removeprefix('s3://')}/{folder}")
    for folder in ("", "pairs"):
        assert [s.path for s in in_bucket.files(folder)] == ["pairs/empty", "pairs/near-0.98/part-0-of-1.parquet"]
    assert [s.path for s in in_bucket.files("pairs/near-0.98")] == ["pairs/near-0.98/part-0-of-1.parquet"]


def test_a_fork_is_told_and_does_not_hang(in_bucket: Bucket) -> None:
    """The client's threads do not live on in a fork (of a DataLoader, say), where every call would wait for ever."""
    in_bucket.write("f", b"1")
    into, out = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            in_bucket.read("f")
        except CurateError as exc:
            os.write(out, str(exc).encode())
        finally:
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    said = os.read(into, 1000).decode()
    os.close(into)
    os.close(out)
    assert "forked" in said
    assert "forkserver" in said


def test_workers_take_endpoint_and_region_of_the_driver_and_no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://store:1")
    monkeypatch.setenv("AWS_REGION", "there")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    given = bucket.endpoint_env()
    assert given == {"AWS_ENDPOINT_URL": "http://store:1", "AWS_REGION": "there"}
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_REGION", "here")  # a node's own word counts
    bucket.apply_endpoint_env(given)
    at = Bucket.of("s3://bucket/prefix")
    assert (at.endpoint, at.region) == ("http://store:1", "here")

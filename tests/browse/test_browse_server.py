"""What the server refuses, and what it says; no browser is needed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pyarrow.fs as pafs
import pytest
from run_curate import curate

from curate.browse.kept_files import prune

if TYPE_CHECKING:
    from conftest import Served
    from object_store import ObjectStore

pytest.importorskip("uvicorn", reason="pip install -e '.[dev]'")


def test_without_the_token_nothing_is_told(address: str) -> None:
    parts = urlsplit(address)
    for path in ("/", "/about", "/wrong/about", "/wrong/static/page.js", "//"):
        assert httpx.get(f"http://{parts.netloc}{path}").status_code == 403


def test_a_rebound_host_is_refused(address: str) -> None:
    port = urlsplit(address).port
    for host in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}", "localhost.evil.example"):
        assert httpx.get(address, headers={"host": host}).status_code == 403
    for host in (f"localhost:{port}", f"127.0.0.1:{port}", "localhost:9999"):  # as through a tunnel
        assert httpx.get(address, headers={"host": host}).status_code == 200


def test_every_answer_has_the_policy(address: str) -> None:
    for path in ("", "static/page.js", "about", "look/0/small", "nothing"):
        headers = httpx.get(address + path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "asked",
    [
        {"sort": "n; DROP VIEW rows"},
        {"sort": "id"},
        {"where": [{"field": "id) OR (1=1", "is": ["x"]}]},
        {"where": [{"field": "outcome", "is": [1]}]},
        {"where": [{"field": "brightness", "min": "0 OR true"}]},
        {"where": {"field": "outcome"}},
        {"limit": 10**9},
        {"offset": -1},
        {"search": ["x"]},
        {"near": {"field": "id", "row": 0}},
        {"near": {"field": "tiny_image"}},
        {"near": {"field": "tiny_image", "row": -1}},
        {"near": {"field": "tiny_image", "row": 10**9}},
        {"near": {"field": "tiny_image", "text": "a cat"}},
        {"near": ["tiny_image"]},
        {"lasso": {"field": "tiny_image", "polygon": [[0, 0], [1, 1]]}},
        {"lasso": {"field": "tiny_image", "polygon": [[0, 0], [1, 1], ["0", 1]]}},
        {"lasso": {"field": "tiny_image", "polygon": [[0, 0]] * 9999}},
    ],
)
def test_what_is_not_in_the_vocabulary_is_refused_in_a_sentence(address: str, asked: object) -> None:
    answer = httpx.post(address + "page", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert httpx.post(address + "page", json={}).json()["total"] > 0


def test_quotes_in_a_value_are_a_value(address: str) -> None:
    for asked in ({"search": "' OR 1=1 --"}, {"where": [{"field": "source", "is": ["x') OR true --"]}]}):
        assert httpx.post(address + "page", json=asked).json()["total"] == 0


@pytest.mark.parametrize("path", ["static/../server.py", "static/..%2fserver.py", "static/index.html", "look/0/%2e%2e"])
def test_no_path_leads_to_a_file_of_the_disk(address: str, path: str) -> None:
    assert httpx.get(address + path).status_code in (403, 404)


def test_a_medium_is_given_in_ranges(address: str, browsed_build: Path) -> None:
    [clip] = httpx.post(address + "page", json={"search": "bikes.mp4", "limit": 1}).json()["rows"]
    whole = (browsed_build.parent / "photos" / "bikes.mp4").read_bytes()
    medium = f"{address}medium/{clip['n']}"
    assert httpx.get(medium).content == whole
    for said, span in (("bytes=5-9", slice(5, 10)), ("bytes=-7", slice(-7, None)), ("bytes=9-", slice(9, None))):
        part = httpx.get(medium, headers={"range": said})
        assert (part.status_code, part.content) == (206, whole[span])
    for said in ("bytes=99999999-", "bytes=9-5", "bytes=-0", "lines=1-2"):
        assert httpx.get(medium, headers={"range": said}).status_code == 416


def test_counts_are_those_of_the_manifest(address: str) -> None:
    counts = httpx.get(address + "about").json()["counts"]["samples"]
    found = httpx.post(address + "page", json={"where": [{"field": "level", "is": ["sample"]}]}).json()["total"]
    kept = httpx.post(address + "page", json={"where": [{"field": "outcome", "is": ["kept"]}]}).json()["total"]
    assert (found, kept) == (counts["total"], counts["kept"])


def test_a_port_in_use_and_no_build_are_said_in_a_sentence(browsed_build: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = curate("browse", browsed_build, "--port", port)
        assert done.returncode == 2
        assert f"port {port}" in done.stderr + done.stdout
    done = curate("browse", tmp_path / "none")
    assert done.returncode == 2
    assert "there is no build here" in done.stderr + done.stdout


def test_a_build_that_is_written_or_of_another_format_is_said_in_a_sentence(
    browsed_build: Path, tmp_path: Path
) -> None:
    shutil.copytree(browsed_build, tmp_path / "build")
    manifest = tmp_path / "build" / "manifest.json"
    said = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**said, "format": 1}))
    for _ in range(2):
        done = curate("browse", tmp_path / "build")
        assert done.returncode == 2
        assert len((done.stderr + done.stdout).strip().splitlines()) < 4
        manifest.unlink(missing_ok=True)


def test_a_browser_that_closes_in_the_midst_harms_no_one(address: str) -> None:
    parts = urlsplit(address)
    for ask in (f"GET {parts.path}look/0/large", f"POST {parts.path}page", f"GET {parts.path}medium/0"):
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as cut:
            cut.sendall(f"{ask} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n".encode() + b"{")
    assert httpx.get(address + "about").status_code == 200


def test_shards_that_are_gone_are_said_of_the_tokens_alone(browsed_build: Path, served: Served, tmp_path: Path) -> None:
    shutil.copytree(browsed_build, tmp_path / "build")
    shutil.rmtree(tmp_path / "build" / "tokens")
    with served(tmp_path / "build") as address:
        [row, *_] = httpx.post(address + "page", json={"where": [{"field": "outcome", "is": ["kept"]}]}).json()["rows"]
        assert httpx.get(f"{address}sample/{row['n']}").status_code == 200
        answer = httpx.get(f"{address}tokens/{row['n']}")
        assert answer.status_code >= 400
        assert "tokens/" in answer.json()["error"]


def test_a_build_in_a_bucket_is_looked_through(browsed_build: Path, served: Served, s3: ObjectStore) -> None:
    place = s3.fresh()
    pafs.copy_files(str(browsed_build), place.removeprefix("s3://"), destination_filesystem=s3.arrow())
    with served(place) as address:
        rows = httpx.post(address + "page", json={"where": [{"field": "kind", "is": ["video"]}]}).json()["rows"]
        assert {row["uri"] for row in rows} == {"bikes.mp4"}
        n = rows[0]["n"]
        assert httpx.get(f"{address}look/{n}/small").content[8:12] == b"WEBP"
        medium = (browsed_build.parent / "photos" / "bikes.mp4").read_bytes()
        part = httpx.get(f"{address}medium/{n}", headers={"range": f"bytes={len(medium) // 2}-"})
        assert (part.status_code, part.content) == (206, medium[len(medium) // 2 :])
        counts = json.loads((browsed_build / "manifest.json").read_text())["counts"]["samples"]
        judged = httpx.post(address + "judge", json={"fields": ["brightness"]}).json()
        assert judged["counts"]["kept"] == counts["kept"]


def test_the_wheel_holds_the_page(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    root = Path(__file__).parents[2]
    build = "import sys, hatchling.build as h; print(h.build_wheel(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=root, check=True, capture_output=True, timeout=120)
    [wheel] = tmp_path.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    static = root / "curate" / "browse" / "static"
    assert {f"curate/browse/static/{file.name}" for file in static.iterdir()} <= held
    assert not any(name.startswith("web/") or "node_modules" in name for name in held)


def test_thumbnails_are_bounded(tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / str(i)).write_bytes(bytes(10))
    prune(tmp_path, 25)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(("ending", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_an_end_amid_pending_thumbnails_is_quick_and_silent(
    browsed_build: Path, tmp_path: Path, ending: signal.Signals, code: int
) -> None:
    command = [sys.executable, "-m", "curate.cli.main", "browse", str(browsed_build), "--cache", str(tmp_path)]
    with (
        ThreadPoolExecutor(8) as pool,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server,
    ):
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            assert 200 in [httpx.get(f"{address}look/{n}/small").status_code for n in range(3)]
            children = Path(f"/proc/{server.pid}/task").glob("*/children")
            [decoder] = [int(pid) for child in children for pid in child.read_text().split()]
            os.kill(decoder, signal.SIGSTOP)  # one that takes longer than anybody waits
            asked = [pool.submit(httpx.get, f"{address}look/{n}/large", timeout=60) for n in range(8)]
            while wait(asked, timeout=2, return_when=FIRST_COMPLETED).done:
                asked = [one for one in asked if not one.done()]  # a row without media needs no decoder
            assert asked
            server.send_signal(ending)
            assert server.communicate(timeout=20)[1] == ""
            assert server.returncode == code
        finally:
            server.kill()

"""What is tried before any work: files, endpoints, the build's place and its room."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from object_store import ObjectStore

from curate.pipeline.plan import make_plan
from curate.pipeline.preflight import Preflight
from curate.schema.errors import CurateError
from curate.schema.package_data import data_folder
from curate.schema.recipe import CaptionerUse, FolderSource
from curate.schema.recipe_file import RecipeFile
from curate.signals.endpoint import check_endpoint
from curate.sources.base import Source, Unit
from curate.sources.folder import Folders
from curate.storage import Folder, Store
from curate.tokenizers import zoo
from curate.tokenizers.builtin import ARCHITECTURES, FILES

RECIPE = """\
name: mine
sources:
  - {kind: folder, name: here, path: media}
annotate:
  - name: sharpness
tokenize:
  streams:
    - {name: tok_rgb, tokenizer: image-fsq-64k}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a recipe and an image; without a hub, and with an empty cache of it."""
    from PIL import Image

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    (tmp_path / "media").mkdir()
    Image.new("RGB", (64, 64), (200, 100, 50)).save(tmp_path / "media" / "a.png")
    (tmp_path / "r.yaml").write_text(RECIPE)
    return tmp_path


def curate(project: Path, change: tuple[str, str], *more: object) -> subprocess.CompletedProcess[str]:
    (project / "r.yaml").write_text(RECIPE.replace(*change))
    command = [sys.executable, "-m", "curate.cli.main", "run", project / "r.yaml", "--out", project / "out", *more]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_weights_that_are_not_there(project: Path, more: Sequence[str]) -> None:
    done = curate(project, ("name: sharpness", "{name: clip, pretrained: 'hf-hub:nobody/nothing'}"), *more)
    assert done.returncode == 2, done.stderr
    assert "r.yaml:5: nobody/nothing is not in the hub's cache on this machine" in done.stderr
    assert "HF_HOME" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (project / "out" / "fetched").exists()


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_tokenizer_without_its_weights(project: Path, more: Sequence[str]) -> None:
    (project / "tok").mkdir()
    shutil.copy(data_folder("tokenizers") / "image-fsq-64k" / "card.json", project / "tok")
    done = curate(project, ("image-fsq-64k", "tok"), *more)
    assert done.returncode == 2, done.stderr
    assert "r.yaml:8: the tokenizer tok lacks weights.safetensors" in done.stderr
    assert not (project / "out" / "fetched").exists()


def test_a_dry_run_says_what_it_tried_and_what_not(project: Path) -> None:
    done = curate(project, ("", ""), "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "check: room: the media weigh about" in done.stdout
    assert "not tried: loading models, fetching media" in done.stdout
    assert not (project / "out").exists()


def test_every_shipped_tokenizer_has_its_files() -> None:
    for name in zoo.shipped():
        zoo.check_files(name)
    assert set(FILES) <= set(ARCHITECTURES)


@contextmanager
def server(status: int, said: bytes) -> Iterator[str]:
    """An endpoint that answers every GET so; its base url."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/v1/models"
            self.send_response(status)
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, format: str, *args: object) -> None:
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{running.server_address[1]}/v1"
    finally:
        running.shutdown()
        running.server_close()


def use(url: str) -> CaptionerUse:
    return CaptionerUse.model_validate({"name": "short", "model": "m", "endpoint": url})


def test_endpoints_are_asked_for_their_models() -> None:
    models = json.dumps({"data": [{"id": "m"}, {"id": "n"}]}).encode()
    with server(200, models) as url:
        assert check_endpoint(use(url)) is None
    with server(200, models.replace(b'"m"', b'"o"')) as url:
        assert "does not name m among its models: o, n" in str(check_endpoint(use(url)))
    for status, said in ((404, b"no"), (200, b"<html>"), (200, b'{"data": 3}')):
        with server(status, said) as url:
            assert "m was not tried" in str(check_endpoint(use(url)))
    with server(401, b"") as url, pytest.raises(CurateError, match="short: its endpoint asks for a key"):
        check_endpoint(use(url))
    with pytest.raises(CurateError, match="short: its endpoint cannot be connected to"):
        check_endpoint(use("http://127.0.0.1:9/v1"))


class Heavy(Source):
    """A source that weighs so much."""

    def __init__(self, weight: float | None) -> None:
        super().__init__(FolderSource(kind="folder", name="heavy", path="."), Path("/"), {})
        self._weight = weight

    def weight(self, units: Sequence[Unit], build: Store) -> float | None:
        return self._weight


def test_room_is_compared_with_the_media(project: Path) -> None:
    build, said = Folder(project / "out"), list[str]()
    preflight = Preflight(make_plan(RecipeFile.load(project / "r.yaml")), build, True, said.append)
    free = shutil.disk_usage(project).free
    with pytest.raises(CurateError, match="the media weigh about"):
        preflight.room([Heavy(2.0 * free)], [], build)
    preflight.room([Heavy(1000.0)], [], build)
    assert not said
    preflight.room([Heavy(0.9 * free)], [], build)
    assert "are free on the disk of" in said.pop()
    preflight.room([Heavy(None)], [], build, told=True)
    assert "heavy" in said[-1]
    assert "not known before they are fetched" in said[-1]


def test_what_a_folder_weighs_is_told_by_some_of_its_files(tmp_path: Path) -> None:
    folder, build = tmp_path / "media", Folder(tmp_path / "build")
    folder.mkdir()
    for i in range(3000):
        (folder / f"{i:04}.jpg").write_bytes(bytes(1000 + i % 7))
    (folder / "zz.jpg").symlink_to("nowhere")
    source = Folders(FolderSource(kind="folder", name="here", path=str(folder)), tmp_path, {})
    units = list(source.units(build))
    assert len(units) > 1
    assert source.weight(units, build) == pytest.approx(3000 * 1003, rel=0.01)
    assert source.weight([], build) == 0


def test_a_place_that_cannot_be_written(project: Path) -> None:
    plan = make_plan(RecipeFile.load(project / "r.yaml"))
    (project / "file").write_text("in the way")
    preflight = Preflight(plan, Folder(project / "file" / "out"), True, lambda said: None)
    with pytest.raises(CurateError, match="cannot make the build"):
        preflight.writable()
    with pytest.raises(CurateError, match="cannot write to"):
        preflight.write()
    good = Preflight(plan, Folder(project / "new" / "out"), True, lambda said: None)
    good.writable()
    assert not (project / "new").exists()
    good.write()
    assert not [path for path in (project / "new").rglob("*") if path.is_file()]


def test_a_bucket_that_may_only_be_read(project: Path, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    out = s3.fresh()
    for name, value in s3.reader_env.items():
        monkeypatch.setenv(name, value)
    for more in (["--dry-run"], []):
        done = curate(project, ("", ""), "--out", out, *more)
        assert done.returncode == 2
        assert "refuses" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr

"""Samples that kill their worker, records that cannot be had for a while, and `--retry-failed` that mends both."""

from __future__ import annotations

import http.server
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
from small import Project, package_file, shown

RECIPE = """\
name: mended
partition: 3
sources:
  - kind: table
    name: web
    path: web.csv
    uri: url
    text: caption
    base_url: ${SITE}
    fetch: {allow_private: true, attempts: 2, max_wait: 0.1}
annotate:
  - name: sharpness
  - {name: "poison_signal:Poison", while_there: FLAG}
tokenize:
  streams:
    - {name: caption, tokenizer: text-bpe-8k}
pack: {splits: {train: 1.0}}
"""
WORDS = {
    "astronaut.png": "an astronaut",
    "chelsea.png": "a cat with poison",
    "coffee.png": "a cup",
    "rocket.jpg": "a rocket",
    "camera.png": "a man with a camera",
    "coins.png": "old coins",
    "text.png": "a page of text",
}
GONE = "rocket.jpg"


@contextmanager
def site(broken: Path, asked: Counter[str]) -> Iterator[str]:
    """A real web server with the images; while `broken` is there, one of them is answered with 503."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path[1:]
            asked[name] += 1
            data = package_file("skimage", f"data/{name}").read_bytes()
            status = 503 if name == GONE and broken.exists() else 200
            self.send_response(status)
            self.send_header("Content-Length", str(len(data) if status == 200 else 0))
            self.end_headers()
            if status == 200:
                self.wfile.write(data)

        def log_message(self, *said: Any) -> None:
            """Nothing: pytest shows what a failing test needs."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


def verdicts(build: Path, level: str) -> dict[str, dict[str, Any]]:
    rows = ds.dataset(build / "verdicts", format="parquet").to_table().to_pylist()
    return {row["uri"]: row for row in rows if row["level"] == level}


@pytest.mark.parametrize("against_fresh", [False, pytest.param(True, marks=pytest.mark.long)])
def test_poison_is_quarantined_alone_and_what_failed_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, against_fresh: bool
) -> None:
    project = Project(tmp_path)
    flag = tmp_path / "flag"
    flag.touch()
    (tmp_path / "r.yaml").write_text(RECIPE.replace("FLAG", str(flag)))
    (tmp_path / "web.csv").write_text("url,caption\n" + "".join(f"{name},{text}\n" for name, text in WORDS.items()))
    asked: Counter[str] = Counter()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with site(flag, asked) as url:
        monkeypatch.setenv("SITE", url)
        out, fresh = tmp_path / "out", tmp_path / "fresh"

        done = project.curate("run", tmp_path / "r.yaml", "--out", out)
        records, samples = verdicts(out, "record"), verdicts(out, "sample")
        assert {uri for uri, row in records.items() if row["outcome"] == "failed"} == {GONE}
        assert (records[GONE]["stage"], records[GONE]["attempt"]) == ("ingest", 2)
        assert "503" in records[GONE]["message"]
        # its batch mates, astronaut and coffee, are complete
        assert {uri for uri, row in samples.items() if row["outcome"] == "failed"} == {"chelsea.png"}
        dead = samples["chelsea.png"]
        assert (dead["stage"], dead["error"], dead["attempt"]) == ("annotate:poison", "Crashed", 2)
        assert "SIGSEGV" in dead["message"]
        assert "failed, by cause" in done.stdout
        assert asked[GONE] == 2, "a 503 is tried again, as often as the recipe says"

        flag.unlink()
        before = asked.copy()
        done = project.curate("run", tmp_path / "r.yaml", "--out", out, "--retry-failed")
        assert "1 failed in ingest" in done.stderr
        assert asked - before == Counter({GONE: 1}), "only what failed is asked for again"
        assert {row["outcome"] for row in verdicts(out, "sample").values()} == {"kept"}

        if against_fresh:
            project.curate("run", tmp_path / "r.yaml", "--out", fresh)
            assert shown(out) == shown(fresh)

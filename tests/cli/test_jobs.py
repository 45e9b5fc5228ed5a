"""`curate submit`, `status`, `stop` against a real Ray head with token authentication, started on loopback."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from job_head import TOKEN, Head, free_port, ray_head, shell
from job_proxy import Proxy
from PIL import Image

from curate.cli import job_entry
from curate.cli.job_address import DEFAULT_ADDRESS, resolve_address
from curate.cli.job_package import pack
from curate.cli.job_server import Unreachable
from curate.cli.jobs_cli import _environment
from curate.pipeline.read_log import READ_LOG
from curate.schema.errors import CurateError
from curate.schema.recipe_file import RecipeFile

RECIPE = """\
name: mine
partition: 2
sources:
  - {kind: folder, name: here, path: media}
annotate:
  - name: sharpness
tokenize:
  streams:
    - {name: caption, tokenizer: text-bpe-8k}
"""

COUNT = "i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo line $i; sleep {gap}; done"


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    with ray_head(tmp_path_factory.mktemp("home")) as up:
        yield up


def make_project(folder: Path) -> Path:
    """A recipe, whose name a shell would take apart, with three images beside it, and things that must not travel."""
    media = folder / "media"
    media.mkdir(parents=True)
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(media / f"{i}.png")
        (media / f"{i}.txt").write_text(f"noise of seed {i}")
    (media / ".git").mkdir()
    (media / ".git" / "config").write_text("url = https://name:password@example.org")
    (media / "__pycache__").mkdir()
    (media / "__pycache__" / "x.pyc").write_bytes(b"x")
    recipe = folder / "my recipe; $(x).yaml"
    recipe.write_text(RECIPE)
    return recipe


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"))


def files(folder: Path) -> dict[str, bytes]:
    """All files, but what is noted of the times of the sources' files: a job has a copy of them."""
    paths = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {name: p.read_bytes() for p in paths if (name := p.relative_to(folder).as_posix()) != READ_LOG}


def wait_for(what: object, *, seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < limit
        time.sleep(0.1)


def the_rest(process: subprocess.Popen[str]) -> tuple[str, str, int]:
    """What a process whose lines were read still writes, and its exit code; `communicate` forgets what is buffered."""
    assert process.stdout is not None
    assert process.stderr is not None
    out, said = process.stdout.read(), process.stderr.read()
    return out, said, process.wait(timeout=60)


# What the cluster does


def test_a_recipe_becomes_a_build(head: Head, project: Path, tmp_path: Path) -> None:
    out = tmp_path / "a build"
    done = head.curate(
        "submit", project, "--out", out, "--include", project.parent / "media", "--name", "first", "--code"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "samples: 3 = 3 kept" in done.stdout
    assert "submitted  first" in done.stderr
    assert "succeeded  first" in done.stderr
    assert (out / "manifest.json").is_file()

    job = json.loads(head.curate("status", "first", "--json").stdout)
    assert (job["state"], job["exit_code"], job["recipe"], job["out"]) == ("succeeded", 0, "mine", str(out))
    told = json.dumps(head.rest("GET", "first")) + done.stdout + done.stderr
    assert TOKEN not in told
    assert "first" in head.curate("status").stdout

    # a name is used once
    again = head.curate("submit", project, "--out", out, "--include", project.parent / "media", "--name", "first")
    assert again.returncode == 2
    assert "a job 'first' already" in again.stderr
    assert "another --name" in again.stderr
    assert "Traceback" not in again.stderr


def test_exit_codes_are_the_jobs(head: Head) -> None:
    ends = {"exit 3": 3, "python -c 'import os; os.kill(os.getpid(), 9)'": 137, "pithon": 127}
    for i, command in enumerate(ends):
        head.submit(f"ends-{i}", command)
    followers = [head.start("status", f"ends-{i}", "--follow") for i in range(len(ends))]
    codes = [follower.communicate(timeout=60) and follower.returncode for follower in followers]
    assert codes == list(ends.values())


def test_a_follower_can_leave_lose_its_connection_and_see_the_end(head: Head) -> None:
    head.submit("count", COUNT.format(n=1000, gap=0.1))
    wait_for(lambda: "line 3\n" in head.log("count"))

    leaves = head.start("status", "count", "--follow")
    assert leaves.stdout is not None
    assert any(line == "line 2\n" for line in leaves.stdout)
    leaves.send_signal(signal.SIGINT)
    _, said, code = the_rest(leaves)
    assert code == 130
    assert "curate status count --follow" in said
    assert "curate stop count" in said
    assert head.state("count") == "RUNNING"

    with Proxy(int(head.address.rpartition(":")[2])) as proxy:
        stays = head.start("status", "count", "--follow", "--address", proxy.address)
        assert stays.stdout is not None
        seen = []
        for line in stays.stdout:
            seen.append(line)
            if line in ("line 5\n", "line 40\n"):
                proxy.cut()
            if line == "line 70\n":
                break
        stopped = head.curate("stop", "count")
        assert stopped.returncode == 0
        assert "count stopped" in stopped.stderr
        rest, said, code = the_rest(stays)
    assert code == 143
    assert "".join(seen) + rest == head.log("count"), "no line is lost or repeated"
    assert "lost the connection" in said
    assert head.curate("stop", "count").returncode == 0, "stopping twice is no mistake"


def test_a_job_that_is_not_there(head: Head) -> None:
    for command in (("status", "nothing"), ("status", "nothing", "--follow"), ("stop", "nothing")):
        done = head.curate(*command)
        assert done.returncode == 2
        assert "has no job 'nothing'" in done.stderr


def test_the_token(head: Head, tmp_path: Path) -> None:
    """Found in the variable or in the file, whatever the mode; one sentence when it is missing or wrong."""
    at = {"RAY_API_SERVER_ADDRESS": head.address}
    none = head.curate("status", env=shell(tmp_path, **at))
    wrong = head.curate("status", env=shell(tmp_path, **at, RAY_AUTH_TOKEN="another"))
    lost = head.curate("status", env=shell(tmp_path, **at, RAY_AUTH_TOKEN_PATH=str(tmp_path / "x")))
    for done, says in ((none, "none was sent"), (wrong, "refuses the one it got"), (lost, "none was sent")):
        assert done.returncode == 2
        assert says in done.stderr
        assert "RAY_AUTH_TOKEN" in done.stderr
        assert "~/.ray/auth_token" in done.stderr
        assert len(done.stderr.splitlines()) == 2
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text(TOKEN)
    assert head.curate("status", env=shell(tmp_path, **at)).returncode == 0


# What is refused before anything is sent


def test_an_address_where_nobody_is(tmp_path: Path) -> None:
    head = Head("http://127.0.0.1:1", tmp_path)
    done = head.curate("status")
    assert done.returncode == 2
    assert "no Ray job server answers at http://127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    assert resolve_address(None) == DEFAULT_ADDRESS
    monkeypatch.setenv("RAY_ADDRESS", "http://ray:1")
    assert resolve_address(None) == "http://ray:1"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "https://api:2/")
    assert resolve_address(None) == "https://api:2"
    assert resolve_address("http://flag:3") == "http://flag:3"
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS")
    for wrong in ("ray://head:10001", "head:6379", "http://", "http://name:password@head:8265"):
        monkeypatch.setenv("RAY_ADDRESS", wrong)
        with pytest.raises(CurateError, match="RAY_ADDRESS") as error:
            resolve_address(None)
        if "password" in wrong:
            assert "name:password" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "build/mine"], "relative"),
        (["--out", "s3://key:secret@bucket/x"], "credentials"),
        (["--out", "/x", "--name", "a/b"], "--name"),
        (["--out", "/x", "--env", "AWS_SECRET_ACCESS_KEY=abc"], "looks like a secret"),
        (["--out", "/x", "--", "--worker", "3"], "--workers"),
        (["--out", "/x", "--", "another.yaml"], "another.yaml"),
        (["--out", "/x", "--", "--out=/y"], "--out"),
    ],
)
def test_a_wrong_command(project: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = Head("http://127.0.0.1:1", tmp_path).curate("submit", project, *arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "secret@" not in done.stderr


def test_what_may_be_set() -> None:
    assert _environment(["TOKENIZERS_PARALLELISM=false"])
    assert _environment(["DATA=s3://bucket/x", "EMPTY=", "EQUAL=a=b"]) == {
        "DATA": "s3://bucket/x",
        "EMPTY": "",
        "EQUAL": "a=b",
    }
    for wrong in ("DATA", "=x", "A B=x", "HF_TOKEN=x", "my_password=x", "URL=https://name:pass@host/"):
        with pytest.raises(CurateError) as error:
            _environment([wrong])
        assert "pass@" not in str(error.value)


# What travels


def test_a_recipe_travels_as_it_is_and_junk_does_not(project: Path, tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    project.write_text(RECIPE.replace("path: media", "path: '${DATA}/x'"))
    (tmp_path / "sent").mkdir()
    package = pack(RecipeFile.load(project), [project.parent / "media"], code=False, to=tmp_path / "sent")
    assert package.variables == ["DATA"]
    assert package.code == []
    sent = [
        job_entry.NEEDS,
        job_entry.FILE,
        *(f"media/{i}.{kind}" for i in range(3) for kind in ("png", "txt")),
        project.name,
    ]
    assert sorted(files(package.folder)) == sorted(sent)
    assert (package.folder / package.recipe).read_text() == project.read_text()


def test_the_code_that_travels_finds_its_data(project: Path, tmp_path: Path) -> None:
    package = pack(RecipeFile.load(project), [project.parent / "media"], code=True, to=tmp_path)
    names = {part for path in files(tmp_path) for part in Path(path).parts}
    assert not names & {"__pycache__", ".git", ".venv", "build", "tests", "benchmarks"}
    script = (
        "import curate; from importlib.metadata import version; from curate.tokenizers import zoo;"
        "from curate.schema.recipe_file import find_recipe; zoo.load('image-fsq-64k');"
        "print(curate.__file__, find_recipe('quickstart'), version('curate-tokens'), *zoo.names(), sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=package.folder,
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stdout.splitlines()
    assert lines[0] == str(tmp_path / "curate" / "__init__.py")
    assert lines[1] == str(tmp_path / "curate" / "_data" / "pipelines" / "quickstart.yaml")
    assert {"image-fsq-64k", "audio-rvq-4kbps", "text-bpe-8k"} <= set(lines[3:])


def test_what_is_on_this_machine_only_is_refused(project: Path, tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=r"yaml:4: 'media' is on this machine only") as error:
        pack(RecipeFile.load(project), [], code=False, to=tmp_path)
    assert "--include media" in error.value.hint
    for i, wrong in enumerate(
        (project.parent, project.parent.parent, project.parent / "nothing", Path("/etc/hostname"))
    ):
        (tmp_path / str(i)).mkdir()
        with pytest.raises(CurateError, match="--include"):
            pack(RecipeFile.load(project), [wrong], code=False, to=tmp_path / str(i))


def test_media_in_bulk_are_refused(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    with (project.parent / "media" / "large.mp4").open("wb") as file:
        file.truncate(65 << 20)
    (tmp_path / "sent").mkdir()
    with pytest.raises(CurateError, match="64 MiB") as error:
        pack(RecipeFile.load(project), [project.parent / "media"], code=False, to=tmp_path / "sent")
    assert "bucket" in error.value.hint


# Where a log goes on


@settings(deadline=None)
@given(
    log=st.text(alphabet="ab\n\x1b", max_size=60),
    connections=st.lists(st.lists(st.integers(0, 60), max_size=6), max_size=5),
)
def test_a_log_is_shown_once_however_it_is_cut(log: str, connections: list[list[int]]) -> None:
    """Each connection sends the log from its start, in any pieces, and ends anywhere; the last one sends all of it."""
    from curate.cli.job_follow import Follower

    class Server:
        address = "http://nowhere"

    shown: list[str] = []
    follower = Follower(Server(), "x", shown.append, print)  # type: ignore[arg-type]
    for places in connections:
        at = 0
        for end in sorted(min(p, len(log)) for p in places):
            follower._show(log[at:end], at)
            at = end
    follower._show(log, 0)
    assert "".join(shown) == log.replace("\x1b", "")


def test_a_cluster_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from curate.cli import job_follow

    class Server:
        address = f"http://127.0.0.1:{free_port()}"

        def connection(self) -> dict[str, object]:
            return {}

    monkeypatch.setattr(job_follow, "PATIENCE_SECONDS", 1.0)
    said: list[str] = []
    with pytest.raises(Unreachable):
        job_follow.Follower(Server(), "x", print, said.append).follow()  # type: ignore[arg-type]
    assert len(said) == 1
    assert "lost the connection" in said[0]


# Long: faults, and the same bytes


@pytest.mark.long
def test_a_job_makes_the_bytes_of_a_local_run(head: Head, project: Path, tmp_path: Path) -> None:
    local = head.curate("run", project, "--out", tmp_path / "local", "--workers", 2)
    assert local.returncode == 0, local.stderr
    for name, code in (("sent", "--code"), ("installed", "--no-code")):
        done = head.curate("submit", project, "--out", tmp_path / name, "--include", project.parent / "media", code)
        assert done.returncode == 0, done.stdout + done.stderr
        assert files(tmp_path / name) == files(tmp_path / "local")


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_a_job_that_was_stopped_is_submitted_again(head: Head, project: Path, tmp_path: Path, seed: int) -> None:
    """Stopped at a random moment, then the same command: the bytes of an undisturbed build."""
    draw = random.Random(seed)
    send = ("submit", project, "--include", project.parent / "media", "--code", "--out")
    assert head.curate(*send, tmp_path / "whole").returncode == 0
    name = f"stopped-{seed}"
    first = head.start(*send, tmp_path / "out", "--name", name)
    assert first.stdout is not None
    assert any(line.startswith("Running entrypoint") for line in first.stdout)
    time.sleep(draw.uniform(4, 14))
    assert head.curate("stop", name).returncode == 0
    assert the_rest(first)[2] in (143, 0)
    done = head.curate(*send, tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.long
def test_variables_reach_the_recipe(head: Head, tmp_path: Path) -> None:
    project = make_project(tmp_path / "p")
    project.write_text(RECIPE.replace("path: media", "path: '${DATA}/media'"))
    send = ("submit", project, "--out", tmp_path / "out")
    without = head.curate(*send)
    assert without.returncode == 2, "the job's own code"
    assert "DATA" in without.stdout
    assert "nodes' environment must have DATA" in without.stderr
    done = head.curate(*send, "--env", f"DATA={project.parent}")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_a_bad_network_loses_and_repeats_nothing(head: Head, seed: int) -> None:
    draw = random.Random(seed)
    name = f"network-{seed}"
    with Proxy(int(head.address.rpartition(":")[2])) as proxy:
        head.submit(name, COUNT.format(n=400, gap=0.1))
        follower = head.start("status", name, "--follow", "--address", proxy.address)

        def faults() -> None:
            for _ in range(8):
                time.sleep(draw.uniform(0.5, 3))
                if draw.random() < 0.6:
                    proxy.cut()
                else:
                    proxy.shut()
                    time.sleep(draw.uniform(0.5, 4))
                    proxy.open()

        assert follower.stdout is not None
        first = follower.stdout.readline()  # who cannot connect at all has the wrong address, and is told at once
        fault = threading.Thread(target=faults)
        fault.start()
        rest, said, code = the_rest(follower)
        fault.join()
    assert code == 0, said
    assert first + rest == head.log(name)
    assert said.count("lost the connection") >= 2


@pytest.mark.long
def test_a_network_that_drops_everything_is_noticed(head: Head) -> None:
    """No reset, no end: only pings that stay without an answer."""
    with Proxy(int(head.address.rpartition(":")[2])) as proxy:
        head.submit("deaf", COUNT.format(n=60, gap=1))
        follower = head.start("status", "deaf", "--follow", "--address", proxy.address)
        assert follower.stdout is not None
        seen = []
        for line in follower.stdout:
            seen.append(line)
            if line == "line 3\n":
                break
        proxy.deafen()
        assert follower.stderr is not None
        assert any("lost the connection" in line for line in follower.stderr)
        proxy.open()
        rest, said, code = the_rest(follower)
    assert code == 0, said
    assert "".join(seen) + rest == head.log("deaf")


@pytest.mark.long
def test_an_answer_that_is_lost_does_not_start_a_job_twice(head: Head, project: Path, tmp_path: Path) -> None:
    """The request arrives, the answer does not: the job that was started is followed."""
    port = int(head.address.rpartition(":")[2])
    with Proxy(port) as proxy:

        def cut_when_it_is_there() -> None:
            for _ in range(600):
                try:
                    head.rest("GET", "answer")
                except httpx.HTTPStatusError:
                    time.sleep(0.005)
                    continue
                proxy.cut()
                return

        watcher = threading.Thread(target=cut_when_it_is_there)
        watcher.start()
        done = head.curate(
            *("submit", project, "--out", tmp_path / "out", "--include", project.parent / "media"),
            *("--name", "answer", "--no-code", "--address", proxy.address),
        )
        watcher.join()
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(job["submission_id"] == "answer" for job in head.rest("GET", "")) == 1

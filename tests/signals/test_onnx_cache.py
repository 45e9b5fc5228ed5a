import multiprocessing
import os
from pathlib import Path

import pytest

from curate.models.onnx_cache import cached
from curate.schema.errors import CurateError
from curate.storage.copies import cache_folder


def _write_slowly(path: Path) -> None:
    for _ in range(200):
        with path.open("ab") as file:
            file.write(b"x" * 1000)


def _racer(folder: str, barrier) -> None:
    os.environ["CURATE_CACHE"] = folder
    barrier.wait()
    path = cached("net", "d" * 64, _write_slowly)
    if path.stat().st_size != 200_000:
        os._exit(1)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_model_is_made_once_and_its_name_carries_the_digest(folder):
    made = []

    def make(path):
        made.append(path)
        path.write_bytes(b"model")

    first, again = cached("net", "ab" * 32, make), cached("net", "ab" * 32, make)
    assert first == again
    assert first.parent == folder / "models"
    assert first.name.startswith("net-abababababababab-torch")
    assert len(made) == 1
    assert cached("net", "cd" * 32, make) != first


def test_a_crash_while_it_is_made_leaves_nothing_behind(folder):
    def crash(path):
        path.write_bytes(b"half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cached("net", "ab" * 32, crash)
    assert list((folder / "models").iterdir()) == []


def test_processes_that_make_it_at_once_all_see_a_whole_file(folder):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    racers = [context.Process(target=_racer, args=(str(folder), barrier)) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    assert [racer.exitcode for racer in racers] == [0] * 4
    assert len(list((folder / "models").iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CurateError, match="cannot write to") as error:
        cached("net", "ab" * 32, lambda path: None)
    assert "CURATE_CACHE" in error.value.hint


def test_the_default_is_the_users_cache(monkeypatch):
    for name in ("CURATE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "curate-tokens"

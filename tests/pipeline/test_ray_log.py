"""What Ray says of itself is in a file, and not between lines of progress."""

from __future__ import annotations

import builtins
import importlib
import logging
import re
import sys
import tempfile
import warnings
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from curate.pipeline.ray_log import ray_log

RAYS = {"__name__": "ray._private.worker", "warnings": warnings}
"""Names of a module of Ray, to run code as if it stood there."""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_what_ray_says_is_put_aside_and_what_others_say_passes(
    temporary: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    warned = list[str]()
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: warned.append(str(message)))
    progress = StringIO()
    with ray_log(Console(file=progress, soft_wrap=True)):
        logging.getLogger("ray.data.some").warning("the pool has no room")
        logging.getLogger("ray").info("of no use to anybody")
        exec("print('(raylet) 8 workers\\n  have been started')", RAYS)
        exec("warnings.warn('too few actors', UserWarning, stacklevel=3)", RAYS)
        print("a plug-in's word")
        warnings.warn("a plug-in's warning", stacklevel=1)
    [path] = temporary.iterdir()
    assert path.stat().st_mode & 0o077 == 0
    held = path.read_text()
    for said in (
        "WARNING ray.data.some: the pool has no room\n",
        "(raylet) 8 workers\n  have been started\n",
        "UserWarning: too few actors\n",
    ):
        assert said in held
    assert "of no use" not in held
    assert progress.getvalue() == f"log        what Ray said of itself is in {path}\n"
    assert capsys.readouterr() == ("a plug-in's word\n", "")
    assert warned == ["a plug-in's warning"]


def test_a_plug_in_prints_after_ray_has_made_print_its_own(
    temporary: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ray._private.worker import print_to_stdstream

    monkeypatch.setattr(builtins, "print", print)  # to be as before at the end
    with ray_log(Console(quiet=True)):
        print_to_stdstream({"lines": ["8 workers\nhave been started"], "pid": "raylet", "is_err": False}, False)
        print("a plug-in's word")
        print_to_stdstream({"lines": ["one has ended"], "pid": "raylet", "is_err": False}, False)
    assert capsys.readouterr() == ("a plug-in's word\n", "")
    [path] = temporary.iterdir()
    assert re.findall("8 workers|have been started|one has ended", path.read_text()) == [
        "8 workers",
        "have been started",
        "one has ended",
    ]


def test_all_is_as_before_and_no_file_is_made_where_ray_says_nothing(temporary: Path) -> None:
    importlib.import_module("ray.data")  # gives its loggers their handlers

    def state() -> list[object]:
        loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
        return [sys.stdout, warnings.showwarning, *((one.level, list(one.handlers)) for one in loggers)]

    before = state()
    with ray_log(Console(file=StringIO())):
        assert state() != before
    assert state() == before
    assert not list(temporary.iterdir())


def test_what_is_raised_as_well_is_not_held(temporary: Path) -> None:
    def fail(logger: str) -> None:
        with ray_log(Console(quiet=True)):
            logging.getLogger(logger).error("a task raised something")
            raise RuntimeError("it is wrong")

    with pytest.raises(RuntimeError) as raised:
        fail("ray.data.exceptions")
    assert not list(temporary.iterdir())
    assert not hasattr(raised.value, "__notes__")
    with pytest.raises(RuntimeError) as raised:
        fail("ray.data.others")
    [path] = temporary.iterdir()
    assert raised.value.__notes__ == [f"what Ray said of itself is in {path}"]


def test_where_no_file_can_be_written_it_goes_to_stderr(
    temporary: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    with ray_log(Console(quiet=True)):
        logging.getLogger("ray").warning("the disk is full")
    assert "the disk is full" in capsys.readouterr().err

"""Readers of video: what makes the pixels of its frames."""

from __future__ import annotations

from importlib.util import find_spec

from curate.media.container import Deadline
from curate.media.video import PyAVReader
from curate.schema.errors import CurateError

READERS = ("pyav", "decord")
"""Names of readers, as `media.reader` of a recipe gives them."""


def open_video(reader: str, data: bytes, deadline: Deadline | None = None, name: str = "") -> PyAVReader:
    """A video opened by the reader of a name; the other arguments and errors are those of `PyAVReader`."""
    if reader == "decord":
        from curate.media.decord_reader import DecordReader

        return DecordReader(data, deadline, name)
    return PyAVReader(data, deadline, name)


def check_reader(reader: str) -> None:
    """Raise CurateError for a reader that is not installed."""
    if reader == "decord" and find_spec("decord") is None:
        raise CurateError(
            "the reader decord is not installed", "pip install 'curate-tokens[decord]' (x86-64 only), or use pyav"
        )

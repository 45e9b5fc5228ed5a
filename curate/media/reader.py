"""Readers of video: what makes the pixels of its frames."""

from __future__ import annotations

from curate.media.container import Deadline
from curate.media.video import PyAVReader

READERS = ("pyav", "decord")
"""Names of readers, as `media.reader` of a recipe gives them."""


def open_video(reader: str, data: bytes, deadline: Deadline | None = None, name: str = "") -> PyAVReader:
    """A video opened by the reader of a name; the other arguments and errors are those of `PyAVReader`."""
    if reader == "decord":
        from curate.media.decord_reader import DecordReader

        return DecordReader(data, deadline, name)
    return PyAVReader(data, deadline, name)

"""How what was found of media is written in the helper's answers, and how it is read.

What comes out of a process that a file may have taken over is checked in every part. Readers raise LookupError,
TypeError or ValueError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.arrays import DTYPES
from curate.media.clips import Span
from curate.media.decodes import Decodes
from curate.media.examine import CUTTING, PROBING, Examined, Viewed
from curate.media.probe import Probe
from curate.media.requests import Array, Audio, Decoded, DecodeRequest, Energy, Frames
from curate.schema.errors import MediaError
from curate.schema.fields import KINDS, TIMED

_WHOLE = (Span(0, 0),)
"""The spans of an image or an array; None in answers, where arrays take time."""

_PROBE = [field.name for field in fields(Probe)]
_VIEWS: dict[str, type[DecodeRequest]] = {"Frames": Frames, "Audio": Audio, "Energy": Energy, "Array": Array}


def view_row(view: DecodeRequest) -> dict[str, Any]:
    """A view as plain values."""
    return {"of": type(view).__name__} | asdict(view)


def view_of(of: str, **options: Any) -> DecodeRequest:
    """The view that `view_row` wrote."""
    return _VIEWS[of](**options)


def probed(answer: Any) -> Probe:
    """A probe, written as a dict of its fields."""
    found = Probe(**answer)
    if found.kind not in KINDS or type(found.codec) is not str or type(found.has_audio) is not bool:
        raise ValueError("a probe of no kind")
    for count in (found.width, found.height, found.audio_rate):
        if count is not None and (type(count) is not int or count < 0):
            raise ValueError("a probe with a size that is none")
    for number in (found.duration, found.fps):
        if number is not None and (type(number) is not float or not 0 <= number < math.inf):
            raise ValueError("a probe with a number that is none")
    return found


def span_rows(spans: Sequence[Span]) -> NDArray[np.int64]:
    """Spans as int64 `(n, 3)`: start, end, missing."""
    return np.array([(span.start_us, span.end_us, span.missing) for span in spans], np.int64).reshape(-1, 3)


def spans_of(answer: Any) -> list[Span]:
    """The spans that `span_rows` wrote."""
    if not _is_array(answer, np.int64, 2) or answer.shape[1] != 3:
        raise ValueError("spans that are none")
    return [Span(begin, end, bool(missing)) for begin, end, missing in answer.tolist()]


def decoded_rows(found: Decoded, views: Sequence[DecodeRequest]) -> list[list[object]]:
    """Views and times of frames, each view by its number in the request."""
    return [
        [views.index(view), array, found.times.get(view) if isinstance(view, Frames) else None]
        for view, array in found.views.items()
    ]


def decoded(answer: Any, views: Sequence[DecodeRequest]) -> Decoded:
    """What `decoded_rows` wrote."""
    out = Decoded()
    for index, array, times in answer:
        view = _view(index, array, views)
        if isinstance(view, Frames):
            if not _is_array(times, np.float64, 1) or len(times) != len(array):
                raise ValueError(f"not the times of {view}")
            out.times[view] = times
        out.views[view] = array
    return out


def examined_row(found: Examined) -> list[object]:
    """A record: probe, error, its stage, spans."""
    values = None if found.probe is None else list(astuple(found.probe))
    return [values, _said(found.error), found.stage, span_rows(found.spans) if found.spans != _WHOLE else None]


def examined(row: Any, index: int, most: int) -> Examined:
    """What `examined_row` wrote of the record `index`, which may have `most` samples."""
    values, said, stage, rows = row
    found = None if values is None else probed(dict(zip(_PROBE, values, strict=True)))
    spans = _WHOLE if rows is None else tuple(spans_of(rows))
    if said is not None:
        if spans or stage != (PROBING if found is None else CUTTING):
            raise ValueError("an error in a stage that has none")
        return Examined(index, found, MediaError(_message(said)), stage)
    if found is None or stage != "" or not 1 <= len(spans) <= most:
        raise ValueError("a record with neither samples nor an error")
    if found.kind not in TIMED and spans != (Span(0, 0),):
        raise ValueError(f"{found.kind} of more than one sample")
    return Examined(index, found, None, "", spans)


def viewed_row(found: Viewed, numbers: Mapping[DecodeRequest, int]) -> list[object]:
    """A sample: its views by their numbers in the request, its error."""
    return [[[numbers[view], array] for view, array in found.views.items()], _said(found.error)]


def viewed(row: Any, index: int, span: Span, views: Sequence[DecodeRequest]) -> Viewed:
    """What `viewed_row` wrote of a sample of the record `index`."""
    rows, said = row
    if said is not None:
        if rows:
            raise ValueError("a sample with views and an error")
        return Viewed(index, span, error=MediaError(_message(said)))
    return Viewed(index, span, {_view(number, array, views): array for number, array in rows})


def decodes_row(found: Decodes) -> list[object]:
    """Counts in the order of their fields."""
    return list(astuple(found))


def decodes(answer: Any) -> Decodes:
    """What `decodes_row` wrote."""
    found = Decodes(*answer)
    for count in (found.files, found.images, found.again):
        if type(count) is not int or count < 0:
            raise ValueError("a count that is none")
    for seconds in (found.video_s, found.audio_s):
        if type(seconds) is not float or not 0 <= seconds < math.inf:
            raise ValueError("seconds that are none")
    return found


def _said(error: MediaError | None) -> str | None:
    return None if error is None else str(error)


def _message(said: Any) -> str:
    if type(said) is not str or len(said) > 10_000:
        raise ValueError("an error without a message")
    return said


def _view(number: Any, array: Any, views: Sequence[DecodeRequest]) -> DecodeRequest:
    """The view `number`; raises where `array` cannot be it."""
    view: DecodeRequest = views[number]
    if isinstance(view, Audio):
        fits = _is_array(array, np.int16, 1)
    elif isinstance(view, Energy):
        fits = _is_array(array, np.float64, 1) and bool(((array >= 0) & (array < np.inf)).all())
    elif isinstance(view, Array):
        fits = isinstance(array, np.ndarray) and array.dtype.name in DTYPES and array.size > 0
    else:
        fits = _is_array(array, np.uint8, 4) and _are_frames(array.shape, view)
    if not fits:
        raise ValueError(f"not the view {view}")
    return view


def _is_array(value: object, dtype: type[np.generic], dims: int) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == dims


def _are_frames(shape: tuple[int, ...], view: Frames) -> bool:
    count, height, width, colours = shape
    sizes = {height, width}
    return (
        1 <= count <= max(view.crops, view.max_frames)
        and colours == 3
        and (sizes == {view.size} if view.crop else min(sizes) >= 1 and max(sizes) <= view.size)
    )

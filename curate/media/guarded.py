"""`probe`, `find_shots`, `audio_spans` and `decode` in a helper process: media cannot take the worker along (law 10).

The functions are those of `probe.py`, `shots.py`, `audio.py` and `decode.py`, with the same arguments and results.
One helper serves this process; it imports FFmpeg and Pillow once and keeps the file that it was given last, so that the
clips of one video do not send it again. Its answers are checked: a codec that a file took over speaks through it.

Beside the errors of those functions there is one more, `Quarantined`, a MediaError: the file killed the helper twice,
took more time or memory than it may, or made our code raise what it does not promise.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from curate.helper.errors import HelperError
from curate.helper.limits import MIB
from curate.helper.process import Helper
from curate.helper.quarantine import attempt
from curate.media import kept
from curate.media.arrays import DTYPES
from curate.media.audio import audio_spans as audio_spans_here
from curate.media.clips import Span
from curate.media.container import Deadline
from curate.media.decode import check_request
from curate.media.decode import decode as decode_here
from curate.media.probe import Probe
from curate.media.probe import probe as probe_here
from curate.media.shots import find_shots as find_shots_here
from curate.media.views import Array, Audio, Decoded, Energy, Frames, View
from curate.schema.errors import CurateError, MediaError, Quarantined
from curate.schema.fields import KINDS

T = TypeVar("T")

MEMORY_BYTES = 3072 * MIB
"""What a call may take beside the file itself. Measured: the largest picture that is let in 1.8 GiB (16-bit grey), 8K
video 1.5 GiB (H.264 with 16 reference frames) and 2.4 GiB (10-bit HEVC); only 10-bit 4:4:4 at 8K takes more."""

GRACE_SECONDS = 5
"""How much later than the limit that the decoder watches itself the helper is killed: it looks between packets only."""

_GRACE_BYTES = 64 * MIB
"""Bytes of a file that give one second more: they are copied to the helper first, on an idle machine 20 times as
fast."""


def probe(data: bytes, name: str = "", *, limit_s: float = 60) -> Probe:
    """As `probe.probe`, in the helper process.

    Raises:
        MediaError: as there; `Quarantined` for a file that is too much for the helper.
    """
    return _media.ask("probe", data, limit_s, _probed, name)


def find_shots(
    data: bytes,
    detector: str = "content",
    threshold: float | None = None,
    min_frames: int = 15,
    *,
    limit_s: float = 600,
    name: str = "",
) -> list[Span]:
    """As `shots.find_shots`, in the helper process.

    Raises:
        MediaError: as there; `Quarantined` for a file that is too much for the helper.
        CurateError: a detector that does not exist.
    """
    return _media.ask("find_shots", data, limit_s, _spans, detector, threshold, min_frames, name)


def audio_spans(data: bytes, *, limit_s: float = 60, name: str = "") -> list[Span]:
    """As `audio.audio_spans`, in the helper process.

    Raises:
        MediaError: as there; `Quarantined` for a file that is too much for the helper.
    """
    return _media.ask("audio_spans", data, limit_s, _spans, name)


def decode(
    data: bytes,
    kind: str,
    views: Sequence[View],
    span: Span | None = None,
    *,
    limit_s: float = 60,
    name: str = "",
    key: str = "",
) -> Decoded:
    """As `decode.decode` with PyAV, in the helper process.

    Raises:
        MediaError: as there; `Quarantined` for a file that is too much for the helper.
        ValueError: a kind that does not exist, an empty span of a video or a sound.
    """
    check_request(kind, span)  # here: a ValueError from the helper would be the file's doing
    wanted = [{"of": type(view).__name__} | asdict(view) for view in views]
    times = None if span is None else [span.start_us, span.end_us]

    def decoded(answer: object) -> Decoded:
        return _decoded(answer, views)

    return _media.ask("decode", data, limit_s, decoded, kind, wanted, times, name, key)


def helper_pid() -> int | None:
    """Process id of the helper of this process; None while none runs."""
    return _media.helper.pid


def close() -> None:
    """End the helper of this process. The next call starts a new one."""
    _media.close()


class NotHeld(Exception):
    """The helper has not got the file: it was started anew since it was sent."""


class MediaService:
    """The helper's side. `file` numbers the files of one worker; `data` is None for the one that came last."""

    RAISES = (MediaError, CurateError, NotHeld)

    def __init__(self) -> None:
        import av  # noqa: F401 - every call needs it, and what is mapped now is not counted against the limit
        from PIL import Image

        Image.init()
        self._file = -1
        self._data = b""

    @property
    def held_bytes(self) -> int:
        return len(self._data)

    def forget(self) -> None:
        """Free the last file before the next one comes."""
        self._file, self._data = -1, b""
        kept.forget()

    def probe(self, file: int, data: bytes | None, limit_s: float, name: str) -> dict[str, Any]:
        return asdict(probe_here(self._held(file, data), name, limit_s=limit_s))

    def find_shots(
        self,
        file: int,
        data: bytes | None,
        limit_s: float,
        detector: str,
        threshold: float | None,
        min_frames: int,
        name: str,
    ) -> NDArray[np.int64]:
        import cv2

        cv2.setNumThreads(1)  # each of its threads reserves 70 MB of address space, one for each core
        spans = find_shots_here(self._held(file, data), detector, threshold, min_frames, limit_s=limit_s, name=name)
        return _rows(spans)

    def audio_spans(self, file: int, data: bytes | None, limit_s: float, name: str) -> NDArray[np.int64]:
        return _rows(audio_spans_here(self._held(file, data), Deadline(limit_s), name))

    def decode(
        self,
        file: int,
        data: bytes | None,
        limit_s: float,
        kind: str,
        wanted: list[dict[str, Any]],
        times: list[int] | None,
        name: str,
        key: str,
    ) -> list[list[object]]:
        views = [_view(**view) for view in wanted]
        span = None if times is None else Span(times[0], times[1])
        found = decode_here(self._held(file, data), kind, views, span, limit_s=limit_s, name=name, key=key)
        return [
            [views.index(view), array, found.times.get(view) if isinstance(view, Frames) else None]
            for view, array in found.views.items()
        ]

    def _held(self, file: int, data: bytes | None) -> bytes:
        if data is not None:
            self._file, self._data = file, data
        elif file != self._file:
            raise NotHeld(f"file {file}")
        return self._data


class _Media:
    """The helper of this process, and which file it has."""

    def __init__(self, service: str, memory_bytes: int) -> None:
        self.helper = Helper(service, memory_bytes=memory_bytes, name="media")
        self._lock = threading.Lock()
        self._file = 0
        self._data = b""

    def ask(self, method: str, data: bytes, limit_s: float, read: Callable[[Any], T], *args: object) -> T:
        """What `read` makes of the answer. Raises as the public functions say."""
        hard = limit_s + GRACE_SECONDS + len(data) // _GRACE_BYTES

        def call() -> T:
            answer = self._answer(method, data, limit_s, hard, *args)
            try:
                return read(answer)
            except (LookupError, TypeError, ValueError) as error:
                raise self.helper.reject() from error

        with self._lock:
            try:
                return attempt(call)
            except HelperError as failed:
                raise Quarantined(failed.error, failed.message or failed.error) from failed

    def close(self) -> None:
        with self._lock:
            self._data = b""
            self.helper.close()

    def _answer(self, method: str, data: bytes, limit_s: float, hard: float, *args: object) -> Any:
        given = None
        if data is not self._data:  # the object, not its content: bytes never change, and a digest takes time
            self._file += 1
            self._data = given = data
            self.helper.call("forget", limit_s=hard)
        try:
            return self.helper.call(method, self._file, given, limit_s, *args, limit_s=hard)
        except NotHeld:
            return self.helper.call(method, self._file, data, limit_s, *args, limit_s=hard)


_media = _Media("curate.media.guarded:MediaService", MEMORY_BYTES)


def _view(of: str, **options: Any) -> View:
    kinds: dict[str, type[View]] = {"Frames": Frames, "Audio": Audio, "Energy": Energy, "Array": Array}
    return kinds[of](**options)


def _probed(answer: Any) -> Probe:
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


def _rows(spans: Sequence[Span]) -> NDArray[np.int64]:
    return np.array([(span.start_us, span.end_us, span.missing) for span in spans], np.int64).reshape(-1, 3)


def _spans(answer: Any) -> list[Span]:
    if not _is_array(answer, np.int64, 2) or answer.shape[1] != 3:
        raise ValueError("spans that are none")
    return [Span(begin, end, bool(missing)) for begin, end, missing in answer.tolist()]


def _decoded(answer: Any, views: Sequence[View]) -> Decoded:
    out = Decoded()
    for index, array, times in answer:
        view = views[index]
        if isinstance(view, Audio):
            fits = _is_array(array, np.int16, 1)
        elif isinstance(view, Energy):
            fits = _is_array(array, np.float64, 1) and bool(((array >= 0) & (array < np.inf)).all())
        elif isinstance(view, Array):
            fits = isinstance(array, np.ndarray) and array.dtype.name in DTYPES and array.size > 0
        else:
            fits = _is_array(array, np.uint8, 4) and _are_frames(array.shape, view)
            fits = fits and _is_array(times, np.float64, 1) and len(times) == len(array)
            out.times[view] = times
        if not fits:
            raise ValueError(f"not the view {view}")
        out.views[view] = array
    return out


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

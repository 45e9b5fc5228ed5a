"""What media is: its kind, size, duration, rates. The content decides; a file's name is only used in messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from curate.media import container as boxes
from curate.media.arrays import is_array, read_array
from curate.media.audio import audio_spans, first_frame
from curate.media.clips import MICRO
from curate.media.images import display_size, open_image
from curate.media.joined import joined
from curate.media.video import PyAVReader
from curate.schema.errors import MediaError

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Probe:
    """What probing says of one file.

    Attributes:
        kind: `image`, `video`, `audio` or `array` (`.npy`). An animated GIF, WebP, PNG or AVIF is an image (its first
            frame); cover art does not make audio a video.
        width, height: pixels as displayed (EXIF orientation, rotation and pixel shape applied); None for audio and
            arrays.
        duration: seconds, measured from packets (law 14); None for images and arrays. A video lasts as long as its
            frames or its audio, whichever ends later.
        fps: average frame rate of a video, where it states one.
        has_audio: True if there is an audio stream.
        codec: of the image, the video or the audio, e.g. `jpeg`, `h264`, `mp3`; `npy` of an array.
        audio_rate: Hz, of audio and of a video's audio.
    """

    kind: str
    width: int | None
    height: int | None
    duration: float | None
    fps: float | None
    has_audio: bool
    codec: str
    audio_rate: int | None


def probe(data: bytes, name: str = "", *, limit_s: float = 60) -> Probe:
    """Tell what `data` is. Of video and audio the first frame is decoded, of images the header is read,
    arrays are read.

    Args:
        data: the whole file.
        name: what messages call it.
        limit_s: wall time.

    Raises:
        MediaError: empty, not media, refused (SVG, PSD, HEIF, too many pixels), cut off before its index, without a
            frame, or too slow; the message says which.
    """
    if is_array(data):
        read_array(data, name)
        return ARRAY
    image = open_image(data, name)
    if image is not None:
        return probe_image(image, data, name)
    deadline = boxes.Deadline(limit_s)
    streams = streams_of(data, name, deadline)
    if streams.video:
        with PyAVReader(data, deadline, name) as reader:
            return probe_video(reader, streams, data, name, deadline)
    return probe_audio(data, name, deadline)


ARRAY = Probe("array", None, None, None, None, False, "npy", None)


def probe_image(image: Image, data: bytes, name: str) -> Probe:
    """Of an image as `open_image` gives it. Raises MediaError."""
    width, height = display_size(image, data, name)
    codec = "jpeg" if image.format == "MPO" else (image.format or "").lower()
    return Probe("image", width, height, None, None, False, codec, None)


@dataclass(frozen=True)
class Streams:
    """What streams a container has: at least one.

    Attributes:
        rate: Hz of the audio, where its header states it.
    """

    video: bool
    audio: bool
    rate: int | None


def streams_of(data: bytes, name: str, deadline: boxes.Deadline) -> Streams:
    """Raises MediaError for data that is no container, or one with neither video nor audio."""
    with boxes.opened(data, name, deadline) as container:
        has_video = boxes.video_stream(container) is not None
        audio = boxes.audio_stream(container)
        rate = audio.codec_context.sample_rate if audio is not None and audio.codec_context is not None else 0
    if not has_video and audio is None:
        raise MediaError(f"{name or 'The file'} holds neither video nor audio.")
    return Streams(has_video, audio is not None, rate or None)


def probe_video(reader: PyAVReader, streams: Streams, data: bytes, name: str, deadline: boxes.Deadline) -> Probe:
    """Of a video that was opened; its frames are still to be read. Raises MediaError."""
    width, height = reader.display_size()
    codec = reader.stream.codec_context.codec.canonical_name
    chain = joined(data, deadline, name)
    end = chain[-1].end_us if chain else reader.duration_us()
    return Probe("video", width, height, end / MICRO, reader.fps, streams.audio, codec, streams.rate)


def probe_audio(data: bytes, name: str, deadline: boxes.Deadline) -> Probe:
    """Of audio without video. Raises MediaError."""
    with boxes.opened(data, name, deadline) as container:
        stream = boxes.audio_stream(container)
        if stream is None:
            raise MediaError(f"{name or 'The file'} has no audio stream.")
        boxes.prepare(container, stream)
        frame = first_frame(container, stream, deadline)
        if frame is None:
            raise MediaError(f"{name or 'The file'} has an audio stream of which nothing can be decoded.")
        codec, rate = stream.codec_context.codec.canonical_name, frame.sample_rate
    return Probe("audio", None, None, audio_spans(data, deadline, name)[0].seconds, None, True, codec, rate)

"""Video and sound written such that the same input gives the same bytes: one thread, no dates, no versions."""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MP4 = {"fflags": "+bitexact"}
_FASTSTART = {**_MP4, "movflags": "+faststart"}


def reencode(source: Path, target: Path, width: int, quantiser: int) -> None:
    """The video stream of `source` as MPEG-4 part 2 in MP4, scaled to `width` px (height follows, even), without sound.

    FFmpeg's own encoder: x264 in one thread still gives other bytes now and then (about one time in five for the
    quickstart's video at 320x136, depending on what lay in memory before).

    Args:
        quantiser: the same for every block, 1 (best) to 31 (worst).
    """
    import av
    from av.codec.context import Flags

    with av.open(str(source)) as reader, av.open(str(target), "w", format="mp4", options=_FASTSTART) as writer:
        old = reader.streams.video[0]
        height = round(old.height * width / old.width / 2) * 2
        new: Any = writer.add_stream("mpeg4", rate=old.average_rate)
        new.width, new.height, new.pix_fmt = width, height, "yuv420p"
        new.codec_context.thread_count = 1
        new.codec_context.qmin = new.codec_context.qmax = quantiser
        new.codec_context.flags |= Flags.bitexact
        for frame in reader.decode(old):
            writer.mux(new.encode(frame.reformat(width, height, "yuv420p")))
        writer.mux(new.encode(None))


def remux(source: Path, target: Path, index_first: bool) -> None:
    """`source` in a new MP4 without decoding; its index (moov) before the media or after them."""
    import av

    options = _FASTSTART if index_first else _MP4
    with av.open(str(source)) as reader, av.open(str(target), "w", format="mp4", options=options) as writer:
        streams = {s.index: writer.add_stream_from_template(s) for s in reader.streams if s.type in ("video", "audio")}
        for packet in reader.demux([reader.streams[i] for i in streams]):
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                writer.mux(packet)


def sound(source: Path, rate: int, start: float = 0, seconds: float = 1e9) -> NDArray[np.int16]:
    """A span of the sound of a file: int16 `(n,)`, mixed down to mono at `rate` Hz."""
    import av

    with av.open(str(source)) as reader:
        resampler = av.AudioResampler("s16", "mono", rate)
        parts = [p.to_ndarray()[0] for f in reader.decode(audio=0) for p in resampler.resample(f)]
        parts += [p.to_ndarray()[0] for p in resampler.resample(None)]
    whole: NDArray[np.int16] = np.concatenate(parts)
    return whole[int(start * rate) : int(min((start + seconds) * rate, len(whole)))]


def write_wav(path: Path, samples: NDArray[np.int16], rate: int) -> None:
    """Mono 16-bit PCM."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())

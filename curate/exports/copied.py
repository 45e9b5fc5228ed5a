"""Clips whose video is copied, packet by packet, not encoded again.

That is exact only where a clip's packets can be decoded without those before, and are all that is shown of it. What a
container says of its packets is a claim (law 14): so what was copied is decoded, and has to show the same frames.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from curate.exports.program import INPUT, run
from curate.schema.errors import MediaError

CODECS = {"h264", "hevc", "av1", "vp9", "mpeg4"}
"""Of video that MP4 holds and what reads MP4 decodes."""

SLACK_S = 2e-6
"""Ends of spans are rounded to microseconds."""

_CLOCK_S = 0.001
"""By how much a frame's time may differ: containers have clocks of their own."""


class _Shown(NamedTuple):
    """A packet or a frame, as FFmpeg's framecrc and framemd5 list them.

    Attributes:
        time: when it is shown, in seconds.
        is_key: of a packet: the container says that it can be decoded without others.
        digest: of its bytes.
    """

    time: float
    is_key: bool
    digest: str


def copy_video(opened: Any, sound: list[Any], out: Path, start: float, end: float, shown: Any) -> bool:
    """Write a clip into an MP4 with its video copied; False where copying does not give the frames of `shown`.

    Args:
        opened: the medium, its time stamps as they are.
        sound: of the clip, or none.
        out: the file to write; others are made beside it.
        start, end: of the clip, in seconds of the medium's clock.
        shown: the medium's frames of the clip.
    """
    try:
        return _copied(opened, sound, out, start, end, shown)
    except MediaError:  # FFmpeg cannot copy it, or decode the copy; what is wrong with the medium itself, encoding says
        return False


def _copied(opened: Any, sound: list[Any], out: Path, start: float, end: float, shown: Any) -> bool:
    import ffmpeg

    codec, packets = _listed(opened["V:0"], out.with_name("packets"), f="framecrc", c="copy", copyinkf=None)
    inside = [i for i, packet in enumerate(packets) if start <= packet.time + SLACK_S < end]
    if codec not in CODECS or not inside or not packets[inside[0]].is_key:
        return False
    first, after = inside[0], inside[-1] + 1
    if after - first > len(inside):
        return False  # frames of before or after stand between them
    how: dict[str, Any] = {"c:v": "copy", "copyinkf": None, "bsf:v": f"noise=drop='lt(n,{first})+gte(n,{after})'"}
    how |= {"c:a": "aac", "b:a": "192k", "flags:a": "+bitexact"} if sound else {}
    how |= {"fflags": "+bitexact", "map_metadata": "-1", "threads": 1, "output_ts_offset": f"{-start:.6f}"}
    run(ffmpeg.output(opened["V:0"], *sound, str(out), **how))
    decoded = {"f": "framemd5", "fps_mode": "passthrough", "enc_time_base:v": "demux"}
    _, wanted = _listed(shown, out.with_name("wanted"), **decoded)
    _, found = _listed(ffmpeg.input(str(out), copyts=None, **INPUT)["V:0"], out.with_name("found"), **decoded)
    return len(found) == len(wanted) and all(
        one.digest == other.digest and abs(one.time - (other.time - start)) < _CLOCK_S
        for one, other in zip(found, wanted, strict=True)
    )


def _listed(video: Any, file: Path, **how: Any) -> tuple[str, list[_Shown]]:
    """The codec, and what FFmpeg lists of a video in a file of its own, in order."""
    import ffmpeg

    run(ffmpeg.output(video, str(file), **how))
    codec, tick, found = "", Fraction(0), []
    for line in file.read_text().splitlines():
        if line.startswith("#codec_id 0:"):
            codec = line.split()[-1]
        elif line.startswith("#tb 0:"):
            tick = Fraction(line.split()[-1])
        elif not line.startswith("#"):
            _, _, shown, _, _, digest, *more = (field.strip() for field in line.split(","))
            flags = [int(field[2:], 16) for field in more if field.startswith("F=")] or [1]
            found.append(_Shown(float(int(shown) * tick), bool(flags[0] & 1), digest))
    return codec, found

"""Clips of media, cut exactly, by FFmpeg's program: what PyAV decodes in a helper is small views, not whole clips."""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from curate.exports.copied import SLACK_S, copy_video
from curate.exports.program import INPUT, run
from curate.media.timeline import TAIL_US
from curate.schema.errors import MediaError

_SEEKABLE = re.compile(rb".{4}ftyp|\x1a\x45\xdf\xa3", re.DOTALL)
"""Containers with an index, in which a seek finds its place; others are decoded from their start."""

_BEFORE_S = 10.0

_EXACT = {"fflags": "+bitexact", "flags:v": "+bitexact", "flags:a": "+bitexact", "map_metadata": "-1", "threads": 1}


class Clip(NamedTuple):
    """A span of a medium: the suffix of a name, the bytes, and whether its video was copied, not encoded again."""

    suffix: str
    data: bytes
    copied: bool


def cut(data: bytes, kind: str, start_us: int, end_us: int, sound: bool, copy: bool = False) -> Clip:
    """A span of a medium: of video all frames shown from its start to before its end, each at its time, H.264 (CRF 18)
    and AAC in MP4; of audio its samples, in FLAC.

    Args:
        data: the whole medium.
        kind: `video` or `audio`.
        start_us, end_us: on the clock of `curate.media.clips.Span`.
        sound: whether a video has audio.
        copy: video is not encoded again where the same frames come by copying: the span begins with a keyframe, and no
            frame of it needs one outside. Its sound is AAC all the same, for packets do not end where frames do.

    Returns:
        On one machine the same for the same input.

    Raises:
        MediaError: FFmpeg cannot do it, or not in time.
    """
    import ffmpeg

    with TemporaryDirectory(prefix="curate-cut-") as folder:
        source = Path(folder) / "medium"
        source.write_bytes(data)
        options = dict(INPUT)
        zero = _zero(source, options, kind, sound)
        start, end = zero + start_us / 1e6, zero + end_us / 1e6
        if _SEEKABLE.match(data) and start > _BEFORE_S:
            options["ss"] = f"{start - _BEFORE_S / 2:.6f}"
        opened = ffmpeg.input(str(source), copyts=None, **options)
        suffix = "mp4" if kind == "video" else "flac"
        out, made, how = Path(folder) / f"clip.{suffix}", [], dict(_EXACT)
        sound_s = {"start": f"{start:.6f}", "end": f"{end:.6f}"}
        heard = [opened["a:0"].filter("atrim", **sound_s)] if kind == "audio" or sound else []
        if kind == "video":
            inside = f"gte(t,{start - SLACK_S:.7f})*lt(t,{end - SLACK_S:.7f})"
            shown = opened["V:0"].filter("select", inside)
            if copy and copy_video(opened, heard, out, start, end, shown):
                return Clip(suffix, out.read_bytes(), True)
            even = shown.filter("crop", "floor(iw/2)*2", "floor(ih/2)*2")
            made.append(even.filter("setpts", f"PTS-{start:.6f}/TB"))
            how |= {"c:v": "libx264", "crf": 18, "pix_fmt": "yuv420p", "fps_mode": "passthrough"}
            how |= {"enc_time_base:v": "demux", "c:a": "aac", "b:a": "192k"}
        made += [one.filter("asetpts", f"PTS-{start:.6f}/TB") for one in heard]
        run(ffmpeg.output(*made, str(out), **how))
        return Clip(suffix, out.read_bytes(), False)


def _zero(source: Path, options: dict[str, Any], kind: str, sound: bool) -> float:
    """Where the clock of spans begins, in seconds of the container's: at the first frame, or at the first audio sample
    where there is no video or the audio leads by more than `TAIL_US`."""
    import ffmpeg

    opened, made = ffmpeg.input(str(source), copyts=None, **options), []
    if kind == "video":
        made.append(opened["V:0"].filter("showinfo"))
    if kind == "audio" or sound:
        made.append(opened["a:0"].filter("ashowinfo"))
    said = run(ffmpeg.output(*made, "-", f="null", **{"frames:v": 1, "frames:a": 1}), "info")
    first: dict[str, float] = {}
    for what, seconds in re.findall(r"Parsed_(a?showinfo)_.*? pts_time:\s*(-?[0-9.]+)", said):
        first.setdefault(what, float(seconds))
    video, audio = first.get("showinfo"), first.get("ashowinfo")
    if video is None or (audio is not None and video - audio > TAIL_US / 1e6):
        video = audio
    if video is None:
        raise MediaError("FFmpeg finds no frame")
    return video

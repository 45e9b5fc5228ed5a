"""Clips of media, cut exactly, by FFmpeg's program: what PyAV decodes in a helper is small views, not whole clips."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from curate.helper.limits import MIB
from curate.media.container import DEMUXERS, MAX_FRAME_PIXELS
from curate.media.timeline import TAIL_US
from curate.schema.errors import CurateError, MediaError

LIMIT_S, MEMORY_BYTES = 600, 4096 * MIB
"""What one clip may take."""

_SLACK = 2e-6
"""Seconds. Ends of spans are rounded to microseconds."""

_SEEKABLE = re.compile(rb".{4}ftyp|\x1a\x45\xdf\xa3", re.DOTALL)
"""Containers with an index, in which a seek finds its place; others are decoded from their start."""

_BEFORE_S = 10.0

_EXACT = {"fflags": "+bitexact", "flags:v": "+bitexact", "flags:a": "+bitexact", "map_metadata": "-1", "threads": 1}


def program() -> str:
    """FFmpeg's program: the one on the path, or the one that imageio-ffmpeg brings.

    Raises:
        CurateError: there is neither, or no ffmpeg-python to tell it what to do.
    """
    if find_spec("ffmpeg") is None:
        raise CurateError("clips are cut with ffmpeg-python", "pip install 'curate-tokens[export]'")
    if found := shutil.which("ffmpeg"):
        return found
    if find_spec("imageio_ffmpeg") is None:
        raise CurateError("clips are cut by ffmpeg, and there is none", "install it, or pip install imageio-ffmpeg")
    import imageio_ffmpeg

    return str(imageio_ffmpeg.get_ffmpeg_exe())


def cut(data: bytes, kind: str, start_us: int, end_us: int, sound: bool) -> tuple[str, bytes]:
    """A span of a medium: of video all frames shown from its start to before its end, each at its time, H.264 (CRF 18)
    and AAC in MP4; of audio its samples, in FLAC.

    Args:
        data: the whole medium.
        kind: `video` or `audio`.
        start_us, end_us: on the clock of `curate.media.clips.Span`.
        sound: whether a video has audio.

    Returns:
        The suffix of a name, and the bytes; on one machine the same for the same input.

    Raises:
        MediaError: FFmpeg cannot do it, or not in time.
    """
    import ffmpeg

    with TemporaryDirectory(prefix="curate-cut-") as folder:
        source = Path(folder) / "medium"
        source.write_bytes(data)
        options = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file", "max_pixels": MAX_FRAME_PIXELS}
        zero = _zero(source, options, kind, sound)
        start, end = zero + start_us / 1e6, zero + end_us / 1e6
        if _SEEKABLE.match(data) and start > _BEFORE_S:
            options["ss"] = f"{start - _BEFORE_S / 2:.6f}"
        opened = ffmpeg.input(str(source), copyts=None, **options)
        made, how = [], dict(_EXACT)
        if kind == "video":
            shown = f"gte(t,{start - _SLACK:.7f})*lt(t,{end - _SLACK:.7f})"
            even = opened["V:0"].filter("select", shown).filter("crop", "floor(iw/2)*2", "floor(ih/2)*2")
            made.append(even.filter("setpts", f"PTS-{start:.6f}/TB"))
            how |= {"c:v": "libx264", "crf": 18, "pix_fmt": "yuv420p", "fps_mode": "passthrough"}
            how |= {"enc_time_base:v": "demux", "c:a": "aac", "b:a": "192k"}
        if kind == "audio" or sound:
            heard = opened["a:0"].filter("atrim", start=f"{start:.6f}", end=f"{end:.6f}")
            made.append(heard.filter("asetpts", f"PTS-{start:.6f}/TB"))
        suffix = "mp4" if kind == "video" else "flac"
        out = Path(folder) / f"clip.{suffix}"
        _run(ffmpeg.output(*made, str(out), **how))
        return suffix, out.read_bytes()


def _zero(source: Path, options: dict[str, Any], kind: str, sound: bool) -> float:
    """Where the clock of spans begins, in seconds of the container's: at the first frame, or at the first audio sample
    where there is no video or the audio leads by more than `TAIL_US`."""
    import ffmpeg

    opened, made = ffmpeg.input(str(source), copyts=None, **options), []
    if kind == "video":
        made.append(opened["V:0"].filter("showinfo"))
    if kind == "audio" or sound:
        made.append(opened["a:0"].filter("ashowinfo"))
    said = _run(ffmpeg.output(*made, "-", f="null", **{"frames:v": 1, "frames:a": 1}), "info")
    first: dict[str, float] = {}
    for what, seconds in re.findall(r"Parsed_(a?showinfo)_.*? pts_time:\s*(-?[0-9.]+)", said):
        first.setdefault(what, float(seconds))
    video, audio = first.get("showinfo"), first.get("ashowinfo")
    if video is None or (audio is not None and video - audio > TAIL_US / 1e6):
        video = audio
    if video is None:
        raise MediaError("FFmpeg finds no frame")
    return video


def _run(stream: Any, level: str = "error") -> str:
    """What FFmpeg says. Its time and memory are limited: what it decodes comes from the open web."""
    import ffmpeg

    command = [*ffmpeg.compile(stream, cmd=program()), "-y", "-nostdin", "-hide_banner", "-loglevel", level]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
    resource.prlimit(process.pid, resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    try:
        _, said = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise MediaError(f"cutting took longer than the limit of {LIMIT_S} s") from None
    if process.returncode:
        raise MediaError(f"FFmpeg: {said.strip().splitlines()[-1] if said.strip() else process.returncode}")
    return said

"""FFmpeg's program, told by ffmpeg-python what to do, within limits: what it reads comes from the open web."""

from __future__ import annotations

import resource
import shutil
import subprocess
from importlib.util import find_spec
from typing import Any

from curate.helper.limits import MIB
from curate.media.container import DEMUXERS, MAX_FRAME_PIXELS
from curate.schema.errors import CurateError, MediaError

LIMIT_S, MEMORY_BYTES = 600, 4096 * MIB
"""What one call may take."""

INPUT: dict[str, Any] = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file", "max_pixels": MAX_FRAME_PIXELS}
"""Options of whatever it opens."""


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


def run(stream: Any, level: str = "error") -> str:
    """What FFmpeg says. Raises MediaError where it fails, or takes too long."""
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

"""Which names are media. Only listing asks names; what a file really is, its content says."""

from __future__ import annotations

import re
from collections.abc import Collection


def _names(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


IMAGE = _names(
    "avif bmp dib gif ico j2c j2k jfif jp2 jpe jpeg jpf jpg jpx pbm pcx pgm png pnm ppm qoi ras sgi tga tif tiff "
    "webp heic heif"
)
VIDEO = _names(
    "3g2 3gp asf avi divx dv f4v flv h264 h265 hevc ivf m1v m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe mpeg mpg mpv mts "
    "mxf nut ogm ogv qt rm rmvb ts vob webm wmv y4m"
)
AUDIO = _names(
    "aac ac3 aif aifc aiff alac amr ape au caf dts eac3 flac m4a m4b mka mp1 mp2 mp3 mpc oga ogg opus ra snd spx tta "
    "voc w64 wav wave weba wma wv"
)
ARRAY = _names("npy")
SUFFIXES = IMAGE | VIDEO | AUDIO | ARRAY
"""Name endings, lower case without the dot, of media that Pillow, ffmpeg or numpy usually read; and HEIF, so
that an image that is not read here fails with a reason instead of being passed over."""


def kind_of(name: str) -> str | None:
    """image, video, audio or array, by how a file name, or the path of a URL, ends; None where it does not tell."""
    ending = re.split("[?#]", name, maxsplit=1)[0].rpartition(".")[2].lower()
    kinds = (("image", IMAGE), ("video", VIDEO), ("audio", AUDIO), ("array", ARRAY))
    return next((kind for kind, endings in kinds if ending in endings), None)


def is_timed(name: str) -> bool:
    """True if a file name, or the path of a URL, ends as those of video or audio do."""
    return name.partition("?")[0].rpartition(".")[2].lower() in VIDEO | AUDIO


def is_media(name: str) -> bool:
    """True if a file name ends as media do, in any case."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem and dot) and suffix.lower() in SUFFIXES


def is_array(name: str) -> bool:
    """True if a file name ends as arrays do."""
    return name.rpartition(".")[2].lower() in ARRAY


def media_among(names: Collection[str]) -> set[str]:
    """Those of the files of a folder that are media. An array beside other media of its name (`a.npy` and `a.jpg`) says
    something about them, as their text does, and is none."""
    media = {name for name in names if is_media(name)}
    others = {name.rpartition(".")[0] for name in media if not is_array(name)}
    return {name for name in media if not is_array(name) or name.rpartition(".")[0] not in others}

"""Which names are media. Only listing asks names; what a file really is, its content says."""

from __future__ import annotations


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
SUFFIXES = IMAGE | VIDEO | AUDIO
"""Name endings, lower case without the dot, of media that Pillow or ffmpeg usually read; and HEIF, so that a picture
that is not read here fails with a reason instead of being passed over."""


def is_media(name: str) -> bool:
    """Whether a file name ends as media do, in any case."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem and dot) and suffix.lower() in SUFFIXES

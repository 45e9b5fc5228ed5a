"""How much is decoded: what shows that media are decoded once (law 4)."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass
class Decodes:
    """Counts since they were taken last.

    Attributes:
        files: runs over a file with video or audio: examining it is one, so are the clips of it that are asked for
            together, and a call of `probe`, `find_shots`, `audio_spans` or `decode`.
        images: images whose pixels were decoded.
        video_s: seconds of video decoded, by the durations of the frames.
        audio_s: seconds of audio decoded.
        again: clips decoded on their own after the run that found the shots of their video, which could not keep what
            they show.
    """

    files: int = 0
    images: int = 0
    video_s: float = 0.0
    audio_s: float = 0.0
    again: int = 0

    def add(self, other: Decodes) -> None:
        """Add the counts of another."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def take(self) -> Decodes:
        """The counts, which begin at zero again."""
        out = Decodes()
        out.add(self)
        for field in fields(self):
            setattr(self, field.name, field.default)
        return out


counted = Decodes()
"""Of this process."""

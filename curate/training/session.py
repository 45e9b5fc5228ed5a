"""What a session of training is given beside the configuration."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Session:
    """What may differ between the machines, and the sessions, that one configuration is trained in.

    Attributes:
        media: of images and video: files or folders to train on, in place of the configuration's media.
        held_out: of images and video: a folder of media that are not trained on; the card is measured on them.
        device: a torch device; CPU and CUDA differ in their last bits and so in the weights.
        debian: where Debian packages that the configuration names are unpacked.
        stop_at: the step at which this session ends, to be resumed later; the schedule still spans all steps.
        say: gets one line of progress for each entry of the log.
    """

    media: tuple[Path, ...] = ()
    held_out: Path | None = None
    device: str = "cpu"
    debian: Path = Path("/")
    stop_at: int | None = None
    say: Callable[[str], None] = print

"""One way to train a tokenizer of any kind: a configuration and a folder, to a codec card."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.training.audio import AudioConfig, train_audio
from curate.training.fsq import ImageConfig, VideoConfig, train_fsq
from curate.training.session import Session
from curate.training.text import TextConfig, train_text

TrainConfig = Annotated[ImageConfig | VideoConfig | AudioConfig | TextConfig, Field(discriminator="architecture")]
"""What a `train.yaml` says; `architecture` tells which it is."""


def read_config(path: Path, architecture: str | None = None) -> TrainConfig:
    """The configuration in a `train.yaml`.

    Args:
        architecture: the one that is meant, which the file then need not name.

    Raises:
        CurateError: the file is no such configuration, or one of another architecture.
    """
    try:
        said = yaml.safe_load(path.read_text("utf-8"))
        if isinstance(said, dict) and architecture is not None:
            said = {"architecture": architecture} | said
            if said["architecture"] != architecture:
                raise ValueError(f"it is of {said['architecture']}, not of {architecture}")
        config: TrainConfig = TypeAdapter(TrainConfig).validate_python(said)
    except (ValueError, yaml.YAMLError) as error:
        raise CurateError(f"{path.name} is not a training configuration: {error}") from error
    return config


def train(config: TrainConfig, out: Path, session: Session | None = None) -> CodecCard:
    """Trains a tokenizer, or carries on from the checkpoint in `out`, and makes `out` its folder.

    A run that was stopped and resumed gives the weights of one that was not.

    Args:
        out: gets checkpoint, `log.jsonl`, weights and card; of images and video also `strip-STEP.png`: media that are
            the same all along, and below them what comes back.

    Raises:
        CurateError: no media, no such device, a checkpoint of another configuration, or the loss is not finite; of
            images and video also where no media are held out, after the weights were written.
    """
    session = session or Session()
    if lost := [path for path in session.media if not path.exists()]:
        raise CurateError(f"--media {lost[0]} does not exist")
    if out.exists() and not out.is_dir():
        raise CurateError(f"--out {out} is a file", "give a folder")
    if not isinstance(config, ImageConfig | VideoConfig) and (session.media or session.held_out is not None):
        raise CurateError(f"--media and --held-out are not for {config.architecture}", "its config says what both are")
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(config, AudioConfig):
        return train_audio(config, out, session)
    if isinstance(config, TextConfig):
        return train_text(config, out, session)
    return train_fsq(config, out, session)

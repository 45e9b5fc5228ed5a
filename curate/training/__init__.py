"""Training of tokenizers: `train(config, out)` for images, video, audio and text, from a `train.yaml` to a codec card.

`features` fits the codebooks of quantised features, `masks` those of the mask tokenizer.

Nothing that reads or writes builds imports this room; `curate tokenizers train` and `features` do.
"""

from __future__ import annotations

from curate.training.api import TrainConfig, read_config, train
from curate.training.session import Session

__all__ = ["Session", "TrainConfig", "read_config", "train"]

"""Our own video tokenizer: an image, then groups of four frames, each as 8x8-pixel cells of 16 bits (see its net)."""

from __future__ import annotations

from typing import Any, cast

from curate.tokenizers.codecs.image_fsq import channels_last
from curate.tokenizers.codecs.video_fsq_net import VideoFSQNet, VideoFSQShape
from curate.tokenizers.grid import ClipTokenizer


class VideoFSQ(ClipTokenizer):
    """The tokenizer over a trained net: uint8 sRGB clips of the card's size to ids and back; weights are fp16.

    Step 0 is frame 0, step j is frames 4j - 3 to 4j. Ids of step j follow from frames 0 to 4j alone, and frames up to
    4j from ids up to step j: both exactly, for one clip passes at a time, one step at a time, always in the same
    shapes. So memory does not grow with the clip beyond the clip itself, and neighbours do not matter.
    """

    net: VideoFSQNet

    @classmethod
    def net_from_bytes(cls, raw: bytes, name: str = "") -> VideoFSQNet:
        """As its base's, of its own kind."""
        return cast(VideoFSQNet, super().net_from_bytes(raw, name))

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> VideoFSQNet:
        return channels_last(VideoFSQNet(VideoFSQShape.of(shape)))

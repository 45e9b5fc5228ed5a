"""Two tokenizers small enough to check by hand. They keep the `Tokenizer` contract and load in no time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import CodecCard, Quality


class ColourGrid:
    """An image of 256 px as 32 x 32 mean colours of 8 levels a channel, each an id of FSQ's form."""

    card = CodecCard(
        name="colour-grid",
        modality="image",
        stream="tok_rgb@256",
        quantiser="fsq",
        levels=[8, 8, 8],
        index_order="little-endian mixed radix, red first",
        vocabulary=512,
        dtype="uint16",
        grid=(32, 32),
        input="uint8 sRGB (N, 256, 256, 3)",
        weights_digest="none",
        trained_on="nothing",
        licence="MIT",
        quality=[Quality(media="one grey image", items=1, psnr_db=30.5, ssim=0.5)],
    )

    def encode(self, items: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.generic]]:
        out: list[NDArray[np.generic]] = []
        for item in items:
            mean = item.reshape(len(item), 32, 8, 32, 8, 3).mean(axis=(2, 4))
            digits = np.clip(np.round(mean * 7 / 255), 0, 7).astype(np.uint16)
            out.append(digits @ np.array([1, 8, 64], np.uint16))
        return out

    def decode(
        self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None
    ) -> list[NDArray[np.uint8]]:
        out = []
        for item in ids:
            digits = np.stack([item.astype(np.int64) // base % 8 for base in (1, 8, 64)], axis=-1)
            colour = np.round(digits * 255 / 7).astype(np.uint8)
            out.append(colour.repeat(8, axis=1).repeat(8, axis=2))
        return out


class Steps:
    """Sound of 16 kHz as 50 frames a second of 8 mean amplitudes, each of 256 levels in a codebook of its own."""

    card = CodecCard(
        name="steps",
        modality="audio",
        stream="tok_audio@16k",
        quantiser="rvq",
        levels=[256] * 8,
        index_order="column l is the l-th eighth of a frame",
        vocabulary=256,
        dtype="uint8",
        rate_hz=50.0,
        ids_per_frame=8,
        sample_rate=16000,
        input="float32 mono in [-1, 1]",
        weights_digest="none",
        trained_on="nothing",
        licence="MIT",
        quality=[Quality(media="one tone", items=1, si_sdr_db=3.25)],
    )

    def encode(self, items: Sequence[NDArray[np.float32]]) -> list[NDArray[np.generic]]:
        out: list[NDArray[np.generic]] = []
        for item in items:
            padded = np.pad(item, (0, -len(item) % 320))
            mean = padded.reshape(-1, 8, 40).mean(axis=2)
            out.append(np.clip(np.round((mean + 1) * 127.5), 0, 255).astype(np.uint8))
        return out

    def decode(
        self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None
    ) -> list[NDArray[np.float32]]:
        recordings = [(item.astype(np.float32) / 127.5 - 1).repeat(40, axis=1).ravel() for item in ids]
        return [x[:n] for x, n in zip(recordings, lengths, strict=True)] if lengths is not None else recordings

"""What tokenizers of audio share: what they take and give, the fields of their cards, and how cutting changes ids."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from curate.models.passes import Passes, raised
from curate.schema.codec import CodecCard, Preprocessing, smallest_unsigned
from curate.schema.fields import RunsOn
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.inputs import AUDIO_INPUT
from curate.tokenizers.quantisers.difference import difference_rate

PEAK = 2.0  # lossy decoders and resamplers overshoot 1.0; what lies beyond this is not scaled to [-1, 1] at all


class AudioTokenizer(ABC):
    """Mono audio to residual ids `(frames, levels)` and back (a `Tokenizer`).

    Each item passes the network alone, so its ids cannot depend on what else is in the batch.

    Attributes:
        hop: samples of a token frame.
        longest: seconds of the longest item; None where there is no limit.
    """

    longest: ClassVar[int | None] = None

    def __init__(self, card: CodecCard) -> None:
        self.card = card
        self._passes = Passes(card.name, RunsOn())  # one at a time, whatever it runs on
        self.hop = round((card.sample_rate or 0) / (card.rate_hz or 1))

    @abstractmethod
    def ids_of(self, audio: NDArray[np.float32]) -> NDArray[np.generic]:
        """Ids `(ceil(n / hop), levels)` of the card's dtype, of one item that was checked."""

    @abstractmethod
    def audio_of(self, ids: NDArray[np.generic], length: int) -> NDArray[np.float32]:
        """The first `length` samples that ids `(frames, k)`, which were checked, decode to."""

    def encode(self, items: Sequence[NDArray[np.float32]]) -> list[NDArray[np.generic]]:
        """Audio `(n,)` float32 in [-1, 1] at the card's rate to ids `(ceil(n / hop), levels)`.

        Raises:
            ValueError: an item is not float32, not one-dimensional, empty, not finite, not scaled to [-1, 1], or
                longer than `longest`.
        """
        for item in items:
            check_audio(item)
            if self.longest is not None and len(item) > self.longest * (self.card.sample_rate or 0):
                raise ValueError(f"audio of {len(item)} samples is longer than {self.longest} s: cut it first")
        found = self._passes(items, lambda some: [self.ids_of(item) for item in some])
        return [raised(ids) for ids in found]

    def decode(
        self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None
    ) -> list[NDArray[np.float32]]:
        """Ids `(frames, k)`, the first `k` levels, to audio `(n,)` float32 in [-1, 1].

        Args:
            lengths: samples of each item; without it the zero padding of the last frame stays.

        Raises:
            ValueError: ids of a wrong shape, type or range, or a length that does not fit the number of frames.
        """
        for item in ids:
            check_ids(item, self.card.ids_per_frame, self.card.vocabulary)
        wanted = wanted_lengths(ids, lengths, self.hop)
        return [self.audio_of(item, length) for item, length in zip(ids, wanted, strict=True)]


def check_audio(item: Any) -> None:
    """Raises ValueError for what is not float32 `(n,)`, n > 0, finite and scaled to [-1, 1].

    Audio comes without its rate, which therefore cannot be checked here: the view of the media resamples to the
    card's `sample_rate` (`curate.tokenizers.views.view_of`).
    """
    if not isinstance(item, np.ndarray) or item.dtype != np.float32 or item.ndim != 1:
        raise ValueError("audio must be a float32 array (samples,)")
    if not len(item):
        raise ValueError("audio must have at least one sample")
    if not np.isfinite(item).all():
        raise ValueError("audio must be finite: it has NaN or infinity")
    if float(np.abs(item).max()) > PEAK:
        raise ValueError(f"audio must be scaled to [-1, 1]: its peak is {float(np.abs(item).max()):g}")


def check_ids(item: Any, levels: int, codes: int) -> None:
    """Raises ValueError for ids that are not integers `(frames, 1 to levels)` with 0 <= id < codes."""
    if not isinstance(item, np.ndarray) or item.ndim != 2 or item.dtype.kind not in "ui":
        raise ValueError("ids must be an integer array (frames, levels)")
    if not len(item) or not 1 <= item.shape[1] <= levels:
        raise ValueError(f"ids of shape {item.shape}: at least one frame, and 1 to {levels} levels")
    if int(item.max()) >= codes or int(item.min()) < 0:
        raise ValueError(f"ids must be 0 to {codes - 1}")


def wanted_lengths(ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None, hop: int) -> list[int]:
    """Samples that each item decodes to; without `lengths` the padding of the last frame stays.

    Args:
        hop: samples of a token frame.

    Raises:
        ValueError: another number of lengths than of items, or a length that its frames cannot be.
    """
    wanted = [len(item) * hop for item in ids] if lengths is None else list(lengths)
    if len(wanted) != len(ids):
        raise ValueError(f"{len(ids)} items of ids but {len(wanted)} lengths")
    for item, length in zip(ids, wanted, strict=True):
        if -(-length // hop) != len(item):
            raise ValueError(f"{len(item)} frames cannot be {length} samples")
    return wanted


def audio_card(
    *,
    rate: int,
    hop: int,
    levels: int,
    codes: int,
    takes: str = ", finite, at least one sample; not normalised in level",
    **more: Any,
) -> CodecCard:
    """The card of a residual quantiser of mono audio; `more` are fields that only its codec knows, or says otherwise.

    Args:
        rate: samples a second. hop: samples of a token frame.
        levels, codes: of the quantiser.
        takes: what `input` says beside the contract of all.
    """
    fields: dict[str, Any] = {
        "modality": "audio",
        "stream": f"tok_audio@{rate / 1000:g}k",
        "quantiser": "rvq",
        "levels": [codes] * levels,
        "index_order": "column l is the code of level l, coarse to fine; the first columns alone decode too",
        "vocabulary": codes,
        "dtype": smallest_unsigned(codes),
        "rate_hz": rate / hop,
        "ids_per_frame": levels,
        "sample_rate": rate,
        "channels": 1,
        "input": f"float32 mono (samples,) in [-1, 1] at {rate} Hz{takes}{AUDIO_INPUT}",
        "preprocessing": Preprocessing(),
        "padding": f"zeros fill the last frame: ceil(samples / {hop}) frames",
        "valid_length": "the number of samples, which is kept beside the ids; `decode` cuts by it",
    }
    return CodecCard(**fields | more)


def chunk_difference(tokenizer: Tokenizer, audio: NDArray[np.float32], samples: int) -> float:
    """Share of ids, in [0, 1], that differ when audio is encoded in parts instead of whole.

    Args:
        audio: float32 `(n,)` at the card's rate.
        samples: of a part; a multiple of the samples of a token frame, so that parts hold the same frames.

    Raises:
        ValueError: the parts do not give as many frames as the whole.
    """
    (whole,) = tokenizer.encode([audio])
    parts = np.concatenate(tokenizer.encode([audio[i : i + samples] for i in range(0, len(audio), samples)]))
    if parts.shape != whole.shape:
        raise ValueError(f"parts of {samples} samples give {len(parts)} frames, the whole {len(whole)}")
    return difference_rate(parts, whole)


def probe_audio(rate: int, seconds: float = 4.0, count: int = 4) -> list[NDArray[np.float32]]:
    """Audio on which invariance is measured where no media are at hand, float32 `(n,)`, peak 0.5, always the same.

    Eleven harmonics under a gliding pitch of 80 to 240 Hz, noise bursts four times a second, no two of one length.
    """
    out = []
    for which in range(count):
        t = np.arange(round(rate * seconds * (1 - 0.1 * which))) / rate
        pitch = 160 + 80 * np.sin(2 * np.pi * (0.7 + 0.2 * which) * t + which)
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        tone = sum(np.sin(k * phase) / k for k in range(1, 12))
        noise = np.random.default_rng(which).standard_normal(len(t)) * np.exp(-20 * (t % 0.25))
        audio = tone + 0.5 * noise
        out.append((0.5 * audio / np.abs(audio).max()).astype(np.float32))
    return out

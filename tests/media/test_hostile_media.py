"""Hostile media end in views or in an error that says why; nothing else dies, hangs or changes (law 10)."""

from __future__ import annotations

import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import av
import mutate
import numpy as np
import pytest
from mutate import Case, Expect
from synth import tone, video

import curate
from curate.cli.demo import demo_package
from curate.media import guarded
from curate.media.container import open_container
from curate.media.probe import probe
from curate.media.requests import Audio, Decoded, DecodeRequest, Frames
from curate.schema.errors import MediaError, Quarantined
from curate.schema.ids import digest
from curate.schema.verdict import Failure

VIEWS: list[DecodeRequest] = [Frames(256, fps=1.0), Audio(16000)]
EVERY = 20
"""After so many hostile files a good one is decoded."""

PLACES = [tempfile.gettempdir(), Path.home(), sys.prefix, Path(curate.__file__).parents[1]]
SECRETS = re.compile(
    "|".join(re.escape(f"{place}/") for place in PLACES) + r"|site-packages|/home/|0x[0-9a-f]{6,}|Traceback|\bpid\b"
)
"""What a message that goes to the ledger must not hold: it would tell of this machine, and differ with each run."""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    yield mutate.originals(demo_package("quickstart").prepare(tmp_path_factory.mktemp("demo")).folder / "folder")
    guarded.close()


@dataclass
class Run:
    """Hostile files, one after the other, in the helper; good ones between them."""

    good: dict[str, bytes]
    limit_s: float
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")

    def over(self, cases: Iterable[Case]) -> None:
        names = sorted(self.good)
        known = {name: self._digests(self.good[name]) for name in names}
        for i, case in enumerate(cases):
            begin = time.monotonic()
            outcome, message = self._outcome(case)
            self.slowest = max(self.slowest, (time.monotonic() - begin, case.name))
            self.outcomes[outcome] += 1
            assert outcome in ("decoded", "MediaError", "TimeLimit", "MemoryLimit", "Crashed"), (
                f"{case.name}: {message}"
            )
            if outcome == "decoded":
                assert case.expectation != Expect.FAILS, case.name
            else:
                assert case.expectation != Expect.DECODES, f"{case.name}: {message}"
                assert case.says in message, f"{case.name}: {message}"
                assert message.strip(), case.name
                assert len(message) < 300, f"{case.name}: {message}"
                assert message.isprintable(), f"{case.name}: {message!r}"
                assert not SECRETS.search(message), f"{case.name}: {message}"
            if i % EVERY == 0:
                if outcome not in ("TimeLimit", "MemoryLimit"):
                    assert self._outcome(case) == (outcome, message), f"{case.name}: another outcome the second time"
                neighbour = names[i // EVERY % len(names)]
                assert self._digests(self.good[neighbour]) == known[neighbour], f"{neighbour} after {case.name}"
        # at most three calls a case, each killed a grace time after its limit, and tried twice at the most
        assert self.slowest[0] < 3 * 2 * (self.limit_s + guarded.GRACE_SECONDS) + 5, self.slowest

    def _outcome(self, case: Case) -> tuple[str, str]:
        try:
            _looked_at(case.data, self.limit_s)
        except MediaError as error:
            failure = Failure.of("annotate:decode", error)
            return failure.error, failure.message
        return "decoded", ""

    def _digests(self, data: bytes) -> list[str]:
        found = _looked_at(data, 60)
        return [digest(found.views[view].tobytes()) for view in VIEWS if view in found.views]

    def told(self, seed: int) -> str:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return f"{self.outcomes.total()} hostile files, seed {seed}: {counts}; slowest {self.slowest}"


def _looked_at(data: bytes, limit_s: float) -> Decoded:
    """All that a run does with a file: probe, cut, decode."""
    found = guarded.probe(data, "the input", limit_s=limit_s)
    if found.kind == "video":
        spans = guarded.whole_spans(data, "video", guarded.CutHow(), limit_s=limit_s)
        assert spans[0].start_us == 0
        assert all(a.end_us == b.start_us for a, b in pairwise(spans))
    decoded = guarded.decode(data, found.kind, VIEWS, limit_s=limit_s, name="the input")
    assert decoded.views, "neither views nor an error"
    return decoded


def good(media: dict[str, bytes]) -> dict[str, bytes]:
    return {name: media[name] for name in ("bikes.mp4", "beach.jpg", "coffee.png", "two_words.wav") if name in media}


def test_two_hundred_hostile_files(media: dict[str, bytes], capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(good(media), limit_s=10)
    run.over(mutate.cases(media, seed=1, n=200))
    assert run.outcomes.total() == 200
    assert run.outcomes["decoded"] > 40, "hardly anything was let through: the damage is too coarse to test decoding"
    assert run.outcomes["MediaError"] > 40
    with capsys.disabled():
        print(f"\n{run.told(1)}")


@pytest.mark.long
@pytest.mark.parametrize("seed", [2, 3])
def test_thousands_of_hostile_files(media: dict[str, bytes], seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    run = Run(good(media), limit_s=10)
    run.over(mutate.cases(media, seed=seed, n=2000, heavy=True))
    assert run.outcomes.total() == 2000
    assert run.outcomes["TimeLimit"] >= 1, "the JPEG that takes minutes"
    assert _peak(guarded.helper_pid()) < guarded.MEMORY_BYTES / 2**20 + 400
    with capsys.disabled():
        print(f"\n{run.told(seed)}")


def test_the_same_seed_gives_the_same_files(media: dict[str, bytes]) -> None:
    again = [digest(case.data) for case in mutate.mutated(media, 7, 30)]
    assert [digest(case.data) for case in mutate.mutated(media, 7, 30)] == again
    assert [digest(case.data) for case in mutate.mutated(media, 8, 30)] != again
    assert len(set(again)) == 30


def test_a_decoder_that_hangs_is_killed_and_its_neighbours_are_not(
    media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of 4,000 scans goes over 64 million pixels, inside one call of libjpeg: minutes, from a file of 0.6 MB."""
    monkeypatch.setattr(guarded, "GRACE_SECONDS", 1)
    before = guarded.decode(media["beach.jpg"], "image", VIEWS).views[VIEWS[0]]
    begin = time.monotonic()
    with pytest.raises(Quarantined) as caught:
        guarded.decode(mutate.slow_jpeg(4000), "image", VIEWS, limit_s=0.5)
    assert caught.value.error == "TimeLimit"
    assert time.monotonic() - begin < 6
    after = guarded.decode(media["beach.jpg"], "image", VIEWS).views[VIEWS[0]]
    assert (before == after).all()


def test_an_index_that_claims_more_than_there_is_memory(
    media: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """2 kB of MP4 make FFmpeg take 5 GB in 40 s as it opens them, were it let."""
    monkeypatch.setattr(guarded, "GRACE_SECONDS", 1)
    begin = time.monotonic()
    with pytest.raises(MediaError):
        guarded.probe(mutate.endless_index(80_000_000), limit_s=1)
    assert time.monotonic() - begin < 5
    assert guarded.probe(media["bikes.mp4"]).kind == "video"


def test_a_stream_that_comes_up_late_ends_its_file_in_peace() -> None:
    """Twelve more streams come up long after the file was opened. Found by the mutator: PyAV, which does not know
    them, raised IndexError at the end of such a file."""
    noise = list(np.random.default_rng(1).integers(0, 256, (60, 240, 320, 3), np.uint8))
    whole = video(
        range(60),
        base=Fraction(1, 25),
        size=(320, 240),
        codec="mpeg2video",
        container="mpegts",
        images=noise,
        options={"qmin": "1", "qmax": "1", "g": "1"},
    )
    late = whole + _recordings(12) + whole
    with open_container(late) as container:
        assert len(container.streams) == 1, "they are seen from the start: nothing is tested"
    assert probe(late).kind == "video"


def _recordings(n: int) -> bytes:
    """A transport stream of `n` short sounds."""
    out = BytesIO()
    with av.open(out, "w", format="mpegts", options={"mpegts_start_pid": "0x200"}) as file:
        streams = [file.add_stream("mp2", rate=48000, layout="mono") for _ in range(n)]
        for stream in streams:
            frame = av.AudioFrame.from_ndarray(tone(0.5)[np.newaxis], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
            file.mux(stream.encode(frame))
        for stream in streams:
            file.mux(stream.encode(None))
    return out.getvalue()


def _peak(pid: int | None) -> float:
    """The most memory that a process ever had, MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

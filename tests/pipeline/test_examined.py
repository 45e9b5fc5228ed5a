"""Cutting: every second of a record is in some sample, and a small file makes no thousands of them."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
from scipy.io import wavfile

from curate.media.examine import Examined
from curate.media.guarded import close
from curate.media.probe import Probe
from curate.media.requests import Audio, DecodeRequest, Frames
from curate.pipeline.examined import WINDOW_BYTES, Batch, Records, _windows, decoded, examined
from curate.pipeline.ingest import cut_how
from curate.schema.ids import content_id
from curate.schema.recipe import Cut
from curate.schema.tables import FETCHED, PROBE_NAMES, RECORDS, SAMPLES
from curate.storage import open_store


@pytest.fixture(autouse=True)
def _no_helper_is_left() -> object:
    yield
    close()


def cut_wav(folder: Path, seconds: float, options: Cut, keep: float = 1.0) -> tuple[list[dict], list[dict]]:
    """Samples and records of a record that is a WAV, or the first part of one."""
    path = folder / "sound.wav"
    rng = np.random.default_rng(0)
    wavfile.write(path, 8000, rng.integers(-9000, 9000, int(8000 * seconds), dtype=np.int16))
    data = path.read_bytes()[: int(path.stat().st_size * keep)]
    build = open_store(folder / "build")
    build.write("media/a.tar", data)
    row = dict.fromkeys(FETCHED.names) | {
        "record_id": "r", "source": "s", "uri": "sound.wav", "meta": "{}", "content_id": content_id(data),
        "bytes": len(data), "media": "media/a.tar", "member": "sound.wav", "offset": 0,
    }  # fmt: skip
    records = Records(pa.Table.from_pylist([row], schema=FETCHED))
    batches = [batch.samples for batch in examined(build, records, cut_how(options), [])]
    samples = pa.concat_tables(batches) if batches else SAMPLES.empty_table()
    again = [batch.samples for batch in decoded(build, samples, [])]
    assert [len(b) for b in again] == [len(b) for b in batches], "decoded again, they come in the same batches"
    table = records.table()
    assert (samples.schema, table.schema) == (SAMPLES, RECORDS)
    return samples.to_pylist(), table.to_pylist()


def test_a_record_that_would_make_too_many_samples_fails_with_the_way_out(tmp_path: Path) -> None:
    samples, [done] = cut_wav(tmp_path, 30, Cut(min_seconds=0.5, max_seconds=1.0, max_samples=29))
    assert samples == []
    assert (done["stage"], done["error"], done["kind"]) == ("cut", "MediaError", "audio")
    assert "more than 29 samples (cut.max_samples)" in done["message"]


def test_a_record_that_makes_just_as_many_does_not(tmp_path: Path) -> None:
    samples, [done] = cut_wav(tmp_path, 30, Cut(min_seconds=0.5, max_seconds=1.0, max_samples=30))
    assert len(samples) == 30
    assert done["error"] is None


def test_the_missing_half_of_a_record_is_one_sample(tmp_path: Path) -> None:
    samples, _ = cut_wav(tmp_path, 40, Cut(max_seconds=2.0), keep=0.5)
    assert [round(s["duration"]) for s in samples] == [2] * 10 + [20]


def test_clips_of_a_large_file_are_handed_to_the_decoder_together(tmp_path: Path) -> None:
    build = open_store(tmp_path)
    size = WINDOW_BYTES // 2 + 1
    build.write("media/a.tar", bytes(2 * size))
    rows = [
        {"media": "media/a.tar", "offset": at, "bytes": size, "name": f"{at}/{i}"} for at in (0, size) for i in "ab"
    ]
    found = list(_windows(build, rows, range(4), lambda row: row["name"]))
    assert [places for places, _ in found] == [[0, 1], [2, 3]]
    for _, [(one, _), (other, _)] in found:
        assert one is other
        assert len(one) == size


def test_a_sample_that_cannot_be_decoded_says_in_which_stage(tmp_path: Path) -> None:
    build = open_store(tmp_path)
    build.write("media/a.tar", b"no picture")
    row = dict.fromkeys(SAMPLES.names, "") | {"kind": "image", "start_us": 0, "end_us": 0, "media": "media/a.tar"}
    row |= dict.fromkeys(PROBE_NAMES) | {"offset": 0, "bytes": 10}
    samples = pa.Table.from_pylist([row], schema=SAMPLES)
    for stage in ("annotate", "tokenize"):
        [batch] = decoded(build, samples, [Frames(32)], stage)
        [failures] = batch.failures
        assert [failure.stage for failure in failures.values()] == [f"{stage}:decode"]


def damaged_audio() -> bytes:
    """A video of three seconds, the sound of its middle overwritten."""
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        images, audio = out.add_stream("mpeg4", rate=10), out.add_stream("flac", rate=16000, layout="mono")
        images.width = images.height = 64
        for i in range(30):
            shade = np.full((64, 64, 3), 8 * i, np.uint8)
            out.mux(images.encode(av.VideoFrame.from_ndarray(shade, "rgb24")))
            heard = rng.integers(-9000, 9000, (1, 1600)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(heard, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16000, 1600 * i
            out.mux(audio.encode(frame))
        out.mux(images.encode(None))
        out.mux(audio.encode(None))
    data = bytearray(file.getvalue())
    with av.open(io.BytesIO(data)) as written:
        for packet in [p for p in written.demux(audio=0) if p.size and p.pos][8:14]:
            data[packet.pos : packet.pos + packet.size] = b"\xff" * packet.size
    return bytes(data)


def test_damaged_audio_costs_no_images_whatever_they_are_decoded_with(tmp_path: Path) -> None:
    data = damaged_audio()
    build = open_store(tmp_path)
    build.write("media/a.tar", data)
    row = dict.fromkeys(FETCHED.names) | {
        "record_id": "r", "source": "s", "uri": "a.mp4", "meta": "{}", "content_id": content_id(data),
        "bytes": len(data), "media": "media/a.tar", "member": "a.mp4", "offset": 0,
    }  # fmt: skip
    seen, heard = Frames(32), Audio(16000)

    def examine(*views: DecodeRequest) -> Batch:
        [batch] = examined(build, Records(pa.Table.from_pylist([row], schema=FETCHED)), cut_how(Cut()), views)
        return batch

    alone, both = examine(seen), examine(seen, heard)
    [again] = decoded(build, both.samples, [seen, heard])
    assert alone.failures == [{}]
    for batch in (both, again):
        [views], [failures] = batch.views, batch.failures
        assert np.array_equal(views[seen], alone.views[0][seen])
        assert list(failures) == [heard]
        assert "audio is damaged" in failures[heard].message


def test_a_record_of_which_nothing_can_be_made_a_sample_has_a_failure() -> None:
    row = dict.fromkeys(FETCHED.names) | {"record_id": "r", "source": "s", "uri": "odd.mp4", "meta": "{}"}
    records = Records(pa.Table.from_pylist([row], schema=FETCHED))
    records.add(0, Examined(0, Probe("video", 8, 8, 0.0, 25.0, False, "h264", None)))
    [found] = records.table().to_pylist()
    assert (found["kind"], found["stage"], found["error"]) == ("video", "cut", "MediaError")

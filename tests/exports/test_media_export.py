"""Media as they were kept: webdataset reads them back, images as they came, clips to the frame."""

from __future__ import annotations

import json
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import webdataset
from card_build import Item, image_item, photo
from exported import make_media_build
from synth import audio_file, indices, noise
from synth import video as numbered
from typer.testing import CliRunner

from curate.cli.main import app
from curate.exports import export, program
from curate.exports.cut import cut
from curate.schema.errors import CurateError, MediaError

STAMPS = [round(i * 1000 / 30) for i in range(60)]
"""Of 60 frames, 30 a second, in ms."""


def every(frames: int) -> dict[str, str]:
    """Keyframes so far apart, and no others."""
    return {"g": str(frames), "keyint_min": str(frames), "sc_threshold": "0"}


def media_items() -> list[Item]:
    film = numbered(STAMPS, audio=noise(2.0), options=every(15))
    stamps = [stamp + 700 for stamp in STAMPS[:30]]
    later = numbered(stamps, container="matroska", audio=noise(1.0), audio_at=Fraction(7, 10))
    return [
        image_item("astronaut.png", photo("astronaut.png", 100), "an astronaut"),
        Item("film.mp4", film, "video", "grey", 2.0, (64, 48), clips=[(0.5, 1.5), (1.5, 2.0)]),
        Item("later.mkv", later, "video", None, 1.0, (64, 48), clips=[(0, 1.0), (0.1, 0.4)]),
        Item("sound.wav", audio_file(noise(2.0)), "audio", "noise", 2.0, clips=[(0.25, 1.0)]),
    ]


@pytest.fixture(scope="module")
def media_build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Item]]:
    build = tmp_path_factory.mktemp("media") / "build"
    return build, make_media_build(build, media_items())


Read = dict[tuple[str, int], dict[str, Any]]
"""By uri and start what was exported of it."""


def read_back(out: Path, items: dict[str, Item]) -> Read:
    found = {}
    for sample in webdataset.WebDataset(sorted(str(path) for path in out.rglob("*.tar")), shardshuffle=False):
        about = json.loads(sample["json"])
        assert items[sample["__key__"]].name == about["uri"]
        found[about["uri"], about["start_us"]] = {**sample, "json": about, "item": items[sample["__key__"]]}
    assert len(found) == len(items) == 6
    return found


@pytest.fixture(scope="module")
def read(media_build: tuple[Path, dict[str, Item]]) -> Read:
    build, items = media_build
    for out in ("a", "b"):
        list(export(build, "webdataset-media", build.parent / out))
    for tar in (build.parent / "a").rglob("*.tar"):
        assert tar.read_bytes() == Path(str(tar).replace("/a/", "/b/")).read_bytes()
    return read_back(build.parent / "a", items)


def frames(data: bytes) -> tuple[list[int], list[float]]:
    with av.open(BytesIO(data)) as file:
        shown = [(frame.to_ndarray(format="rgb24"), frame.time) for frame in file.decode(video=0)]
    return indices(np.stack([pixels for pixels, _ in shown])), [time for _, time in shown]


def samples(data: bytes) -> tuple[np.ndarray[Any, Any], int]:
    with av.open(BytesIO(data)) as file:
        parts = [frame.to_ndarray() for frame in file.decode(audio=0)]
        return np.concatenate(parts, axis=1)[0], file.streams.audio[0].rate


def test_images_and_whole_media_are_the_bytes_that_came(read: Read) -> None:
    image, film = read["astronaut.png", 0], read["later.mkv", 0]
    assert (image["bin"], film["bin"]) == (image["item"].data, film["item"].data)
    assert image["txt"] == b"an astronaut"
    assert image["json"]["signals"]["brightness"] > 0
    assert "vector" not in image["json"]["signals"]
    assert (image["json"]["licence"], image["json"]["width"]) == ("CC-BY-4.0", 100)


def test_a_clip_has_its_frames_at_their_times_and_its_sound(read: Read) -> None:
    found, times = frames(read["film.mp4", 500_000]["mp4"])
    assert found == list(range(15, 45))
    assert times == pytest.approx([(i - 15) / 30 for i in found], abs=0.001)
    heard, rate = samples(read["film.mp4", 500_000]["mp4"])
    assert len(heard) / rate == pytest.approx(1.0, abs=0.03)
    assert frames(read["film.mp4", 1_500_000]["mp4"])[0] == list(range(45, 60))


def test_a_clock_that_begins_late_moves_no_frame(read: Read) -> None:
    assert frames(read["later.mkv", 100_000]["mp4"])[0] == list(range(3, 12))


def test_a_clip_far_into_a_film_is_found_by_a_seek_and_as_exact() -> None:
    film = numbered([200 * i for i in range(64)], options=every(20))
    clip = cut(film, "video", 11_000_000, 12_000_000, sound=False)
    assert (clip.suffix, frames(clip.data)[0]) == ("mp4", list(range(55, 60)))
    copied = cut(film, "video", 12_000_000, 12_800_000, sound=False, copy=True)
    assert (copied.copied, frames(copied.data)[0]) == (True, list(range(60, 64)))


def packets(data: bytes) -> list[bytes]:
    with av.open(BytesIO(data)) as file:
        return [bytes(packet) for packet in file.demux(video=0) if packet.size]


@pytest.mark.parametrize(
    ("first", "last", "copied"),
    [(15, 45, True), (45, 60, True), (16, 45, False), (15, 18, False)],
    ids=["between keyframes", "to the end", "begins beside one", "ends where a frame refers to a later one"],
)
def test_video_is_copied_where_that_cuts_exactly(first: int, last: int, copied: bool) -> None:
    film = numbered([40 * i for i in range(60)], audio=noise(2.4), options={**every(15), "bf": "3", "b_strategy": "0"})
    clip = cut(film, "video", 40_000 * first, 40_000 * last, sound=True, copy=True)
    found, times = frames(clip.data)
    assert (clip.copied, found) == (copied, list(range(first, last)))
    assert times == pytest.approx([0.04 * i for i in range(last - first)], abs=0.001)
    assert (packets(clip.data) == packets(film)[first:last]) == copied
    heard, rate = samples(clip.data)
    assert len(heard) / rate == pytest.approx(0.04 * (last - first), abs=0.03)


def test_a_keyframe_that_shows_nothing_by_itself_is_not_believed() -> None:
    """Pictures that are renewed column by column: FFmpeg calls that where it begins a keyframe."""
    film = numbered([40 * i for i in range(60)], options={**every(20), "bf": "0", "intra-refresh": "1"})
    with av.open(BytesIO(film)) as file:
        assert [i for i, packet in enumerate(file.demux(video=0)) if packet.is_keyframe] == [0, 20, 40]
    clip = cut(film, "video", 800_000, 1_600_000, sound=False, copy=True)
    assert (clip.copied, frames(clip.data)[0]) == (False, list(range(20, 40)))


def test_an_export_says_which_clips_it_copied(media_build: tuple[Path, dict[str, Item]], read: Read) -> None:
    build, items = media_build
    out = build.parent / "copied"
    asked = ["export", build, "--format", "webdataset-media", "--option", "clips=copy", "--out", out]
    assert CliRunner().invoke(app, list(map(str, asked))).exit_code == 0
    found = read_back(out, items)
    said = {key: sample["json"]["medium"] for key, sample in found.items()}
    assert said == {
        ("astronaut.png", 0): "whole",
        ("film.mp4", 500_000): "copied",
        ("film.mp4", 1_500_000): "copied",
        ("later.mkv", 0): "whole",
        ("later.mkv", 100_000): "transcoded",
        ("sound.wav", 250_000): "transcoded",
    }
    assert {sample["json"]["medium"] for sample in read.values()} == {"whole", "transcoded"}
    assert frames(found["film.mp4", 500_000]["mp4"])[0] == list(range(15, 45))
    with pytest.raises(CurateError, match="holds another export"):
        list(export(build, "webdataset-media", out))
    with pytest.raises(CurateError, match="clips is one of transcode, copy"):
        list(export(build, "webdataset-media", out, options={"clips": "cut"}))


def test_a_segment_of_sound_is_exact(read: Read) -> None:
    heard, rate = samples(read["sound.wav", 250_000]["flac"])
    assert rate == 48000
    assert np.array_equal(heard, noise(2.0)[12_000:48_000])


def test_what_ffmpeg_cannot_read_is_an_error_and_a_playlist_opens_nothing(tmp_path: Path) -> None:
    (tmp_path / "secret.ts").write_bytes(numbered(STAMPS, container="mpegts"))
    playlist = f"#EXTM3U\n#EXTINF:2,\nfile://{tmp_path}/secret.ts\n#EXT-X-ENDLIST\n"
    for data in (b"no medium at all", playlist.encode()):
        with pytest.raises(MediaError, match="FFmpeg: "):
            cut(data, "video", 0, 1_000_000, sound=False)


def test_without_ffmpeg_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_media_build(tmp_path / "build", media_items()[:2])
    monkeypatch.setattr(program.shutil, "which", lambda program: None)
    find = program.find_spec
    monkeypatch.setattr(program, "find_spec", lambda name: None if name == "imageio_ffmpeg" else find(name))
    with pytest.raises(CurateError, match="clips are cut by ffmpeg, and there is none") as error:
        list(export(tmp_path / "build", "webdataset-media", tmp_path / "out"))
    assert "imageio-ffmpeg" in error.value.hint

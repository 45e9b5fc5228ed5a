"""The generated tars of `benchmarks/scale.py`: what is planted is what is there."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from curate.media.images import decode_image, render
from curate.schema.errors import MediaError
from curate.signals.luma import luma
from curate.signals.tiny_image import VIEW, thumbnail


def test_the_truth_counts_the_roles() -> None:
    from parts.scale_media import Truth, role_of

    for total in (1, 11, 51, 64, 1000, 2049):
        roles = Counter(role_of(g) for g in range(total))
        truth = Truth.of(total)
        assert (truth.exact, truth.near, truth.dark, truth.broken) == tuple(
            roles[name] for name in ("exact", "near", "dark", "broken")
        )
    assert Truth.of(1_000_000) == Truth(1_000_000, 10_000, 10_000, 20_000, 5_000)


def test_copies_are_of_earlier_records_that_nothing_else_happens_to() -> None:
    from parts.scale_media import original_of, role_of

    copies = [g for g in range(5000) if role_of(g) in ("exact", "near")]
    originals = [original_of(g) for g in copies]
    assert all(o < g and role_of(o) == "plain" for g, o in zip(copies, originals, strict=True))
    assert len({o // 1024 for o in originals}) == 5


def test_a_png_by_hand_is_read_as_it_was_written() -> None:
    from parts.scale_media import image, png

    for g in (1, 2, 3):
        pixels = image(g)
        assert pixels.shape[0] in range(32, 65, 8)
        np.testing.assert_array_equal(np.asarray(decode_image(png(pixels))), pixels)


def test_near_copies_are_near_exact_ones_equal_and_the_dark_dark() -> None:
    from parts.scale_media import file_of, image, original_of

    def vector(g: int) -> np.ndarray:
        found = thumbnail(render(Image.fromarray(image(g)), VIEW)[None])
        assert found is not None
        return found

    for g in (25, 125, 2025):
        assert file_of(g) != file_of(original_of(g))
        assert vector(g) @ vector(original_of(g)) > 0.998
        assert abs(vector(g) @ vector(g + 1)) < 0.5
    assert file_of(50) == file_of(original_of(50))
    assert file_of(2050) == file_of(original_of(2050))
    assert luma(image(10)[None]).mean() < 12
    assert luma(image(11)[None]).mean() > 100


def test_a_tar_holds_its_records_and_the_broken_ones_are_refused(tmp_path: Path) -> None:
    from parts.scale_media import caption_of, file_of, make_set

    folder = make_set(tmp_path, 1300, say=lambda text: None)
    assert make_set(tmp_path, 1300, say=pytest.fail) == folder
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {info.name: (file.read() if (file := tar.extractfile(info)) else None) for info in tar}
    assert len(found) == 2600
    for g in (0, 1, 200, 400, 1299):
        assert found[f"{g:09d}.png"] == file_of(g)
        assert found[f"{g:09d}.txt"] == caption_of(g).encode()
    for g in (0, 200, 400):
        with pytest.raises(MediaError):
            decode_image(file_of(g))
    assert [len(file_of(g)) == 0 for g in (0, 200, 400)] == [False, True, False]


def test_sets_share_their_whole_tars(tmp_path: Path) -> None:
    from parts.scale_media import make_set

    small, large = (make_set(tmp_path, total, say=lambda text: None) for total in (1024, 1030))
    assert (small / "000000-1024.tar").samefile(large / "000000-1024.tar")
    with tarfile.open(large / "000001-0006.tar") as tar:
        assert len(tar.getnames()) == 12


def test_counts_that_are_not_the_truth_are_told() -> None:
    from parts.scale_media import Truth

    truth = Truth.of(10_000)
    records = {"total": 10_000, "duplicate": 100, "failed": 34, "dropped": 0, "sampled": 9866}
    samples = {"total": 9866, "dropped": 200, "duplicate": 100, "failed": 16, "kept": 9550}
    assert truth.problems(records, samples) == []
    assert truth.problems(records | {"failed": 50}, samples | {"total": 9850, "failed": 0}) == []
    assert truth.problems(records, samples | {"kept": 9549}) == ["kept: 9,549, planted 9,550"]
    assert truth.problems(records | {"duplicate": 99}, samples) == ["exact duplicates: 99, planted 100"]
    some = truth.problems(records, samples | {"duplicate": 90, "kept": 9560})
    assert some == ["near duplicates: 90, planted 100"]


def test_ids_of_the_cheap_grid_are_its_colours() -> None:
    from parts.colour_grid import ColourGrid

    image = np.asarray(Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).resize((64, 64), 0))[None]
    (ids,) = ColourGrid().encode([image])
    assert (ids.shape, ids.dtype) == ((1, 8, 8), np.uint16)
    assert ids[0, 0, 0] == 0 + 8 * 0 + 64 * 0
    assert ids[0, 7, 7] == 189 // 32 + 8 * (190 // 32) + 64 * (191 // 32)
    (back,) = ColourGrid().decode([ids])
    assert np.abs(back.astype(int) - image).max() <= 16
    with pytest.raises(ValueError, match="expected uint8"):
        ColourGrid().encode([image[:, :32]])

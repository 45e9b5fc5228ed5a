"""4M-21's text-like streams: golden words, writers and parsers inverse to each other, and the page that lists all."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from streams_4m import BY_NAME, STREAMS, modality_id
from streams_4m_page import markdown

from curate.exports.fourm import caption, det, metadata, palette, poses, sam
from curate.exports.fourm.det import Box
from curate.exports.fourm.metadata import FIELDS
from curate.exports.fourm.poses import Person
from curate.exports.fourm.words import OBJECTS, split

UNIT = st.floats(0, 1)
CODE = st.integers(0, 1023)
BOUNDS = st.tuples(UNIT, UNIT, UNIT, UNIT).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
BOXES = st.lists(st.builds(lambda b, name: Box(*b, name), BOUNDS, st.sampled_from(OBJECTS)), max_size=8)


def _values(n: int, low: float, high: float) -> st.SearchStrategy[tuple[float, ...]]:
    return st.tuples(*[st.floats(low, high)] * n)


PEOPLE = st.lists(
    st.builds(
        Person,
        BOUNDS,
        st.tuples(*[CODE] * 8),
        _values(9, -1, 1),
        _values(10, -6, 6),
        _values(3, -2, 30),
    ),
    max_size=3,
)


# boxes


def test_golden_boxes() -> None:
    """The words that ml-4m's own transform gives for these boxes."""
    boxes = [Box(0.5, 0.25, 1, 1, "hot dog"), Box(0, 0.2, 0.634, 0.9, "person")]
    assert det.write(boxes) == [
        *("v0=0", "v1=200", "v2=633", "v3=899", "person"),
        *("v0=500", "v1=250", "v2=999", "v3=999", "hot dog"),
    ]


def test_halves_go_to_the_even_bin() -> None:
    """0.5 * 999 = 499.5, and 1.5 / 999 * 999 = 1.5."""
    assert det.write([Box(1.5 / 999, 0.5, 1, 1, "cat")])[:2] == ["v0=2", "v1=500"]
    assert det.write([Box(2.5 / 999, 0.5, 1, 1, "cat")])[0] == "v0=2"


@given(BOXES)
@settings(max_examples=100, deadline=None)
def test_boxes_come_back_in_order_of_distance_within_half_a_bin(boxes: list[Box]) -> None:
    back = det.parse(split(" ".join(det.write(boxes))))
    nearest_first = sorted(boxes, key=lambda box: box.x0**2 + box.y0**2)
    assert [box.name for box in back] == [box.name for box in nearest_first]
    for found, box in zip(back, nearest_first, strict=True):
        assert found.bounds == pytest.approx(box.bounds, abs=det.PRECISION + 1e-12)


@given(BOUNDS)
def test_a_box_is_within_the_precision(bounds: tuple[float, float, float, float]) -> None:
    (back,) = det.parse(det.write([Box(*bounds, "dog")]))
    assert back.bounds == pytest.approx(bounds, abs=det.PRECISION + 1e-12)
    assert det.write([back]) == det.write([Box(*bounds, "dog")])


@pytest.mark.parametrize(
    "make",
    [
        lambda: Box(0.5, 0, 0.4, 1, "dog"),
        lambda: Box(-0.1, 0, 0.4, 1, "dog"),
        lambda: Box(0, 0, math.nan, 1, "dog"),
        lambda: Box(0, 0, 1, 1, "[EOS]"),
        lambda: det.parse(["v0=0", "v1=0", "v2=9", "v3=9"]),
        lambda: det.parse(["v0=0", "v0=0", "v2=9", "v3=9", "dog"]),
        lambda: det.parse(["v0=00", "v1=0", "v2=9", "v3=9", "dog"]),
        lambda: det.parse(["v0=1000", "v1=0", "v2=9", "v3=9", "dog"]),
    ],
)
def test_what_is_no_box_is_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=r"box|name|word"):
        make()


# metadata


def test_golden_metadata() -> None:
    """Brightness 120 is bin 23 in ml-4m's code (the paper prints 120); the others follow its formulas by hand."""
    values = {
        "brightness": 120.0,
        "original_width": 1920,
        "caption_n_chars": 1500,
        "watermark_score": 0.5,
        "aesthetic_score": 5.0,
        "entropy": 10.0,
        "occlusion_score": 3.0,
    }
    assert " ".join(metadata.write(values)) == (
        "v1=0 v0=60 v1=2 v0=999 v1=10 v0=23 v1=13 v0=49 v1=18 v0=49 v1=19 v0=1 v1=20 v0=1"
    )


def test_fields_are_numbered_as_in_4m() -> None:
    assert [field.number for field in FIELDS] == list(range(21))


@given(st.sampled_from(FIELDS), st.data())
@settings(max_examples=300)
def test_a_figure_is_in_the_range_of_its_bin(field: metadata.Field, data: st.DataObject) -> None:
    whole = field.kind in ("size", "count")
    value = data.draw(st.integers(0, 50_000) if whole else st.floats(-300, 300))
    words = metadata.write({field.name: value})
    found = metadata.parse(words)[field.name]
    assert found.low - 1e-9 <= value <= found.high + 1e-9
    assert metadata.write({field.name: found.value}) == words
    if whole and value < 999:
        assert (found.high - found.low) == (31 if field.kind == "size" else 0)
    if field.kind == "real" and field.low < found.low < field.high:
        assert found.high - found.low == pytest.approx((field.high - field.low) / 49)


@given(st.sampled_from(FIELDS), st.data())
def test_every_bin_has_a_value_of_it(field: metadata.Field, data: st.DataObject) -> None:
    words = [f"v1={field.number}", f"v0={data.draw(st.integers(0, field.bins - 1))}"]
    assert metadata.write({field.name: metadata.parse(words)[field.name].value}) == words


@pytest.mark.parametrize("values", [{"n_humans": -1}, {"n_humans": 1.5}, {"entropy": math.nan}, {"colour": 3}])
def test_what_is_no_figure_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"n_humans|entropy|colour"):
        metadata.write(values)


@pytest.mark.parametrize("words", ["v1=21 v0=0", "v1=9 v0=50", "v1=19 v0=2", "v1=9", "v1=9 v0=3 v1=9 v0=3", "v0=3"])
def test_what_are_no_figures_is_not_read(words: str) -> None:
    with pytest.raises(ValueError, match=r"field|bin|words|word"):
        metadata.parse(words.split())


# palette


def test_golden_palette() -> None:
    assert " ".join(palette.write([(255, 0, 10), (1, 2, 3)])) == "v1=2 v0=255 v0=0 v0=10 v0=1 v0=2 v0=3"


@given(st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=7))
def test_a_palette_comes_back_exactly(colours: list[tuple[int, int, int]]) -> None:
    words = palette.write(colours)
    assert palette.parse(words) == colours
    assert len(words) + 1 <= BY_NAME["color_palette"].tokens  # with [EOS]


def test_what_is_no_palette_is_refused() -> None:
    for colours in ([], [(0, 0, 0)] * 8, [(0, 0, 256)], [(0, -1, 0)]):
        with pytest.raises(ValueError, match=r"colours|values"):
            palette.write(colours)
    for words in ("v1=0", "v1=1 v0=1 v0=2", "v1=1 v0=1 v0=2 v0=3 v0=4", "v1=1 v0=1 v0=2 v0=300"):
        with pytest.raises(ValueError, match=r"colours|words"):
            palette.parse(words.split())


# poses


def test_golden_person() -> None:
    """By hand from ml-4m's formulas: global 499.5 x + 499.5, shape 166.5 x + 499.5, camera 49.95 x + 49.95."""
    person = Person(
        (0, 0.2, 0.634, 0.9),
        (0, 511, 512, 1023, 1, 2, 3, 4),
        (1, 0, 0, 0, -1, 0, 0, 0, 1),
        (0, 3, -3, 4, -4, 1, 0, 0, 0, 0),
        (0.9, -0.1, 25),
    )
    assert " ".join(poses.write([person])) == (
        "human v0=0 v1=200 v2=633 v3=899 pose v0=0 v0=511 v1=0 v1=511 v0=1 v0=2 v0=3 v0=4 "
        "global v0=999 v0=500 v0=500 v0=500 v0=0 v0=500 v0=500 v0=500 v0=999 "
        "shape v0=500 v0=999 v0=0 v0=999 v0=0 v0=666 v0=500 v0=500 v0=500 v0=500 "
        "camera v0=95 v0=45 v0=999"
    )
    assert len(poses.write([person])) == poses.WORDS == 39
    assert BY_NAME["human_poses"].tokens == 7 * poses.WORDS + 2  # [EOS] and a sentinel


def test_nobody_is_none() -> None:
    assert poses.write([]) == ["none"]
    assert poses.parse(["none"]) == []


@given(PEOPLE, st.permutations(poses.SECTIONS))
@settings(max_examples=60, deadline=None)
def test_people_come_back_within_the_precision_clipped_to_the_ranges(people: list[Person], order: list[str]) -> None:
    words = poses.write(people, order)
    back = poses.parse(words)
    assert poses.write(back, order) == words
    for found, person in zip(back, people, strict=True):
        assert found.pose == person.pose
        assert found.bounds == pytest.approx(person.bounds, abs=det.PRECISION + 1e-12)
        for name, got, given_ in (
            ("global", found.orientation, person.orientation),
            ("shape", found.betas, person.betas),
            ("camera", found.camera, person.camera),
        ):
            kind = poses.VALUES[name]
            assert got == pytest.approx(np.clip(given_, kind.low, kind.high), abs=kind.precision + 1e-9)


@pytest.mark.parametrize("spoil", ["drop", "twice", "code", "nothing"])
def test_what_are_no_people_is_refused(spoil: str) -> None:
    person = Person((0, 0, 1, 1), (0,) * 8, (0.0,) * 9, (0.0,) * 10, (0.0,) * 3)
    words = poses.write([person])
    at = words.index("global")
    spoilt = {
        "drop": words[:-1],
        "twice": [*words[:at], *words[5:14], *words[at + 10 :]],
        "code": [*words[:6], "v0=512", *words[7:]],
        "nothing": [],
    }
    with pytest.raises(ValueError, match=r"word|section"):
        poses.parse(spoilt[spoil])


@pytest.mark.parametrize(
    "person",
    [
        Person((0, 0, 1, 1), (0,) * 8, (math.nan,) * 9, (0.0,) * 10, (0.0,) * 3),
        Person((0, 0, 1, 1), (1024,) * 8, (0.0,) * 9, (0.0,) * 10, (0.0,) * 3),
    ],
)
def test_what_is_no_value_or_code_is_not_written(person: Person) -> None:
    with pytest.raises(ValueError, match=r"finite|no code"):
        poses.write([person])


# instances


def test_golden_instances() -> None:
    instance = sam.Instance(3.7, 4, 100.2, 223, (0, 511, 512, 1023, *range(12)))
    words = " ".join(sam.write([sam.Point(x=7, y=12), sam.Point(x=50, y=60, instances=(instance,))]))
    assert words == (
        "point v0=12 v1=7 none point v0=60 v1=50 polygon v0=3 v1=4 v2=100 v3=223 "
        "v0=0 v0=511 v1=0 v1=511 v0=0 v0=1 v0=2 v0=3 v0=4 v0=5 v0=6 v0=7 v0=8 v0=9 v0=10 v0=11"
    )


PIXEL = st.integers(0, 223)
INSTANCES = st.builds(
    lambda x, y, codes: sam.Instance(min(x), min(y), max(x), max(y), codes),
    st.tuples(PIXEL, PIXEL),
    st.tuples(PIXEL, PIXEL),
    st.tuples(*[CODE] * 16),
)


@given(st.lists(st.builds(sam.Point, PIXEL, PIXEL, st.lists(INSTANCES, max_size=2).map(tuple)), max_size=7))
@settings(max_examples=60, deadline=None)
def test_points_and_instances_come_back_exactly(points: list[sam.Point]) -> None:
    words = sam.write(points)
    assert sam.parse(words) == points
    assert len(words) == sum(3 + max(21 * len(p.instances), 1) for p in points)


def test_what_are_no_instances_is_refused() -> None:
    with pytest.raises(ValueError, match="box"):
        sam.Instance(9, 0, 3, 5, (0,) * 16)
    with pytest.raises(ValueError, match="16 codes"):
        sam.Instance(0, 0, 3, 5, (0,) * 15)
    with pytest.raises(ValueError, match="no bin 1000"):
        sam.write([sam.Point(1000, 0)])
    for words in ("point v0=1 v1=2", "point v1=2 v0=1 none", "none", "point v0=1 v1=2 polygon v0=1"):
        with pytest.raises(ValueError, match="word"):
            sam.parse(words.split())


# captions

HOSTILE = st.lists(
    st.one_of(
        st.sampled_from(["[EOS]", "[S_3]", "v0=12", "[", "]", "\\", "v", "0", "=", "1", " ", "EOS", "S_", "v3", "dog"]),
        st.text(max_size=3),
    ),
    max_size=12,
).map("".join)


@given(HOSTILE)
@example("[EOS] v0=12 [S_3]")
@example("v0=1v1=2 [\\EOS] [\\\\S_0] v0\\=7 [[PAD]]")
@settings(max_examples=500)
def test_any_caption_comes_back_from_its_escaped_form(text: str) -> None:
    assert caption.parse(caption.write(text)) == text


def test_golden_captions() -> None:
    assert caption.write("[EOS] v0=12 [S_3]") == "[\\EOS] v0\\=12 [\\S_3]"
    assert caption.write("[\\EOS]") == "[\\\\EOS]"
    assert caption.write("a dog [1], v8=3, C:\\EOS") == "a dog [1], v8=3, C:\\EOS"


# the table


def test_the_page_is_made_of_the_table() -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "streams-4m.md"
    assert page.read_text("utf-8") == markdown(), "run: python tests/exports/streams_4m_page.py > docs/streams-4m.md"


def test_golden_numbers_of_streams() -> None:
    """Those that ml-4m's generate_uint15_hash gives, and no two alike."""
    assert modality_id("caption") == 32652
    assert modality_id("tok_rgb@224") == 11606
    assert len({modality_id(s.name) for s in STREAMS}) == len(STREAMS) == 25


def test_counts_follow_from_grids() -> None:
    assert {s.name for s in STREAMS if s.grid and s.tokens != s.grid[0] * s.grid[1]} == set()
    assert BY_NAME["tok_dinov2@224"].tokens == 256
    assert BY_NAME["tok_rgb@448"].tokens == 784
    assert BY_NAME["tok_rgb@224"].dtype == "uint16"
    assert [s.name for s in STREAMS if not s.target] == ["rgb@224", "t5_caption", "rgb@448"]


# apple/ml-4m at cda590f, fourm/data/modality_info.py, MODALITY_INFO: vocabulary and most tokens. Grids have the counts
# of its comments there (`Will be set to 196`); `rgb` and `t5_caption` have no vocabulary.
MODALITY_INFO = {
    "rgb@224": (0, 196), "caption": (30_000, 256), "det": (30_000, 256), "tok_rgb@224": (16384, 196),
    "tok_depth@224": (8192, 196), "tok_normal@224": (8192, 196), "tok_semseg@224": (4096, 196),
    "tok_clip@224": (8192, 196), "t5_caption": (0, 77), "metadata": (30_000, 40), "human_poses": (30_000, 275),
    "color_palette": (30_000, 23), "sam_instance": (30_000, 290), "tok_canny_edge@224": (8192, 196),
    "tok_sam_edge@224": (8192, 196), "tok_dinov2@224": (8192, 256), "tok_imagebind@224": (8192, 256),
    "tok_dinov2_global": (8192, 16), "tok_imagebind_global": (8192, 16), "rgb@448": (0, 784),
    "tok_rgb@448": (16384, 784), "tok_depth@448": (8192, 784), "tok_normal@448": (8192, 784),
    "tok_semseg@448": (4096, 784), "tok_clip@448": (8192, 784),
}  # fmt: skip


def test_streams_are_those_of_ml_4m() -> None:
    assert {s.name: (s.vocabulary, s.tokens) for s in STREAMS} == MODALITY_INFO


# The same, fourm/data/modality_transforms.py, MetadataTransform: metadata_id_map; metadata_min_max_bins, whose bins
# are low, high, count; metadata_manual_bins. Sizes go by 32 pixels, counts as they are.
METADATA = {
    "original_width": (0, 32), "original_height": (1, 32), "caption_n_chars": (2, 1), "caption_n_words": (3, 1),
    "caption_n_sentences": (4, 1), "n_humans": (5, 1), "n_sam_instances": (6, 1), "n_coco_instances": (7, 1),
    "coco_instance_diversity": (8, 1), "colorfulness": (9, (0, 150, 50)), "brightness": (10, (0, 255, 50)),
    "contrast": (11, (0, 127, 50)), "saturation": (12, (0, 255, 50)), "entropy": (13, (0, 10, 50)),
    "walkability": (14, (0, 1, 50)), "objectness": (15, (0, 1, 50)), "semantic_diversity": (16, 1),
    "geometric_complexity": (17, (0, 0.75, 50)), "occlusion_score": (18, (0, 0.25, 50)),
    "watermark_score": (19, [0.5]), "aesthetic_score": (20, [4.5, 5.5]),
}  # fmt: skip


def test_fields_of_metadata_are_those_of_ml_4m() -> None:
    how = {"size": lambda f: f.bin(64) and 64 // f.bin(64), "count": lambda f: f.bin(64) and 64 // f.bin(64)}
    how |= {"real": lambda f: (f.low, f.high, f.bins), "edges": lambda f: list(f.edges)}
    assert {f.name: (f.number, how[f.kind](f)) for f in FIELDS} == METADATA

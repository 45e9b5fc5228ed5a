"""Labels on photographs and images of known truth: edges, palette, metadata, and the models that need weights."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from signal_media import hand_batch, loaded
from skimage import data

from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.schema.recipe import Caption, SignalUse
from curate.signals import registry
from curate.signals.caption import CaptionSignal
from curate.signals.labels import TYPES, LabelSignal, packed, unpacked
from curate.signals.masks import box_share, points_of
from curate.signals.metadata import caption_statistics, pixel_statistics
from curate.signals.palette import palette_of

WEIGHTS = Path(os.environ.get("CURATE_TEST_WEIGHTS", Path(__file__).parents[3] / "shared" / "weights"))
Images = NDArray[np.uint8]


def weights(name: str) -> str:
    if not (WEIGHTS / name).is_file():
        pytest.skip(f"{name} is not in CURATE_TEST_WEIGHTS or ../shared/weights")
    return str(WEIGHTS / name)


def crop(image: Images, top: int, left: int, size: int = 256) -> Images:
    return np.ascontiguousarray(image[top : top + size, left : left + size])


@pytest.fixture(scope="module")
def photographs() -> Images:
    """The astronaut's face, a cat, and a cup of coffee, 256 x 256."""
    return np.stack([crop(data.astronaut(), 0, 100), crop(data.chelsea(), 20, 80), crop(data.coffee(), 60, 180)])


def said(name: str, *images: Images, columns: dict[str, Any] | None = None, **options: Any) -> list[dict[str, Any]]:
    """What a signal says of images, each a sample of one frame."""
    signal = loaded(name, **options)
    assert isinstance(signal, LabelSignal)
    unknown: dict[str, list[Any]] = {n: [None] * len(images) for n in ("caption", "width", "height")}
    batch = hand_batch(["image"] * len(images), {signal.view: [i[None] for i in images]}, **(unknown | (columns or {})))
    results = signal(batch)
    for result in results:
        assert isinstance(result, dict), result
        for field in signal.gives:
            pa.array([result[field.name]], field.type)
            value = result[field.name]
            assert not field.is_number or value is None or field.contains(value), (field.name, value)
    return results  # type: ignore[return-value]


# Arrays as cells


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(
        st.sampled_from([np.dtype(t) for t in (np.bool_, np.uint8, np.float32)]),
        hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9),
    )
)
def test_an_array_comes_back_exactly_from_its_cell(array: NDArray[Any]) -> None:
    cell = pa.array([packed(array)], TYPES["edges"])[0].as_py()
    back = unpacked(cell)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    assert back.tobytes() == array.tobytes()


def test_a_cell_that_is_no_array_is_refused() -> None:
    cell = packed(np.zeros((2, 3), np.uint8))
    for wrong in ({"shape": [9, 9]}, {"shape": [1]}, {"data": b"nothing"}, {"dtype": "float32"}, {"shape": None}):
        with pytest.raises(ValueError, match="not an array of a label"):
            unpacked(cell | wrong)


# What holds of every label


LABELS = [name for name in registry.names() if issubclass(registry.get(name), LabelSignal)]


@pytest.mark.parametrize("name", LABELS)
def test_a_label_is_a_typed_field_with_a_number_that_rules_can_use(name: str) -> None:
    cls = registry.get(name)
    assert issubclass(cls, LabelSignal)
    label, *numbers = cls.gives
    assert (label.name, label.type) == (name, TYPES[cls.kind])
    assert any(field.is_number for field in numbers)
    for field in numbers:
        assert field.name.startswith(f"{name}_")
        assert field.unit
        assert field.range[0] is not None
    required = {n: "somewhere/model" for n, o in cls.Options.model_fields.items() if o.is_required()}
    assert cls(cls.Options(**required)).cost.model == bool(required), "a model has a group and workers of its own"


def test_a_second_label_of_a_sort_has_a_name_of_its_own(photographs: Images) -> None:
    fine = registry.build(SignalUse(name="edges", field="fine", low=10, high=40))
    assert (fine.name, [f.name for f in fine.gives]) == ("fine", ["fine", "fine_share"])
    [sample] = said("edges", photographs[0], field="fine", low=10, high=40)
    assert sample["fine_share"] > said("edges", photographs[0])[0]["edges_share"]
    registry.order([fine, registry.build(SignalUse(name="edges"))])  # they give no field twice
    with pytest.raises(CurateError, match="option `field` of signal `edges`"):
        registry.build(SignalUse(name="edges", field="Not a name"))


# Edges


def test_canny_finds_the_sides_of_a_square_and_nothing_else() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[16:48, 16:48] = (255, 0, 0)
    [sample] = said("edges", image)
    [edges] = unpacked(sample["edges"])
    inside, outside = edges[20:44, 20:44], edges.copy()
    outside[14:50, 14:50] = False
    assert not inside.any()
    assert not outside.any()
    assert edges[20:44].sum(1).tolist() == [2] * 24  # left and right side
    assert sample["edges_share"] == edges.mean()


def test_higher_thresholds_keep_fewer_edges(photographs: Images) -> None:
    low, high = (said("edges", *photographs, **o) for o in ({}, {"high": 600}))
    assert all(a["edges_share"] > b["edges_share"] for a, b in zip(low, high, strict=True))
    with pytest.raises(CurateError, match="expected low <= high"):
        registry.build(SignalUse(name="edges", low=300))


def test_every_frame_of_a_clip_has_its_map(photographs: Images) -> None:
    signal = loaded("edges")
    assert isinstance(signal, LabelSignal)
    [clip] = signal(hand_batch(["video"], {signal.view: [photographs]}))
    assert isinstance(clip, dict)
    alone = [unpacked(one["edges"])[0] for one in said("edges", *photographs)]
    assert np.array_equal(unpacked(clip["edges"]), np.stack(alone))


# Metadata


def test_pixel_statistics_of_flat_colours_are_those_of_their_formulas() -> None:
    red = pixel_statistics(np.full((8, 8, 3), (255, 0, 0), np.uint8))
    # rg = 255, yb = 127.5 everywhere: deviations 0, means 255 and 127.5
    assert red["colorfulness"] == pytest.approx(0.3 * np.hypot(255, 127.5))
    assert red["brightness"] == 76  # 0.299 * 255
    assert (red["contrast"], red["entropy"], red["saturation"]) == (0, 0, 255)
    grey = pixel_statistics(np.full((8, 8, 3), 90, np.uint8))
    assert (grey["colorfulness"], grey["saturation"], grey["brightness"]) == (0, 0, 90)


def test_contrast_and_entropy_of_half_black_half_white() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2] = 255
    found = pixel_statistics(image)
    assert found["contrast"] == 127.5
    assert found["entropy"] == 1.0  # two equal bins: one bit


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda s: (*s, 3))))
def test_statistics_stay_in_their_ranges(image: Images) -> None:
    ranges = {f.name.removeprefix("metadata_"): f for f in registry.get("metadata").gives}
    for name, value in pixel_statistics(image).items():
        assert ranges[name].contains(value)


@pytest.mark.parametrize(
    ("text", "chars", "words", "sentences"),
    [
        ("", 0, 0, 0),
        ("a cat", 5, 2, 1),
        ("A cat. It sleeps!", 17, 4, 2),
        ("Version 1.5 is out... Really?!", 30, 5, 2),
        ("ein Café", 8, 2, 1),
        ("你好。再见。", 6, 1, 2),
    ],
)
def test_caption_statistics(text: str, chars: int, words: int, sentences: int) -> None:
    assert list(caption_statistics(text).values()) == [chars, words, sentences]


def test_metadata_leaves_out_what_is_not_known(photographs: Images) -> None:
    [bare] = said("metadata", photographs[0])
    assert {one["name"] for one in bare["metadata"]} == {
        *("colorfulness", "brightness", "contrast", "saturation", "entropy")
    }
    assert bare["metadata_caption_n_words"] is None
    [full] = said("metadata", photographs[0], columns={"caption": ["A woman."], "width": [640], "height": [480]})
    values = {one["name"]: one["value"] for one in full["metadata"]}
    assert (values["original_width"], values["original_height"], full["metadata_caption_n_words"]) == (640, 480, 2)
    assert [one for one in full["metadata"] if one in bare["metadata"]] == bare["metadata"]
    assert full["metadata_contrast"] == values["contrast"]


def test_people_are_counted_in_the_boxes_of_a_detector(photographs: Images) -> None:
    # At 0.6 it takes the cat for a person too, with a score of 0.61.
    faces = said("faces", *photographs, weights=weights("yunet_n_dynamic.onnx"), score=0.8, whole=True)
    assert [one["faces_count"] for one in faces] == [1, 0, 0]
    signal = registry.build(SignalUse(name="metadata", people="faces"))
    assert "faces" in signal.after
    counted = said("metadata", *photographs, people="faces", columns={"faces": [one["faces"] for one in faces]})
    assert [one["metadata_n_humans"] for one in counted] == [1, 0, 0]
    with pytest.raises(CurateError, match="needs the field `faces`, which none gives"):
        registry.order([signal, CaptionSignal.of(Caption(), ())])


# Palette


def test_palette_finds_the_colours_of_a_flag_by_area() -> None:
    image = np.zeros((60, 60, 3), np.uint8)
    image[:30], image[30:50], image[50:] = (0, 0, 200), (250, 250, 250), (220, 20, 10)
    assert palette_of(image, 7) == ((0, 0, 200), (250, 250, 250), (220, 20, 10))
    assert palette_of(image, 1) == ((120, 87, 185),) == (tuple(np.rint(image.mean((0, 1))).astype(int)),)
    assert said("palette", image)[0]["palette_colours"] == 3


def test_a_palette_lies_near_the_image(photographs: Images) -> None:
    for sample, image in zip(said("palette", *photographs), photographs, strict=True):
        assert sample["palette_colours"] == 7
        pixels = image.reshape(-1, 3).astype(float)
        colours = np.array([list(colour.values()) for colour in sample["palette"]])
        off = np.sqrt(((pixels[:, None] - colours) ** 2).sum(-1).min(1)).mean()
        assert off < 0.5 * np.sqrt(((pixels - pixels.mean(0)) ** 2).sum(-1)).mean()


def test_the_count_of_colours_can_follow_from_the_image(photographs: Images) -> None:
    flipped = [image for p in (photographs[:, ::-1], photographs[:, :, ::-1], photographs) for image in p]
    counts = [one["palette_colours"] for one in said("palette", *flipped, colours=None)]
    assert set(counts) <= set(range(1, 8))
    assert len(set(counts)) > 1


# Faces


def test_yunet_finds_the_face_of_the_astronaut_where_it_is() -> None:
    model = weights("yunet_n_dynamic.onnx")
    [astronaut, coffee] = (said("faces", image, weights=model)[0] for image in (data.astronaut(), data.coffee()))
    assert (coffee["faces"], coffee["faces_count"], coffee["faces_score"]) == ([], 0, None)
    [face] = astronaut["faces"]
    assert face["score"] == astronaut["faces_score"] > 0.9
    # by eye in the 512 x 512 image: the face reaches from about (177, 65) to (270, 176)
    assert np.allclose(np.array([face[side] for side in ("x0", "y0", "x1", "y1")]) * 512, [177, 65, 270, 176], atol=12)


def test_a_face_does_not_depend_on_the_size_of_the_ground_or_on_neighbours() -> None:
    model, image = weights("yunet_n_dynamic.onnx"), data.astronaut()
    [odd] = said("faces", np.ascontiguousarray(image[:301, :333]), weights=model)[0]["faces"]
    [whole] = said("faces", image, weights=model)[0]["faces"]
    assert np.allclose([odd["x0"] * 333, odd["y0"] * 301], [whole["x0"] * 512, whole["y0"] * 512], atol=6)
    both = said("faces", np.ascontiguousarray(image[::-1]), image, weights=model)
    assert both[1]["faces"] == [whole]


# Models of LiteRT


def needs_litert() -> None:
    if importlib.util.find_spec("ai_edge_litert") is None:
        pytest.skip("LiteRT is not installed: pip install ai-edge-litert")


def test_without_litert_the_error_says_how_to_get_it() -> None:
    path = weights("deeplabv3_mnv2_pascal_quant.tflite")
    if importlib.util.find_spec("ai_edge_litert") is not None:
        pytest.skip("LiteRT is installed here")
    with pytest.raises(CurateError, match=r"curate-tokens\[litert\]"):
        registry.build(SignalUse(name="classes", source=path)).load()


def test_deeplab_sees_a_cat_and_a_person() -> None:
    needs_litert()
    options = {"source": weights("deeplabv3_mnv2_pascal_quant.tflite")}
    names = loaded("classes", **options).classes  # type: ignore[attr-defined]
    for image, name in ((data.chelsea(), "cat"), (data.astronaut(), "person")):
        [sample] = said("classes", image, **options)
        [classes] = unpacked(sample["classes"])
        assert classes.shape == image.shape[:2]
        assert (classes == names.index(name)).mean() > 0.2
        assert sample["classes_count"] == len(np.unique(classes))


def test_movenet_puts_the_nose_into_the_face_of_the_astronaut() -> None:
    needs_litert()
    [sample] = said("poses", data.astronaut(), weights=weights("movenet_single_pose_lightning_ptq.tflite"))
    [person] = sample["poses"]
    nose = person[0]
    assert (nose["name"], sample["poses_count"]) == ("nose", 1)
    assert 177 < nose["x"] * 512 < 270
    assert 65 < nose["y"] * 512 < 176
    assert nose["score"] > 0.3


# Models of transformers, of real architectures with seeded random weights


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    ensure_torchvision()
    from transformers import (
        DPTConfig,
        DPTForDepthEstimation,
        DPTImageProcessor,
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessor,
        YolosConfig,
        YolosForObjectDetection,
        YolosImageProcessor,
    )

    torch.manual_seed(0)
    small: dict[str, Any] = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "num_hidden_layers": 2,
    }
    dpt = DPTConfig(
        **(small | {"num_hidden_layers": 4}),
        image_size=64,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
    )
    segformer = SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1] * 4, decoder_hidden_size=8, num_labels=5
    )
    yolos = YolosConfig(**small, image_size=[64, 64], num_detection_tokens=6, num_labels=3)
    side = {"height": 64, "width": 64}
    made: dict[str, tuple[Any, Any]] = {
        "depth": (DPTForDepthEstimation(dpt), DPTImageProcessor(size=side)),
        "segmentation": (SegformerForSemanticSegmentation(segformer), SegformerImageProcessor(size=side)),
        "boxes": (YolosForObjectDetection(yolos), YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})),
    }
    out = {}
    for name, (net, processor) in made.items():
        folder = tmp_path_factory.mktemp(name)
        net.save_pretrained(folder)
        processor.save_pretrained(folder)
        out[name] = str(folder)
    return out


def test_a_depth_model_gives_a_map_of_the_size_of_the_frame(models: dict[str, str], photographs: Images) -> None:
    samples = said("depth", *photographs, source=models["depth"])
    maps = [unpacked(sample["depth"]) for sample in samples]
    assert [(m.shape, m.dtype) for m in maps] == [((1, 256, 256), np.float32)] * 3
    assert samples[0]["depth_range"] == np.ptp(maps[0]) > 0
    [metric] = said("depth", photographs[1], source=models["depth"], direction="distance")
    assert np.array_equal(unpacked(metric["depth"]), -maps[1]), "alone as among neighbours, and away is low"


def test_a_segmentation_model_gives_classes(models: dict[str, str], photographs: Images) -> None:
    samples = said("classes", *photographs, source=models["segmentation"])
    maps = [unpacked(sample["classes"]) for sample in samples]
    assert [(m.shape, m.dtype) for m in maps] == [((1, 256, 256), np.uint8)] * 3
    assert len(loaded("classes", source=models["segmentation"]).classes) == 5  # type: ignore[attr-defined]
    assert max(int(m.max()) for m in maps) < 5
    assert [sample["classes_count"] for sample in samples] == [len(np.unique(m)) for m in maps]


def test_a_detector_gives_boxes_inside_the_image_best_first(models: dict[str, str], photographs: Images) -> None:
    for sample in said("boxes", *photographs, source=models["boxes"], score=0.0):
        scores = [box["score"] for box in sample["boxes"]]
        assert sample["boxes_count"] == len(scores) > 0
        assert scores == sorted(scores, reverse=True)
        assert sample["boxes_score"] == scores[0]
        assert all(0 <= box[side] <= 1 for box in sample["boxes"] for side in ("x0", "y0", "x1", "y1"))
    assert said("boxes", photographs[0], source=models["boxes"], score=1.0)[0]["boxes"] == []
    with pytest.raises(CurateError, match="has no classes unicorn"):
        registry.build(SignalUse(name="boxes", source=models["boxes"], names=["unicorn"])).load()


def test_other_weights_are_another_version(models: dict[str, str], tmp_path: Path) -> None:
    one, other = (registry.build(SignalUse(name="depth", source=models[n])).version() for n in ("depth", "boxes"))
    assert one != other
    assert one == loaded("depth", source=models["depth"]).version()
    with pytest.raises(CurateError, match="do not exist"):
        registry.build(SignalUse(name="depth", source=str(tmp_path / "gone"))).version()


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    for name in ("depth", "masks"):
        with pytest.raises(CurateError, match="no weights"):
            registry.build(SignalUse(name=name, source=str(tmp_path))).load()


# SAM


IMAGE = np.ascontiguousarray(data.astronaut()[:224, 100:324])


def test_sam_finds_masks_and_those_at_each_point_are_the_label(sam: str) -> None:
    [sample] = said("masks", IMAGE, source=sam, grid=4, iou=-10.0, stability=0.0)
    assert tuple((point["x"], point["y"]) for point in sample["masks"]) == points_of(IMAGE, 7)
    assert sample["masks_count"] > 0  # with random weights masks are shapeless, but there are some
    for point in sample["masks"]:
        masks = unpacked(point["masks"])
        assert masks.shape[1:] == (224, 224)
        assert masks[:, point["y"], point["x"]].all()
        sizes = masks.sum((1, 2)).tolist()
        assert sizes == sorted(sizes, reverse=True)
    assert said("masks", IMAGE, source=sam, grid=4, iou=-10.0, stability=0.0) == [sample]


def test_where_sam_is_sure_of_nothing_every_point_has_none(sam: str) -> None:
    [sample] = said("masks", IMAGE, source=sam, grid=2, iou=10.0)
    assert [len(unpacked(point["masks"])) for point in sample["masks"]] == [0] * 7
    assert sample["masks_count"] == 0


def test_points_follow_from_the_image_and_lie_in_it() -> None:
    wide = np.zeros((3, 200, 3), np.uint8)
    points = points_of(wide, 50)
    assert points == points_of(wide.copy(), 50)
    assert points != points_of(wide + 1, 50)
    assert all(0 <= x < 200 and 0 <= y < 3 for x, y in points)
    assert max(x for x, _ in points) > 100


def test_masks_that_4m_leaves_out_are_left_out() -> None:
    line, empty = np.zeros((224, 224), np.bool_), np.zeros((224, 224), np.bool_)
    line[100, 20:200] = True
    assert box_share(line) == box_share(empty) == 0
    disc = np.add.outer((np.arange(224) - 90) ** 2, (np.arange(224) - 100) ** 2) <= 4
    assert box_share(disc) == 16 / 224**2 < 0.0005  # 5 pixels a side, 4 from first to last
    assert box_share(np.ones((224, 224), np.bool_)) == (223 / 224) ** 2

"""Instances and bodies: labels with masks and poses that have codes of their own, as 4M's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from skimage import data

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers import zoo
from curate.tokenizers.codecs.mask_vq import HELD_OUT, MaskVQ, fit_masks, mean_iou, regions
from curate.tokenizers.labels.base import Bodies, Body, Instances
from curate.tokenizers.labels.labelled import Labelled, make_labelled
from curate.tokenizers.labels.parts import BodyWords, InstanceWords, box_of, cut
from curate.tokenizers.labels.sam import TransformersSAM, _share, points_of
from curate.tokenizers.quantisers.pq import fit_product


def disc(side: int, x: int, y: int, radius: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


# Masks


def test_the_mask_tokenizer_of_the_zoo_keeps_outlines_of_other_pictures() -> None:
    codec: Any = zoo.load("mask-vq-1k")
    assert mean_iou(codec, list(regions(HELD_OUT[1:]))[::5]) > 0.8
    (ids,) = codec.encode([cut(disc(224, 100, 90, 40), (60, 50, 140, 130))])
    assert ids.shape == (4, 4)
    assert ids.dtype == np.uint16
    again = codec.encode([(codec.decode([ids])[0] >= 0.5).astype(np.float32)])[0]
    assert (again == ids).mean() > 0.6  # a pattern is a mean of patches, and its outline may be nearer to another


def test_what_is_no_mask_is_refused() -> None:
    codec = zoo.load("mask-vq-1k")
    for wrong in (np.zeros((64, 64), np.float32), np.zeros((64, 64, 1), np.uint8), np.full((64, 64, 1), 0.5, "f4")):
        with pytest.raises(ValueError, match="mask-vq-1k expects"):
            codec.encode([wrong])


def test_a_codebook_is_fitted_and_other_weights_are_noticed(tmp_path: Path) -> None:
    masks = list(regions(["coins"]))
    (quality,) = fit_masks(masks, masks[::7], tmp_path / "masks").quality
    assert (quality.items, quality.ids_per_item) == (len(masks[::7]), 16)
    assert (quality.iou or 0) > 0.8
    assert MaskVQ.load(tmp_path / "masks").card.grid == (4, 4)
    (tmp_path / "masks" / "weights.safetensors").write_bytes(
        (zoo.folder("mask-vq-1k") / "weights.safetensors").read_bytes()
    )
    with pytest.raises(CurateError, match="not those of its card"):
        MaskVQ.load(tmp_path / "masks")


@given(st.integers(30, 190), st.integers(30, 190), st.integers(8, 28))
@settings(deadline=None, max_examples=30)
def test_instances_come_back_within_a_pixel_and_the_codes_precision(x: int, y: int, radius: int) -> None:
    writer = InstanceWords(zoo.load("mask-vq-1k"), 224)
    mask = disc(224, x, y, radius)
    words = writer.write(Instances(((x, y), (0, 0)), ((mask,), ())))
    assert words.startswith(f"point v0={y} v1={x} polygon v0={x - radius} v1={y - radius} v2={x + radius}")
    assert words.endswith("point v0=0 v1=0 none")
    back = writer.read(words)
    assert back.points == ((x, y), (0, 0))
    assert [len(found) for found in back.masks] == [1, 0]
    assert iou(back.masks[0][0], mask) > 0.8
    assert box_of(mask) == (x - radius, y - radius, x + radius, y + radius)


# SAM


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> str:
    """SAM's real classes with few channels and seeded weights, in a folder as published."""
    from curate.models.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    from transformers import SamConfig, SamImageProcessor, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig
    from transformers.models.sam.configuration_sam import SamVisionConfig

    vision = SamVisionConfig(
        hidden_size=16, output_channels=16, num_hidden_layers=1, num_attention_heads=2, image_size=64, patch_size=8,
        window_size=4, global_attn_indexes=[0], mlp_dim=16, num_pos_feats=8,
    )  # fmt: skip
    prompt = SamPromptEncoderConfig(hidden_size=16, image_size=64, patch_size=8, mask_input_channels=4)
    decoder = SamMaskDecoderConfig(
        hidden_size=16, mlp_dim=16, num_hidden_layers=1, num_attention_heads=2, iou_head_hidden_dim=16
    )
    torch.manual_seed(0)
    model = SamModel(SamConfig(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder))
    folder = tmp_path_factory.mktemp("sam")
    model.save_pretrained(folder)
    SamImageProcessor(
        size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}, mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


PICTURE = np.ascontiguousarray(data.astronaut()[:224, 100:324])


def test_sam_finds_masks_and_those_at_each_point_are_the_label(sam: str) -> None:
    labeler = TransformersSAM(sam, grid=4, iou=-10.0, stability=0.0)
    (label,) = labeler(PICTURE[None])
    assert label.points == points_of(PICTURE, 7)
    assert any(label.masks)  # with random weights masks are shapeless, but there are some
    for (x, y), found in zip(label.points, label.masks, strict=True):
        assert all(m.shape == (224, 224) and m[y, x] for m in found)
        sizes = [int(m.sum()) for m in found]
        assert sizes == sorted(sizes, reverse=True)
    (again,) = labeler(PICTURE[None])
    assert again.points == label.points
    for one, two in zip(label.masks, again.masks, strict=True):
        np.testing.assert_array_equal(one, two)


def test_where_sam_is_sure_of_nothing_every_point_has_none(sam: str) -> None:
    (label,) = TransformersSAM(sam, grid=2, iou=10.0)(PICTURE[None])
    assert label.masks == ((),) * 7


def test_points_follow_from_the_picture_and_lie_in_it() -> None:
    wide = np.zeros((3, 200, 3), np.uint8)
    points = points_of(wide, 50)
    assert points == points_of(wide.copy(), 50)
    assert points != points_of(wide + 1, 50)
    assert all(0 <= x < 200 and 0 <= y < 3 for x, y in points)
    assert max(x for x, _ in points) > 100


def test_a_stream_of_instances_end_to_end(sam: str, tmp_path: Path) -> None:
    options = {"source": sam, "grid": 4, "iou": -10.0, "stability": 0.0}
    card = make_labelled(tmp_path / "sam", "transformers-sam", options, "sam_instance", parts="mask-vq-1k")
    assert card.input_size == 224
    assert card.vocabulary == 4292  # of the closed vocabulary
    tokenizer = Labelled.load(tmp_path / "sam")
    item = {"frames": PICTURE}
    (ids,) = tokenizer.encode([item])
    (back,) = tokenizer.decode([ids])
    (label,) = tokenizer.label(item)
    assert back.points == label.points
    assert [len(m) for m in back.masks] == [len(m) for m in label.masks]


def test_instances_without_a_tokenizer_of_masks_or_with_another_are_refused(sam: str, tmp_path: Path) -> None:
    options = {"source": sam, "grid": 2, "iou": 10.0}
    with pytest.raises(CurateError, match="needs a tokenizer of its parts"):
        make_labelled(tmp_path / "a", "transformers-sam", options, "sam_instance")
    with pytest.raises(CurateError, match=r"image-fsq-64k cannot tokenize masks"):
        make_labelled(tmp_path / "b", "transformers-sam", options, "sam_instance", parts="image-fsq-64k")
    with pytest.raises(CurateError, match="Palette has no parts"):
        make_labelled(tmp_path / "c", "palette", {}, "color_palette", parts="mask-vq-1k")


def test_a_folder_that_is_no_sam_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CurateError, match="safetensors"):
        TransformersSAM(str(tmp_path))


# Bodies


def rotations(seed: int, count: int) -> NDArray[np.float32]:
    """Poses `(count, 207)`: each joint turned by up to about 30 degrees."""
    turns = Rotation.from_rotvec(np.random.default_rng(seed).normal(0, 0.2, (count * 23, 3)))
    return turns.as_matrix().reshape(count, 207).astype(np.float32)


POSE_CODEC = '''
from pathlib import Path
import numpy as np
from curate.schema.codec import CodecCard
from curate.tokenizers.quantisers.pq import codebooks_from_bytes, product_ids, product_vectors

class PoseCodec:
    """207 values, and one more for eight equal parts, by product quantisation."""

    def __init__(self):
        folder = Path(__file__).parent / "poses"
        self.card = CodecCard.model_validate_json((folder / "card.json").read_bytes())
        self._books = codebooks_from_bytes((folder / "weights.safetensors").read_bytes())

    def encode(self, items):
        return [product_ids(np.append(x, np.float32(0)), self._books).astype(np.uint16) for x in items]

    def decode(self, ids, lengths=None):
        return [product_vectors(i, self._books)[:207] for i in ids]
'''

BODY_LABELER = '''
import numpy as np
from curate.tokenizers.labels.base import Bodies, Body

class OnePerson:
    """Stands in the middle of every picture, right arm up, turned half round."""
    name, digest = "one-person", "0" * 64

    def __call__(self, pictures):
        pose = np.tile(np.eye(3, dtype=np.float32), (23, 1, 1))
        pose[16] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
        turned = np.diag([-1.0, 1.0, -1.0]).astype(np.float32)
        body = Body((0.25, 0.1, 0.75, 0.9), pose, turned, np.linspace(-2, 2, 10, dtype=np.float32),
                    np.array([0.9, 0.1, -0.2], np.float32))
        return [Bodies((body,)) for _ in pictures]
'''


@pytest.fixture
def pose_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A codec of poses that is plugged in by its class."""
    from curate.tokenizers.quantisers.pq import codebooks_to_bytes

    arm = np.tile(np.eye(3, dtype=np.float32), (23, 1, 1))
    arm[16] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    poses = np.concatenate([rotations(0, 400), np.tile(arm.reshape(1, 207), (20, 1))])
    books = fit_product(np.pad(poses, ((0, 0), (0, 1))), groups=8, codes=64, seed=0)
    raw = codebooks_to_bytes(books)
    folder = tmp_path / "poses"
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(raw)
    card = CodecCard(
        name="poses", architecture="poses", modality="array", stream="tok_pose", quantiser="pq",
        levels=[64] * 8, index_order="group by group", vocabulary=64, dtype="uint8", grid=(8,), channels=207,
        input="float32 (207,)", chunking="a pose at a time", padding="none", valid_length="all",
        weights_digest=digest(raw), code_version="1", parameters=books.size, trained_on="random poses", licence="none",
    )  # fmt: skip
    (folder / "card.json").write_text(card.model_dump_json())
    (tmp_path / "my_bodies.py").write_text(POSE_CODEC + BODY_LABELER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_bodies:PoseCodec"


def test_bodies_of_a_labeler_of_ones_own_are_the_stream_human_poses(pose_codec: str, tmp_path: Path) -> None:
    make_labelled(tmp_path / "people", "my_bodies:OnePerson", {}, "human_poses", parts=pose_codec)
    tokenizer = Labelled.load(tmp_path / "people")
    item = {"frames": np.zeros((256, 256, 3), np.uint8)}
    (ids,) = tokenizer.encode([item])
    (back,) = tokenizer.decode([ids])
    (label,) = tokenizer.label(item)
    assert isinstance(label, Bodies)
    (true,), (found,) = label.people, back.people
    np.testing.assert_allclose(found.bounds, true.bounds, atol=0.5 / 999 + 1e-6)
    np.testing.assert_allclose(found.orientation, true.orientation, atol=1.01e-3)
    np.testing.assert_allclose(found.betas, true.betas, atol=3.01e-3)
    np.testing.assert_allclose(found.camera, true.camera, atol=1.01e-2)
    np.testing.assert_allclose(found.pose[16], true.pose[16], atol=0.15)  # the arm that is up: the codes' precision
    assert ids.size <= 39 + 2


def test_no_people_are_one_word(pose_codec: str) -> None:
    writer = BodyWords(zoo.load(pose_codec))
    assert writer.write(Bodies(())) == "none"
    assert writer.read("none") == Bodies(())
    eye = np.eye(3, dtype=np.float32)
    wrong = Bodies((Body((0, 0, 1, 1), eye, eye, np.zeros(10, np.float32), np.zeros(3, np.float32)),))
    with pytest.raises(ValueError, match=r"rotations \(23, 3, 3\)"):
        writer.write(wrong)


def test_product_codes_of_poses_are_near(pose_codec: str) -> None:
    codec = zoo.load(pose_codec)
    poses = rotations(1, 50)
    back = np.stack(codec.decode(codec.encode(list(poses))))
    assert np.sqrt(np.square(back - poses).mean()) < 0.85 * np.sqrt(np.square(poses - poses.mean(0)).mean())


# Parts and devices


class FewCodes:
    """A tokenizer of masks with a codebook smaller than the words have room for."""

    def __init__(self, like: CodecCard) -> None:
        self.card = like.model_copy(update={"name": "few", "vocabulary": 64, "dtype": "uint8", "levels": [64]})

    def encode(self, items: Any) -> list[NDArray[np.generic]]:
        return [np.full((4, 4), 63, np.uint8) for _ in items]

    def decode(self, ids: Any, lengths: Any = None) -> list[Any]:
        return [np.ones((64, 64, 1), np.float32) for _ in ids]


def test_codes_of_another_tokenizer_are_refused() -> None:
    masks: Any = zoo.load("mask-vq-1k")
    label = Instances(((100, 90),), ((disc(224, 100, 90, 40),),))
    few = InstanceWords(FewCodes(masks.card), 224)
    assert few.read(few.write(label)).points == label.points
    with pytest.raises(ValueError, match=r"is not of few, which has 64"):
        few.read(InstanceWords(masks, 224).write(label))


WHERE = '''
from curate.tokenizers.labels.base import Palette

class Where:
    """Says the device that it was made for."""
    name, digest = "where", "0" * 64

    def __init__(self, device="cpu"):
        self.device = device

    def __call__(self, pictures):
        return [Palette(((0, 0, 0) if self.device == "cpu" else (9, 9, 9),)) for _ in pictures]
'''


def test_the_device_reaches_the_labeler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_where.py").write_text(WHERE)
    monkeypatch.syspath_prepend(str(tmp_path))
    make_labelled(tmp_path / "w", "my_where:Where", {}, "color_palette")
    item = np.zeros((8, 8, 3), np.uint8)
    assert Labelled.load(tmp_path / "w").label({"frames": item})[0].colours == ((0, 0, 0),)  # type: ignore[union-attr]
    other = Labelled.load(tmp_path / "w", device="meta").label({"frames": item})
    assert other[0].colours == ((9, 9, 9),)  # type: ignore[union-attr]


def test_masks_that_4m_leaves_out_are_left_out() -> None:
    line, empty = np.zeros((224, 224), np.bool_), np.zeros((224, 224), np.bool_)
    line[100, 20:200] = True
    assert _share(line) == _share(empty) == 0
    assert _share(disc(224, 100, 90, 2)) == 16 / 224**2 < 0.0005  # 5 pixels a side, 4 from first to last
    assert _share(np.ones((224, 224), np.bool_)) == (223 / 224) ** 2

"""Instances and bodies: labels with masks and poses that have codes of their own, as 4M's words."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from skimage import data

from curate.exports.fourm.labels import BodyWords, InstanceWords, LabelWords, PointWords
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.signals.labels import packed, unpacked
from curate.tokenizers import zoo
from curate.tokenizers.codecs.mask_vq import MaskVQ, box_of, cut
from curate.tokenizers.labels import label_of, make_labels
from curate.tokenizers.quantisers.pq import fit_product
from curate.tokenizers.views import frames_of
from curate.training.masks import HELD_OUT, fit_masks, mean_iou, regions


def disc(side: int, x: int, y: int, radius: int) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[:side, :side]
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 <= radius**2)


def instance(x: int, y: int, *masks: NDArray[np.bool_]) -> dict[str, Any]:
    """A point of 224 x 224 pixels and the masks that contain it, as the field has it."""
    return {"x": x, "y": y, "masks": packed(np.stack(masks) if masks else np.zeros((0, 224, 224), np.bool_))}


def said(tokenizer: LabelWords, image: NDArray[np.uint8], text: str | None = None, size: Any = (None, None)) -> Any:
    """What the tokenizer's signal says of an image."""
    signal = tokenizer.signal(frames_of(tokenizer.card))
    signal.load()
    return label_of(signal, image[None], text, size)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / (a | b).sum())


# Masks


def test_the_mask_tokenizer_of_the_zoo_keeps_outlines_of_other_images() -> None:
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
    words = writer.write([instance(x, y, mask), instance(0, 0)])
    assert words.startswith(f"point v0={y} v1={x} polygon v0={x - radius} v1={y - radius} v2={x + radius}")
    assert words.endswith("point v0=0 v1=0 none")
    back = writer.read(words)
    assert [(point["x"], point["y"]) for point in back] == [(x, y), (0, 0)]
    first, second = (unpacked(point["masks"]) for point in back)
    assert (len(first), len(second)) == (1, 0)
    assert iou(first[0], mask) > 0.8
    assert box_of(mask) == (x - radius, y - radius, x + radius, y + radius)


# SAM


IMAGE = np.ascontiguousarray(data.astronaut()[:224, 100:324])


def test_a_stream_of_instances_end_to_end(sam: str, tmp_path: Path) -> None:
    options = {"source": sam, "grid": 4, "iou": -10.0, "stability": 0.0}
    card = make_labels(tmp_path / "sam", "masks", options, "sam_instance", parts="mask-vq-1k")
    assert card.input_size == 224
    assert card.vocabulary == 4292  # of the closed vocabulary
    tokenizer = LabelWords.load(tmp_path / "sam")
    label = said(tokenizer, IMAGE)
    (back,) = tokenizer.decode(tokenizer.encode([label]))
    assert [(p["x"], p["y"]) for p in back] == [(p["x"], p["y"]) for p in label]
    assert [p["masks"]["shape"][0] for p in back] == [p["masks"]["shape"][0] for p in label]


def test_instances_without_a_tokenizer_of_masks_or_with_another_are_refused(sam: str, tmp_path: Path) -> None:
    options = {"source": sam, "grid": 2, "iou": 10.0}
    with pytest.raises(CurateError, match="needs a tokenizer of its parts"):
        make_labels(tmp_path / "a", "masks", options, "sam_instance")
    with pytest.raises(CurateError, match=r"image-fsq-64k cannot tokenize masks"):
        make_labels(tmp_path / "b", "masks", options, "sam_instance", parts="image-fsq-64k")
    with pytest.raises(CurateError, match="palette has no parts"):
        make_labels(tmp_path / "c", "palette", {}, "color_palette", parts="mask-vq-1k")


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

BODY_SIGNAL = '''
import numpy as np
from curate.signals.labels import LabelSignal, label_field, number

class OnePerson(LabelSignal):
    """Stands in the middle of every image, right arm up, turned half round."""

    name = "one-person"
    kind = "bodies"
    gives = (label_field("one-person", "bodies", "A body."), number("one-person_count", "count", None, "One."))

    def of(self, frames, batch, i):
        pose = np.tile(np.eye(3, dtype=np.float32), (23, 1, 1))
        pose[16] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
        body = {"x0": 0.25, "y0": 0.1, "x1": 0.75, "y1": 0.9, "pose": pose.ravel().tolist(),
                "orientation": [-1.0, 0, 0, 0, 1.0, 0, 0, 0, -1.0], "betas": np.linspace(-2, 2, 10).tolist(),
                "camera": [0.9, 0.1, -0.2]}
        return {"one-person": [body], "one-person_count": 1}
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
    (tmp_path / "my_bodies.py").write_text(POSE_CODEC + BODY_SIGNAL)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "my_bodies:PoseCodec"


def test_bodies_of_a_signal_of_ones_own_are_the_stream_human_poses(pose_codec: str, tmp_path: Path) -> None:
    make_labels(tmp_path / "people", "my_bodies:OnePerson", {}, "human_poses", parts=pose_codec)
    tokenizer = LabelWords.load(tmp_path / "people")
    (true,) = label = said(tokenizer, np.zeros((256, 256, 3), np.uint8))
    (ids,) = tokenizer.encode([label])
    ((found,),) = tokenizer.decode([ids])
    for side in ("x0", "y0", "x1", "y1"):
        assert found[side] == pytest.approx(true[side], abs=0.5 / 999 + 1e-6)
    np.testing.assert_allclose(found["orientation"], true["orientation"], atol=1.01e-3)
    np.testing.assert_allclose(found["betas"], true["betas"], atol=3.01e-3)
    np.testing.assert_allclose(found["camera"], true["camera"], atol=1.01e-2)
    # the arm that is up: the codes' precision
    np.testing.assert_allclose(found["pose"][16 * 9 : 17 * 9], true["pose"][16 * 9 : 17 * 9], atol=0.15)
    assert ids.size <= 39 + 2


def test_no_people_are_one_word(pose_codec: str) -> None:
    writer = BodyWords(zoo.load(pose_codec))
    assert writer.write([]) == "none"
    assert writer.read("none") == []
    box = dict.fromkeys(("x0", "y0"), 0.0) | dict.fromkeys(("x1", "y1"), 1.0)
    wrong = box | {"pose": [0.0] * 9, "orientation": [0.0] * 9, "betas": [0.0] * 10, "camera": [0.0] * 3}
    with pytest.raises(ValueError, match="expected 207 and 9 values"):
        writer.write([wrong])


def test_product_codes_of_poses_are_near(pose_codec: str) -> None:
    codec = zoo.load(pose_codec)
    poses = rotations(1, 50)
    back = np.stack(codec.decode(codec.encode(list(poses))))
    assert np.sqrt(np.square(back - poses).mean()) < 0.85 * np.sqrt(np.square(poses - poses.mean(0)).mean())


# Parts


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
    label = [instance(100, 90, disc(224, 100, 90, 40))]
    few = InstanceWords(FewCodes(masks.card), 224)
    assert (few.read(few.write(label))[0]["x"], few.read(few.write(label))[0]["y"]) == (100, 90)
    with pytest.raises(ValueError, match=r"is not of few, which has 64"):
        few.read(InstanceWords(masks, 224).write(label))


# Points


@given(st.lists(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 3), min_size=2, max_size=2), max_size=3))
def test_key_points_come_back_within_half_a_bin(people: list[list[tuple[float, float, float]]]) -> None:
    names = ("nose", "tail")
    label = [
        [{"name": n, "x": x, "y": y, "score": s} for n, (x, y, s) in zip(names, one, strict=True)] for one in people
    ]
    writer = PointWords(names)
    back = writer.read(writer.write(label))
    assert len(back) == len(label)
    for given_point, found in zip(chain(*label), chain(*back), strict=True):
        assert (found["score"] == 1) == (given_point["score"] >= writer.score)
        if found["score"]:
            assert all(abs(found[axis] - given_point[axis]) <= 0.5 / 999 + 1e-6 for axis in ("x", "y"))
    with pytest.raises(ValueError, match="expected the 2 points"):
        writer.write([[{"name": "tail", "x": 0, "y": 0, "score": 1}]])


# Whole tokenizers of words


def test_the_palette_of_a_photograph_comes_back_exactly() -> None:
    tokenizer = LabelWords.load(zoo.folder("color-palette"))
    label = said(tokenizer, IMAGE)
    (ids,) = tokenizer.encode([label])
    assert ids.shape == (22,)  # the count, and three words a colour
    assert tokenizer.decode([ids]) == [label]
    assert tokenizer.lossless(label, ids)


def test_metadata_of_a_photograph_comes_back_in_its_bins() -> None:
    tokenizer = LabelWords.load(zoo.folder("metadata"))
    label = said(tokenizer, IMAGE, "A woman in orange. She smiles.", (512, 512))
    (words,) = tokenizer.decode(tokenizer.encode([label]))
    truth, back = ({one["name"]: one["value"] for one in some} for some in (label, words))
    assert back.keys() == truth.keys()
    assert back["caption_n_words"] == 6
    widths = {"colorfulness": 150, "brightness": 255, "contrast": 127, "saturation": 255, "entropy": 10}
    for name, value in truth.items():
        if name.startswith("caption"):
            assert back[name] == value
        else:
            assert abs(back[name] - value) <= (widths[name] / 98 + 1e-9 if name in widths else 16)
    assert len(tokenizer.encode([said(tokenizer, IMAGE)])[0]) == 2 * 5, "what is not known is not said"


def test_a_label_of_another_kind_is_refused() -> None:
    palette, metadata = (LabelWords.load(zoo.folder(name)) for name in ("color-palette", "metadata"))
    for wrong in (said(palette, IMAGE), None, 7):
        with pytest.raises(ValueError, match="metadata expects a label of metadata"):
            metadata.encode([wrong])

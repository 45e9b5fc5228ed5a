"""Tokenizers of labels: what maps and lists become, and that their ids are what they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import torch
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from scipy.ndimage import maximum_filter
from skimage import data

from curate.media.guarded import decode, probe
from curate.media.requests import Frames
from curate.schema.codec import Preprocessing
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.signals.base import Batch
from curate.signals.boxes import box, box_fields, box_values
from curate.signals.labels import NOTHING, LabelSignal, MapOptions, label_field, number, packed, unpacked
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.fourm_vq import FourMVQ
from curate.tokenizers.codecs.label_maps import (
    ClassArray,
    ClassImage,
    DepthArray,
    DepthImage,
    EdgeArray,
    EdgeImage,
    NormalImage,
    array_writer,
    class_colours,
)
from curate.tokenizers.evaluate import evaluate_folder
from curate.tokenizers.labels import LabelTokenizer, label_of, make_labels
from curate.tokenizers.views import frames_of, view_of

Images = NDArray[np.uint8]


def crop(image: Images, top: int, left: int, size: int = 256) -> Images:
    return np.ascontiguousarray(image[top : top + size, left : left + size])


@pytest.fixture(scope="module")
def photographs() -> Images:
    """The astronaut's face, a cat, and a cup of coffee, 256 x 256."""
    return np.stack([crop(data.astronaut(), 0, 100), crop(data.chelsea(), 20, 80), crop(data.coffee(), 60, 180)])


def loaded(folder: Path) -> LabelTokenizer:
    found = zoo.load(str(folder))
    assert isinstance(found, Tokenizer)
    assert isinstance(found, LabelTokenizer)
    return found


def label(
    tokenizer: LabelTokenizer, frames: Images, text: str | None = None, size: tuple[Any, Any] = (None, None)
) -> Any:
    """What the tokenizer's signal says of frames `(N, H, W, 3)`."""
    signal = tokenizer.signal(frames_of(tokenizer.card))
    signal.load()
    return label_of(signal, frames, text, size)


# Ids are those of the tokenizers that looked at pixels themselves

GOLDEN = {
    ("canny-edge", "china.jpg"): "cc9c5a7f08eaedcb",
    ("canny-edge", "chelsea.png"): "67ac55185888082a",
    ("color-palette", "china.jpg"): "b9a99125ee985e0b",
    ("color-palette", "chelsea.png"): "3e2532bb5e7df903",
    ("metadata", "china.jpg"): "940cb0e7ab8407d7",
    ("metadata", "chelsea.png"): "8a2e75d72e002355",
}
"""BLAKE3 of the ids' bytes, by tokenizer of the zoo and photograph with the caption below."""


PHOTOGRAPHS = {
    "china.jpg": Path(sklearn.__file__).parent / "datasets" / "images",
    "chelsea.png": Path(data.__file__).parent,
}


@pytest.mark.parametrize(("name", "media"), GOLDEN)
def test_ids_of_photographs(name: str, media: str) -> None:
    torch.set_num_threads(1)
    raw = (PHOTOGRAPHS[media] / media).read_bytes()
    tokenizer, facts = loaded(zoo.folder(name)), probe(raw)
    view = frames_of(tokenizer.card)
    frames = decode(raw, "image", [view]).views[view].astype(np.uint8)
    [ids] = tokenizer.encode([label(tokenizer, frames, "A sunny day. Two of them!", (facts.width, facts.height))])
    assert blake3(ids.tobytes()).hexdigest()[:16] == GOLDEN[name, media]


# Maps as images


def test_edges_and_classes_come_back_exactly_from_their_images(photographs: Images) -> None:
    edges = photographs[0].mean(-1) > 128
    assert np.array_equal(EdgeImage().read(EdgeImage().write(edges)), edges)
    classes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    writer = ClassImage(tuple(f"class {i}" for i in range(256)))
    assert np.array_equal(writer.read(writer.write(classes)), classes)


def test_class_colours_are_pascals() -> None:
    # the devkit's map: background, aeroplane, bicycle, bird, ..., person, tvmonitor
    colours = class_colours(21).tolist()
    assert colours[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert (colours[15], colours[20]) == ([192, 128, 128], [0, 64, 128])


def test_depth_comes_back_standardised_whatever_its_unit() -> None:
    depth = np.linspace(1, 2, 4096, dtype=np.float32).reshape(64, 64)
    writer = DepthImage()
    image = writer.write(depth)
    assert np.array_equal(writer.write(depth * 50 + 7), image)
    back = writer.read(image)
    inside = np.sort(depth.ravel())[409:-409]
    truth = np.clip((depth - inside.mean()) / inside.std(), -3, 3)
    assert np.abs(back - truth).max() <= 3 / 255 + 1e-4


def test_normals_come_back_within_one_step() -> None:
    rng = np.random.default_rng(0)
    normals = rng.normal(size=(32, 32, 3)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    back = NormalImage().read(NormalImage().write(normals))
    assert np.abs(back - normals).max() < 2 / 255
    assert np.allclose(np.linalg.norm(back, axis=-1), 1, atol=1e-6)


# Whole tokenizers


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labelled")


def test_edges_of_photographs_go_through_our_image_tokenizer(folders: Path, photographs: Images) -> None:
    make_labels(folders / "canny", "edges", {}, "tok_canny_edge@256", "image-fsq-64k")
    tokenizer = loaded(folders / "canny")
    card = tokenizer.card
    assert (card.architecture, card.stream, card.vocabulary) == ("labelled", "tok_canny_edge@256", 64000)
    assert card.needs == ["edges"]
    stacks = [label(tokenizer, photographs[:1]), label(tokenizer, photographs)]
    ids = tokenizer.encode(stacks)
    assert [i.shape for i in ids] == [(1, 32, 32), (3, 32, 32)]
    assert ids[0].dtype == np.uint16
    assert np.array_equal(ids[0][0], ids[1][0])
    edges = unpacked(stacks[1])
    assert np.array_equal(
        ids[1], zoo.load("image-fsq-64k").encode([np.repeat(edges[..., None], 3, -1) * np.uint8(255)])[0]
    )
    alone, three = tokenizer.decode([ids[0][0], ids[1]])
    assert np.array_equal(alone, three[0])
    for found, truth in zip(three, edges, strict=True):
        # It was trained on photographs and thin lines are hard for it: what comes back lies within a pixel of a true
        # edge (measured: 99.95 % and more), but not all does (44 to 55 %).
        assert (found & maximum_filter(truth, 3)).sum() / found.sum() > 0.99
        assert (maximum_filter(found, 3) & truth).sum() / truth.sum() > 0.4


class Ground(LabelSignal):
    """A newcomer's segmentation: three classes by brightness."""

    name = "ground"
    kind = "classes"
    classes = ("dark", "grey", "light")
    gives = (label_field("ground", "classes", "Classes."), number("ground_light", "fraction", 1, "Share of light."))
    Options = MapOptions

    def of(self, frames: Images, batch: Batch, i: int) -> dict[str, Any]:
        classes = (frames.mean(-1) // 86).astype(np.uint8)
        return {"ground": packed(classes), "ground_light": float((classes == 2).mean())}


class Ramp(LabelSignal):
    """A newcomer's depth: the top is far."""

    name = "ramp"
    kind = "depth"
    gives = (label_field("ramp", "depth", "Depth."),)
    Options = MapOptions

    def of(self, frames: Images, batch: Batch, i: int) -> dict[str, Any]:
        rows = np.linspace(-9, -1, frames.shape[1], dtype=np.float32)[None, :, None]
        return {"ramp": packed(np.broadcast_to(rows, frames.shape[:3]).copy())}


class Halves(LabelSignal):
    """A newcomer's detector: everything is in the left half."""

    name = "halves"
    kind = "boxes"
    gives = box_fields("halves", "Halves")

    def of(self, frames: Images, batch: Batch, i: int) -> dict[str, Any]:
        return box_values("halves", [box(0, np.array([0, 0, 0.5, 1]), "dog", 1.0)])


def test_a_signal_of_ones_own_is_named_by_module_and_class(folders: Path, photographs: Images) -> None:
    card = make_labels(folders / "own", f"{__name__}:Halves", {}, "det")
    assert (card.needs, card.architecture, card.batch_invariance) == (["halves"], "4m-labels", 0.0)
    tokenizer = loaded(folders / "own")
    [[found]] = tokenizer.decode(tokenizer.encode([label(tokenizer, photographs[:1])]))
    # round(499.5) is 500, half to even
    assert found == box(0, np.array([0, 0, 500 / 999, 1]), "dog", 1.0)


def test_a_palette_and_metadata_are_of_the_whole_image() -> None:
    """A fifth of it is red, far outside the square that other streams are of."""
    wide = np.zeros((100, 500, 3), np.uint8)
    wide[:, :100], wide[:, 100:] = (255, 0, 0), (0, 0, 255)
    palette = zoo.load("color-palette")
    assert isinstance(palette, LabelTokenizer)
    view = frames_of(palette.card)
    assert (view.crop, view.size) == (False, 256)
    [colours] = palette.decode(palette.encode([label(palette, wide[None])]))
    assert [tuple(c.values()) for c in colours[:2]] == [(0, 0, 255), (255, 0, 0)]


def test_what_does_not_fit_is_refused(photographs: Images, tmp_path: Path) -> None:
    with pytest.raises(CurateError, match="did you mean `edges`"):
        make_labels(tmp_path / "wrong", "edgs", {}, "tok_canny_edge@256", "image-fsq-64k")
    with pytest.raises(CurateError, match="unknown option `hihg`"):
        make_labels(tmp_path / "wrong", "edges", {"hihg": 3}, "tok_canny_edge@256", "image-fsq-64k")
    with pytest.raises(CurateError, match="edges are maps"):
        make_labels(tmp_path / "wrong", "edges", {}, "tok_canny_edge@256")
    with pytest.raises(CurateError, match="the signal `sharpness` gives no label"):
        make_labels(tmp_path / "wrong", "sharpness", {}, "tok_sharpness")
    with pytest.raises(CurateError, match="image-fsq-64k cannot write palette"):
        make_labels(tmp_path / "wrong", "palette", {}, "color_palette", "image-fsq-64k")
    make_labels(tmp_path / "canny", "edges", {}, "tok_canny_edge@256", "image-fsq-64k")
    tokenizer = loaded(tmp_path / "canny")
    maps = np.zeros((1, 256, 256), np.bool_)
    for bad in (maps.astype(np.uint8), maps[:, :100], maps[:0], maps[0]):
        with pytest.raises(ValueError, match="canny expects edges, bool of frames of 256 pixels"):
            tokenizer.encode([packed(bad)])
    for bad in (None, photographs[0], {"shape": [1]}):
        with pytest.raises(ValueError, match="canny expects a label of edges"):
            tokenizer.encode([bad])
    file = tmp_path / "canny" / "labels.json"
    file.write_text(file.read_text().replace("{}", '{"low": 5}'))
    with pytest.raises(CurateError, match="not those of its card"):
        LabelTokenizer.load(tmp_path / "canny")


def test_another_tokenizer_than_the_folder_was_made_with_is_noticed(tmp_path: Path) -> None:
    make_labels(tmp_path / "canny", "edges", {}, "tok_canny_edge@256", "image-fsq-64k")
    file, card = tmp_path / "canny" / "labels.json", tmp_path / "canny" / "card.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"tokenizer_digest": "0" * 64}))
    card.write_text(json.dumps(json.loads(card.read_text()) | {"weights_digest": digest(file.read_bytes())}))
    with pytest.raises(CurateError, match="not the one that it was made with"):
        zoo.load(str(tmp_path / "canny"))


def test_a_folder_of_an_older_version_says_how_to_make_it_again(tmp_path: Path) -> None:
    make_labels(tmp_path / "canny", "edges", {}, "tok_canny_edge@256", "image-fsq-64k")
    file, card = tmp_path / "canny" / "labels.json", tmp_path / "canny" / "card.json"
    file.write_text(json.dumps({"labeler": "canny", "kind": "EdgeMap"}))
    card.write_text(json.dumps(json.loads(card.read_text()) | {"weights_digest": digest(file.read_bytes())}))
    with pytest.raises(CurateError, match="cannot be read") as error:
        zoo.load(str(tmp_path / "canny"))
    assert "curate tokenizers label" in error.value.hint


def test_words_of_the_centre_square_are_refused_beside_other_crops() -> None:
    """Boxes of crop 0 beside the ids of crop 2 would be of another place; words of the whole image go with each."""
    whole = zoo.card("metadata")
    assert view_of(whole) is None, "it reads a field"
    assert frames_of(whole, crops=3) == frames_of(whole)
    centre = whole.model_copy(update={"name": "det", "preprocessing": Preprocessing(resize="short_side")})
    assert frames_of(centre, crops=1) == Frames(whole.input_size or 0)
    with pytest.raises(CurateError, match=r"det writes what lies in the centre square .* crops is 3"):
        frames_of(centre, crops=3)


# 4M's own tokenizers of maps


GOLDEN_DEPTH_OF_4M = [-1.26905, -0.80584, 0.5838, 2.89986]
"""By ml-4m's `truncated_depth_standardization` (cda590f), of the ramp of the test below on its diagonal."""


def test_maps_for_4m_are_what_ml_4m_makes_of_them() -> None:
    away = (np.arange(100, dtype=np.float32) ** 2 / 65535).reshape(10, 10)
    written = DepthArray().write(-away)
    assert (written.shape, written.dtype) == ((10, 10, 1), np.float32)
    assert written[[0, 3, 6, 9], [0, 3, 6, 9], 0] == pytest.approx(GOLDEN_DEPTH_OF_4M, abs=1e-4)
    assert not DepthArray().write(np.full((10, 10), 7, np.float32)).any()

    edges = np.eye(10, dtype=np.bool_)
    assert np.array_equal(EdgeArray().write(edges)[..., 0], 2 * np.eye(10) - 1)
    assert np.array_equal(EdgeArray().read(EdgeArray().write(edges)), edges)

    classes = np.array([[0, 1], [2, NOTHING]], np.uint8)
    writer = ClassArray(("a", "b", "c"))
    assert writer.write(classes).tolist() == [[1, 2], [3, 0]]
    assert np.array_equal(writer.read(np.array([[1, 2], [3, 0]], np.uint8)), classes)
    with pytest.raises(ValueError, match="leave room for none"):
        ClassArray(tuple(map(str, range(255))))


def fourm(tmp_path: Path, domain: str, channels: int, labels: int = 0) -> str:
    """4M's own architecture at 64 pixels with seeded weights, imported as `curate tokenizers import 4m-vq` does."""
    vit = {"width": 64, "blocks": 1, "side": 4, "tanh": True}
    shape = {
        "domain": domain, "channels": channels, "patch": 16, "labels": labels, "codes": 256, "code_width": 8,
        "unit": True, "encoder": vit, "decoder": vit, "out": labels or channels,
    }  # fmt: skip
    torch.manual_seed(3)
    state = {k: torch.randn_like(v) * 0.3 for k, v in FourMVQ.net_of(shape).state_dict().items()}
    hub = tmp_path / f"hub-{domain}"
    hub.mkdir()
    save_file(state, hub / "model.safetensors")
    (hub / "config.json").write_text(json.dumps({"domain": domain}))
    FourMVQ.import_checkpoint(str(hub), tmp_path / domain)
    return str(tmp_path / domain)


@pytest.mark.parametrize(
    ("signal", "domain", "channels", "classes"),
    [
        ("edges", "canny_edge", 1, 0),
        (f"{__name__}:Ramp", "depth", 1, 0),
        (f"{__name__}:Ground", "semseg_coco", 16, 4),
    ],
)
def test_a_label_feeds_4ms_own_tokenizer(
    signal: str, domain: str, channels: int, classes: int, tmp_path: Path, photographs: Images
) -> None:
    inner = fourm(tmp_path, domain, channels, classes)
    card = make_labels(tmp_path / "stream", signal, {}, f"tok_{domain}@64", inner)
    assert (card.modality, card.channels, card.grid, card.input_size) == ("image", 3, (4, 4), 64)
    assert card.preprocessing == Preprocessing(resize="short_side", resample="lanczos", crop="centre")
    assert frames_of(card, crops=2) == Frames(64, crops=2)
    tokenizer = loaded(tmp_path / "stream")
    small = np.ascontiguousarray(photographs[:, ::4, ::4])
    maps = label(tokenizer, small)
    [ids] = tokenizer.encode([maps])
    assert ids.shape == (3, 4, 4)
    writer = array_writer(tokenizer.file.kind, tokenizer.file.classes)
    assert writer is not None
    assert np.array_equal(zoo.load(inner).encode([writer.write(unpacked(maps)[0])])[0], ids[0])
    [back] = tokenizer.decode([ids])
    assert (back.shape, back.dtype) == (unpacked(maps).shape, unpacked(maps).dtype)
    for drawn in (tokenizer.drawn(maps), tokenizer.redrawn(ids)):
        assert (drawn.shape, drawn.dtype) == (small.shape, np.uint8)
    (tmp_path / "media").mkdir()
    Image.fromarray(photographs[0]).save(tmp_path / "media" / "face.png")
    found = evaluate_folder(tokenizer, tmp_path / "media").quality
    assert (found.items, found.ids_per_item) == (1, 16)
    assert found.psnr_db is not None


def test_a_map_of_another_kind_or_with_too_many_classes_is_refused(tmp_path: Path) -> None:
    edges = fourm(tmp_path, "canny_edge", 1)
    with pytest.raises(CurateError, match=r"canny_edge is a tokenizer of edges"):
        make_labels(tmp_path / "a", f"{__name__}:Ramp", {}, "tok_depth@64", edges)
    two = fourm(tmp_path, "semseg_coco", 16, labels=3)
    with pytest.raises(CurateError, match=r"cannot carry classes: .* below 3, got 3"):
        make_labels(tmp_path / "b", f"{__name__}:Ground", {}, "tok_semseg@64", two)
    with pytest.raises(CurateError, match="mask-vq-1k cannot carry edges"):
        make_labels(tmp_path / "c", "edges", {}, "tok_canny_edge@64", "mask-vq-1k")
    assert not (tmp_path / "a").exists()

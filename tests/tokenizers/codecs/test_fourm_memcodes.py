"""4M-21's tokenizers of global features and body poses.

No published weights are needed. Golden ids were made once by ml-4m's own modules (`mlp_models`, `quantize_memcodes`,
@cda590f), put together as its `VQVAE` does, with the weights of `formula` under their own names: so names, order of
layers and the rule for an id are the publisher's.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.fourm_memcodes import FourMMemcodes, MemcodesNet, MemcodesOfImages
from curate.tokenizers.quantisers.memcodes import memcodes_ids, memcodes_vectors

State = dict[str, torch.Tensor]


def formula(name: str, shape: torch.Size) -> torch.Tensor:
    """Weights from the tensor's name alone, scaled so that signals neither vanish nor explode."""
    x = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape)).astype(np.float32)
    x = x / max(1, np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else x * 0.1 + (1 if name.endswith("weight") else 0)
    return torch.from_numpy(x.astype(np.float32))


def mlp(inputs: int, width: int, blocks: int, outputs: int) -> dict[str, int]:
    return {"inputs": inputs, "width": width, "hidden": 4 * width, "blocks": blocks, "outputs": outputs}


def shape_of(values: int, width: int, blocks: int, latent: int, heads: int, codes: int) -> dict[str, Any]:
    """As ml-4m names it: BottleneckMLP/B_`blocks`-Wi_`width` on both sides."""
    return {
        "domain": "",
        "heads": heads,
        "codes": codes,
        "code_width": latent // heads,
        "encoder": mlp(values, width, blocks, width),
        "decoder": mlp(width, width, blocks, values),
    }


SMALL = shape_of(24, 32, 2, 48, 4, 64)
SMALL_GOLDEN = [[60, 55, 16, 7], [38, 55, 34, 61], [15, 13, 62, 10]]
SMALL_BACK = [0.55087, -0.95248, 1.71983, -1.27794, -0.66217, -0.73936]
POSES = shape_of(207, 1024, 6, 1024, 8, 1024)
POSES_GOLDEN = [
    [147, 1013, 1004, 356, 411, 455, 11, 625],
    [242, 255, 117, 331, 930, 517, 1006, 304],
    [52, 289, 157, 825, 439, 938, 948, 10],
]
POSES_BACK = [-1.99032, -1.63055, -0.30788, 1.42681, -1.58267, -0.59003]
DINOV2 = shape_of(768, 1024, 6, 1024, 16, 8192)


def state_of(shape: dict[str, Any]) -> State:
    return {name: formula(name, value.shape) for name, value in FourMMemcodes.net_of(shape).state_dict().items()}


def publish(folder: Path, state: State, config: dict[str, Any] | None = None) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, str(folder / "model.safetensors"))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def vectors(values: int, n: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(3).standard_normal((n, values)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("memcodes")
    hub = publish(root / "hub", state_of(SMALL), {"domain": "DINOv2-B14-global"})
    FourMMemcodes.import_checkpoint(hub, root / "zoo" / "dinov2-global")
    return FourMMemcodes.load(root / "zoo" / "dinov2-global")


def test_ids_and_vectors_are_those_of_the_publishers_modules(small: Any) -> None:
    assert isinstance(small, Tokenizer)
    ids = small.encode([vectors(24)])[0]
    assert (ids.dtype, ids.shape) == (np.uint8, (3, 4))
    assert ids.tolist() == SMALL_GOLDEN
    back = small.decode([ids])[0]
    assert (back.dtype, back.shape) == (np.float32, (3, 24))
    np.testing.assert_allclose(back[0, :6], SMALL_BACK, atol=1e-5)


def test_the_card_says_what_it_is(small: Any) -> None:
    card = small.card
    assert (card.modality, card.stream, card.quantiser) == ("array", "tok_dinov2_global", "pq")
    assert (card.grid, card.levels, card.n_codebooks, card.vocabulary, card.channels) == ((4,), [64] * 4, 4, 64, 24)
    assert (card.input_size, card.batch_invariance) == (None, 0)
    assert card.parameters == 44_744, "of ml-4m's modules"


def test_ids_do_not_depend_on_neighbours(small: Any) -> None:
    every = vectors(24, 9)
    alone = [small.encode([one])[0] for one in every]
    for together in (small.encode(list(every)), small.encode([every])[0], small.encode([every[:4], every[4:]])):
        np.testing.assert_array_equal(np.concatenate([np.reshape(part, (-1, 4)) for part in together]), alone)


def test_encode_decode_and_encode_again(small: Any) -> None:
    """An item comes back in its shape, and the way round is the same each time; weights by formula do not restore."""
    one = vectors(24)[0]
    ids = small.encode([one])
    assert ids[0].shape == (4,)
    back = small.decode(ids)
    assert back[0].shape == (24,)
    np.testing.assert_array_equal(back[0], small.decode([np.stack([ids[0]] * 2)])[0][1])
    np.testing.assert_array_equal(small.encode(back)[0], small.encode(small.decode(ids))[0])
    assert small.encode([np.zeros((0, 24), np.float32)])[0].shape == (0, 4)


def test_the_net_quantises_as_the_specification_says(small: Any) -> None:
    net = small.net
    assert isinstance(net, MemcodesNet)
    codes, to_k, to_v = (
        t.detach().numpy() for t in (net.quantize.codes, net.quantize.to_k.weight, net.quantize.to_v.weight)
    )
    x = torch.from_numpy(vectors(24, 200))
    with torch.inference_mode():
        z = net.quant_proj(net.encoder(x)[:, :, None, None]).flatten(1).numpy()
        ids = net.ids(x).numpy()
        decoded = net.decoder(
            net.post_quant_proj(torch.from_numpy(memcodes_vectors(ids, codes, to_v))[:, :, None, None]).flatten(1)
        )
    np.testing.assert_array_equal(memcodes_ids(z, codes, to_k), ids)
    assert len(np.unique(ids)) > 32, "ids are not a constant"
    np.testing.assert_allclose(np.stack(small.decode(list(ids))), decoded.numpy(), atol=1e-5)


def test_what_is_no_item_is_refused(small: Any) -> None:
    for wrong in (vectors(23), vectors(24).astype(np.float64), vectors(24)[None], [0.0] * 24):
        with pytest.raises(ValueError, match=r"expects float32 \(24,\)"):
            small.encode([wrong])
    with pytest.raises(ValueError, match="finite"):
        small.encode([np.full(24, np.inf, np.float32)])
    with pytest.raises(ValueError, match="0 <= id < 64, got 64"):
        small.decode([np.full(4, 64, np.uint8)])
    with pytest.raises(ValueError, match=r"expects ids \(4,\)"):
        small.decode([np.zeros(5, np.uint8)])


def test_a_wrong_checkpoint_is_told_by_key_and_shape(tmp_path: Path) -> None:
    state, zoo = state_of(SMALL), tmp_path / "zoo"
    for name, changed, said in (
        ("less", {k: v for k, v in state.items() if k != "quantize.to_k.weight"}, r"quantize\.to_k\.weight is missing"),
        ("more", state | {"quantize.extra": torch.zeros(1)}, r"quantize\.extra is not known"),
        (
            "shape",
            state | {"encoder.blocks.1.block.2.weight": torch.zeros(31, 128)},
            r"encoder\.blocks\.1\.block\.2\.weight has shape \[31, 128\], not \[32, 128\]",
        ),
        ("flat", state | {"quantize.codes": torch.zeros(64, 48)}, r"quantize\.codes has shape \[64, 48\], not of 3"),
        ("other", {"encoder.proj.weight": torch.zeros(8, 3, 16, 16)}, r"quantize\.codes is missing"),
    ):
        with pytest.raises(CurateError, match=said):
            FourMMemcodes.import_checkpoint(publish(tmp_path / name, changed), zoo)
    with pytest.raises(CurateError, match="have no size"):
        FourMMemcodes.import_checkpoint(publish(tmp_path / "right", state), zoo, size=224)
    assert not zoo.exists()


def test_without_a_config_the_stream_is_named_by_its_width(tmp_path: Path) -> None:
    assert (
        FourMMemcodes.import_checkpoint(publish(tmp_path / "hub", state_of(SMALL)), tmp_path / "zoo").stream
        == "tok_vector24"
    )
    hub = publish(tmp_path / "pose", state_of(SMALL), {"domain": "human_poses"})
    assert FourMMemcodes.import_checkpoint(hub, tmp_path / "other").stream == "tok_pose"


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    FourMMemcodes.import_checkpoint(publish(tmp_path / "hub", state_of(SMALL)), tmp_path / "zoo")
    weights = tmp_path / "zoo" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(CurateError, match="not those of its card"):
        FourMMemcodes.load(tmp_path / "zoo")


@pytest.mark.parametrize(
    ("shape", "numbers", "some"),
    [
        (
            DINOV2,
            115_042_048,
            {
                "encoder.linear_in.weight": [1024, 768],
                "encoder.blocks.5.block.0.weight": [4096, 1024],
                "encoder.blocks.5.block.2.bias": [1024],
                "encoder.layernorms.5.bias": [1024],
                "quant_proj.weight": [1024, 1024, 1, 1],
                "quantize.codes": [16, 8192, 64],
                "quantize.to_k.weight": [16, 64, 64],
                "quantize.to_v.weight": [16, 64, 64],
                "post_quant_proj.bias": [1024],
                "decoder.linear_out.weight": [768, 1024],
            },
        ),
        (POSES, 106_683_599, {"quantize.codes": [8, 1024, 128], "decoder.linear_out.bias": [207]}),
    ],
    ids=["DINOv2-B14-global_8k_16_224", "human-poses_1k_8"],
)
def test_names_and_shapes_at_full_size_are_the_published_ones(
    shape: dict[str, Any], numbers: int, some: dict[str, list[int]]
) -> None:
    """Counts of tensors and of numbers in them are those of ml-4m's modules."""
    with torch.device("meta"):
        held = FourMMemcodes.net_of(shape).state_dict()
    assert (len(held), sum(value.numel() for value in held.values())) == (87, numbers)
    assert {name: list(held[name].shape) for name in some} == some


@pytest.mark.long
def test_body_poses_at_full_size(tmp_path: Path) -> None:
    hub = publish(tmp_path / "hub", state_of(POSES), {"domain": "human_poses"})
    card = FourMMemcodes.import_checkpoint(hub, tmp_path / "zoo")
    assert (card.grid, card.vocabulary, card.dtype, card.batch_invariance) == ((8,), 1024, "uint16", 0)
    tokenizer = FourMMemcodes.load(tmp_path / "zoo")
    ids = tokenizer.encode([vectors(207)])[0]
    assert ids.tolist() == POSES_GOLDEN
    np.testing.assert_allclose(tokenizer.decode([ids])[0][0, :6], POSES_BACK, atol=1e-4)


# Images


@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], int]:
    """timm's smallest transformer with seeded random weights, and a tokenizer of vectors as long as its features."""
    ensure_torchvision()
    import timm

    root = tmp_path_factory.mktemp("pictures")
    torch.manual_seed(0)
    made = timm.create_model("test_vit", pretrained=False)
    save_file(made.state_dict(), str(root / "encoder.safetensors"))
    publish(root / "hub", state_of(shape_of(made.num_features, 32, 2, 48, 4, 512)), {"domain": "DINOv2-B14-global"})
    spec = {"library": "timm", "model": "test_vit", "kind": "global", "weights": str(root / "encoder.safetensors")}
    return root, spec, made.num_features


def test_images_become_ids_of_their_global_feature(of_images: tuple[Path, dict[str, Any], int]) -> None:
    from curate.models.encoders import encoder_of

    root, spec, width = of_images
    card = MemcodesOfImages.import_checkpoint(str(root / "hub"), root / "zoo", json.dumps(spec))
    tokenizer, encoder = MemcodesOfImages.load(root / "zoo"), encoder_of(spec)
    assert isinstance(tokenizer, Tokenizer)
    assert (card.name, card.modality, card.stream, card.input_size) == ("zoo", "image", "tok_dinov2_global", 160)
    assert (card.grid, card.vocabulary, card.dtype, card.batch_invariance) == ((4,), 512, "uint16", 0)
    assert card.preprocessing is not None
    assert card.preprocessing.mean == list(encoder.mean)
    images = np.random.default_rng(0).integers(0, 256, (3, 160, 160, 3), np.uint8)
    one, three = tokenizer.encode([images[1], images])
    assert (one.shape, three.shape, three.dtype) == ((4,), (3, 4), np.uint16)
    FourMMemcodes.import_checkpoint(str(root / "hub"), root / "vectors")
    np.testing.assert_array_equal(three, FourMMemcodes.load(root / "vectors").encode([encoder(images)])[0])
    np.testing.assert_array_equal(one, three[1])
    assert [v.shape for v in tokenizer.decode([one, three])] == [(width,), (3, width)]
    with pytest.raises(ValueError, match="expects uint8"):
        tokenizer.encode([images[0, :100]])


def test_an_encoder_that_does_not_fit_is_refused(of_images: tuple[Path, dict[str, Any], int], tmp_path: Path) -> None:
    root, spec, width = of_images
    hub = publish(tmp_path / "hub", state_of(SMALL))
    with pytest.raises(CurateError, match=f"gives {width} values .* one vector of 24"):
        MemcodesOfImages.import_checkpoint(hub, tmp_path / "zoo", json.dumps(spec))
    with pytest.raises(CurateError, match="kind global"):
        MemcodesOfImages.import_checkpoint(str(root / "hub"), tmp_path / "zoo", json.dumps(spec | {"kind": "dense"}))
    for wrong in ("timm", "[1]"):
        with pytest.raises(CurateError, match="JSON object"):
            MemcodesOfImages.import_checkpoint(hub, tmp_path / "zoo", wrong)
    assert not (tmp_path / "zoo").exists()


def test_other_weights_of_the_encoder_are_noticed(of_images: tuple[Path, dict[str, Any], int], tmp_path: Path) -> None:
    root, spec, _ = of_images
    beside = tmp_path / "encoder.safetensors"
    beside.write_bytes((root / "encoder.safetensors").read_bytes())
    MemcodesOfImages.import_checkpoint(str(root / "hub"), tmp_path / "zoo", json.dumps(spec | {"weights": str(beside)}))
    raw = bytearray(beside.read_bytes())
    raw[-1] ^= 1
    beside.write_bytes(bytes(raw))
    with pytest.raises(CurateError, match="other weights than those"):
        MemcodesOfImages.load(tmp_path / "zoo")

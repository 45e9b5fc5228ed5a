"""What models say of captions: agreement with the given text, perplexity by a language model made here."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signal_media import CAPTIONED, hand_batch, loaded

from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.schema.package_data import data_folder
from curate.schema.recipe import SignalUse
from curate.schema.verdict import Failure
from curate.signals import registry
from curate.signals.caption_perplexity import CaptionPerplexity

TEXTS = ["A tabby cat looking at the camera", "A cup", "</s>", "A" * 300]


# ---- agreement


def test_a_caption_agrees_with_its_own_text_more_than_with_others() -> None:
    signal = loaded("caption_agreement", of="said")
    given = list(CAPTIONED.values())
    said = [
        "A cat with stripes",
        "Coffee in a cup",
        "A space rocket before its launch",
        "A photographer",
        "A motorbike",
    ]
    found = np.array(
        [
            [one["said_agreement"] for one in signal(hand_batch(["image"] * 5, {}, text=given[:5], said=[text] * 5))]
            for text in said
        ]
    )
    assert found.argmax(1).tolist() == [0, 1, 2, 3, 4]
    assert found.diagonal().min() > 0.4


def test_agreement_is_null_where_either_is_missing_and_1_with_itself() -> None:
    batch = hand_batch(["image"] * 4, {}, text=["a", None, " ", "A  cup\n"], caption=[None, "a", "a", "A cup"])
    said = [one["caption_agreement"] for one in loaded("caption_agreement")(batch)]
    assert said == [None, None, None, pytest.approx(1)]


def test_the_given_text_is_not_compared_with_itself() -> None:
    with pytest.raises(CurateError, match="text_agreement would compare the given text with itself"):
        registry.build(SignalUse(name="caption_agreement", of="text"))


# ---- perplexity


@pytest.fixture(scope="module", params=["begin", "end", "neither"])
def model(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 of two layers and random weights, with the shipped text tokenizer and some special tokens."""
    ensure_torchvision()
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("lm")
    marks = {"begin": {"bos_token": "<s>", "eos_token": "</s>"}, "end": {"eos_token": "</s>"}, "neither": {}}
    file = data_folder("tokenizers") / "text-bpe-8k" / "tokenizer.json"
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), **marks[request.param])
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2, initializer_range=0.5
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def made(model: Path, **options: Any) -> CaptionPerplexity:
    signal = registry.build(SignalUse(name="caption_perplexity", model=str(model), **options))
    assert isinstance(signal, CaptionPerplexity)
    return signal


def by_hand(folder: Path, text: str, most: int = 64) -> float | None:
    """The product of the probabilities of the tokens, one forward pass each."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    from tokenizers import Tokenizer

    net = AutoModelForCausalLM.from_pretrained(folder).eval()
    known = PreTrainedTokenizerFast.from_pretrained(folder)
    file = data_folder("tokenizers") / "text-bpe-8k" / "tokenizer.json"
    plain = Tokenizer.from_file(str(file)).encode(text, add_special_tokens=False).ids
    begin = known.bos_token_id if known.bos_token_id is not None else known.eos_token_id
    ids = ([] if begin is None else [begin]) + plain
    ids = ids[:most]
    logs = []
    for i in range(1, len(ids)):
        with torch.inference_mode():
            odds = torch.softmax(net(torch.tensor([ids[:i]])).logits[0, -1].double(), -1)
        logs.append(math.log(float(odds[ids[i]])))
    return math.exp(-sum(logs) / len(logs)) if logs else None


def test_perplexity_is_what_its_definition_says(model: Path) -> None:
    signal = made(model)
    signal.load()
    said = signal(hand_batch(["image"] * 5, {}, caption=[*TEXTS, None]))
    assert said[-1] == {"caption_perplexity": None}
    for text, one in zip(TEXTS, said, strict=False):
        assert one["caption_perplexity"] == pytest.approx(by_hand(model, text), rel=1e-4)


def test_a_batch_says_what_each_alone_says_and_a_bad_one_fails_alone(model: Path) -> None:
    signal = made(model)
    signal.load()
    alone = signal(hand_batch(["image"] * 4, {}, caption=TEXTS))
    mixed: list[Any] = [TEXTS[0], None, TEXTS[1], 7, *TEXTS[2:]]
    signal._passes.size = 3  # as on a GPU
    said: list[Any] = signal(hand_batch(["image"] * 6, {}, caption=mixed))
    bad = said.pop(3)
    assert isinstance(bad, Failure)
    assert bad.stage == "annotate:caption_perplexity"
    assert said.pop(1) == {"caption_perplexity": None}
    for one, other in zip(said, alone, strict=True):
        assert one["caption_perplexity"] == pytest.approx(other["caption_perplexity"], rel=1e-4)


def test_long_texts_are_cut(model: Path) -> None:
    long = " ".join(f"word{i}" for i in range(100))
    for size, most, options in ((1, 64, {}), (1, 10, {"max_tokens": 10}), (2, 33, {"max_tokens": 33}), (2, 64, {})):
        signal = made(model, **options)
        signal.load()
        signal._passes.size = size
        (said,) = signal(hand_batch(["image"], {}, caption=[long]))
        assert said["caption_perplexity"] == pytest.approx(by_hand(model, long, most), rel=1e-4)


def test_numbers_that_are_none_are_a_failure(model: Path) -> None:
    signal = made(model)
    signal.load()
    signal._net.transformer.ln_f.weight.fill_(math.nan)
    (said,) = signal(hand_batch(["image"], {}, caption=["A cup of tea"]))
    assert (said.error, said.message) == ("NotFiniteError", "the network gave NaN or infinity in float32")


def test_a_model_must_be_named_and_be_one(tmp_path: Path) -> None:
    with pytest.raises(CurateError, match="needs a language model") as none:
        registry.build(SignalUse(name="caption_perplexity"))
    assert "a local folder or a hub id" in none.value.hint
    with pytest.raises(CurateError, match="do not exist"):
        made(tmp_path / "nothing").version()
    with pytest.raises(CurateError, match="cannot be loaded"):
        made(tmp_path).load()

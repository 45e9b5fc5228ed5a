"""Training of the text tokenizer: its corpus, its repeatability, and its card."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from curate.schema.errors import CurateError
from curate.schema.package_data import data_folder
from curate.tokenizers.codecs.text_bpe import TextBPE, bytes_per_token
from curate.tokenizers.folders import read_card
from curate.training import read_config, train
from curate.training.text import TextConfig, train_bpe, write_text_card
from curate.training.text_corpus import TextSource, gather, texts_of

FOLDER = data_folder("tokenizers") / "text-bpe-8k"


def test_a_vocabulary_that_knows_its_special_tokens_is_refused(tmp_path: Path) -> None:
    bpe = train_bpe(["a dog"], 400)
    bpe.add_special_tokens(["[EOS]"])
    with pytest.raises(CurateError, match="added tokens"):
        write_text_card(bpe, tmp_path, "", "", {})


def test_training_on_a_small_corpus_is_lossless_and_repeatable(tmp_path: Path) -> None:
    texts = [f"the {colour} {animal} runs" for colour in ("red", "brown", "white") for animal in ("dog", "cat", "cow")]
    raw = train_bpe(texts, 512).to_str()
    assert train_bpe(texts, 512).to_str() == raw
    write_text_card(train_bpe(texts, 512), tmp_path, "nine sentences", "CC0-1.0", {"held": ["the red cow sits"]})
    small = TextBPE.load(tmp_path)
    assert small.card.quality[0].lossless
    assert small.decode(small.encode(["the brown dog", "Ünïcödé 🐕"])) == ["the brown dog", "Ünïcödé 🐕"]
    assert bytes_per_token(small, texts) > bytes_per_token(small, ["zqxj wvkp"])


def test_the_shipped_configuration_is_valid_and_names_packages() -> None:
    config = read_config(FOLDER / "train.yaml")
    assert isinstance(config, TextConfig)
    assert config.vocabulary == read_card(FOLDER).vocabulary
    assert all(s.kind != "folder" for s in config.texts)


def test_a_broken_configuration_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.yaml").write_text("vocabulary: 100\n", "utf-8")
    with pytest.raises(CurateError, match="not a training configuration"):
        read_config(tmp_path / "train.yaml", "text-bpe")


def test_captions_are_read_by_language_and_addresses_are_left_out(tmp_path: Path) -> None:
    text = "A paw print.\nfr.utf8=Une empreinte.\nde.utf8=Schreib an a@b.de\n"
    (tmp_path / "paw.txt").write_text(text, "utf-8")
    source = TextSource(package="p", kind="folder", folder=str(tmp_path), patterns=["*.txt"], format="captions")
    assert list(texts_of(source)) == [("en", "A paw print."), ("fr", "Une empreinte.")]
    texts, held = gather([source], seed=0, held_share=0.0)
    assert texts == ["A paw print.", "Une empreinte."]
    assert not held


def test_absent_packages_are_said(tmp_path: Path) -> None:
    source = TextSource(package="p", kind="debian", folder="none", patterns=["*"], format="columns")
    with pytest.raises(CurateError, match="None of the packages"):
        gather([source], 0, 0.05, tmp_path)


def test_the_whole_way_from_configuration_to_tokenizer(tmp_path: Path) -> None:
    words = "\n".join(f"n{i}\tsmall animal number {i} of the farm" for i in range(300))
    (tmp_path / "names.txt").write_text(words, "utf-8")
    source = {"package": "p", "kind": "folder", "folder": str(tmp_path), "patterns": ["names.txt"], "format": "columns"}
    (tmp_path / "train.yaml").write_text(json.dumps({"vocabulary": 512, "texts": [source]}), "utf-8")
    card = train(read_config(tmp_path / "train.yaml", "text-bpe"), tmp_path / "out")
    made = TextBPE.load(tmp_path / "out")
    assert made.card == card
    assert card.batch_invariance == 0
    assert made.card.quality[0].items > 3
    assert made.card.quality[0].lossless
    assert made.decode(made.encode(["animal 7"])) == ["animal 7"]

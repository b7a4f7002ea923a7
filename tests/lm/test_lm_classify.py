"""Models of sequence classification: found, refused, and used as they are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from support.classifiers import WORDS, saved

from collapse_cli.errors import InputError
from collapse_cli.lm import classify


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "detector")


@pytest.mark.parametrize("kind", ["bert", "gpt2", "roberta"])
def test_texts_have_the_odds_that_the_model_gives_each_alone(tmp_path: Path, kind: str) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = saved(tmp_path, kind=kind)
    random = np.random.default_rng(0)
    rows = [" ".join(random.choice(WORDS, random.integers(1, 30))) for _ in range(70)]
    found = classify.odds(folder, rows)
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    for row, value in zip(rows[:20], found, strict=False):
        with torch.no_grad():
            logits = model(**tokenizer(row, return_tensors="pt", truncation=True, max_length=16)).logits[0]
        assert value == pytest.approx(float(logits[1] - logits[0]), abs=1e-4)
    assert found.std() > 0.01
    assert classify.odds(folder, []).shape == (0,)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_a_text_without_a_token_has_no_odds_and_does_not_disturb_the_others(tmp_path: Path, kind: str) -> None:
    folder = saved(tmp_path, kind=kind)
    found = classify.odds(folder, ["", "real text", " ", "a model"])
    assert np.isnan(found).tolist() == [True, False, True, False]
    assert found[[1, 3]] == pytest.approx(classify.odds(folder, ["real text", "a model"]), abs=1e-6)
    assert np.isnan(classify.odds(folder, [""])).all()


def test_its_hash_follows_its_content(folder: Path) -> None:
    found, sha256 = classify.find(str(folder), "select.detector")
    assert found == folder
    assert classify.find(str(folder), "it")[1] == sha256
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "a", "1": "b"}}))
    assert classify.find(str(folder), "it")[1] != sha256


def test_a_model_of_other_labels_or_without_a_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 3 labels; a detector has two"):
        classify.find(str(saved(tmp_path / "three", 3)), "select.detector")
    from transformers import BertConfig, BertModel

    headless = saved(tmp_path / "headless")
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=20, max_position_embeddings=16, **small)).save_pretrained(headless)
    with pytest.raises(InputError, match=r"weights of the detector are missing \(classifier"):
        classify.odds(headless, ["real"])
    (headless / "model.safetensors").unlink()
    with pytest.raises(InputError, match="has no weights"):
        classify.find(str(headless), "select.detector")

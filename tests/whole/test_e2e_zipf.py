"""`--data zipf`: a run on the language whose truth is known, from its options to the error that is measured."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e

from collapse_cli.data import zipf
from collapse_cli.data.dataset import Dataset

ZIPF = "{ vocabulary = 32, rank = 2, train_tokens = 4096, test_tokens = 1024 }"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A finished run of two generations, and its configuration."""
    folder = tmp_path_factory.mktemp("zipf")
    config = folder / "tiny.toml"
    text = e2e.TINY.replace('tokenizer = "bpe"\nvocab_size = 290\n', "").replace('"{source}"', '"pydoc"')
    config.write_text(text.format() + "\n", encoding="utf-8")
    e2e.run(config, folder / "runs", "--data", "zipf", "--policy", "keep-0", data__zipf=ZIPF, data__rows=200)
    return config, folder / "runs"


def data_facts(runs: Path) -> dict[str, Any]:
    (stage,) = (stage for stage in e2e.stages(runs).values() if stage["kind"] == "data")
    return stage["facts"]


def test_a_model_is_never_better_than_the_truth(made: tuple[Path, Path]) -> None:
    language = zipf.Language(vocabulary=32, rank=2)
    rows = e2e.metrics(made[1])
    assert len(rows) == 2
    for row in rows.values():
        assert row["entropy_rate"] == pytest.approx(language.entropy_rate)
        assert row["kl_truth"] > 0
        assert row["tail_mass_recall"] > 0
        # nll is an estimate of H + KL from 180 tokens of test text
        assert row["nll"] == pytest.approx(row["entropy_rate"] + row["kl_truth"], abs=0.3)
        assert row["perplexity"] == pytest.approx(row["word_perplexity"] ** 1.0, rel=1e-6)


def test_tokens_are_words_and_each_split_is_one_chain(made: tuple[Path, Path]) -> None:
    facts = data_facts(made[1])
    language = zipf.from_facts(facts["zipf"])
    assert facts["vocab_size"] == 33
    assert facts["zipf"]["first_word_id"] == 0
    assert facts["splits"]["train"]["tokens"] == facts["splits"]["train"]["words"] == 4096
    test = e2e.real_rows(made[1], "tiny", "test.safetensors").arrays["tokens"]
    chain = language.sample(1024, 2).reshape(-1, 16)
    assert (test == chain[np.linspace(0, 63, 12).round().astype(int)]).all()
    train = e2e.real_rows(made[1], "tiny")
    assert len(train) == 200
    assert e2e.as_set(train.arrays["tokens"]) <= e2e.as_set(language.sample(4096, 0).reshape(-1, 16))


def test_samples_hold_words_only(made: tuple[Path, Path]) -> None:
    (sampled,) = (
        key
        for key, stage in e2e.stages(made[1]).items()
        if stage["kind"] == "sample" and stage["params"]["generation"] == 1
    )
    tokens = Dataset.load(e2e.folder_of(made[1], sampled) / "rows.safetensors").arrays["tokens"]
    assert tokens.min() >= 0
    assert tokens.max() < 32


def test_the_same_language_is_the_same_run_and_another_is_not(made: tuple[Path, Path]) -> None:
    config, runs = made
    settings = {"data__rows": 200, "data__zipf": ZIPF}
    arguments = ("--data", "zipf", "--policy", "keep-0")
    assert e2e.run(config, runs, *arguments, **settings)["computed"] == 0
    other = [f"--set={name.replace('__', '.')}={value}" for name, value in settings.items()]
    refused = e2e.collapse("run", config, "--runs-dir", runs, *arguments, *other, "--set=data.zipf.seed=1")
    assert refused.code == 2
    assert "data" in refused.err


def test_the_models_folder_is_measured_again_with_its_own_tokenizer(made: tuple[Path, Path]) -> None:
    """`collapse eval FOLDER --data zipf` knows the truth too: the tokenizer of the folder lists the words in order."""
    row = e2e.metrics(made[1])["keep-0", 0, 0]
    sets = [f"--set=data.zipf={ZIPF}", "--set=data.block_size=16", "--set=data.eval_rows=12"]
    result = e2e.collapse("eval", made[1] / row["model_dir"], "--data", "zipf", "--json", *sets)
    assert result.code == 0, result.err
    again = json.loads(result.out)
    assert again["perplexity"] == pytest.approx(row["perplexity"], rel=1e-5)
    assert again["kl_truth"] == pytest.approx(row["kl_truth"], rel=1e-5)


def test_bytes_for_tokens_have_no_known_truth(tmp_path: Path, made: tuple[Path, Path]) -> None:
    settings = {"data__rows": 200, "data__zipf": ZIPF, "model__tokenizer": "bpe", "model__vocab_size": 290}
    e2e.run(made[0], tmp_path, "--data", "zipf", "--policy", "keep-0", "--generations", "0", **settings)
    (row,) = e2e.metrics(tmp_path).values()
    assert "kl_truth" not in row
    assert "zipf" not in data_facts(tmp_path)


def test_words_of_other_text_are_tokens_too(tmp_path: Path) -> None:
    config = e2e.write_experiment(tmp_path)
    settings = {"model__tokenizer": "words", "model__vocab_size": 20}
    e2e.run(config, tmp_path / "runs", "--policy", "keep-0", "--generations", "0", **settings)
    facts = data_facts(tmp_path / "runs")
    assert facts["vocab_size"] == 20
    assert facts["splits"]["train"]["tokens"] == facts["splits"]["train"]["words"]
    (row,) = e2e.metrics(tmp_path / "runs").values()
    assert row["perplexity"] == pytest.approx(row["word_perplexity"], rel=1e-6)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("data.line_bos=true", "data.line_bos"),
        ("data.zipf.vocabulary=4", "data.zipf.vocabulary must be at least 8"),
        ("data.zipf.vocab=40", "data.zipf.vocabulary"),
        ("data.train=a.txt", "data.source = zipf has no files"),
        ("data.zipf.test_tokens=16", "the validation text has 16 tokens, less than one block"),
    ],
)
def test_what_does_not_go_with_it_is_refused(tmp_path: Path, made: tuple[Path, Path], setting: str, said: str) -> None:
    arguments = ("--data", "zipf", "--set=eval.block_size=32") if "test_tokens" in setting else ("--data", "zipf")
    result = e2e.collapse("run", made[0], "--runs-dir", tmp_path, *arguments, "--set", setting)
    assert result.code == 2
    assert said in result.err
    assert "Traceback" not in result.err

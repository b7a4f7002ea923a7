"""What a first user of the command met, each now one line and exit code 2, or a note."""

import json
from pathlib import Path

import pytest
from support import e2e


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return e2e.write_experiment(tmp_path_factory.mktemp("user"))


def said(*arguments: str | Path) -> str:
    """The one line of a command that the user has to mend."""
    result = e2e.collapse(*arguments)
    assert result.code == 2, result.err
    assert result.err.count("\n") == 1, result.err
    return result.err


def test_a_model_that_looks_ahead_is_refused(config: Path, tmp_path: Path) -> None:
    """BERT sees the token it is asked for: its perplexity near 1 would be nonsense."""
    shape = {"model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    (tmp_path / "bert.json").write_text(json.dumps(shape | {"intermediate_size": 16}))
    assert "not causal" in said("run", config, "--runs-dir", tmp_path, "--model", tmp_path / "bert.json")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.config.model_type=t5", "t5 models"),
        ("model.config.hidden_size=33", "model.config"),
        ("model.config.hidden_size=abc", "hidden_size"),
        ("model.config.hidden_size=-4", "model.config"),
        ("model.config={model_type='opt',hiden_size=8}", "did you mean 'hidden_size'?"),
    ],
)
def test_a_config_that_makes_no_model(config: Path, tmp_path: Path, setting: str, words: str) -> None:
    assert words in said("run", config, "--runs-dir", tmp_path, "--set", setting)


def test_empty_options_and_names_that_are_the_same(config: Path, tmp_path: Path) -> None:
    for option in ("--data", "--model", "--name"):
        assert "is empty" in said("run", config, "--runs-dir", tmp_path, option, "")
    twice = ("--policy", "keep-10", "--policy", "keep-10.0")
    assert "are the same" in said("run", config, "--runs-dir", tmp_path, *twice)
    assert "--preset smoke" in said("run", "smoke", "--runs-dir", tmp_path)
    assert "pydoc has no files" in said(
        "run", "--preset", "smoke", "--runs-dir", tmp_path, "--set", "data.train=some.txt"
    )


def test_a_stride_that_leaves_tokens_out_is_refused_before_training(config: Path, tmp_path: Path) -> None:
    sliding = ("--set=data.eval_rows=0", "--set=eval.protocol=sliding", "--set=eval.stride=5000")
    assert "eval.stride" in said("run", config, "--runs-dir", tmp_path, *sliding)
    assert not (tmp_path / "tiny").exists()


def test_a_damaged_run_folder_says_so_and_is_mended_by_running_again(config: Path, tmp_path: Path) -> None:
    """Junk in metrics.jsonl is left out and replaced; a damaged plan stops gc, which must not take it for an empty one."""
    whole = e2e.run(config, tmp_path, "--generations", "0")
    folder = tmp_path / "tiny"
    (folder / "metrics.jsonl").write_bytes(b'5\n{"policy": "keep-0", "seed": 0, "generation": 0}\n\xff\xfe\n')
    assert e2e.collapse("status", "tiny", "--runs-dir", tmp_path).code == 0
    (folder / "plan.json").write_text("{")
    stages = sorted((tmp_path / "store").glob("??/*/stage.json"))
    assert "plan.json" in said("gc", "--runs-dir", tmp_path)
    assert sorted((tmp_path / "store").glob("??/*/stage.json")) == stages
    again = e2e.run(config, tmp_path, "--generations", "0")
    assert (again["computed"], again["rows"]) == (0, whole["rows"])
    (folder / "run.json").write_text("[]")
    assert "damaged" in said("status", "tiny", "--runs-dir", tmp_path)


def test_a_text_too_poor_for_its_vocabulary_is_noted(tmp_path: Path) -> None:
    """The model gets as many tokens as the BPE came out with, so that it cannot write others."""
    config = e2e.write_experiment(tmp_path)
    made = e2e.run(config, tmp_path / "runs", "--generations", "1", model__vocab_size=4000)
    shape = json.loads((tmp_path / "runs" / made["rows"][0]["model_dir"] / "config.json").read_text())
    assert shape["vocab_size"] < 4000
    assert all(row.get("special_token_share", 0) == 0 for row in made["rows"])

"""`collapse eval` of a model: the length of the blocks that are scored decides whether the model can take them."""

import json
from pathlib import Path
from typing import Any

import pytest
from support import e2e

from collapse_cli.learners import text_inputs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 32 positions, and text; `data.block_size` is 64 unless it is said."""
    folder = tmp_path_factory.mktemp("short")
    e2e.write_model(folder / "model", positions=32)
    e2e.write_text(folder / "text")
    return folder


def scored(home: Path, *settings: str) -> Any:
    sets = [part for setting in settings for part in ("--set", setting)]
    return e2e.collapse("eval", home / "model", "--data", home / "text", "--json", *sets)


def test_a_short_model_is_scored_in_blocks_that_it_takes(home: Path) -> None:
    """Whatever a corpus to train on would have for rows."""
    made = [scored(home, "eval.block_size=32"), scored(home, "data.block_size=32")]
    made += [scored(home, "eval.block_size=32", "data.block_size=128"), scored(home, "eval.block_size=16")]
    assert [one.code for one in made] == [0] * 4, [one.err for one in made]
    found = [one.json["perplexity"] for one in made]
    assert found[0] == found[1] == found[2] != found[3]
    assert [one.json["protocol"]["context"] for one in made] == [32, 32, 32, 16]


@pytest.mark.parametrize("settings", [[], ["eval.block_size=64"], ["data.block_size=64"], ["eval.block_size=33"]])
def test_blocks_that_it_does_not_take_are_refused_by_the_right_name(home: Path, settings: list[str]) -> None:
    made = scored(home, *settings)
    asked = 33 if settings == ["eval.block_size=33"] else 64
    assert made.code == 2
    assert made.err == (f"collapse: eval.block_size is {asked}, but the model takes 32 tokens at most; lower it\n")


def test_under_the_sliding_protocol_the_context_decides(home: Path) -> None:
    assert scored(home, "eval.protocol=sliding").json["protocol"]["context"] == 32
    made = scored(home, "eval.protocol=sliding", "eval.context=33", "eval.stride=1")
    assert made.err == "collapse: eval.context is 33, but the model takes 32 tokens at most; lower it\n"


NOTHING = {
    "data.rows=5": "only the test text is scored",
    "eval.samples=false": "only models are scored, not samples",
    "eval.stride=8": "eval.protocol = block; blocks are eval.block_size tokens",
    "data.zipf.seed=3": "it belongs to zipf",
    "model.revision=main": "only models of the Hub have revisions",
}


@pytest.mark.parametrize("setting", NOTHING)
def test_what_nothing_reads_is_refused_as_it_is_by_run(home: Path, setting: str) -> None:
    made = scored(home, "eval.block_size=32", setting)
    assert made.code == 2, made.out
    assert made.err.startswith(f"collapse: --set {setting.partition('=')[0]}=… has no effect on eval: ")
    assert NOTHING[setting] in made.err


def test_a_column_of_files_that_have_none_is_said_not_to_be_used(home: Path) -> None:
    made = scored(home, "eval.block_size=32", "data.text=content")
    assert "data.text = content is not used: it names a column, and files of plain text have none" in made.json["notes"]


def test_a_config_file_is_said_to_have_no_weights(home: Path) -> None:
    made = e2e.collapse("eval", home / "model" / "config.json", "--data", home / "text")
    assert (
        made.err
        == f"collapse: {home}/model/config.json is a config file without weights; give a model folder or a Hub id\n"
    )


def test_a_window_has_a_size_where_the_model_has_no_limit(home: Path, tmp_path: Path) -> None:
    """Without one, windows of two tokens were scored, which nobody had asked for."""
    from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(home / "model")
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=16, n_layer=1, n_head=2)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    sliding = ("--data", home / "text", "--json", "--set", "eval.protocol=sliding")
    made = e2e.collapse("eval", tmp_path, *sliding)
    assert made.code == 2
    assert "takes any number of tokens at once: say how many the window has, --set eval.context=…" in made.err
    assert e2e.collapse("eval", tmp_path, *sliding, "--set", "eval.context=16").json["protocol"]["context"] == 16


def test_a_tokenizer_of_other_tokens_than_the_models_own_is_said(home: Path, tmp_path: Path) -> None:
    """Its ids fit, and the perplexity is one, of text that nobody wrote."""
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(home / "model").save_pretrained(tmp_path)
    same = scored(home, "eval.block_size=32", f"model.tokenizer={tmp_path}")
    file = tmp_path / "tokenizer.json"
    tree = json.loads(file.read_text())
    vocabulary = tree["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(tree))
    other = scored(home, "eval.block_size=32", f"model.tokenizer={tmp_path}")
    said = [note for note in other.json["notes"] if "are not those of the model's own tokenizer" in note]
    assert [note.partition(" of the ")[0] for note in said] == ["2"]
    assert not any("the model's own tokenizer" in note for note in same.json["notes"])
    (made,) = text_inputs.other_tokens("bpe", None, home / "model")
    assert "(model.tokenizer = bpe) is not the model's own" in made


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_ends_of_text_that_end_no_row_are_said(home: Path, tmp_path: Path, file: str) -> None:
    """Models tuned for conversations name several; rows end at the tokenizer's own. Ids of ordinary text are no ends."""
    from transformers import AutoTokenizer

    e2e.write_model(tmp_path / "model", vocab_size=300)
    tokenizer = AutoTokenizer.from_pretrained(home / "model")
    assert text_inputs.other_ends(home / "model", tokenizer) == []
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|eot|>"]})
    tokenizer.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / file
    fields = json.loads(path.read_text()) if path.exists() else {}
    ends = [tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|eot|>"), 5]
    path.write_text(json.dumps(fields | {"eos_token_id": ends}))
    (note,) = text_inputs.other_ends(tmp_path / "model", tokenizer)
    assert f"<|eot|> ({ends[1]}); rows of samples end at the tokenizer's own alone, {tokenizer.eos_token} (" in note
    made = e2e.collapse(
        "run",
        "--preset",
        "smoke",
        "--model",
        tmp_path / "model",
        "--data",
        home / "text",
        "--runs-dir",
        tmp_path,
        "--dry-run",
        *("--set", "data.rows=0", "--set", "data.eval_rows=0"),
    )
    assert made.code == 0, made.err
    assert " ".join(made.out.split()).count("rows of samples end at the tokenizer's own") == 1
    path.write_text(json.dumps(fields | {"eos_token_id": [ends[0], True, "x", None, 10**30, -1]}))
    assert text_inputs.other_ends(tmp_path / "model", tokenizer) == []

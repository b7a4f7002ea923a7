"""Chats and pairs from the command line: two generations, keep-0 and keep-50; what is trained on, scored, sampled, said and refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e
from support.chatting import chat_model, messages, said, write_chats

from collapse_cli.data.dataset import MASK, PROMPT, Dataset

BLOCK, NEW = 44, 8
CONFIG = f"""
[loop]
generations = 2
policies = ["keep-0", "keep-50"]

[model]
source = "{{home}}/model"

[data]
source = "{{home}}/data"
block_size = {BLOCK}

[sample]
prompt_tokens = 16
new_tokens = {NEW}
dtype = "float32"
decode = {{{{ beams = 1, temperature = 1.0 }}}}

[train]
epochs = 1
batch_size = 16
lr = 1e-3
dtype = "float32"
"""


def asked(home: Path, runs: str, *options: str, name: str = "chat") -> list[str]:
    where = ("--runs-dir", str(home / runs), "--name", name, "--jobs", "1", "--json")
    return ["run", str(home / "chat.toml"), *where, *(f"--set={option}" for option in options)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("chats")
    write_chats(home / "data", 40)
    chat_model(home / "model")
    (home / "chat.toml").write_text(CONFIG.format(home=home))
    return home


@pytest.fixture(scope="module")
def made(home: Path) -> e2e.Result:
    result = e2e.collapse(*asked(home, "runs"))
    assert result.code == 0, result.err
    return result


def stage_of(home: Path, kind: str, policy: str, generation: int) -> Path:
    """The folder of the stage of that kind of a policy's generation."""
    runs = home / "runs"
    found = [
        stage for stage in e2e.plan(runs, "chat")
        if stage["kind"] == kind and any(where[0] == policy and where[2] == generation for where in stage["for"])
    ]  # fmt: skip
    return e2e.folder_of(runs, found[-1]["key"])


def test_it_is_said_how_chats_are_read(made: e2e.Result) -> None:
    notes = made.err
    assert (
        "rows are chats, rendered by the tokenizer's chat template; losses and perplexity count what the assistant says"
        in notes
    )
    assert (
        "the token that ends it (<|im_end|>); samples are answers to all that stands before the assistant's last turn"
        in notes
    )
    assert f"the training text: rows of more than data.block_size = {BLOCK} tokens, of 40:" in notes
    assert {row["protocol"]["counted"] for row in made.json["rows"]} == {"answers"}


def test_perplexity_is_transformers_own_over_the_answers(home: Path, made: e2e.Result) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    test = Dataset.load(e2e.folder_of(home / "runs", e2e.plan(home / "runs", "chat")[0]["key"]) / "test.safetensors")
    rows = e2e.metrics(home / "runs", "chat")
    for policy, generation in (("keep-0", 0), ("keep-50", 2)):
        row = rows[policy, 0, generation]
        model = AutoModelForCausalLM.from_pretrained(e2e.folder_of(home / "runs", row["model_key"])).eval()
        total, count = 0.0, 0
        for tokens, length, mask in zip(*(test.arrays[name] for name in ("tokens", "lengths", MASK)), strict=True):
            ids = torch.from_numpy(tokens[:length].astype(np.int64))[None]
            labels = torch.where(torch.from_numpy(mask[:length])[None], ids, -100)
            here = int((labels[:, 1:] != -100).sum())
            with torch.no_grad():
                total, count = total + float(model(input_ids=ids, labels=labels).loss) * here, count + here
        assert row["predicted_tokens"] == count
        assert row["perplexity"] == pytest.approx(math.exp(total / count), rel=1e-4)
    about = e2e.stages(home / "runs")[e2e.plan(home / "runs", "chat")[0]["key"]]["facts"]["splits"]["test"]
    assert about["tokens"] == count == int(test.predicted.sum())
    assert row["bits_per_byte"] == pytest.approx(
        total / count * about["tokens"] / about["bytes"] / math.log(2), rel=1e-4
    )
    assert row["word_perplexity"] == pytest.approx(math.exp(total / about["words"]), rel=1e-3)


def test_synthetic_rows_have_the_form_of_real_ones(home: Path, made: e2e.Result) -> None:
    real = e2e.real_rows(home / "runs", "chat")
    real = (
        real
        if isinstance(real, Dataset)
        else Dataset.load(e2e.folder_of(home / "runs", e2e.plan(home / "runs", "chat")[0]["key"]) / "train.safetensors")
    )
    corpus = Dataset.load(stage_of(home, "mix", "keep-50", 1) / "train.safetensors")
    synthetic = corpus.take(np.flatnonzero(corpus.origin == 1))
    assert len(corpus) == len(real)
    assert len(synthetic) == len(real) // 2
    arrays, prompts = (
        synthetic.arrays,
        {tuple(row[:most]) for row, most in zip(real.arrays["tokens"], real.arrays[PROMPT], strict=True)},
    )
    columns = np.arange(arrays["tokens"].shape[1])
    assert ((columns >= arrays[PROMPT][:, None]) & (columns < arrays["lengths"][:, None]) == arrays[MASK]).all()
    assert {tuple(row[:most]) for row, most in zip(arrays["tokens"], arrays[PROMPT], strict=True)} <= prompts
    answers = arrays["lengths"] - arrays[PROMPT]
    assert answers.min() >= 1
    assert answers.max() <= NEW
    assert arrays["lengths"].max() <= BLOCK
    end = e2e.stages(home / "runs")[e2e.plan(home / "runs", "chat")[0]["key"]]["facts"]["dialogues"]["end"]
    for row, first, last in zip(arrays["tokens"], arrays[PROMPT], arrays["lengths"], strict=True):
        assert end not in row[first : last - 1], "an answer goes on behind its end"
    samples = e2e.stages(home / "runs")[stage_of(home, "sample", "keep-0", 0).name]["facts"]
    rows = Dataset.load(stage_of(home, "sample", "keep-0", 0) / "rows.safetensors")
    last = rows.arrays["tokens"][np.arange(len(rows)), rows.arrays["lengths"] - 1]
    assert samples["ended_share"] == pytest.approx(np.mean(last == end))
    assert samples["sample_tokens"] == int((rows.arrays["lengths"] - rows.arrays["start"]).sum())


def test_what_people_read_is_the_prompt_of_the_data_and_the_answer(home: Path, made: e2e.Result) -> None:
    kept = [json.loads(line) for line in (home / "runs" / "chat" / "samples.jsonl").read_text().splitlines()]
    text = json.dumps(kept)
    assert "<|im_start|>assistant" in text
    assert "You are a helpful assistant" in text


def test_evaluated_again_it_is_what_the_run_says_and_other_data_are_scored(
    home: Path, made: e2e.Result, tmp_path: Path
) -> None:
    again = e2e.collapse("eval", "chat", "--runs-dir", home / "runs", "--json")
    assert again.code == 0, again.err
    assert {row["difference"] for row in again.json} == {0}
    (tmp_path / "plain.txt").write_text("the sea a hill green old river\n" * 200)
    plain = e2e.collapse("eval", "chat", "--runs-dir", home / "runs", "--data", tmp_path / "plain.txt", "--json")
    assert plain.code == 0, plain.err
    assert "counted" not in json.dumps(plain.json)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"question": f"{n}?", "answer": "the sea"}) + "\n" for n in range(40)))
    other = e2e.collapse("eval", "chat", "--runs-dir", home / "runs", "--data", pairs)
    assert other.code == 0, other.err
    assert "only what the assistant says is predicted" in other.out


def test_a_folder_is_scored_on_chats(home: Path, made: e2e.Result) -> None:
    found = e2e.collapse("eval", home / "model", "--data", home / "data", "--set", f"data.block_size={BLOCK}", "--json")
    assert found.code == 0, found.err
    assert found.json["protocol"]["counted"] == "answers"
    assert any("rendered by the tokenizer's chat template" in note for note in found.json["notes"])
    plain = e2e.collapse(
        "eval",
        home / "model",
        "--data",
        home / "data",
        "--set",
        "data.template=plain",
        "--set",
        f"data.block_size={BLOCK}",
        "--json",
    )
    assert plain.code == 0, plain.err
    assert any("data.template = plain" in note for note in plain.json["notes"])
    assert plain.json["perplexity"] != found.json["perplexity"]
    assert not any("means nothing here" in note for note in found.json["notes"])
    most = e2e.collapse("eval", home / "model", "--data", home / "data", "--set", "data.block_size=128", "--json")
    assert most.code == 0, "as many tokens as the model takes"


@pytest.mark.slow
def test_killed_while_it_trains_or_samples_the_numbers_are_the_same(home: Path) -> None:
    def job(runs: str, **more: Any) -> dict[str, Any]:
        return {"argv": asked(home, runs, "loop.generations=1", 'loop.policies=["keep-50"]'), **more}

    hit = [e2e.strike("train", 2, when="tell", tell=2), e2e.strike("sample", 1, when="tell")]
    codes = e2e.drive(job("calm"), *(job("killed", strike=where) for where in hit), job("killed"))
    assert [code for (code,) in codes] == [0, -9, -9, 0]
    assert e2e.results(home / "killed", "chat") == e2e.results(home / "calm", "chat")


@pytest.mark.parametrize(
    "options",
    [
        ["train.anchor=kl", "train.replay=0.25", "train.adversarial=0.1", "train.loss=focal", "mix.weights=2:1"],
        [
            "select.oversample=1.5",
            "select.by=surprise",
            "select.keep=lowest",
            "sample.prompts=previous",
            "loop.generations=2",
        ],
        ["train.loss=smoothed", "train.adapter=2", 'loop.policies=["accumulate"]'],
    ],
    ids=["held", "chosen", "grown"],
)
def test_remedies_take_dialogues_too(home: Path, options: list[str]) -> None:
    common = [
        each
        for each in ("loop.generations=1", 'loop.policies=["keep-50"]')
        if each.split("=")[0] not in " ".join(options)
    ]
    result = e2e.collapse(
        *asked(home, "runs", *common, *options, name="remedy-" + options[0].split("=")[0].replace(".", "-"))
    )
    assert result.code == 0, result.err
    assert all(math.isfinite(row["perplexity"]) for row in result.json["rows"])


@pytest.mark.parametrize("who", ["generator", "others"])
def test_mixtures_take_dialogues_of_a_generator_or_of_others(home: Path, tmp_path: Path, who: str) -> None:
    options = ["kind=mixture", "mixture.rows=[20]", "mixture.share=[0.5]"]
    if who == "others":
        write_chats(tmp_path / "others", 60)
        options.append(f'mixture.synthetic=["{tmp_path / "others" / "train.jsonl"}"]')
    config = (home / "chat.toml").read_text()
    (tmp_path / "chat.toml").write_text(config[config.index("[model]") :])
    result = e2e.collapse(*asked(tmp_path, "runs", *options))
    assert result.code == 0, result.err
    assert all(math.isfinite(row["perplexity"]) for row in result.json["rows"])


def test_pairs_with_a_made_tokenizer_need_no_template(tmp_path: Path) -> None:
    config = e2e.write_experiment(tmp_path)
    rows = [
        {"instruction": f"say {n % 7}", "input": "now" if n % 2 else "", "output": f"it is {n % 7}", "id": n}
        for n in range(80)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = [
        config,
        "--runs-dir",
        tmp_path / "runs",
        "--set=data.rows=0",
        "--set=sample.new_tokens=8",
        "--set=loop.generations=0",
    ]
    made = e2e.collapse("run", *common, "--data", tmp_path / "pairs.jsonl", "--name", "pairs")
    assert made.code == 0, made.err
    assert "rows are pairs of prompt and completion, prompt and completion joined" in made.out
    assert "sample.prompt_tokens = 16 means nothing here: prompts are those of the data" in made.out
    chats = [{"messages": messages(said(f"say {n % 7}", f"it is {n % 7}"))} for n in range(80)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chats))
    made = e2e.collapse("run", *common, "--data", tmp_path / "chats.jsonl", "--name", "plain")
    assert made.code == 0, made.err
    assert "rendered as `User: …` and `Assistant: …` lines" in made.out


def test_the_template_is_in_the_key_and_the_names_of_columns_are_not(
    home: Path, made: e2e.Result, tmp_path: Path
) -> None:
    rows = [json.loads(line) for line in (home / "data" / "train.jsonl").read_text().splitlines()]
    other = tmp_path / "data"
    other.mkdir()
    (other / "train.jsonl").write_text(
        "".join(json.dumps({"id": n, "talk": row["messages"]}) + "\n" for n, row in enumerate(rows))
    )
    (other / "test.jsonl").write_text((home / "data" / "test.jsonl").read_text().replace("messages", "talk"))

    def planned(*more: str) -> dict[str, Any]:
        arguments = asked(home, "runs", *more)
        result = e2e.collapse(*arguments, "--dry-run")
        assert result.code == 0, result.err
        return dict(result.json)

    assert planned()["cached"] == planned()["stages"]
    named = planned(f"data.source={other}", "data.format=chat", "data.text=talk")
    assert named["cached"] == named["stages"]
    assert planned("data.template=tokenizer")["cached"] == planned()["stages"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["eval.protocol=sliding"], "holds chats, and they are scored row by row: set eval.protocol = block"),
        (["data.line_bos=true"], "the template says what stands before them: set data.line_bos = false"),
        (["sample.prompts=none"], "what is sampled are answers to their prompts: set sample.prompts = real"),
        (["data.template=none"], "rows are chats: say plain"),
        (["data.template=alpaca"], "data.template"),
        (["data.format=pairs"], "no pair of columns that is known"),
        (["data.format=text"], "no column 'text' (there: messages)"),
        (["data.prompt=a", "data.format=chat"], "columns of pairs"),
        (["data.template_sha256=abc"], "data.template_sha256 is abc"),
        (["data.block_size=8", "sample.prompt_tokens=4"], "none of 40 rows can be used"),
        (["sample.new_tokens=120"], "data.block_size - 1 + sample.new_tokens is 163, but the model takes 128 tokens at most"),
        (["learner=ngram"], "the learner ngram reads plain text"),
    ],
)  # fmt: skip
def test_what_dialogues_cannot_be_asked_for_is_one_line(home: Path, options: list[str], said: str) -> None:
    arguments = asked(home, "refused", *options)
    if "learner=ngram" in options:
        config = (home / "chat.toml").read_text()
        (home / "ngram.toml").write_text(
            config[: config.index("[train]")].replace(f'source = "{home}/model"', 'tokenizer = "bpe"')
        )
        arguments[1] = str(home / "ngram.toml")
    result = e2e.collapse(*arguments)
    assert result.code == 2, result.out
    assert said in result.err
    assert result.err.count("\n") == 1, result.err


def test_a_tokenizer_without_a_template_says_what_to_do(home: Path, tmp_path: Path) -> None:
    bare = chat_model(tmp_path / "bare", None)
    result = e2e.collapse(*asked(home, "refused"), "--model", bare)
    assert result.code == 2
    assert "the tokenizer has no chat template; say --set data.template=plain" in result.err
    assert result.err.count("\n") == 1
    done = e2e.collapse(
        "eval",
        bare,
        "--data",
        home / "data",
        "--set",
        "data.template=chatml",
        "--set",
        f"data.block_size={BLOCK}",
        "--json",
    )
    assert done.code == 0, done.err
    assert any("rendered as ChatML (data.template = chatml)" in note for note in done.json["notes"])

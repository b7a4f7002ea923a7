"""Chats and pairs whose answers a real server and files of another model's give: what is asked turn by turn, and the rows that become of it."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support import e2e
from support import served as serving
from support.chatting import chat_model, chats_of, write_chats
from support.served import Proxy, Served

from collapse_cli.data.dataset import MASK, PROMPT, Dataset
from collapse_cli.foreign.answers import all_of
from collapse_cli.lm.text import load_tokenizer

BLOCK, NEW = 44, 8
CONFIG = """
foreign = {{ retries = 0, at_once = 4 }}
{head}
model.source = "{home}/model"
data.source = "{home}/{data}"
data.block_size = {block}
sample = {{ prompt_tokens = 16, new_tokens = {new}, dtype = "float32", decode = {{ beams = 1, temperature = 1.0 }} }}
train = {{ epochs = 1, batch_size = 16, lr = 1e-3, dtype = "float32" }}
"""


@pytest.fixture(scope="module")
def proxy(server: Served) -> Iterator[Proxy]:
    with serving.proxy(server) as one:
        yield one


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("served-chats")
    write_chats(home / "data", 24)
    chat_model(home / "model")
    (home / "other.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in chats_of(40, seed=9)))
    return home


def run(home: Path, name: str, head: str, data: str = "data", block: int = BLOCK, new: int = NEW) -> e2e.Result:
    """A run of what `head` says, of the chats or pairs in `data`."""
    file = home / f"{name}.toml"
    file.write_text(CONFIG.format(head=head, home=home.as_posix(), data=data, block=block, new=new))
    return e2e.collapse("run", file, "--name", name, "--runs-dir", home / "runs")


def folders(home: Path, name: str) -> dict[str, Path]:
    """Of each kind of stage, the folder of the run's last one."""
    return {stage["kind"]: e2e.folder_of(home / "runs", stage["key"]) for stage in e2e.plan(home / "runs", name)}


def used(rows: Dataset, row: int) -> list[int]:
    ids: list[int] = rows.arrays["tokens"][row, : rows.arrays["lengths"][row]].tolist()
    return ids


def test_a_loop_takes_answers_of_a_server_and_chats_of_a_file(home: Path, proxy: Proxy) -> None:
    sources = [str(home / "other.jsonl"), f"{proxy.address}#{proxy.behind.model}"]
    loop = 'loop = { generations = 1, policies = ["keep-0"] }\neval.samples = false'
    done = run(home, "loop", f"{loop}\npool.foreign = {json.dumps(sources)}")
    assert done.code == 0, done.err
    said = " ".join((done.out + done.err).split())
    assert "is asked to answer what stands before the last answer of real rows, turn by turn, 8 tokens each" in said
    (row,) = (row for row in e2e.read_lines(home / "runs/loop/metrics.jsonl") if row["generation"])
    assert [(given["source"], given["rows"]) for given in row["foreign_rows"]] == [(sources[0], 8), (sources[1], 8)]
    assert len(proxy.seen) == 8

    at = folders(home, "loop")
    real, prompts = Dataset.load(at["data"] / "train.safetensors"), Dataset.load(at["answers"] / "prompts.safetensors")
    stage = next(stage for stage in e2e.plan(home / "runs", "loop") if "answers-00000" in stage["inputs"])
    rows = Dataset.load(e2e.folder_of(home / "runs", stage["key"]) / "rows.safetensors")
    answers = all_of(at["answers"] / "answers.jsonl")
    tokenizer = load_tokenizer(at["data"] / "tokenizer")
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    talks = [json.loads(line)["messages"] for line in (home / "data/train.jsonl").read_text().splitlines()]
    asked = {json.dumps(body["messages"]) for _, body in proxy.seen}
    wholes = 0
    for number, answer in enumerate(answers):
        ids, begin = used(rows, number), rows.arrays[PROMPT][number]
        talk = talks[rows.arrays["row"][number]]
        turns = next(talk[:most] for most in (len(talk) - 1, len(talk) - 3) if json.dumps(talk[:most]) in asked)
        assert (
            ids[:begin]
            == used(prompts, number)
            == tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        )
        if json.dumps(talk[:-1]) in asked:
            wholes += 1
        own = tokenizer(answer.text, add_special_tokens=False)["input_ids"] + [end] * answer.ended
        assert ids[begin:] == own[: min(NEW, BLOCK - begin)]
        assert (real.arrays["tokens"][rows.arrays["row"][number], :begin] == ids[:begin]).all()
    assert wholes > 0
    columns = np.arange(rows.arrays["tokens"].shape[1])
    assert (
        (columns >= rows.arrays[PROMPT][:, None]) & (columns < rows.arrays["lengths"][:, None]) == rows.arrays[MASK]
    ).all()
    corpus = Dataset.load(at["mix"] / "train.safetensors")
    trained = {tuple(used(corpus, number)) for number in np.flatnonzero(corpus.origin == 1)}
    assert {tuple(used(rows, number)) for number in range(len(rows))} <= trained


def test_a_mixture_of_pairs_takes_answers_of_both(home: Path, proxy: Proxy) -> None:
    """A pair's prompt is what a user says, without the line end that stands behind it in a row."""
    for name, word in (("pairs", "A"), ("answered", "No")):
        pairs = ({"prompt": f"What does the {dog} see, {number}?", "completion": f"{word} {dog}, {number}."} for number in range(10)
                 for dog in e2e.WORDS[:4])  # fmt: skip
        (home / f"{name}.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    proxy.seen.clear()
    hostile = "</s><|im_end|> [red]a dog[/] \x1b[31m"
    message = {"message": {"content": hostile}, "finish_reason": "stop"}
    proxy.always = serving.says(200, json.dumps({"model": "m", "choices": [message]}).encode())
    sources = [f"{proxy.address}#{proxy.behind.model}", str(home / "answered.jsonl")]
    head = f'kind = "mixture"\nmixture = {{ rows = [16], share = [0.5], synthetic = {json.dumps(sources)} }}\nloop.seeds = [0]\n'
    given = (f'{head}data.template = "none"', "pairs.jsonl", 64, 40)
    done = run(home, "pairs", *given)
    assert done.code == 0, done.err
    (row,) = e2e.read_lines(home / "runs/pairs/metrics.jsonl")
    assert [(given["source"], given["rows"]) for given in row["foreign_rows"]] == [(source, 4) for source in sources]
    assert all(len(body["messages"]) == 1 and body["messages"][0]["role"] == "user" for _, body in proxy.seen)
    assert all(body["messages"][0]["content"].endswith("?") for _, body in proxy.seen)
    at = folders(home, "pairs")
    tokenizer = load_tokenizer(at["data"] / "tokenizer")
    corpus = Dataset.load(at["mix"] / "train.safetensors")
    texts = [tokenizer.decode(used(corpus, number)) for number in np.flatnonzero(corpus.origin)]
    assert sum(f"?\n{hostile}" in text for text in texts) == 4
    assert sum("?\nNo " in text for text in texts) == 4
    for number in np.flatnonzero(corpus.origin):
        answer = used(corpus, number)[corpus.arrays[PROMPT][number] :]
        assert [place for place, index in enumerate(answer) if index in tokenizer.all_special_ids] == [len(answer) - 1]
    before = len(proxy.seen)
    proxy.always = serving.says(500, b"{}")
    again = run(home, "again", *given)
    assert again.code == 0, again.err
    assert len(proxy.seen) == before, "what is kept was asked for again"


def test_a_chat_that_begins_with_its_answer_is_said_before(home: Path, proxy: Proxy) -> None:
    (home / "alone.jsonl").write_text('{"messages": [{"role": "assistant", "content": "hello"}]}\n' * 90)
    done = run(home, "alone", f'loop.generations = 1\npool.foreign = "{proxy.address}#m"', "alone.jsonl")
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "have no turn before the answer, so there is nothing that a server could be asked" in done.err

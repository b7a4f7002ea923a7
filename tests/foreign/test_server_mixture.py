"""A mixture whose synthetic rows a real server writes: what is asked, what is kept, a death in the middle, a run without the server."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e
from support import served as serving
from support.served import Proxy, Served

from collapse_cli.data.dataset import Dataset
from collapse_cli.foreign.answers import all_of
from collapse_cli.lm.text import load_tokenizer

NEW = 12


@pytest.fixture(scope="module")
def proxy(server: Served) -> Iterator[Proxy]:
    with serving.proxy(server) as one:
        yield one


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, proxy: Proxy) -> Path:
    home = tmp_path_factory.mktemp("served-mixture")
    tree = e2e.TINY.replace('generations = 1\npolicies = ["keep-0", "keep-10"]', "seeds = [0]")
    tree = tree.replace("prompt_tokens = 16", "prompt_tokens = 8").replace("new_tokens = 16", f"new_tokens = {NEW}")
    grid = f'mixture = {{ rows = [32], share = [0.0, 0.25], synthetic = "{proxy.address}#{proxy.behind.model}" }}'
    tree = tree.format(source=e2e.write_text(home / "text").as_posix())
    (home / "tiny.toml").write_text(f'kind = "mixture"\nforeign.retries = 0\n{grid}\n{tree}')
    return home


def run(home: Path, name: str, *arguments: str, **settings: Any) -> e2e.Result:
    return e2e.collapse("run", home / "tiny.toml", "--name", name, "--runs-dir", home / "runs", *arguments,
                        *(part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")))  # fmt: skip


def test_a_dry_run_asks_nothing(home: Path, proxy: Proxy) -> None:
    done = run(home, "one", "--dry-run")
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "is asked to continue real rows, 12 tokens each" in said
    assert "its answers cannot be made again, so they are kept" in said
    assert proxy.seen == []


def test_a_server_that_dies_in_the_middle_stops_the_run_and_the_same_command_goes_on(home: Path, proxy: Proxy) -> None:
    proxy.faults, proxy.always = [None] * 20, serving.cuts  # a machine that is gone after the twentieth answer
    died = run(home, "one", **{"foreign.at_once": 1})
    assert (died.code, died.err.count("\n")) == (2, 1), died.err
    assert "20 of 64 answers are kept, and the same command asks for the others" in died.err
    assert not any(path.name == "answers.jsonl" for path in (home / "runs/store").glob("[0-9a-f][0-9a-f]/*/*"))
    proxy.always, before = None, len(proxy.seen)
    done = run(home, "one", "--json")
    assert done.code == 0, done.err
    assert len(proxy.seen) - before == 44
    plan = e2e.plan(home / "runs", "one")
    assert [stage["kind"] for stage in plan].count("answers") == 1
    assert not any(stage["kind"] == "sample" for stage in plan)


def test_rows_are_the_answers_in_the_learners_tokens(home: Path, proxy: Proxy) -> None:
    """Each continues the real row of its place; none is longer than asked; where the model ended, its end-of-text token stands."""
    plan = {stage["kind"]: e2e.folder_of(home / "runs", stage["key"]) for stage in e2e.plan(home / "runs", "one")}
    data, answers = plan["data"], all_of(plan["answers"] / "answers.jsonl")
    tokenizer = load_tokenizer(data / "tokenizer")
    rows, prompts = (
        Dataset.load(plan["foreign"] / "rows.safetensors"),
        Dataset.load(plan["answers"] / "prompts.safetensors"),
    )
    asked = [body["prompt"] for _, body in proxy.seen]
    for index, answer in enumerate(answers):
        row = rows.arrays["tokens"][index, : rows.arrays["lengths"][index]]
        ids = tokenizer(answer.text, add_special_tokens=False)["input_ids"]
        ids += [tokenizer.eos_token_id] if answer.ended else []
        assert row.tolist() == ids[:NEW]
        spoken = tokenizer.decode(prompts.arrays["tokens"][index, : prompts.arrays["lengths"][index]])
        assert spoken in asked
    real = e2e.real_rows(home / "runs", "one").arrays["tokens"]
    assert np.array_equal(prompts.arrays["tokens"], real[rows.arrays["row"]][:, :8])
    mixed = next(row for row in e2e.read_lines(home / "runs/one/metrics.jsonl") if row["synthetic_rows"])
    trained = next(stage for stage in e2e.plan(home / "runs", "one") if stage["key"] == mixed["model_key"])
    corpus = Dataset.load(e2e.folder_of(home / "runs", trained["inputs"]["corpus"]) / "train.safetensors")
    made = corpus.take(np.flatnonzero(corpus.origin == 1))
    assert len(made) == 8
    assert np.array_equal(made.arrays["lengths"], rows.arrays["lengths"][24:32]), (
        "the prompts of rows that are not kept real"
    )


def test_rows_say_what_the_server_said_that_it_was(home: Path, proxy: Proxy) -> None:
    row = next(row for row in e2e.read_lines(home / "runs/one/metrics.jsonl") if row["synthetic_rows"])
    model = str(proxy.behind.model)
    assert row["foreign_rows"] == [
        {"source": f"{proxy.address}#{model}", "rows": 8, "server": model, "models": [f"{model}@main"]}
    ]


def test_what_is_kept_needs_no_server(home: Path, proxy: Proxy) -> None:
    """The run again, another grid, and the same model at another address: the model's name is what answers hang on."""
    proxy.always, before = serving.says(500, b"{}"), len(proxy.seen)
    again = run(home, "again", "--json")
    assert (again.code, again.json["computed"]) == (0, 0), again.err
    wider = run(home, "wider", **{"mixture.share": [0.0, 0.25, 0.5]})
    assert wider.code == 0, wider.err
    moved = run(home, "moved", "--json", **{"mixture.synthetic": f"http://127.0.0.1:9/v1#{proxy.behind.model}"})
    assert (moved.code, moved.json["computed"]) == (0, 0), moved.err
    assert len(proxy.seen) == before
    other = run(home, "other", **{"sample.decode.temperature": 0.5})
    assert (other.code, "status 500" in other.err) == (2, True), "another temperature is another question"
    proxy.always = None


def test_a_server_that_does_not_run_is_found_before_the_run_begins(home: Path) -> None:
    gone = f"http://127.0.0.1:{serving.free_port()}/v1"
    done = run(home, "gone", **{"mixture.synthetic": f"{gone}#m", "foreign.retries": 0})
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert f"{gone} cannot be reached" in done.err
    assert not (home / "runs/gone").exists()


def test_files_and_servers_give_rows_in_turn(home: Path, proxy: Proxy) -> None:
    (home / "other.txt").write_text("a red bird likes the old tree under the new house\n" * 40)
    both = [str(home / "other.txt"), f"{proxy.address}#{proxy.behind.model}"]
    done = run(home, "both", **{"mixture.synthetic": both, "mixture.share": [0.25], "foreign.at_once": 8})
    assert done.code == 0, done.err
    (row,) = e2e.read_lines(home / "runs/both/metrics.jsonl")
    assert [(given["source"], given["rows"]) for given in row["foreign_rows"]] == [(both[0], 4), (both[1], 4)]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"sample.decode": {"beams": 5, "temperature": 0.0}}, "servers of completions have no beam search"),
        ({"sample.decode.top_k": 40}, "sample.decode.top_k = 40 is none of the options of OpenAI's completions; .*foreign.extra"),
        ({"sample.prompts": "none"}, "servers continue real rows"),
        ({"foreign.extra": {"temperature": 2.0}}, "holds 'temperature', which other options say"),
        ({"foreign.extra": {"echo": True}}, "holds 'echo', which other options say"),
        ({"foreign.extra": {"api_key": "x"}}, "would be written into run.json"),
        ({"foreign.text": "output"}, "only files have columns"),
        ({"mixture.generator_rows": [10]}, "no generator is fitted"),
    ],
)  # fmt: skip
def test_what_a_server_cannot_be_asked_is_said_before(home: Path, settings: dict[str, Any], said: str) -> None:
    flat = {f"{key}.{name}": part for key, value in settings.items() if isinstance(value, dict) and key != "foreign.extra"
            for name, part in value.items()}  # fmt: skip
    given = flat or {key: json.loads(json.dumps(value)) for key, value in settings.items()}
    arguments = []
    for key, value in given.items():
        if isinstance(value, dict):
            value = "{" + ", ".join(f"{name} = {json.dumps(part)}" for name, part in value.items()) + "}"
            arguments += ["--set", f"{key}={value}"]
        else:
            arguments += ["--set", f"{key}={json.dumps(value)}"]
    done = run(home, "refused", *arguments)
    assert (done.code, done.err.count("\n"), bool(re.search(said, done.err))) == (2, 1, True), done.err
    assert not (home / "runs/refused").exists()


def test_text_that_leaves_this_machine_is_said(home: Path) -> None:
    done = run(home, "away", "--dry-run", **{"mixture.synthetic": "http://models.example/v1#m"})
    said = " ".join(done.out.split())
    assert done.code == 0, done.err
    assert "text leaves this machine: rows of data.source" in said
    assert "are sent to models.example, and by http anyone on the way can read it" in said

"""A loop whose corpora take rows that a real server wrote: lineages share what is asked, a death between generations, a key that is shown nowhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e, foreign
from support import served as serving
from support.served import Proxy, Served

from collapse_cli.data.dataset import Dataset
from collapse_cli.lm.text import load_tokenizer

KEY = "sk-never-to-be-seen"


@pytest.fixture(scope="module")
def proxy(server: Served) -> Iterator[Proxy]:
    with serving.proxy(server) as one:
        yield one


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, proxy: Proxy) -> Path:
    home = tmp_path_factory.mktemp("served-loop")
    tree = e2e.TINY.replace('policies = ["keep-0", "keep-10"]', 'policies = ["keep-0"]')
    tree = tree.replace("generations = 1", "generations = 2").replace("rows = 40", "rows = 18", 1)
    tree = tree.replace("prompt_tokens = 16", "prompt_tokens = 6").format(
        source=e2e.write_text(home / "text").as_posix()
    )
    pool = f'pool = {{ lineages = 2, rule = "all", foreign = "{proxy.address}#{proxy.behind.model}" }}'
    (home / "tiny.toml").write_text(f"{pool}\neval.samples = false\nforeign = {{ retries = 0, at_once = 1 }}\n{tree}")
    return home


def run(home: Path, name: str, *arguments: str, **settings: Any) -> e2e.Result:
    given = foreign.settings(**settings)
    return e2e.collapse("run", home / "tiny.toml", "--name", name, "--runs-dir", home / "runs", *arguments, *given)


def test_a_server_that_dies_between_generations_is_asked_only_for_what_is_missing(
    home: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six of the eighteen rows of each corpus are its; both lineages have the same, asked for once."""
    monkeypatch.setenv("COLLAPSE_SERVER_KEY", KEY)
    known = serving.needs_key(KEY)
    proxy.faults, proxy.always = [known] * 9, serving.cuts
    died = run(home, "two")
    assert (died.code, died.err.count("\n")) == (2, 1), died.err
    assert "3 of 6 answers are kept" in died.err
    there = e2e.read_lines(home / "runs/two/metrics.jsonl")
    assert sorted(row["generation"] for row in there) == [0, 0, 1, 1], "what was measured before stays"
    proxy.always = known
    done = run(home, "two")
    assert done.code == 0, done.err
    assert len(proxy.seen) == 9 + 1 + 3
    rows = [row for row in e2e.read_lines(home / "runs/two/metrics.jsonl") if row["generation"]]
    assert [(row["foreign_rows"][0]["rows"], row["synthetic_rows"]) for row in rows] == [(6, 18)] * 4
    prompts = [body["prompt"] for _, body in proxy.seen]
    assert len(set(prompts[:6])) == 6, "each of its rows continues another real row"


def test_the_key_is_in_no_file_and_no_line(home: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLAPSE_SERVER_KEY", KEY)
    proxy.always = serving.says(401, f'{{"error": {{"message": "Incorrect API key provided: {KEY}"}}}}'.encode())
    refused = run(home, "refused", **{"sample.decode.temperature": 0.5})
    assert (refused.code, KEY in refused.out + refused.err) == (2, False)
    assert not any(KEY.encode() in path.read_bytes() for path in (home / "runs").rglob("*") if path.is_file())


def test_an_answer_that_is_test_text_is_said(home: Path, proxy: Proxy) -> None:
    """As of a model that has seen it."""
    line = (home / "text/test.txt").read_text().splitlines()[0]
    proxy.always = serving.says(200, serving.completion(f"x\n{line}\n", "stop"))
    done = run(home, "seen", **{"loop.generations": 1, "sample.decode.temperature": 0.7})
    assert done.code == 0, done.err
    assert "also stand in the answers of http://127.0.0.1" in done.out + done.err


def test_what_a_server_writes_makes_no_special_token_and_no_mark_up(home: Path, proxy: Proxy) -> None:
    hostile = "</s><|endoftext|> [red]a dog[/] \x1b[31m"
    proxy.always = serving.says(200, serving.completion(hostile, "length", model="[bold]m[/] <script>\x1b[2J"))
    done = run(home, "hostile", **{"loop.generations": 1, "sample.decode.top_p": 0.9, "sample.new_tokens": 40, "sample.prompt_tokens": 4,
                                   "pool.rule": "own", "model.config.max_position_embeddings": 64})  # fmt: skip
    assert done.code == 0, done.err
    plan = e2e.plan(home / "runs", "hostile")
    made = next(stage for stage in plan if stage["kind"] == "foreign")
    rows = Dataset.load(e2e.folder_of(home / "runs", made["key"]) / "rows.safetensors")
    tokenizer = load_tokenizer(e2e.folder_of(home / "runs", made["inputs"]["data"]) / "tokenizer")
    used = rows.arrays["tokens"][0, : rows.arrays["lengths"][0]]
    assert tokenizer.decode(used) == hostile
    assert not np.isin(used, tokenizer.all_special_ids).any()
    assert "the server said [bold]m[/] <script> [2J" in " ".join(done.out.split())
    page = (home / "runs/hostile/report.html").read_text()
    assert "[bold]m[/] &lt;script&gt;" in page
    assert "m[/] <script>" not in page

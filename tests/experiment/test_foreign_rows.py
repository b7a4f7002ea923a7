"""Mixtures whose synthetic rows other people's files hold: which rows, how they are counted, what keys hang on."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e, foreign

from collapse_cli import config
from collapse_cli.config.foreign import server_of
from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import ConfigError
from collapse_cli.experiment import kinds
from collapse_cli.learners import Hints


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of a mixture, and two texts by other models."""
    home = tmp_path_factory.mktemp("foreign")
    tree = e2e.TINY.replace('generations = 1\npolicies = ["keep-0", "keep-10"]', "seeds = [0]")
    tree = tree[: tree.index("[sample]")] + tree[tree.index("[train]") :]  # nothing is sampled
    tree = tree.format(source=e2e.write_text(home / "text").as_posix())
    grid = f"mixture = {{ rows = [16, 32], share = [0.0, 0.25, 1.0], synthetic = '{home / 'other.jsonl'}' }}"
    (home / "tiny.toml").write_text(f'kind = "mixture"\n{grid}\n{tree}')
    foreign.write_other(home / "other.jsonl", 60)
    foreign.write_other(home / "second.jsonl", 30, seed=8)
    return home


def run(home: Path, name: str, *arguments: str, **settings: Any) -> e2e.Result:
    return e2e.collapse("run", home / "tiny.toml", "--name", name, "--runs-dir", home / "runs", *arguments,
                        *(part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")))  # fmt: skip


def corpora(home: Path, name: str) -> dict[str, Dataset]:
    """The corpus of each cell."""
    found = {}
    for row in e2e.read_lines(home / "runs" / name / "metrics.jsonl"):
        plan = {stage["key"]: stage for stage in e2e.plan(home / "runs", name)}
        key = plan[row["model_key"]]["inputs"]["corpus"]
        found[row["policy"]] = Dataset.load(e2e.folder_of(home / "runs", key) / "train.safetensors")
    return found


@pytest.fixture(scope="module")
def one(home: Path) -> e2e.Result:
    done = run(home, "one")
    assert done.code == 0, done.err
    return done


def test_synthetic_rows_are_rows_of_the_file_each_once(home: Path, one: e2e.Result) -> None:
    cells = corpora(home, "one")
    (foreign,) = [stage for stage in e2e.plan(home / "runs", "one") if stage["kind"] == "foreign"]
    all_rows = Dataset.load(e2e.folder_of(home / "runs", foreign["key"]) / "rows.safetensors").arrays["tokens"]
    known = e2e.as_set(all_rows)
    assert len(known) == len(all_rows), "rows of the file must be told apart"
    real = e2e.as_set(e2e.real_rows(home / "runs", "one").arrays["tokens"])
    for label, corpus in cells.items():
        made = corpus.arrays["tokens"][corpus.origin == 1]
        assert e2e.as_set(made) <= known - real, label
        assert len(e2e.as_set(made)) == len(made), "a row twice"
        assert e2e.as_set(corpus.arrays["tokens"][corpus.origin == 0]) <= real
    counts = {label: int((corpus.origin == 1).sum()) for label, corpus in cells.items()}
    assert counts == {
        "n=16 p2=0": 0,
        "n=16 p2=0.25": 4,
        "n=16 p2=1": 16,
        "n=32 p2=0": 0,
        "n=32 p2=0.25": 8,
        "n=32 p2=1": 32,
    }


def test_rows_of_a_small_cell_are_among_those_of_a_large_one(home: Path, one: e2e.Result) -> None:
    made = {label: corpus.arrays["tokens"][corpus.origin == 1] for label, corpus in corpora(home, "one").items()}
    for small, large in (("n=16 p2=0.25", "n=32 p2=0.25"), ("n=32 p2=0.25", "n=32 p2=1")):
        assert np.array_equal(made[small], made[large][: len(made[small])])


def test_the_rows_say_how_many_came_from_where(home: Path, one: e2e.Result) -> None:
    sha256 = json.loads((home / "runs/one/run.json").read_text())["config"]["foreign"]["sha256"]
    (hash_of_other,) = sha256
    rows = {row["policy"]: row for row in e2e.read_lines(home / "runs/one/metrics.jsonl")}
    assert rows["n=32 p2=0.25"]["foreign_rows"] == [
        {"source": str(home / "other.jsonl"), "rows": 8, "sha256": hash_of_other}
    ]
    assert "foreign_rows" not in rows["n=32 p2=0"]
    assert (rows["n=32 p2=0.25"]["real_rows"], rows["n=32 p2=0.25"]["synthetic_rows"]) == (24, 8)
    assert not any(stage["kind"] == "sample" for stage in e2e.plan(home / "runs", "one")), "a generator was fitted"


def test_the_same_text_under_another_name_is_computed_once(home: Path, one: e2e.Result) -> None:
    """Not from the store alone: the run itself takes it, for where a hash says what was found names do not matter."""
    (home / "copy.txt").write_text("".join(json.loads(line)["text"] + "\n" for line in (home / "other.jsonl").open()))
    for name in ("one", "again"):
        done = run(home, name, "--json", **{"mixture.synthetic": str(home / "copy.txt")})
        assert (done.code, done.json["computed"]) == (0, 0), done
    foreign.write_other(home / "changed.jsonl", 60, seed=9)
    changed = run(home, "one", **{"mixture.synthetic": str(home / "changed.jsonl")})
    assert (changed.code, "mixture.synthetic" in changed.err, changed.err.count("\n")) == (2, True, 1)


def test_several_sources_give_rows_in_turn(home: Path) -> None:
    both = [str(home / "other.jsonl"), str(home / "second.jsonl")]
    done = run(home, "both", **{"mixture.synthetic": both, "mixture.rows": [32], "mixture.share": [0.25]})
    assert done.code == 0, done.err
    (row,) = e2e.read_lines(home / "runs/both/metrics.jsonl")
    assert [(given["source"], given["rows"]) for given in row["foreign_rows"]] == [(both[0], 4), (both[1], 4)]


def test_test_text_among_the_foreign_text_is_said(home: Path) -> None:
    lines = (home / "text/test.txt").read_text().splitlines()[:5]
    (home / "seen.txt").write_text((home / "copy.txt").read_text() + "\n".join(lines))
    done = run(home, "seen", "--dry-run", **{"mixture.synthetic": str(home / "seen.txt")})
    assert done.code == 0
    assert "test lines of 40 characters or more that also stand in" in " ".join(done.out.split())
    assert "5 of 30" in " ".join(done.out.split())
    assert not (home / "runs/seen").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mixture.synthetic": "gone.txt"}, "there is no file or folder 'gone.txt'"),
        ({"mixture.synthetic": "{home}/second.jsonl", "mixture.rows": [400], "mixture.share": [1.0]}, "and 400 are needed, each once"),
        ({"mixture.synthetic": ["{home}/second.jsonl", "{home}/second.jsonl"]}, "names one twice"),
        ({"mixture.synthetic": ["{home}/other.jsonl", "{home}/twin.txt"]}, "holds the same text as"),
        ({"mixture.synthetic": "{home}/other.jsonl", "mixture.generator_rows": [10]}, "no generator is fitted"),
        ({"mixture.synthetic": "{home}/other.jsonl", "sample.new_tokens": 8}, "nothing is sampled"),
        ({"mixture.synthetic": "{home}/other.jsonl", "foreign.chat": True}, "the sources here are files"),
        ({"mixture.synthetic": "{home}/other.jsonl", "foreign.sha256": ["0" * 64]}, "has changed"),
        ({"mixture.synthetic": "ftp://127.0.0.1/v1"}, "servers are asked by http or https"),
        ({"mixture.synthetic": "http://me:secret@127.0.0.1/v1"}, "holds a password"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_in_one_line(home: Path, settings: dict[str, Any], said: str) -> None:
    (home / "twin.txt").write_text("".join(json.loads(line)["text"] + "\n" for line in (home / "other.jsonl").open()))
    given = json.loads(json.dumps(settings).replace("{home}", str(home)))
    done = run(home, "refused", **given)
    assert (done.code, done.err.count("\n"), said in done.err, "secret" in done.err) == (2, 1, True, False), done.err
    assert not (home / "runs/refused").exists()


def test_numbers_are_no_text() -> None:
    tree = {
        "kind": "mixture",
        "learner": "ridge",
        "mixture": {"rows": [10], "share": [0.5], "synthetic": ["other.txt"]},
    }
    with pytest.raises(
        ConfigError,
        match=r"mixture.synthetic names text, and the rows of the learner ridge are numbers; it belongs to lm",
    ):
        config.load(tree, "a test")


def test_what_a_server_is_called() -> None:
    server = server_of("HTTP://LocalHost:8000/v1/#org/Model-7B")
    assert server is not None
    assert (server.address, server.model, server.here) == ("http://localhost:8000/v1", "org/Model-7B", True)
    away = server_of("https://api.example.org/v1/chat/completions")
    assert away is not None
    assert (away.address, away.here, away.identity) == (
        "https://api.example.org/v1",
        False,
        "https://api.example.org/v1",
    )
    assert server_of("other.jsonl") is None
    hosts = {
        "127.0.0.1:80": True,
        "[::1]:80": True,
        "127.evil.example": False,
        "0.0.0.0": False,
        "localhost.example": False,
    }
    assert {host: (server_of(f"http://{host}/v1") or away).here for host in hosts} == hosts
    with pytest.raises(ConfigError, match=r"foreign.extra: holds something that cannot be sent as JSON"):
        config.load({"foreign": {"extra": {"when": date(2026, 1, 1)}}}, "a test")


def test_keys_of_mixtures_without_foreign_text_hold_nothing_of_it() -> None:
    """Nor do they change with options that are read only where there is some."""
    tree = {"kind": "mixture", "data": {"sha256": "0" * 64}, "model": {"config": {"model_type": "opt"}, "tokenizer": "bpe"},
            "mixture": {"rows": [20], "share": [0.5]}}  # fmt: skip
    before = kinds.plan(config.load(tree, "a test"), Hints()).stages
    after = kinds.plan(config.load(tree | {"foreign": {"text": "output", "timeout": 1.0}}, "a test"), Hints()).stages
    assert list(before) == list(after)
    assert not any("foreign" in json.dumps(dict(stage.params)) for stage in before.values())

"""Text of other models in the loop: how many rows of each source enter which corpus, none twice; alone, beside one's own, of several lineages."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import e2e, foreign

from collapse_cli import config
from collapse_cli.errors import ConfigError
from collapse_cli.experiment import kinds
from collapse_cli.learners import Hints


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("foreign-pool")
    tree = e2e.TINY.replace('policies = ["keep-0", "keep-10"]', 'policies = ["keep-0"]')
    tree = tree.replace("generations = 1", "generations = 2") + "\n[eval]\nsamples = false\n"
    (home / "tiny.toml").write_text(tree.format(source=e2e.write_text(home / "text").as_posix()))
    foreign.write_other(home / "other.jsonl", 60)
    return home


def run(home: Path, name: str, *arguments: str, **settings: Any) -> e2e.Result:
    given = {"pool.foreign": str(home / "other.jsonl")} | settings
    return e2e.collapse(
        "run", home / "tiny.toml", "--name", name, "--runs-dir", home / "runs", *arguments, *foreign.settings(**given)
    )


@pytest.fixture(scope="module")
def beside(home: Path) -> list[dict[str, Any]]:
    """One lineage that takes rows of the file as well as its own."""
    done = run(home, "beside")
    assert done.code == 0, done.err
    assert "Text of another model:" in done.out
    return e2e.read_lines(home / "runs/beside/metrics.jsonl")


def tokens(home: Path, name: str, generation: int, policy: str = "keep-0") -> np.ndarray:
    corpus = e2e.corpus(home / "runs", name, policy, 0, generation)
    return np.asarray(corpus.arrays["tokens"])


def test_half_of_the_synthetic_rows_are_the_files_each_once(home: Path, beside: list[dict[str, Any]]) -> None:
    known = foreign.every_row(home / "runs", "beside")
    taken = [
        [row for row in map(tuple, tokens(home, "beside", generation).tolist()) if row in known]
        for generation in (1, 2)
    ]
    assert [len(rows) for rows in taken] == [20, 20]
    assert len({*taken[0], *taken[1]}) == 40, "a row came again while there were others"
    assert [[given["rows"] for given in row.get("foreign_rows", [])] for row in beside] == [[], [20], [20]]
    assert beside[1]["foreign_rows"][0]["source"] == str(home / "other.jsonl")
    assert [row["synthetic_rows"] for row in beside] == [0, 40, 40]


def test_with_others_all_synthetic_rows_are_the_files(home: Path) -> None:
    done = run(home, "alone", **{"pool.rule": "others", "loop.policies": ["keep-20"]})
    assert done.code == 0, done.err
    known = foreign.every_row(home / "runs", "alone")
    for generation in (1, 2):
        made = [row for row in map(tuple, tokens(home, "alone", generation, "keep-20").tolist()) if row in known]
        assert (len(made), len(set(made))) == (32, 32)
    assert "behind its last row a later generation begins with the first again" not in " ".join(done.out.split())


def test_rows_that_come_again_are_said_and_never_twice_in_a_corpus(home: Path) -> None:
    foreign.write_other(home / "small.jsonl", 32, seed=3)
    given = {"pool.foreign": str(home / "small.jsonl"), "pool.rule": "others"}
    done = run(home, "again", "--dry-run", **given)
    assert done.code == 0, done.err
    assert "keep-0 takes 80 rows of" in " ".join(done.out.split())
    assert "begins with the first again" in " ".join(done.out.split())
    for refused, words in (
        ({"loop.policies": ["accumulate"]}, "and 80 are needed, each once"),
        ({"mix.rows": 400}, "and 400 are needed, each once"),
    ):
        done = run(home, "refused", **given, **refused)
        assert (done.code, done.err.count("\n"), words in done.err) == (2, 1, True), done.err


def test_lineages_of_other_tokenizers_read_the_same_text_each_in_its_own(home: Path) -> None:
    done = run(
        home, "two", **{"pool.rule": "all", "lineages.a.model.vocab_size": 290, "lineages.b.model.vocab_size": 300}
    )
    assert done.code == 0, done.err
    rows = [row for row in e2e.read_lines(home / "runs/two/metrics.jsonl") if row["generation"]]
    assert len(rows) == 4
    assert [row["foreign_rows"][0]["rows"] for row in rows] == [13] * 4, "a third, the last member's part of 40"


def test_counting_learners_take_text_of_others_as_well(home: Path) -> None:
    """Whose generations are a block of many where no such text is among them."""
    tree = f"""
learner = "ngram"
loop = {{ generations = 2, policies = ["keep-0"] }}
data = {{ source = "{(home / "text").as_posix()}", block_size = 16, rows = 40 }}
sample = {{ prompt_tokens = 4, new_tokens = 16, decode = {{ beams = 1, temperature = 1.0 }} }}
model = {{ tokenizer = "bpe", vocab_size = 290 }}
pool = {{ foreign = "{(home / "other.jsonl").as_posix()}", rule = "others" }}
"""
    (home / "ngram.toml").write_text(tree)
    done = e2e.collapse("run", home / "ngram.toml", "--name", "counted", "--runs-dir", home / "runs")
    assert done.code == 0, done.err
    known = foreign.every_row(home / "runs", "counted")
    assert {tuple(row) for row in tokens(home, "counted", 2).tolist()} <= known
    refused = e2e.collapse(
        "run", home / "ngram.toml", "--name", "x", "--runs-dir", home / "runs", "--set", "loop.block=5"
    )
    assert (refused.code, "leave loop.block at 0 or 1" in refused.err) == (2, True)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"pool.rule": "segments", "pool.lineages": 2}, "pool.rule = segments deals out rows that lineages made"),
        ({"loop.policies": ["keep-100"]}, "no policy here takes rows that a model made"),
        ({"loop.generations": 0}, "generation 0 is trained on real rows alone"),
        ({"foreign.at_once": 2}, "the sources here are files"),
        ({"foreign.text": "other"}, "has no column 'other'"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(home: Path, settings: dict[str, Any], said: str) -> None:
    done = run(home, "refused", **settings)
    assert (done.code, done.err.count("\n"), said in done.err) == (2, 1, True), done.err
    assert not (home / "runs/refused").exists()


def test_numbers_are_no_text() -> None:
    with pytest.raises(ConfigError, match=r"pool.foreign names text, and the rows of the learner gaussian are numbers"):
        config.load({"learner": "gaussian", "data": {"source": "blobs"}, "pool": {"foreign": "x.txt"}}, "a test")


def test_a_source_more_changes_the_rows_of_the_pool_and_nothing_before_it() -> None:
    """Generation 0, and the real rows, are the same stages."""
    tree: dict[str, Any] = {
        "data": {"sha256": "0" * 64},
        "model": {"config": {"model_type": "opt"}, "tokenizer": "bpe"},
        "loop": {"generations": 2, "policies": ["keep-0"]},
    }
    plain = kinds.plan(config.load(tree, "a test"), Hints())
    more = tree | {"pool": {"foreign": "a.txt"}, "foreign": {"sha256": ["1" * 64]}}
    with_text = kinds.plan(config.load(more, "a test"), Hints())
    first = [made for made in plain.generations if made.where.generation == 0]
    same = [made for made in with_text.generations if made.where.generation == 0]
    assert [made.train.key for made in first] == [made.train.key for made in same]
    later = {made.train.key for made in plain.generations if made.where.generation}
    assert not later & {made.train.key for made in with_text.generations}


def test_a_server_that_moved_is_the_same_source_where_its_model_is_named() -> None:
    """As in keys: an address is mended, or a port changes, and the run goes on."""

    def identity(source: str) -> dict[str, Any]:
        tree = {"model": {"config": {"model_type": "opt"}}, "sample": {"decode": {"beams": 1, "temperature": 1.0}}}
        return config.load({**tree, "pool": {"foreign": [source]}}, "x").identity()

    assert identity("http://127.0.0.1:1/v1#m") == identity("http://127.0.0.1:2/v1#m")
    assert identity("http://127.0.0.1:1/v1#m") != identity("http://127.0.0.1:1/v1#other")
    assert identity("http://127.0.0.1:1/v1") != identity("http://127.0.0.1:2/v1")

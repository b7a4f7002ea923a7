"""Lineages measured beside each other in whole runs: what each row says of the others, and when it is made."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from support import e2e

TWO = '[pool]\nlineages = 2\nrule = "all"\nreal = "segments"\n'
WORDS = """
learner = "ngram"
loop = { generations = 2, policies = ["keep-0", "fresh-50"] }
data = { source = "zipf", rows = 40, eval_rows = 20, block_size = 16, zipf = { vocabulary = 60 } }
sample = { prompt_tokens = 4, new_tokens = 12, decode = { beams = 1, temperature = 1.0 } }
"""
NUMBERS = """
learner = "gaussian"
loop = { generations = 1, policies = ["keep-0"] }
data = { source = "blobs", rows = 20, blobs = { dimensions = 1 } }
"""
TASKS = """
learner = "ngram"
loop = {{ generations = 1, policies = ["keep-0"] }}
model = {{ tokenizer = "bpe", vocab_size = 290 }}
data = {{ source = "{home}/text", block_size = 16, rows = 60, eval_rows = 12 }}
sample = {{ prompt_tokens = 4, new_tokens = 12, decode = {{ beams = 1, temperature = 1.0 }} }}
pool.rule = "others"
[lineages.plain]
[lineages.task]
data.source = "{home}/task"
model.vocab_size = 300
"""
Rows = dict[tuple[str, str, int], dict[str, Any]]


def rows_of(runs: Path, name: str) -> Rows:
    """By lineage, policy and generation; without what may differ from one time to the next."""
    return {
        (row["lineage"], row["policy"], row["generation"]): {key: row[key] for key in row.keys() - {"seconds"}}
        for row in e2e.read_lines(runs / name / "metrics.jsonl")
    }


def written(home: Path, name: str, text: str) -> Path:
    path = home / f"{name}.toml"
    path.write_text(text + TWO, encoding="utf-8")
    return path


def of_kind(runs: Path, name: str) -> list[dict[str, Any]]:
    return [stage for stage in e2e.plan(runs, name) if stage["kind"] == "between"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("between")


@pytest.fixture(scope="module")
def tiny(home: Path) -> Path:
    """Two language models on halves of one corpus, and one generation behind the first."""
    text = e2e.write_experiment(home).read_text().replace('"keep-0", "keep-10"', '"keep-0"')
    return written(home, "tiny", text)


@pytest.fixture(scope="module")
def runs(home: Path, tiny: Path) -> Path:
    e2e.run(tiny, home / "runs")
    return home / "runs"


def test_each_row_says_how_its_lineage_stands_to_the_others(runs: Path) -> None:
    rows, names = rows_of(runs, "tiny"), {"model-1", "model-2"}
    assert len(rows) == 4
    for generation in (0, 1):
        one, two = (rows[name, "keep-0", generation] for name in sorted(names))
        assert one["js_distance_to"] == {"model-2": one["js_distance"]}
        assert two["js_distance_to"] == {"model-1": one["js_distance"]}
        assert 0 < one["js_distance"] < 1
        # the same tokens as in the stage `eval`
        assert one["mixture_gain"] == pytest.approx((one["nll"] + two["nll"]) / 2 - one["mixture_nll"], rel=1e-4)
        assert one["mixture_nll"] == two["mixture_nll"]
        for row in (one, two):
            assert row["nll_on"].keys() == row["cross_perplexity"].keys() == names
            # 20 rows each, and many more that are kept out of training
            assert row["between"] == {"test_tokens": 180, "js_tokens": 180, "sample_rows": 10, "own_text": "reserve"}
    assert rows["model-1", "keep-0", 0]["js_distance"] != rows["model-1", "keep-0", 1]["js_distance"]


def test_a_stage_serves_all_lineages_of_a_generation_and_is_found_again(home: Path, tiny: Path, runs: Path) -> None:
    stages, before = of_kind(runs, "tiny"), rows_of(runs, "tiny")
    assert [stage["for"] for stage in stages] == [
        [["keep-0", 0, generation, name] for name in ("model-1", "model-2")] for generation in (0, 1)
    ]
    shutil.copytree(runs, home / "again")
    assert e2e.run(tiny, home / "again")["computed"] == 0
    shutil.rmtree(e2e.folder_of(home / "again", stages[1]["key"]))
    assert e2e.run(tiny, home / "again")["computed"] == 1
    assert rows_of(home / "again", "tiny") == before


@pytest.mark.slow  # that a kill loses one model is held by tests/learners/test_between.py as well
def test_a_run_that_is_killed_between_two_models_goes_on(home: Path, tiny: Path, runs: Path) -> None:
    """Of the first generation all but what is measured between the models is there."""
    there = home / "killed"
    shutil.copytree(runs, there)
    shutil.rmtree(e2e.folder_of(there, of_kind(runs, "tiny")[1]["key"]))
    argv = ["run", str(tiny), "--runs-dir", str(there), "--jobs", "1", "--json"]
    codes = e2e.drive({"argv": argv, "strike": e2e.strike("between", when="tell", tell=2)}, {"argv": argv})
    assert codes == [[-9], [0]]
    assert rows_of(there, "tiny") == rows_of(runs, "tiny")


def test_n_grams_say_what_all_of_them_have_lost(home: Path) -> None:
    e2e.run(written(home, "words", WORDS), home / "runs")
    rows = rows_of(home / "runs", "words")
    assert len(of_kind(home / "runs", "words")) == 6
    for generation in (0, 1, 2):
        one, two = (rows[name, "keep-0", generation] for name in ("model-1", "model-2"))
        alone = min(one["unseen_share"], two["unseen_share"])
        if generation == 0:
            assert one["mixture_unseen_share"] < alone
        else:  # both were fitted on the one pool
            assert one["mixture_unseen_share"] == alone
            assert one["js_distance"] == pytest.approx(0, abs=1e-7)
        assert one["mixture_gain"] == pytest.approx((one["nll"] + two["nll"]) / 2 - one["mixture_nll"])
        assert one["between"]["own_text"] == "reserve"
        # what the policy takes from the reserve is no text to measure on
        assert rows["model-1", "fresh-50", generation]["between"]["own_text"] == "corpus"
    # the last generation is not sampled: nothing needs its rows
    assert "cross_perplexity" in rows["model-1", "keep-0", 1]
    assert "cross_perplexity" not in rows["model-1", "keep-0", 2]
    own = rows["model-1", "fresh-50", 0]["nll_on"]
    assert own["model-1"] < own["model-2"], "it was fitted on the one half, and not on the other"


def test_a_lineage_with_text_and_tokens_of_its_own_is_measured_on_its_own_test_text(home: Path) -> None:
    e2e.write_text(home / "text")
    for file in e2e.write_text(home / "task").iterdir():
        file.write_text(file.read_text().replace("house", "riverboat").replace("cat", "badger"))
    (home / "tasks.toml").write_text(TASKS.format(home=home.as_posix()))
    e2e.run(home / "tasks.toml", home / "runs")
    rows = rows_of(home / "runs", "tasks")
    for generation in (0, 1):
        plain, task = (rows[name, "keep-0", generation] for name in ("plain", "task"))
        assert [row["between"]["own_text"] for row in (plain, task)] == ["reserve", "test"]
        assert not plain.keys() & {"js_distance_to", "mixture_nll"}, "their tokens differ"
        assert plain["bits_per_byte_on"].keys() == task["bits_per_byte_on"].keys() == {"plain", "task"}
    assert rows["plain", "keep-0", 0]["cross_bits_per_byte"].keys() == {"plain", "task"}
    plain, task = (rows[name, "keep-0", 0]["bits_per_byte_on"] for name in ("plain", "task"))
    assert task["task"] < plain["task"]
    assert plain["plain"] < task["plain"]


def test_blocks_of_generations_have_no_place_for_it(home: Path) -> None:
    result = e2e.collapse("run", written(home, "words", WORDS), "--runs-dir", home / "blocks", "--set", "loop.block=2")
    assert result.code == 2
    assert "loop.block = 2: lineages of models of text are measured beside each other" in result.err


def test_a_lineage_alone_and_learners_of_numbers_have_no_such_stage(home: Path) -> None:
    e2e.run(written(home, "numbers", NUMBERS), home / "runs")
    assert not of_kind(home / "runs", "numbers")
    (home / "alone.toml").write_text(WORDS)
    e2e.run(home / "alone.toml", home / "runs")
    assert not of_kind(home / "runs", "alone")
    row = e2e.read_lines(home / "runs" / "alone" / "metrics.jsonl")[0]
    assert not row.keys() & {"between", "js_distance", "mixture_nll", "lineage"}

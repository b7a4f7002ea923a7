"""Several models: whether they become alike, what they hold together, and whether more than one holds longer."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.instrumented import write_run
from support.lineages import write_lineages

from collapse_cli.findings.compare import compare
from collapse_cli.findings.several_models import between, between_said, more_than_one, more_than_one_said
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.where import Where

LAST = 4
Losses = Mapping[str, Sequence[float]]  # lineage -> loss by generation, of every seed the same but for noise


def rows_of(losses: Losses, seeds: int = 3, *, noise: float = 0.0, draw: Any = None, **fields: Any) -> list[Row]:
    """Rows of keep-0: `noise` between models, and half of it common to all lineages of a seed."""
    rows = []
    for seed in range(seeds):
        shared = noise / math.sqrt(2) * (draw.standard_normal(LAST + 1) if draw is not None else np.zeros(LAST + 1))
        for lineage, course in losses.items():
            own = noise / math.sqrt(2) * (draw.standard_normal(LAST + 1) if draw is not None else np.zeros(LAST + 1))
            for g, loss in enumerate(course):
                nll = float(loss + shared[g] + own[g] + 0.1 * seed)
                measured = {
                    "nll": nll,
                    "predicted_tokens": 100.0,
                    **{name: value(seed, g) for name, value in fields.items()},
                }
                rows.append(Row.at(Where("keep-0", seed, g, lineage), measured))
    return rows


def course(rate: float) -> list[float]:
    return [4 + rate * g for g in range(LAST + 1)]


ONE, FOUR = {"": course(0.2)}, {name: course(0.05) for name in "abcd"}


def test_more_than_one_holds_longer_where_it_does() -> None:
    draw = np.random.Generator(np.random.Philox(1))
    found = more_than_one({"one": rows_of(ONE, noise=0.02, draw=draw), "four": rows_of(FOUR, noise=0.02, draw=draw)})
    assert found is not None
    one, four = found.runs
    assert (one.lineages, four.lineages, found.generation) == (1, 4, LAST)
    assert four.longer is not None
    assert four.level is not None
    assert four.longer.mean == pytest.approx(math.exp(-0.15 * LAST), rel=0.05)
    assert (four.told, four.told_level) == ("grows more slowly", "is lower")
    plain = more_than_one({"one": rows_of(ONE), "four": rows_of(FOUR)})
    assert plain is not None
    assert [run.until for run in plain.runs] == [0, 3], "within 1.2 times: 0.2 nats in a generation, or in four"
    (said,) = more_than_one_said(found)
    assert said.startswith(
        "keep-0: perplexity with 4 lineages grows more slowly than with 1, and at generation 4 it is lower. By generation 4 perplexity is ×2."
    )
    assert "mean over lineages" in said


@pytest.mark.parametrize(
    ("start", "rate", "verdict", "said"),
    [
        (1.0, 0.05, "grows more slowly; perplexity is higher", "grows more slowly than with 1, but at generation 4 it is higher."),
        (0.6, 0.05, "grows more slowly; perplexity is not told apart", "than with 1; at generation 4 it is not told apart."),
        (0.0, 0.3, "grows faster; perplexity is higher", "grows faster than with 1, and at generation 4 it is higher."),
        (1.0, 0.2, "growth is not told apart; perplexity is higher",
         "growth of perplexity with 2 lineages is not told apart from that with 1, but at generation 4 perplexity is higher."),
        (0.0, 0.2, "is not told apart", "2 lineages are not told apart from 1."),
    ],
)  # fmt: skip
def test_growth_and_perplexity_itself_are_two_answers(start: float, rate: float, verdict: str, said: str) -> None:
    """Who starts worse has less to lose: to lose less is not to be better."""
    draw = np.random.Generator(np.random.Philox(7))
    two = {name: [loss + start for loss in course(rate)] for name in "ab"}
    found = more_than_one({"one": rows_of(ONE, noise=0.01, draw=draw), "two": rows_of(two, noise=0.01, draw=draw)})
    assert found is not None
    assert found.runs[1].verdict == verdict
    assert said in more_than_one_said(found)[0]


def test_one_seed_has_no_verdict_and_runs_that_are_alike_in_number_are_no_finding() -> None:
    found = more_than_one({"one": rows_of(ONE, seeds=1), "four": rows_of(FOUR, seeds=1)})
    assert found is not None
    assert found.runs[1].told == ""
    assert "nothing is shown" in more_than_one_said(found)[0]
    assert "without an interval" in more_than_one_said(found)[0]
    assert more_than_one({"one": rows_of(ONE), "other": rows_of(ONE)}) is None
    assert more_than_one({"four": rows_of(FOUR)}) is None


def test_of_other_tokens_only_growth_is_held_against_each_other() -> None:
    other = [Row(row.where, {**row.fields, "predicted_tokens": 50.0}) for row in rows_of(FOUR)]
    found = more_than_one({"one": rows_of(ONE), "four": other})
    assert found is not None
    assert found.runs[1].longer is not None
    assert found.runs[1].level is None
    assert any("different tokens" in note for note in found.notes)


def test_a_generation_that_a_lineage_lacks_is_not_counted() -> None:
    four = [row for row in rows_of(FOUR) if (row.where.lineage, row.where.generation) != ("d", LAST)]
    found = more_than_one({"one": rows_of(ONE), "four": four})
    assert found is not None
    assert found.generation == LAST - 1


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_over_seeds_covers_the_true_growth_and_rarely_calls_a_difference(seeds: int) -> None:
    """Lineages of a seed share half of its noise: as if they were independent, four would seem four times as sure as they are."""
    draw = np.random.Generator(np.random.Philox(seeds))
    true, trials = math.exp(-0.15 * LAST), 400
    inside = wrong = told = 0
    for _ in range(trials):
        same = {name: course(0.2) for name in "abcd"}
        made = {"one": rows_of(ONE, seeds, noise=0.1, draw=draw), "four": rows_of(FOUR, seeds, noise=0.1, draw=draw)}
        four = more_than_one(made).runs[1]  # type: ignore[union-attr]
        assert four.longer is not None
        assert four.longer.low is not None
        assert four.longer.high is not None
        inside += four.longer.low <= true <= four.longer.high
        told += four.told == "grows more slowly"
        alike = more_than_one({"one": made["one"], "four": rows_of(same, seeds, noise=0.1, draw=draw)}).runs[1]  # type: ignore[union-attr]
        wrong += alike.verdict != "is not told apart"
    assert inside / trials >= 0.93
    assert wrong / trials <= 0.07
    assert told / trials > {2: 0.02, 3: 0.4, 5: 0.95}[seeds]


@pytest.mark.parametrize(("slope", "alike"), [(-0.1, True), (0.1, False), (0.0, None)])
def test_models_become_alike_or_grow_apart_or_nothing_is_shown(slope: float, alike: bool | None) -> None:
    draw = np.random.Generator(np.random.Philox(3))

    def distance(seed: int, g: int) -> float:
        return 0.5 + slope * g + 0.02 * float(draw.standard_normal())

    (found,) = between(rows_of(FOUR, js_distance=distance))
    assert found.alike is alike
    words = {True: "become alike", False: "grow apart", None: "are not shown to"}[alike]
    assert words in between_said([found])[0]
    assert found.distance.keys() == set(range(LAST + 1))
    assert found.distance[0].n == 3, "seeds, not models"


def test_one_seed_shows_nothing_of_becoming_alike() -> None:
    (found,) = between(rows_of(FOUR, seeds=1, js_distance=lambda seed, g: 0.5 - 0.1 * g))
    assert found.alike is None
    assert "of one seed, so nothing is shown" in between_said([found])[0]


def test_a_run_of_one_lineage_has_nothing_between() -> None:
    assert between(rows_of(ONE, js_distance=lambda seed, g: 0.5)) == []


def test_matrices_have_a_cell_for_each_model_and_text_and_the_mixture_stands_beside_one(tmp_path: Path) -> None:
    write_lineages(tmp_path, "two", {"opt": {"keep-0": 0.2}, "gpt": {"keep-0": 0.1}}, generations=3)
    (found,) = between(RunFolder(tmp_path, "two").rows())
    cells = found.matrices["bits_per_byte_on"]
    assert cells.keys() == set(range(4))
    assert list(cells[0]) == [("opt", "opt"), ("opt", "gpt"), ("gpt", "opt"), ("gpt", "gpt")]
    assert cells[3]["opt", "opt"].mean < cells[3]["opt", "gpt"].mean, "each knows its own best"
    assert ("opt", "opt") not in found.matrices["js_distance_to"][0], "no model is at a distance from itself"
    assert found.together["mixture_perplexity"][3].mean < found.single[3].mean
    assert "Together (the mean of their probabilities)" in between_said([found])[0]
    assert json.loads(json.dumps(found.record()))["become_alike"] is True


def test_a_comparison_of_runs_says_whether_more_than_one_holds_longer(tmp_path: Path) -> None:
    write_run(tmp_path, "m1", policies=("keep-0",), seeds=(0, 1, 2), generations=3, collapse={"keep-0": 0.2})
    write_lineages(tmp_path, "m2", {"model-1": {"keep-0": 0.02}, "model-2": {"keep-0": 0.02}}, generations=3)
    found = compare([RunFolder(tmp_path, "m1"), RunFolder(tmp_path, "m2")])
    assert found.more is not None
    assert [one.told for one in found.more.runs] == ["", "grows more slowly"]
    assert found.record()["more_than_one"]["runs"][1]["lineages"] == 2
    assert found.differences == {"pool.rule": ("own", "all")}
    assert compare([RunFolder(tmp_path, "m1")]).more is None
    assert "more_than_one" not in compare([RunFolder(tmp_path, "m1")]).record()


def test_what_all_lineages_have_alike_is_no_difference_from_a_run_of_one(tmp_path: Path) -> None:
    """What was looked up stands in the lineages' tables: the text's hash, the resolved type and the model were told as differences."""
    write_run(tmp_path, "m1", policies=("keep-0",), seeds=(0, 1), generations=1, collapse={"keep-0": 0.2})
    write_lineages(tmp_path, "m2", {"a": {"keep-0": 0.02}, "b": {"keep-0": 0.02}}, generations=1)
    file = tmp_path / "m2" / "run.json"
    record = json.loads(file.read_text())
    one = json.loads((tmp_path / "m1" / "run.json").read_text())["config"]
    alike = {"model": one["model"], "sample": {"dtype": one["sample"]["dtype"]}}
    record["config"]["sample"]["dtype"] = "auto"
    record["config"]["lineages"] = {"a": {**alike, "train": {"lr": 0.5}}, "b": alike}
    file.write_text(json.dumps(record))
    found = compare([RunFolder(tmp_path, "m1"), RunFolder(tmp_path, "m2")])
    assert found.differences is not None
    assert found.differences.pop("train.lr")[1] == "by lineage"
    assert found.differences == {"pool.rule": ("own", "all"), "lineages.a.train.lr": (None, 0.5)}

"""Lineages are told apart wherever rows are grouped: no finding of one is touched by what another measured."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.instrumented import write_run
from support.lineages import write_lineages
from support.rows import row_of

from collapse_cli.findings.arms import averaged, few, said, trees_of
from collapse_cli.findings.compare import compare
from collapse_cli.findings.diagnosis import diagnose_run
from collapse_cli.findings.diagnosis.brief import brief
from collapse_cli.findings.expectations import judge
from collapse_cli.findings.forecast import forecast_rows, sentences, shares_of
from collapse_cli.findings.remedies import OneRun, remedies
from collapse_cli.records.listing import facts_of
from collapse_cli.records.row import Row, by_arm, in_order, planned_arms
from collapse_cli.records.rundir import RunFolder
from collapse_cli.where import Arm, Where

RATES = {"a": {"keep-0": 0.2, "keep-10": 0.02}, "b": {"keep-0": 0.2, "keep-10": 0.0}, "c": {"keep-0": 0.01}}
POLICIES = ("keep-0", "keep-10")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    runs = tmp_path_factory.mktemp("runs")
    write_lineages(runs, "three", RATES, policies=POLICIES)
    return RunFolder(runs, "three")


def alone(run: RunFolder, lineage: str) -> list[Row]:
    """The rows of one lineage, as if there were no other."""
    own = [row for row in run.rows() if row.where.lineage == lineage]
    return [
        Row.at(
            Where(row.where.policy, row.where.seed, row.where.generation),
            {
                name: value
                for name, value in row.fields.items()
                if name not in ("policy", "seed", "generation", "lineage")
            },
        )
        for row in own
    ]


def test_an_arm_is_a_policy_and_a_lineage_and_reads_back_from_what_it_wrote() -> None:
    assert [str(arm) for arm in (Arm("keep-0"), Arm("keep-0", "a"))] == ["keep-0", "keep-0/a"]
    assert [Arm.of(arm.record()) for arm in (Arm("keep-0"), Arm("keep-0", "a"))] == [Arm("keep-0"), Arm("keep-0", "a")]
    assert Arm("keep-0").record() == {"policy": "keep-0"}, "an experiment of one lineage has JSON as before"
    assert Where("keep-0", 1, 2, "a").arm == Arm("keep-0", "a") != Where("keep-0", 1, 2).arm


def test_rows_stand_by_policy_and_lineage_as_the_configuration_names_them(run: RunFolder) -> None:
    planned = planned_arms(run.tree())
    assert planned == [Arm(policy, lineage) for policy in POLICIES for lineage in "abc"]
    assert list(by_arm(run.rows())) == planned
    backwards = in_order(run.rows()[::-1], planned)
    assert [row.where for row in backwards] == [row.where for row in run.rows()]
    facts = facts_of(run.runs, run.name)
    assert (facts.done, facts.planned) == (7, 7)


@pytest.mark.parametrize("lineage", ["a", "b", "c"])
def test_each_lineage_is_diagnosed_as_if_it_were_alone(run: RunFolder, lineage: str) -> None:
    tree = {**run.tree(), "lineages": {}}
    together = [own for own in diagnose_run(run.rows(), run.tree()).arms if own.arm.lineage == lineage]
    for found, there in zip(together, diagnose_run(alone(run, lineage), tree).arms, strict=True):
        assert (found.ratios, found.calls, found.state) == (there.ratios, there.calls, there.state)
        assert (found.arm, there.arm) == (Arm(there.arm.policy, lineage), Arm(found.arm.policy))


def test_that_a_chain_measures_nothing_between_lineages_is_said(run: RunFolder) -> None:
    """Its page has no section of several models: nothing says why but this."""
    chain = {**run.tree(), "pool": {"rule": "random"}}
    said = "so that nothing is measured between lineages"
    assert said in diagnose_run(run.rows(), chain).notes[-1]
    assert not any(said in note for note in diagnose_run(run.rows(), run.tree()).notes)
    assert not any(said in note for note in diagnose_run(alone(run, "a"), {**chain, "lineages": {}}).notes)


def test_each_lineage_is_forecast_as_if_it_were_alone(run: RunFolder) -> None:
    together = forecast_rows([row for row in run.rows() if row.where.lineage in "ab" and row.where.policy == "keep-0"])
    single = forecast_rows([row for row in alone(run, "b") if row.where.policy == "keep-0"])
    own = [policy for policy in together["policies"] if policy["lineage"] == "b"]
    assert own == [policy | {"lineage": "b"} for policy in single["policies"]]
    assert shares_of(together)[1] == single["share"] | {"lineage": "b"}
    assert "share" not in together
    assert "lineage" not in single["share"]


def test_a_comparison_has_a_line_for_each_and_pairs_that_say_something(run: RunFolder) -> None:
    found = compare([run])
    assert [str(entry.arm) for entry in found.entries] == [f"{policy}/{name}" for policy in POLICIES for name in "abc"]
    pairs = {(str(pair.first[1]), str(pair.second[1])) for pair in found.pairs}
    assert ("keep-0/a", "keep-10/a") in pairs
    assert ("keep-0/a", "keep-0/c") in pairs
    assert ("keep-0/a", "keep-10/b") not in pairs, "another policy of another lineage: two things at once"
    assert len(pairs) == 3 + 2 * 3
    record = json.loads(json.dumps(found.record()))
    assert [(entry["policy"], entry["lineage"]) for entry in record["policies"]][:2] == [
        ("keep-0", "a"),
        ("keep-0", "b"),
    ]


def test_of_many_lineages_policies_are_compared_within_each_and_that_is_said(tmp_path: Path) -> None:
    rates = {f"model-{index}": {"keep-0": 0.1} for index in range(1, 7)}
    write_lineages(tmp_path, "six", rates, policies=POLICIES, seeds=(0, 1), generations=2, between=False)
    found = compare([RunFolder(tmp_path, "six")])
    assert {(pair.first[1].lineage == pair.second[1].lineage) for pair in found.pairs} == {True}
    assert len(found.pairs) == 6
    assert any("within each of the 6 lineages" in note for note in found.notes)


def test_lineages_under_two_tokenizers_are_not_compared(tmp_path: Path) -> None:
    write_lineages(tmp_path, "two", {"a": {"keep-0": 0.1}, "b": {"keep-0": 0.1}}, generations=2)
    path = tmp_path / "two" / "run.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["config"]["lineages"]["b"] = {"model": {"vocab_size": 900}}
    path.write_text(json.dumps(record), encoding="utf-8")
    found = compare([RunFolder(tmp_path, "two")])
    assert not found.pairs
    assert found.warnings is not None
    assert "two, lineage a, and two, lineage b, differ in the tokenizer" in found.warnings[0]


def test_the_verdict_names_the_lineages_in_few_words(run: RunFolder) -> None:
    said_of_run = diagnose_run(run.rows(), run.tree())
    assert said_of_run.verdict.startswith("By generation 6, over 3 seeds, 3 lineages. keep-0 collapses in a (×3.3")
    assert "holds in c (+5%)" in said_of_run.verdict
    assert "early collapse from generation 1 (a, b)" in said_of_run.verdict
    short = brief(said_of_run)
    assert short.sentence.startswith("keep-0 collapses in a (×3.3")
    assert short.arm in (
        Arm("keep-0", "a"),
        Arm("keep-0", "b"),
    )
    assert "keep-0 holds in c" in short.others
    assert "keep-10" in short.others


def test_a_verdict_on_sixteen_lineages_and_three_policies_stays_short() -> None:
    def measured(index: int, policy: str, seed: int, g: int) -> dict[str, float]:
        rise = 0.03 * index * g if policy == "keep-0" else 0.0
        tail = rise + 0.001 * seed * g
        return {"nll": 4 + 0.01 * seed + rise + 0.001 * g * (seed - 1), "tail_change": tail, "head_change": 0.0}

    rows = [
        Row.at(Where(policy, seed, g, f"model-{index}"), measured(index, policy, seed, g))
        for policy in ("keep-0", "keep-10", "keep-20")
        for index in range(1, 17)
        for seed in range(3)
        for g in range(7)
    ]
    found = diagnose_run(rows, {"learner": "lm", "loop": {"generations": 6}})
    assert len(found.verdict) < 900, found.verdict
    assert (
        "16 lineages. keep-0 loses quality in model-1 (+20%), model-2 (+43%) and model-3 (+72%) and collapses in 13 of 16"
        in found.verdict
    )
    assert "early collapse in all 16 lineages, beginning at generation 1 to 2" in found.verdict
    assert "keep-20 holds in all 16 lineages (" in found.verdict
    assert len(brief(found).sentence) < 200


def test_names_of_many_are_counted() -> None:
    arms = [Arm("keep-0", name) for name in "abcdef"]
    assert said([Arm("keep-0"), Arm("keep-10")]) == "keep-0, keep-10"
    assert said([*arms, Arm("keep-10", "a")]) == "keep-0 (a, b, c, d and 2 more), keep-10 (a)"
    assert (few(list("abc"), 3), few(list("abcdef"), 6), few(list("abcde"), 6)) == (
        "a, b, c",
        "all 6",
        "a, b, c, d and 1 more",
    )


def test_an_expectation_names_a_lineage_or_the_mean_over_all(run: RunFolder) -> None:
    def judged(**entry: Any) -> Any:
        tree = {**run.tree(), "expect": [{"what": "nll", "value": 4.0, "tolerance": 0.5, "source": "x", **entry}]}
        (found,) = judge(run.rows(), tree)
        return found

    own = {name: judged(policy="keep-0", lineage=name, generation=6) for name in "abc"}
    assert own["a"].where == "keep-0/a, generation 6"
    assert own["a"].ours.mean != own["c"].ours.mean
    assert judged(policy="keep-0", generation=6) == own["a"], "what it does not name is the first"
    mean = judged(policy="keep-0", lineage="*", generation=6)
    assert mean.where == "keep-0, mean over lineages, generation 6"
    assert mean.ours.n == 3, "seeds, not models"
    assert mean.ours.mean == pytest.approx(sum(one.ours.mean for one in own.values()) / 3)
    assert judged(policy="keep-0", lineage="d").verdict == "not run"


def test_the_mean_over_lineages_is_of_those_that_are_all_there() -> None:
    first = [row_of("keep-0", 0, 0, perplexity=4.0), row_of("keep-0", 0, 1, perplexity=4.0)]
    second = [row_of("keep-0", 0, 0, perplexity=9.0)]
    (mean,) = averaged([first, second], "perplexity")
    assert (mean.where, mean.perplexity) == (Where("keep-0", 0, 0), pytest.approx(6.0))


def test_remedies_are_held_against_the_same_lineage_without_any(run: RunFolder) -> None:
    found = remedies([OneRun("three", run.tree(), run.rows())])
    assert found is not None
    against = {str(one.arm): one.against for one in found.remedies}
    assert against["keep-0/a"] is None
    assert against["keep-0/c"] is None
    a, c = against["keep-10/a"], against["keep-10/c"]
    assert a is not None
    assert c is not None
    assert a.mean < 0.5 < c.mean
    assert {(one.record()["policy"], one.record().get("lineage")) for one in found.remedies} == {
        (policy, name) for policy in POLICIES for name in "abc"
    }


def test_the_sentences_of_a_forecast_name_the_lineage(run: RunFolder) -> None:
    said_of_run = sentences(
        forecast_rows([row for row in run.rows() if row.where.lineage != "b" and row.where.seed == 0])
    )
    assert any(line.startswith("keep-0/a: ") for line in said_of_run)
    assert any(line.startswith("c: ") and "real data" in line for line in said_of_run)
    few_rows = [row for row in run.rows() if row.where.generation < 3]
    lacking = [line for line in sentences(forecast_rows(few_rows)) if "not enough data: 3 generations" in line]
    assert lacking == [lacking[0]]
    assert lacking[0].startswith("keep-0 (a, b, c), keep-10 (a, b, c): ")


def test_a_lineage_has_the_options_of_its_table() -> None:
    tree = {"train": {"lr": 1.0, "epochs": 2}, "model": {"source": "", "config": {"a": 1}}, "lineages": {}}
    assert trees_of(tree) == {"": {"train": tree["train"], "model": tree["model"]}}
    both = trees_of({**tree, "lineages": {"x": {}, "y": {"train": {"lr": 0.1}, "model": {"config": {"b": 2}}}}})
    assert both["x"]["train"] == {"lr": 1.0, "epochs": 2}
    assert both["y"]["train"] == {"lr": 0.1, "epochs": 2}
    assert both["y"]["model"]["config"] == {"b": 2}, "another model, not a mixture of two"


def test_a_run_of_one_lineage_says_what_it_always_said(tmp_path: Path) -> None:
    write_run(tmp_path, "plain", policies=POLICIES, seeds=(0, 1, 2))
    run = RunFolder(tmp_path, "plain")
    for text in (
        json.dumps(compare([run]).record()),
        json.dumps(forecast_rows(run.rows())),
        diagnose_run(run.rows(), run.tree()).verdict,
    ):
        assert "lineage" not in text

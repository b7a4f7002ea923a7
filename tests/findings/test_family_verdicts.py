"""Verdicts on other families and on mixtures, word for word."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support.mixed import FAMILIES, cell_error, families_rows, mixture_rows, ridge, tree_of, write
from support.rows import cell_of, changed

from collapse_cli.findings import expectations
from collapse_cli.findings.compare import compare
from collapse_cli.findings.diagnosis.headline import family_verdict
from collapse_cli.findings.diagnosis.mixtures import mixture_verdict
from collapse_cli.findings.grid import axes_of, points
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.terminal.run_tables import generations_table

LOOP = {"generations": 4, "policies": ["keep-0", "accumulate"], "seeds": [0, 1]}


@pytest.fixture(autouse=True)
def no_theory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("predictions")
    module.predict_loop = lambda *_: None  # type: ignore[attr-defined]
    module.predict_cell = lambda *_: None  # type: ignore[attr-defined]
    module.known_law = lambda *_: (None, None)  # type: ignore[attr-defined]
    monkeypatch.setattr(expectations, "predictions", module)
    return module


def exactly(value: float) -> Any:
    return lambda row, random: {"variance": value**row.where.generation, "error": value**row.where.generation}


def test_a_family_is_told_by_its_headline_measure(no_theory: ModuleType) -> None:
    tree = tree_of("gaussian", loop=LOOP)
    rows = families_rows(tree, exactly(0.5))
    said = family_verdict(rows, tree)
    assert said == (
        "Fitted variance, truth 1, from generation 0 to 4, over 2 seeds: keep-0 1.00 → 0.0625 (same for all seeds); "
        "accumulate 1.00 → 0.0625 (same for all seeds)."
    )
    no_theory.predict_loop = lambda tree, what, policy, g: 0.7**g if policy == "keep-0" else None  # type: ignore[attr-defined]
    assert "keep-0 1.00 → 0.0625 (same for all seeds), theory 0.240; accumulate" in family_verdict(rows, tree)


def test_one_seed_of_many_trials_has_the_interval_over_trials() -> None:
    tree = tree_of("gaussian", loop={**LOOP, "seeds": [0], "policies": ["keep-0"]})
    rows = [changed(row, variance_se=0.01) for row in families_rows(tree, exactly(0.5))]
    assert family_verdict(rows, tree).endswith(
        "one seed (95% intervals over its trials): keep-0 1.00 → 0.0625 (0.0429 to 0.0821)."
    )


def test_a_run_that_is_not_finished_says_so() -> None:
    tree = tree_of("ridge", loop=LOOP)
    rows = families_rows(tree, exactly(2.0), missing=[("accumulate", s, g) for s in (0, 1) for g in (3, 4)])
    said = family_verdict(rows, tree)
    assert said.startswith("So far, test error |ŵ - w|² (without noise): keep-0 1.00 → 16.0")
    assert "accumulate 1.00 → 4.00 (same for all seeds) at generation 2, over 2 seeds." in said
    assert family_verdict([], tree) == "No generation is measured yet."
    assert family_verdict(rows[:2], tree).startswith("Only generation 0 is measured: test error")
    assert (
        mixture_verdict([], tree_of("ridge", kind="mixture", mixture={"rows": [10], "share": [0.5]}))
        == "No cell is measured yet."
    )


@pytest.mark.parametrize("learner", FAMILIES)
def test_every_family_has_a_verdict(learner: str) -> None:
    tree = tree_of(learner, loop=LOOP)
    said = family_verdict(families_rows(tree, FAMILIES[learner]), tree)
    assert ", from generation 0 to 4, over 2 seeds (95% intervals): keep-0" in said
    assert "–" not in said


def mixture(learner: str = "ridge", **mixture: Any) -> dict[str, Any]:
    return tree_of(learner, kind="mixture", mixture=mixture, loop={"seeds": [0, 1, 2]})


def exact(row: Row, random: Any) -> dict[str, float]:
    return {"error": cell_error(row.coordinates)}


def test_the_verdict_on_a_mixture_names_the_smallest_share_that_hurts() -> None:
    tree = mixture(rows=[1000, 32000], share=[0.0, 0.001, 0.1, 0.5])
    rows = mixture_rows(
        tree, lambda row, random: {"error": cell_error(row.coordinates) * float(np.exp(0.01 * random.normal()))}
    )
    said = mixture_verdict(rows, tree)
    alone, mixed = (cell_error({"rows": 32000, "share": share}) for share in (0.0, 0.1))
    assert said.startswith("At n = 32,000, error with p2 = 0.1 is 0.0")
    seeds = {p.share: p.by_seed for p in points(rows, "error", tree) if p.record["rows"] == 32000}
    logs = np.log([seeds[0.1][seed] / seeds[0.0][seed] for seed in seeds[0.0]])
    half = stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs)
    ends = [float(np.exp(logs.mean() + off)) for off in (0, -half, half)]
    assert "{:.3g} ({:.3g} to {:.3g}) times that of real data alone".format(*ends) in said
    assert said.endswith("; intervals are 95% over 3 seeds.")
    assert ends[0] == pytest.approx(mixed / alone, rel=0.05)


def null(random: np.random.Generator, seeds: int, ratio: float, own: float, shared: float) -> list[Row]:
    """Cells of five shares of which none is other than the rest but by chance, or all by a ratio from real rows alone."""
    common = np.exp(shared * random.standard_normal(seeds))
    shares = (0.0, 0.01, 0.05, 0.1, 0.5)
    return [
        cell_of(
            f"p2={share}",
            seed,
            rows=1000,
            share=share,
            real_rows=round(1000 * (1 - share)),
            synthetic_rows=round(1000 * share),
            error=float(common[seed] * (ratio if share else 1) * np.exp(own * random.standard_normal())),
        )
        for seed in range(seeds)
        for share in shares
    ]


@pytest.mark.parametrize("seeds", [1, 2, 3, 10])
def test_chance_seldom_names_a_share_that_hurts(seeds: int) -> None:
    """One seed named p2 = 0.01 in 75 of 100 such runs, and no ratio said what chance does to it."""
    tree, random = mixture(rows=[1000], share=[0.0, 0.01, 0.05, 0.1, 0.5]), np.random.default_rng(5)
    said = [mixture_verdict(null(random, seeds, 1.0, 0.1, 0.0), tree) for _ in range(200)]
    assert sum("not told apart" not in one for one in said) <= (200 if seeds == 1 else 0.08 * 200)
    assert sum("p2 = 0.5 " not in one for one in said) <= 0.05 * 200
    if seeds == 1:
        assert all(one.endswith("; one seed: no interval, and what differs may be chance.") for one in said)


def test_what_seeds_share_does_not_hide_a_share_that_hurts() -> None:
    """Ratios are paired: of the intervals side by side 1 in 50 such runs had told it."""
    tree, random = mixture(rows=[1000], share=[0.0, 0.01, 0.05, 0.1, 0.5]), np.random.default_rng(6)
    said = [mixture_verdict(null(random, 5, 1.3, 0.05, 0.3), tree) for _ in range(50)]
    assert sum("p2 = 0.01 " in one for one in said) >= 45


def test_an_interval_ends_where_the_error_does() -> None:
    """An error below 0 was printed: 0.118 (-0.105 to 0.340)."""
    tree, random = mixture(rows=[1000], share=[0.0, 0.01, 0.05, 0.1, 0.5]), np.random.default_rng(7)
    said = [mixture_verdict(null(random, 2, 1.0, 0.3, 0.0), tree) for _ in range(50)]
    assert not any("(-" in one for one in said)
    assert any("(0 to" in one for one in said)


def test_where_more_data_stops_helping_is_told_where_it_was_reached() -> None:
    """Doubling n wins 5% of 25/n + 0.01 until 25/2n = 0.05 (25/n + 0.01): n = 22,500."""
    for sizes, told in (([300, 1000, 3000, 10000, 30000, 100000], True), ([300, 1000, 3000, 10000], False)):
        tree = mixture(rows=sizes, share=[0.0, 0.1])
        said = mixture_verdict(mixture_rows(tree, exact), tree)
        found = re.search(r"; more data stops helping near n = ([\d,]+)\b", said)
        assert (found is not None) == told
        if found is not None:
            assert float(found.group(1).replace(",", "")) == pytest.approx(22_500, rel=0.05)


def test_without_a_share_that_hurts_the_largest_is_named() -> None:
    tree = mixture(rows=[1000], share=[0.0, 0.1, 0.5])
    said = mixture_verdict(mixture_rows(tree, lambda row, random: {"error": 0.5}), tree)
    assert (
        said
        == "At n = 1,000, error with p2 = 0.5 is 0.500 (same for all seeds), 1.00 times that of real data alone, not told apart."
    )


def test_real_and_synthetic_rows_are_held_against_the_same_real_rows() -> None:
    tree = mixture(real_rows=[100], synthetic_rows=[0, 100, 900])
    rows = mixture_rows(tree, lambda row, random: {"error": 1.0 + row.fields["synthetic_rows"] / 100})
    assert mixture_verdict(rows, tree) == (
        "At n = 1,000, error with p2 = 0.9 is 10.0 (same for all seeds), 10.0 times that of the same real data alone."
    )
    assert list(axes_of(points(rows, "error", tree), tree)) == ["synthetic_rows"]


def test_sizes_weights_and_rounds_are_told() -> None:
    tree = mixture("projections", rows=[500], share=[0.5], size=[50, 100, 200, 400], quality=[0.1, 1.0])
    said = mixture_verdict(mixture_rows(tree, exact), tree)
    assert said.startswith("At c² = 1, error is ")
    assert "at m = 50" in said
    assert "at m = 400." in said
    peak = {50: 1.0, 100: 9.0, 200: 0.5}
    said = mixture_verdict(
        [
            changed(row, error=peak[row.fields["size"]])
            for row in mixture_rows(tree, exact)
            if row.fields["size"] in peak
        ],
        tree,
    )
    assert said == "At c² = 1, error is 1.00 at m = 50, up to 9.00 at m = 100, and 0.500 at m = 200."
    tree = mixture(rows=[300, 3000], share=[0.5], weight=[0.0, 0.03, 0.5])
    said = mixture_verdict(mixture_rows(tree, lambda row, _: {"error": (row.fields["weight"] - 0.03) ** 2 + 0.1}), tree)
    assert said == "At n = 3,000, error is 0.101 at α = 0, least at α = 0.03: 0.100, and 0.321 at α = 0.5."
    rows = mixture_rows(tree, lambda row, _: {"error": (row.fields["weight"] - 0.03) ** 2 + 0.1})
    rows = [  # seeds 0, 1, 2 differ by more than the least lies below the first
        changed(row, error=row.fields["error"] + 0.003 * (row.where.seed - 1) * (row.fields["weight"] == 0.03))
        for row in rows
    ]
    assert mixture_verdict(rows, tree) == (
        "At n = 3,000, error is 0.101 at α = 0, least at α = 0.03: 0.100 (not told apart from α = 0), and 0.321 at α = 0.5."
    )
    alone = [row for row in rows if row.where.seed == 1]
    assert "least at α = 0.03: 0.100 (which may be chance: one seed), and" in mixture_verdict(alone, tree)
    tree = mixture(rows=[1000], share=[0.5], iterations=[1, 3])
    said = mixture_verdict(mixture_rows(tree, exact), tree)
    assert said == "Error is 0.275 at t = 1 and 0.0406 at t = 3."


def test_an_axis_without_a_story_of_its_own_is_told_by_its_ends() -> None:
    tree = mixture(rows=[100, 1000], share=[0.5])
    assert mixture_verdict(mixture_rows(tree, exact), tree) == (
        "Error is least at n = 1,000: 0.275 (same for all seeds), and largest at n = 100: 0.500 (same for all seeds)."
    )
    tree = mixture(rows=[100], share=[0.5])
    said = mixture_verdict(mixture_rows(tree, exact), tree)
    assert said == "Test error |ŵ - w|² (without noise) is 0.500 (same for all seeds) in the only cell, over 3 seeds."


def test_shares_rounded_to_whole_rows_are_one_value_of_the_axis() -> None:
    tree = mixture(rows=[333, 500, 1000], share=[0.0, 0.01, 0.1])
    cells = points(mixture_rows(tree, ridge), "error", tree)
    assert {cell.record["share"] for cell in cells} > {0.01, 0.1}
    assert axes_of(cells, tree) == {"rows": [333, 500, 1000], "share": [0.0, 0.01, 0.1]}


@pytest.mark.parametrize("bad", [{}, {"mixture": 3, "loop": []}, {"mixture": {"share": "x"}, "learner": ["x"]}])
def test_a_configuration_that_is_damage_still_has_a_verdict(bad: dict[str, Any]) -> None:
    tree = mixture(rows=[100, 1000], share=[0.0, 0.5])
    rows = mixture_rows(tree, exact)
    assert mixture_verdict([changed(row, nll=1.0, test_loss=1.0) for row in rows], {"kind": "mixture"} | bad)
    assert family_verdict([changed(row, perplexity=3.0, test_loss=1.0) for row in rows], bad)


def column(table: Any, number: int) -> list[str]:
    return list(table.columns[number].cells)


def test_a_generation_that_not_all_seeds_have_is_no_mean_over_them() -> None:
    """Under "mean of 2 seeds, 95% interval" stood the number of the one seed that had got so far."""
    tree = tree_of("ridge", loop=LOOP | {"policies": ["keep-0"]})
    rows = families_rows(tree, FAMILIES["ridge"], missing=[("keep-0", 1, 4)])
    table = generations_table(rows, tree)
    assert "mean of 2 seeds, 95% interval" in str(table.title)
    assert column(table, 1)[-1] == "[dim]…[/]"
    assert " to " in column(table, 1)[-2]


def test_the_table_has_the_interval_that_the_verdict_has() -> None:
    """One seed of many trials: the table said that there was no interval, and the sentence below it had one."""
    tree = tree_of("gaussian", loop={**LOOP, "seeds": [0], "policies": ["keep-0"]})
    rows = [changed(row, variance_se=0.01) for row in families_rows(tree, exactly(0.5))]
    table = generations_table(rows, tree)
    assert "seed 0: 95% interval over its trials" in str(table.title)
    assert column(table, 1)[-1] == "0.0625 (0.0429 to 0.0821)"
    bare = generations_table(families_rows(tree, exactly(0.5)), tree)
    assert "seed 0: no interval" in str(bare.title)
    assert column(bare, 1)[-1] == "0.0625"


def test_a_comparison_is_of_the_same_seeds_at_both_ends_and_says_of_how_many(tmp_path: Path) -> None:
    """Generation 0 was the mean of three seeds and the last of one, under a note that there was no interval."""
    tree = tree_of("ridge", loop={"generations": 2, "policies": ["keep-0", "accumulate"], "seeds": [0, 1, 2]})
    missing = [("keep-0", 2, 2), ("accumulate", 1, 2), ("accumulate", 2, 2)]
    rows = families_rows(tree, lambda row, _: {"error": row.where.seed + row.where.generation + 1.0}, missing=missing)
    write(tmp_path, "half", tree, rows, status="started")
    found = compare([RunFolder(tmp_path, "half")])
    first, second = found.entries
    assert (first.seeds, first.first.mean if first.first else None, first.now.mean) == ((0, 1), 1.5, 3.5)
    assert (second.seeds, second.first.mean if second.first else None, second.now.mean) == ((0,), 1.0, 3.0)
    assert found.notes == (
        "where there is one seed there is no interval",
        "intervals are 95% t intervals over 2 seeds, not corrected for the number of comparisons",
    )


def test_runs_of_one_name_in_two_folders_are_compared_whatever_their_family(tmp_path: Path) -> None:
    """They were taken for one that is named twice."""
    tree = tree_of("ridge", loop={"generations": 1, "policies": ["keep-0"], "seeds": [0, 1]})
    rows = families_rows(tree, lambda row, _: {"error": row.where.seed + row.where.generation + 1.0})
    for folder in ("here", "there"):
        write(tmp_path / folder, "same", tree, rows)
    found = compare([RunFolder(tmp_path / "here", "same"), RunFolder(tmp_path / "there", "same")])
    assert found.runs == (str(tmp_path / "here" / "same"), str(tmp_path / "there" / "same"))
    assert [pair.difference.mean for pair in found.pairs] == [0.0]

"""Runs side by side, and the tables in which intervals and warnings show."""

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table
from scipy import stats
from support.instrumented import write_run
from support.rows import row_of

from collapse_cli.errors import ConfigError
from collapse_cli.findings.compare import Comparison, compare
from collapse_cli.findings.diagnosis import diagnose_run
from collapse_cli.findings.run_result import row_warnings
from collapse_cli.metrics import numbers
from collapse_cli.metrics.intervals import Interval, over_seeds
from collapse_cli.metrics.numbers import with_factor, with_interval
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.terminal.comparison import of_text, print_comparison
from collapse_cli.terminal.run_tables import perplexity_table
from collapse_cli.where import Arm

SEEDS = (0, 1, 2)
THREE = ("keep-0", "keep-10", "keep-20")


def made(runs: Path, name: str, **how: Any) -> RunFolder:
    write_run(runs, name, **({"seeds": SEEDS} | how))
    return RunFolder(runs, name)


def shown(*found: Table, width: int = 80) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    for table in found:
        console.print(table)
    return out.getvalue()


def nll(run: RunFolder, policy: str, generation: int) -> dict[int, float]:
    return {
        row.where.seed: row.nll
        for row in run.rows()
        if (row.where.policy, row.where.generation) == (policy, generation)
    }


# --- what is compared -------------------------------------------------------------------------------------------------


def test_policies_of_one_run_are_compared_pairwise_over_its_seeds(tmp_path: Path) -> None:
    run = made(tmp_path, "a", policies=THREE)
    found = compare([run])
    assert [(str(pair.first[1]), str(pair.second[1])) for pair in found.pairs] == [
        ("keep-0", "keep-10"), ("keep-0", "keep-20"), ("keep-10", "keep-20"),
    ]  # fmt: skip
    first, second = nll(run, "keep-0", 5), nll(run, "keep-10", 5)
    expected = stats.ttest_rel([first[seed] for seed in SEEDS], [second[seed] for seed in SEEDS])
    ratio = found.pairs[0].ratio
    assert ratio.mean == pytest.approx(math.exp(sum(first.values()) / 3 - sum(second.values()) / 3))
    ends = expected.confidence_interval(0.95)
    assert (ratio.low, ratio.high) == pytest.approx((math.exp(ends.low), math.exp(ends.high)))
    assert found.pairs[0].told_apart is True


def test_the_same_policy_in_two_runs_is_compared_over_their_common_seeds(tmp_path: Path) -> None:
    first = made(tmp_path, "a", generations=5)
    second = made(tmp_path, "b", generations=3, seeds=(1, 2, 7), collapse={"keep-0": 0.05}, entropy=1)
    found = compare([first, second])
    assert found.generation == 3, "the last that both have"
    between = [pair for pair in found.pairs if pair.first[0] != pair.second[0]]
    assert [(pair.first, pair.second, pair.seeds) for pair in between] == [
        (("a", Arm("keep-0")), ("b", Arm("keep-0")), (1, 2)),
        (("a", Arm("keep-10")), ("b", Arm("keep-10")), (1, 2)),
    ]
    one, other = nll(first, "keep-0", 3), nll(second, "keep-0", 3)
    mean = sum(one[seed] - other[seed] for seed in (1, 2)) / 2
    assert between[0].ratio.mean == pytest.approx(math.exp(mean))


def test_entries_hold_perplexities_ratio_instruments_and_calls(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    entry = compare([run]).entries[0]
    rows = [row for row in run.rows() if row.where.policy == "keep-0" and row.where.generation == 5]
    expected = math.exp(sum(row.nll for row in rows) / 3)
    assert (entry.run, str(entry.arm), entry.seeds) == ("a", "keep-0", SEEDS)
    assert entry.now.mean == pytest.approx(expected)
    assert entry.ratio == entry.diagnosis.ratio, "the last generation: as in the verdict"
    first, now = entry.instruments["mauve"]
    assert first is not None
    assert now.mean == pytest.approx(sum(row.measure("mauve") for row in rows) / 3)
    assert first.mean > now.mean
    assert entry.instruments["tail_change"][0] is None, "generation 0 is not compared with itself"
    assert entry.diagnosis.calls["early"].generation == 1


def test_what_is_not_measured_is_absent(tmp_path: Path) -> None:
    old = compare([made(tmp_path, "old", instruments=False)])
    assert old.entries[0].instruments == {}
    assert "not measured" in shown(*of_text(old), width=120)
    assert len(of_text(old)) == 2, "no table of instruments"


def test_the_options_that_differ_are_named(tmp_path: Path) -> None:
    first = made(tmp_path, "a")
    second = made(tmp_path, "b", config={"sample": {"decode": {"beams": 1, "temperature": 1.0}}})
    found = compare([first, second])
    assert found.differences == {"sample.decode.temperature": (0.9, 1.0)}
    assert found.warnings == ()
    assert compare([first]).differences == {}


@pytest.mark.parametrize(
    ("how", "what"),
    [
        ({"predicted_tokens": 4032}, "the number of predicted tokens"),
        ({"sha256": "0" * 64}, "the text (data.sha256)"),
        (
            {"protocol": {"protocol": "sliding", "line_bos": False, "context": 64, "stride": 32}},
            "the evaluation protocol",
        ),
        ({"config": {"model": {"vocab_size": 900}}}, "the tokenizer"),
    ],
)
def test_perplexities_of_other_tokens_are_not_compared(tmp_path: Path, how: dict[str, Any], what: str) -> None:
    first, second = made(tmp_path, "a"), made(tmp_path, "b", **how)
    found = compare([first, second])
    assert found.warnings[0].startswith(f"a and b differ in {what}: their perplexities are not comparable")
    assert {(pair.first[0], pair.second[0]) for pair in found.pairs} == {("a", "a"), ("b", "b")}


def test_runs_that_are_alike_are_compared_beside_one_that_is_not(tmp_path: Path) -> None:
    runs = [made(tmp_path, "a"), made(tmp_path, "b", sha256="0" * 64), made(tmp_path, "c", sha256="0" * 64, entropy=1)]
    between = {(pair.first[0], pair.second[0]) for pair in compare(runs).pairs}
    assert between == {("a", "a"), ("b", "b"), ("c", "c"), ("b", "c")}


def test_guard_rails_of_the_rows_are_warnings(tmp_path: Path) -> None:
    run = made(tmp_path, "a", warnings={("keep-0", 1, 2): ["96% of the synthetic rows repeat another one"]})
    assert compare([run]).warnings == (
        "a: rows with warnings: 1 of 36; keep-0, seed 1, generation 2: 96% of the synthetic rows repeat another one",
    )


def test_a_policy_that_is_behind_is_left_out_and_said(tmp_path: Path) -> None:
    gone = [("keep-10", seed, step) for seed in SEEDS for step in (4, 5)]
    found = compare([made(tmp_path, "a", missing=gone)])
    assert [str(entry.arm) for entry in found.entries] == ["keep-0"]
    assert found.notes[0] == "a: keep-10 has no generation 5 and is left out"


def test_generation_0_alone_gives_no_pairs_of_policies(tmp_path: Path) -> None:
    found = compare([made(tmp_path, "a", generations=0)])
    assert found.generation == 0
    assert found.pairs == ()
    assert found.entries[0].ratio.mean == 1.0


def test_the_record_is_json(tmp_path: Path) -> None:
    found = compare([made(tmp_path, "a"), made(tmp_path, "b", seeds=(0,))])
    record = json.loads(json.dumps(found.record(), allow_nan=False))
    assert record["runs"] == ["a", "b"]
    assert record["policies"][0]["calls"]["early"]["called"] is True
    assert record["verdicts"]["b"].startswith("By generation 5, one seed and so without an interval: keep-0 loses")
    assert {tuple(pair["seeds"]) for pair in record["pairs"]} == {(0,), (0, 1, 2)}
    assert next(pair for pair in record["pairs"] if pair["seeds"] == [0])["told_apart"] is None


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_an_unknown_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run 'b'"):
        compare([made(tmp_path, "a"), RunFolder(tmp_path, "b")])


def test_a_run_named_twice(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    with pytest.raises(ConfigError, match="the run 'a' is named twice; name each run once"):
        compare([run, RunFolder(tmp_path / ".." / tmp_path.name, "a")])


def test_a_run_without_rows(tmp_path: Path) -> None:
    run = made(tmp_path, "a")
    (run.path / "metrics.jsonl").unlink()
    with pytest.raises(ConfigError, match=r"the run 'a' in .* has measured nothing yet"):
        compare([run])


def test_runs_without_a_common_generation(tmp_path: Path) -> None:
    late = [(policy, seed, step) for policy in ("keep-0", "keep-10") for seed in SEEDS for step in range(3)]
    with pytest.raises(ConfigError, match="the runs a, b have no generation in common"):
        compare([made(tmp_path, "a", generations=2), made(tmp_path, "b", missing=late)])


def test_runs_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    found = compare([made(tmp_path / "x", "a"), made(tmp_path / "y", "a")])
    assert found.runs == (str(tmp_path / "x" / "a"), str(tmp_path / "y" / "a"))


# --- tables -----------------------------------------------------------------------------------------------------------


def both(tmp_path: Path) -> Comparison:
    return compare([made(tmp_path, "first", policies=THREE, generations=9), made(tmp_path, "second", entropy=2)])


def test_the_tables_fit_80_columns_and_hold_the_numbers(tmp_path: Path) -> None:
    found = both(tmp_path)
    text = shown(*of_text(found))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text, "nothing is cut off"
    assert "perplexity on real test text, generation 5" in text
    assert with_interval(found.entries[0].now) in text
    assert all(word in text for word in ("early 1", "general 4", "late 8"))
    assert "paired over seeds" in text
    assert numbers.value(found.pairs[0].ratio.mean) in text


def test_a_pair_that_is_not_told_apart_says_so(tmp_path: Path) -> None:
    text = shown(*of_text(compare([made(tmp_path, "a", collapse={})])), width=120)
    assert "not told apart" in text
    one = shown(*of_text(compare([made(tmp_path, "b", seeds=(4,))])), width=120)
    assert "one seed: none" in one


def row(policy: str, seed: int, generation: int, perplexity: float, *warnings: str) -> Row:
    return row_of(policy, seed, generation, perplexity=perplexity, nll=math.log(perplexity), warnings=list(warnings))


def test_a_table_over_seeds_shows_geometric_means_with_intervals_on_the_log_scale() -> None:
    """Generation 1: ∛(20 · 30 · 40) = 28.84, s of the logarithms 0.3489, half-width 4.3027 · 0.3489 / √3 = 0.8667, a factor
    of 2.38; changes ×2, ×2, ×4: ∛16 = 2.52.
    """
    rows = [row("keep-0", seed, 0, value) for seed, value in enumerate((10, 15, 10))]
    rows += [row("keep-0", seed, 1, value) for seed, value in enumerate((20, 30, 40))]
    text = shown(perplexity_table(rows, "perplexity"))
    assert " ".join(text.split()).startswith("perplexity (seeds 0, 1, 2: geometric means)")
    assert "28.8 ×÷2.38  +152%" in text
    assert "11.4 ×÷1.79" in text
    assert "×÷: the 95% interval, on the log scale" in " ".join(text.split())


def test_no_interval_of_a_perplexity_is_below_0() -> None:
    """300, 700 and 2,200 had 1,067 ±2,489: an interval from -1,422."""
    over = over_seeds("perplexity", [300, 700, 2200])
    assert over.mean == pytest.approx((300 * 700 * 2200) ** (1 / 3))
    assert (over.low, over.high) == pytest.approx((64.2, 9312), rel=1e-2)
    assert with_interval(over) == f"773 ({over.low:.1f}–{over.high:,.0f})"
    assert with_factor(over) == "773 ×÷12.0"


def test_a_table_of_one_seed_says_that_it_has_no_interval() -> None:
    text = shown(
        perplexity_table([row("keep-0", 4, 0, 46.5), row("keep-0", 4, 1, 60.9)], "perplexity on real test text")
    )
    assert "(seed 4; one seed: no interval)" in " ".join(text.split())
    assert "60.9   +31%" in text
    assert "×÷" not in text


def test_numbers_behind_which_a_row_warns_are_marked() -> None:
    rows = [row("keep-0", 0, 0, 10.0), row("keep-0", 0, 1, 20.0, "odd"), row("keep-10", 0, 1, 30.0)]
    lines = shown(perplexity_table(rows, "perplexity")).splitlines()
    marked = [line for line in lines if "!" in line]
    assert len(marked) == 2
    assert "20.0  +100% !" in marked[0]
    assert "! there are warnings about the rows behind this number" in " ".join(" ".join(lines).split())
    assert row_warnings(rows) == ["keep-0, seed 0, generation 1: odd"]
    assert "!" not in shown(perplexity_table(rows[:1], "perplexity"))


def test_what_is_printed_holds_the_warnings_the_verdicts_and_the_notes(tmp_path: Path) -> None:
    found = compare([made(tmp_path, "a", warnings={("keep-0", 0, 1): ["odd"]}), made(tmp_path, "b", seeds=(0,))])
    assert found.warnings
    assert found.notes
    out = io.StringIO()
    print_comparison(Console(file=out, width=80), found)
    text = " ".join(out.getvalue().split())  # lines are wrapped
    for said in (*found.warnings, *found.notes, *found.verdicts.values()):
        assert " ".join(said.split()) in text


def test_a_verdict_looks_at_the_forecast_as_the_page_does(tmp_path: Path) -> None:
    def slowing(rate: float, generation: int) -> float:
        return 15 * rate * (1 - math.exp(-generation / 4))

    run = made(tmp_path, "a", policies=("keep-0",), generations=8, growth=slowing)
    verdict = compare([run]).verdicts["a"]
    assert "keep-0 collapses and still rises but is forecast to level off, perplexity ×" in verdict
    assert verdict == diagnose_run(run.rows(), run.tree()).verdict


def test_intervals_say_what_they_take_for_granted(tmp_path: Path) -> None:
    """Seeds that differ much have a t interval wider than that with 0.3 nats of noise; seeds that agree have none."""
    noisy, quiet = made(tmp_path, "a", seeds=(0, 1), noise=0.3), made(tmp_path, "b", seeds=(0, 1, 2), noise=0.001)
    for run, granted in ((noisy, True), (quiet, False)):
        found = compare([run])
        assert any(pair.granted for pair in found.pairs) == granted
        assert any("intervals between policies take for granted" in note for note in found.notes) == granted
        assert any("the interval of the change is narrower" in note for note in found.notes) == granted
        assert any("seeds share the text" in note for note in found.notes)


def test_generations_that_not_all_seeds_have_are_left_open() -> None:
    rows = [row("keep-0", seed, 0, 10.0) for seed in (0, 1)] + [row("keep-0", 0, 1, 20.0)]
    assert "…" in shown(perplexity_table(rows, "perplexity"))


def test_the_table_of_a_run_over_seeds_fits_80_columns(tmp_path: Path) -> None:
    run = made(tmp_path, "a", policies=THREE, generations=9, collapse={"keep-0": 0.9, "keep-10": 0.3}, noise=0.2)
    lines = shown(perplexity_table(run.rows(), "perplexity on real test text")).splitlines()
    assert max(map(len, lines)) <= 80
    assert sum("│" in line for line in lines) == 10, "a line for each generation"


def test_a_perplexity_with_its_interval() -> None:
    assert with_interval(Interval(1024.2, 266.0, 3943.0, 3)) == "1,024 (266–3,943)"
    assert with_interval(Interval(51.84, 51.82, 51.86, 3)) == "51.8 (51.8–51.9)"
    assert with_interval(Interval(46.5, None, None, 1)) == with_factor(Interval(46.5, None, None, 1)) == "46.5"
    assert with_factor(Interval(200.0, 100.0, 400.0, 3)) == "200 ×÷2.00"

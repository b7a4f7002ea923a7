"""The smallest share of real data that keeps a generation near generation 0, and the run that would narrow it most."""

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import typer
from sklearn.isotonic import IsotonicRegression
from support.rows import row_of
from support.series import folder_of, ratio, rng_of, rows_of, run_of

from collapse_cli.cli.app import app
from collapse_cli.config import Experiment
from collapse_cli.findings.forecast import forecast, forecast_rows, sentences, share
from collapse_cli.findings.forecast.history import History
from collapse_cli.findings.forecast.next_command import FLAGS, name_given, seen_from_here
from collapse_cli.findings.forecast.share import Ratios, crossing, curves, falling, from_seeds, smallest_share
from collapse_cli.terminal.forecast import tables


def exact(percents: Sequence[float], values: Sequence[float], draws: int = 400) -> Ratios:
    """Ratios that are known exactly."""
    table = np.tile(np.array(values, dtype=float), (draws, 1))
    return Ratios(np.array(percents, dtype=float), table, np.array(values, dtype=float), 0.01, 3)


def test_falling_sequences_are_those_of_scikit_learn() -> None:
    values = rng_of(1).standard_normal((50, 6))
    ours = falling(values)
    for given, found in zip(values, ours, strict=True):
        theirs = IsotonicRegression(increasing=False).fit_transform(np.arange(6), given)
        np.testing.assert_allclose(found, theirs, atol=1e-12)
    assert (np.diff(ours, axis=1) <= 1e-12).all()


def test_curves_pass_through_what_was_measured_fall_and_hold_the_true_one() -> None:
    percents = np.array([0.0, 5, 10, 20, 50])
    values = ratio(percents)[None]  # type: ignore[arg-type]
    low, high = (curves(percents, values, np.array([between]))[0] for between in (0.0, 1.0))
    grid = np.linspace(0, 100, 1001)
    inside = grid <= 50
    truth = ratio(grid)  # type: ignore[arg-type]
    assert (low[inside] <= truth[inside] + 1e-12).all()
    assert (truth[inside] <= high[inside] + 1e-12).all()
    assert np.isnan(low[~inside]).all()
    for one in (low, high):
        np.testing.assert_allclose(one[[0, 50, 100, 200, 500]], values[0])
        assert (np.diff(one[inside]) <= 1e-12).all()


def test_the_smallest_share_falls_as_the_factor_rises() -> None:
    percents = (0, 5, 10, 20, 50)
    factors = (1.3, 1.5, 2.0, 3.0, 5.0, 9.0)
    exactly = exact(percents, [ratio(p) for p in percents])
    said = [smallest_share(exactly, factor, rng_of(2), candidates=False) for factor in factors]
    assert [one["share"]["bound"] for one in said] == [""] * 6
    values = [one["share"]["value"] for one in said]
    assert values == sorted(values, reverse=True)
    for factor, one in zip(factors, said, strict=True):
        truth = 10 / math.log(factor) - 4
        assert one["low90"]["value"] - 0.1 <= truth <= one["high90"]["value"] + 0.1
        assert one["share"]["value"] == pytest.approx(truth, rel=0.3, abs=1)


def test_nothing_is_said_beyond_the_shares_that_were_run() -> None:
    below = smallest_share(exact([10, 20], [0.3, 0.2]), 1.5, rng_of(3))
    assert below["share"] == {"value": 10.0, "bound": "below"}
    assert below["chance_below"] == 1.0
    above = smallest_share(exact([10, 20], [0.9, 0.8]), 1.5, rng_of(3))
    assert above["share"] == {"value": 20.0, "bound": "above"}
    assert above["chance_above"] == 1.0
    assert [one["next"][0]["policy"] for one in (below, above)] == ["keep-5", "keep-40"]
    assert smallest_share(exact([0, 20], [0.3, 0.2]), 1.5, rng_of(3))["next"] == []
    assert smallest_share(exact([20, 100], [0.8, 0.7]), 1.5, rng_of(3))["next"] == []
    at = crossing(np.array([10.0, 20.0]), curves(np.array([10.0, 20]), np.array([[0.9, 0.2]]), np.array([1.0])), 0.55)
    assert at == pytest.approx([15.0], abs=0.11)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_holds_the_true_share(seeds: int) -> None:
    """60 runs: an honest 90% interval holds fewer than 46 once in 1,000."""
    truth = 10 / math.log(2) - 4  # 10.4%
    inside, widths = [], []
    for seed in range(60):
        rng = rng_of(seed)
        measured = {
            float(p): {s: ratio(p) + 0.05 * float(rng.standard_normal()) for s in range(seeds)} for p in (0, 5, 15, 40)
        }
        ratios = from_seeds(measured, 1000, rng)
        assert ratios is not None
        said = smallest_share(ratios, 2.0, rng, candidates=False)
        inside.append(said["low90"]["value"] - 0.05 <= truth <= said["high90"]["value"] + 0.05)
        widths.append(said["high90"]["value"] - said["low90"]["value"])
    assert sum(inside) >= 46
    assert np.median(widths) < 15


def test_ratios_of_seeds_are_students_t_and_keep_their_pairing() -> None:
    rng = rng_of(4)
    common = rng.standard_normal(6)
    measured = {p: {s: float(common[s]) + level for s in range(6)} for p, level in ((0.0, 2.0), (10.0, 1.0))}
    found = from_seeds(measured, 40000, rng)
    assert found is not None
    error = common.std(ddof=1) / math.sqrt(6)
    from scipy import stats

    low, high = np.quantile(found.draws[:, 0] - found.middle[0], [0.05, 0.95]) / error
    assert (low, high) == pytest.approx((stats.t.ppf(0.05, 5), stats.t.ppf(0.95, 5)), rel=0.03)
    np.testing.assert_allclose(found.draws[:, 0] - found.draws[:, 1], 1.0)  # what all policies share cancels
    assert from_seeds({0.0: {0: 1.0, 1: 2.0}, 10.0: {1: 0.5, 2: 0.4}}, 10, rng) is None


def test_a_run_says_its_smallest_share_and_the_next_run(tmp_path: Path) -> None:
    command = [
        "/usr/bin/collapse",
        "run",
        "--preset",
        "quick",
        "--seeds",
        "0,1,2",
        "--json",
        "--data",
        "a b",
        "--name",
        "one",
    ]
    folder = folder_of(tmp_path, rows_of(run_of((0, 5, 40), 3)), command=command)
    found = forecast(folder, factor=2.0)
    share = found["share"]
    assert share["status"] == "ok"
    assert share["generation"] == 9
    assert share["measured"]
    assert share["low90"]["value"] <= 10 / math.log(2) - 4 <= share["high90"]["value"]
    best = share["next"][0]
    assert 5 < float(best["policy"].removeprefix("keep-")) < 40, "where the curve is not known"
    assert best["expected_width"] < best["width"]
    assert shlex.split(best["command"]) == [
        *("collapse", "run", "--preset", "quick", "--seeds", "0,1,2", "--data", "a b", "--name", "one"),
        *("--runs-dir", str(tmp_path)),
        *("--policy", best["policy"]),
    ]
    assert best["command"] in sentences(found)
    assert any("within 2×" in line for line in sentences(found))
    assert len(tables(found)) == 4
    json.dumps(found, allow_nan=False)


def test_more_seeds_are_asked_for_where_they_help_most(tmp_path: Path) -> None:
    """Shares so near each other that only the noise is in the way."""
    rows = rows_of(run_of((9, 10, 11, 12), 2, noise=0.12, seed=3))
    command = ["collapse", "run", "my/one.toml", "--seeds", "0,1"]
    found = forecast(folder_of(tmp_path, rows, command=command), factor=math.exp(ratio(10.5)))
    more = [one for one in found["share"]["next"] if "more_seeds" in one]
    assert more
    assert more[0]["command"] == f"collapse run my/one.toml --runs-dir {tmp_path} --seeds 0,1,2,3"


def test_the_command_that_is_proposed_can_be_given() -> None:
    """Its options exist, and the policy it names is one."""
    from collapse_cli.config.policies import percent_kept

    found = forecast_rows(rows_of(run_of((0, 20), 2)), factor=2.0)
    for one in found["share"]["next"]:
        if "policy" in one:
            assert percent_kept(one["policy"]) is not None
            Experiment.model_validate({"loop": {"policies": [one["policy"]]}})


@pytest.mark.parametrize("policies", [{}, {"keep-0": 1}, {"accumulate": 1, "keep-5": 1}])
def test_two_keep_policies_are_needed(policies: dict[str, int]) -> None:
    found = forecast_rows(rows_of({name: run_of((5,), 2)["keep-5"] for name in policies}))
    assert found["share"]["status"] == "not enough data"
    assert "two keep-P" in found["share"]["why"]


def test_one_seed_says_so_by_a_wider_interval() -> None:
    """Without seeds to compare, the noise of its steps stands in."""
    wide, narrow = (forecast_rows(rows_of(run_of((0, 5, 15, 40), seeds, noise=0.1)), factor=2.0) for seeds in (1, 8))
    width = [one["share"]["high90"]["value"] - one["share"]["low90"]["value"] for one in (wide, narrow)]
    assert width[0] > width[1]
    assert wide["share"]["status"] == "ok"


def test_too_few_generations_of_one_seed_are_not_enough() -> None:
    found = forecast_rows(rows_of(run_of((0, 20), 1, generations=4)))
    assert found["share"]["status"] == "not enough data"
    assert any("smallest share" in line and "not enough data" in line for line in sentences(found))


def test_with_several_seeds_two_generations_are_enough_for_the_last_one() -> None:
    """What was measured needs no growth law."""
    found = forecast_rows(rows_of(run_of((0, 20), 3, generations=2)))
    assert found["share"]["status"] == "ok"
    assert found["policies"][0]["status"] == "not enough data"
    later = forecast_rows(rows_of(run_of((0, 20), 3, generations=2)), generation=9)
    assert later["share"]["status"] == "not enough data"


def test_a_generation_ahead_is_forecast() -> None:
    found = forecast_rows(rows_of(run_of((0, 5, 15, 40), 3)), factor=2.0, generation=20)
    share = found["share"]
    assert not share["measured"]
    assert [one["measured"] for one in share["ratios"]] == [False] * 4
    assert share["low90"]["value"] <= 10 / math.log(2) - 4 <= share["high90"]["value"]


def test_policies_that_got_differently_far_are_compared_where_all_are() -> None:
    run = run_of((0, 20), 3)
    run["keep-20"] = History({s: {g: v for g, v in by.items() if g < 7} for s, by in run["keep-20"].values.items()})
    assert forecast_rows(rows_of(run))["share"]["generation"] == 6


@pytest.mark.parametrize(
    "command",
    [
        "",
        "collapse run --preset quick",
        "collapse run --preset two --set loop.policies=one",
        "collapse run",
        "collapse run --json configs/on.toml",
        "collapse run --name on one.toml",
        "collapse resume one",
    ],
)
def test_no_command_is_proposed_that_would_run_something_else(tmp_path: Path, command: str) -> None:
    """The folder `one` of a configuration `on` with a variant `e`, say: that command runs all variants."""
    folder = folder_of(tmp_path, rows_of(run_of((0, 20), 2)), command=command.split())
    found = forecast(folder, factor=2.0)
    assert found["share"]["next"]
    assert not any("command" in option for option in found["share"]["next"])
    said = sentences(found)[-1]
    assert said.startswith("what would narrow the share of real data most: ")
    assert not said.endswith(":")


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("collapse run", "opt125m-wikitext2"),
        ("collapse run --preset quick --dry-run", "quick"),
        ("__main__.py run --preset=quick --seeds 0,1 a/b.c.toml", "b.c"),
        ("collapse run b.toml --name=a --set train.lr=1", "a"),
        ("collapse run --json -- --b.toml", "--b"),
        ("collapse status quick", None),
    ],
)
def test_the_name_that_a_command_gives_its_run(command: str, name: str | None) -> None:
    assert name_given(command.split()) == name


@pytest.mark.parametrize(
    ("command", "seen"),
    [
        ("run one.toml", "run one.toml"),
        ("run one.toml --runs-dir R --json", "run one.toml --json"),
        ("run --runs-dir=../R one.toml --name one", "run one.toml --name one"),
        ("run --runs-dir R -- --runs-dir", "run -- --runs-dir"),
    ],
)
def test_the_runs_folder_of_a_command_is_the_one_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, seen: str
) -> None:
    """Whatever it was called where the run was made: an option only where it is not the default, here."""
    monkeypatch.chdir(tmp_path)
    for runs in (Path("runs"), tmp_path / "runs"):
        assert seen_from_here(command.split(), runs) == seen.split()
    option = ["--runs-dir", str(tmp_path / "my runs")]
    before, end, after = seen.partition(" -- ")
    there = [*before.split(), *option, *(end + after).split()]
    assert seen_from_here(command.split(), Path("my runs")) == there


def test_the_options_of_run_that_take_no_value_are_known() -> None:
    """Else the word after a new one would be taken for its value."""
    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    flags = [name for option in command.params if getattr(option, "is_flag", False) for name in option.opts]
    assert {*flags} - {"--help"} == {*FLAGS}


def test_the_interval_of_one_seed_holds_the_share_that_the_recipe_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds differ by 0.3 nats: without their variance 45% of the "90%" intervals held the truth. 24 cases of an honest 90%
    interval hold fewer than 17 once in 500; a rate of 45% gives 17 or more once in 50.
    """
    monkeypatch.setattr(share, "_candidates", lambda *_: [])  # next runs, which are found after the interval
    rng, inside = np.random.Generator(np.random.Philox(17)), 0
    for _ in range(24):
        truth, offset = rng.uniform(1, 19), rng.uniform(2, 15)
        rows = []
        for percent in (0, 10, 20):
            end = 1.5 * offset / (percent + offset) + 0.3 * rng.standard_normal()
            rows += [row_of(f"keep-{percent}", 0, g, nll=4 + end * (1 - math.exp(-g / 2))) for g in range(10)]
        factor = math.exp(1.5 * offset / (truth + offset) * (1 - math.exp(-4.5)))
        found = forecast_rows(rows, factor=factor)
        low, high = (found["share"][name] for name in ("low90", "high90"))
        inside += (low["bound"] == "below" or (not low["bound"] and low["value"] <= truth)) and (
            high["bound"] == "above" or (not high["bound"] and high["value"] >= truth)
        )
    assert inside >= 17
    assert any("one seed, which cannot show how far seeds differ" in line for line in sentences(found))

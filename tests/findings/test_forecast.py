"""Growth laws, what is to come, and what is said where there is too little to say it from."""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from support import nature
from support.rows import changed, row_of
from support.series import BY_NAME, TRUE, folder_of, made, rng_of, rows_of

from collapse_cli.errors import ConfigError
from collapse_cli.findings.forecast import forecast, forecast_rows, sentences, vocabulary_of
from collapse_cli.findings.forecast.fit import fit_all, fit_law, mixture, paths, steps_of
from collapse_cli.findings.forecast.history import History, collect
from collapse_cli.findings.forecast.laws import LAWS
from collapse_cli.findings.forecast.resample import bootstrap
from collapse_cli.findings.forecast.sentences import to_come, when
from collapse_cli.records.rundir import RunFolder
from collapse_cli.terminal.forecast import tables
from collapse_cli.where import Arm

# --- the laws and their fit -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [law.name for law in LAWS if law.sloped])
def test_parameters_of_a_series_without_noise_are_found(name: str) -> None:
    b, shape = TRUE[name]
    fit = next(fit for fit in fit_all(made(name, 1, 12, 0.0, rng_of(1))) if fit.law.name == name)
    assert fit.slope[fit.best] == pytest.approx(b, rel=1e-4)
    assert fit.shape[fit.best] == pytest.approx(shape, rel=1e-4)
    assert fit.noise < 1e-5


@pytest.mark.parametrize("name", [law.name for law in LAWS])
def test_the_fit_is_the_least_squares_that_scipy_finds(name: str) -> None:
    """Against a general optimizer on the same residuals, from several starts."""
    from scipy.optimize import least_squares

    law = BY_NAME[name]
    series = made("saturating", 2, 9, 0.03, rng_of(2))
    steps = steps_of(series)
    fit = fit_law(law, steps, 8)

    def residuals(parameters: np.ndarray) -> np.ndarray:
        b, shape = parameters[0] * law.sloped, np.array([parameters[1] if law.shape else 1.0])
        memory = law.memory(shape)[0]
        after, before = law.grows(steps.end, shape)[0], law.grows(steps.begin, shape)[0]
        found: np.ndarray = (steps.after - b * after) - memory * (steps.before - b * before)
        return found

    ends = law.shapes(8)
    low, high = (float(ends.min()), float(ends.max())) if law.shape else (0.5, 2.0)
    bounds = ([0 if law.only_up else -50, low], [50, high])
    starts = [(b, s) for b in (0.01, 0.3, 2.0) for s in np.geomspace(low * 1.01, high * 0.99, 6)]
    best = min(2 * least_squares(residuals, start, bounds=bounds).cost for start in starts)
    assert fit.loss[fit.best] == pytest.approx(best, rel=1e-3)


def test_a_gap_counts_as_a_longer_step() -> None:
    """Steps over a gap have the variance of all they leave out, and the law's growth over it."""
    series = History({0: {0: 4.0, 1: 4.1, 4: 4.4, 5: 4.5}})
    fit = fit_law(BY_NAME["linear"], steps_of(series), 5)
    assert fit.slope[fit.best] == pytest.approx(0.1)
    noisy = History({0: {0: 4.0, 1: 4.2, 4: 4.4, 5: 4.5}})  # weighed by 1/gap: b = sum of steps / generations
    fit = fit_law(BY_NAME["linear"], steps_of(noisy), 5)
    assert fit.slope[fit.best] == pytest.approx(0.5 / 5)


def picked(name: str, chain: bool, count: int) -> list[str]:
    """The laws with the least AICc of series of a known law: five seeds, 21 generations."""
    fitted = [fit_all(made(name, 5, 21, 0.01, rng_of(seed), chain=chain)) for seed in range(count)]
    return [min(fits, key=lambda fit: fit.aicc).law.name for fits in fitted]


@pytest.mark.parametrize("name", [law.name for law in LAWS if law.sloped])
@pytest.mark.parametrize("chain", [False, True])
def test_aicc_picks_the_true_law_where_there_is_enough_data(name: str, chain: bool) -> None:
    assert picked(name, chain, 10).count(name) >= 8


@pytest.mark.parametrize("chain", [False, True])
def test_a_constant_is_picked_most_often_where_nothing_grows(chain: bool) -> None:
    """Every other law holds the constant as b = 0, and AICc lets one parameter too many through in one case of six."""
    found = picked("constant", chain, 20)
    assert max(set(found), key=found.count) == "constant"


def test_aicc_is_that_of_the_formula_and_leaves_out_laws_for_which_it_has_no_value() -> None:
    series = made("linear", 1, 6, 0.02, rng_of(3))
    values = series.values[0]
    increments = np.diff([values[g] for g in range(6)])
    loss, n, k = float(((increments - increments.mean()) ** 2).sum()), 5, 2
    fits = {fit.law.name: fit for fit in fit_all(series)}
    assert fits["linear"].aicc == pytest.approx(n * math.log(loss / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1))
    assert fits["power"].parameters == 3
    short = fit_all(History({0: {g: values[g] for g in range(5)}}))
    assert [math.isinf(fit.aicc) for fit in short] == [False, False, True, True, True, True, False]
    assert mixture(short)[2:6].sum() == 0


@pytest.mark.parametrize("seeds", [1, 3, 8])
def test_bootstrap_intervals_hold_the_true_parameter(seeds: int) -> None:
    """90% intervals of b and tau over 40 series: at least 29 would be missed once in 1,000 by honest ones."""
    held = np.zeros(2)
    for seed in range(40):
        rng = rng_of(seed)
        series = made("saturating", seeds, 12, 0.02, rng, chain=True)
        fit = fit_law(BY_NAME["saturating"], steps_of(series), 11)
        drawn = bootstrap(series, fit, 200, rng)
        for i, (name, true) in enumerate((("b", 0.9), ("tau", 3.0))):
            low, high = np.quantile(drawn[name], [0.05, 0.95])
            held[i] += low <= true <= high
    assert (held >= 29).all(), held


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_the_interval_of_generation_0_is_over_its_seeds(seeds: int) -> None:
    """The means of seeds drawn with replacement held the truth in 48, 55 and 78 of 100 runs of 2, 3 and 5 seeds."""
    starts = 4 + 0.2 * np.random.default_rng(seeds).standard_normal(seeds)
    flat = History({s: {g: float(a) for g in range(6)} for s, a in enumerate(starts)})
    a = forecast_rows(rows_of({"keep-0": flat}))["policies"][0]["parameters"]["a"]
    low, high = stats.t.interval(0.9, seeds - 1, loc=starts.mean(), scale=stats.sem(starts))
    assert (a["low90"], a["high90"]) == (pytest.approx(low), pytest.approx(high))


def test_a_generation_0_that_no_seed_moves_has_no_interval() -> None:
    """Of n-grams: a = 6.02 (6.02 – 6.02)."""
    grown = {s: {g: 6.0 + (0.1 + 0.01 * s) * g for g in range(6)} for s in range(3)}
    said = " ".join(
        "".join(column.cells) for column in tables(forecast_rows(rows_of({"keep-0": History(grown)})))[2].columns
    )
    assert "a = 6.00 (same for all seeds), b = 0.110 (" in said


@pytest.mark.parametrize("seeds", [5, 10])
def test_the_slope_of_a_line_lies_in_its_interval(seeds: int) -> None:
    """Whole seeds drawn with replacement: 75% of 5 seeds, 83% of 10."""
    random, held = np.random.default_rng(seeds), 0
    for _ in range(100):
        walks = 0.05 * random.standard_normal((seeds, 9)).cumsum(axis=1)
        values = {s: dict(enumerate([4.0, *(4 + 0.1 * np.arange(1, 10) + walk)])) for s, walk in enumerate(walks)}
        series = History(values)
        drawn = bootstrap(series, fit_law(BY_NAME["linear"], steps_of(series), 9), 200, rng_of(2))["b"]
        low, high = np.quantile(drawn, [0.05, 0.95])
        held += low <= 0.1 <= high
    assert held >= 80


def test_errors_over_test_rows_widen_the_intervals() -> None:
    rows = rows_of({"keep-0": made("linear", 3, 8, 0.001, rng_of(4))})
    bare = forecast_rows(rows)["policies"][0]
    errors = {g: [0.1 * g] * 10 for g in range(1, 8)}
    rows = [
        changed(row, nll_change_by_decile_se=errors[row.where.generation], tokens_by_decile=[100] * 10)
        if row.where.generation
        else row
        for row in rows
    ]
    with_rows = forecast_rows(rows)["policies"][0]
    width = [one["parameters"]["b"]["high90"] - one["parameters"]["b"]["low90"] for one in (bare, with_rows)]
    # ten independent parts, each a tenth of the text: 0.1 / sqrt(10) a generation, so 2 * 1.645 times that
    assert width[1] == pytest.approx(2 * 1.645 * 0.1 / math.sqrt(10), rel=0.15)
    assert width[0] < width[1] / 5
    assert "not resampled" in bare["bootstrap"]["rows"]


# --- what is to come --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 3])
def test_intervals_cover_what_was_held_out(seeds: int) -> None:
    """Fit to 0..5, look at 6..9: 30 series of each law's kind; the issue's bar, with no slack below it."""
    inside, half, widths = [], [], []
    for name in TRUE:
        for seed in range(6):
            rng = rng_of(1000 * seeds + seed)
            full = made(name, seeds, 10, 0.03, rng, chain=seed % 2 == 0)
            cut = History({s: {g: v for g, v in by.items() if g < 6} for s, by in full.values.items()})
            fits = fit_all(cut)
            levels = np.quantile(paths(cut, fits, mixture(fits), 4, 1000, rng), [0.05, 0.25, 0.75, 0.95], axis=0)
            truth = np.array([full.mean(g) for g in range(6, 10)])
            inside += list((levels[0] <= truth) & (truth <= levels[3]))
            half += list((levels[1] <= truth) & (truth <= levels[2]))
            widths.append(np.median(levels[3] - levels[0]))
    assert np.mean(inside) >= 0.8
    assert 0.3 <= np.mean(half) <= 0.9
    assert np.median(widths) < 0.6, "intervals that hold everything would say nothing"


def test_the_paths_of_a_line_spread_as_they_must() -> None:
    """Linear law alone, nothing distrusted: steps are a mean and noise, so the path is Student's t in closed form."""
    rng = rng_of(5)
    steps = 0.1 + 0.05 * rng.standard_normal(39)
    series = History({0: dict(enumerate([4.0, *(4 + steps.cumsum())]))})
    fits = [fit for fit in fit_all(series) if fit.law.name == "linear"]
    drawn = paths(series, fits, np.ones(1), 25, 20000, rng, distrusted=0.0, lasting=False)
    last = series.values[0][39]
    for ahead in (1, 25):
        spread = steps.std(ddof=1) * math.sqrt(ahead + ahead**2 / 39) * math.sqrt(38 / 36)
        assert drawn[:, ahead - 1].std() == pytest.approx(spread, rel=0.03)
        assert np.median(drawn[:, ahead - 1]) == pytest.approx(last + ahead * steps.mean(), abs=0.03 * spread)


def test_a_law_that_does_not_last_becomes_a_line() -> None:
    """The chance to hold is (n / (n + h))^3; slower and faster growth are equally likely, so the median of a line stays."""
    rng = rng_of(6)
    series = History({0: {g: 4 + 0.1 * g for g in range(10)}})
    fits = [fit for fit in fit_all(series) if fit.law.name == "linear"]
    drawn = paths(series, fits, np.ones(1), 20, 20000, rng, distrusted=0.0)
    still = np.abs(np.diff(drawn, axis=1) - 0.1) < 1e-5
    for ahead in (1, 5, 18):
        assert still[:, ahead].mean() == pytest.approx((9 / (9 + ahead + 1)) ** 3, abs=0.02)
    assert np.median(drawn[:, 19]) == pytest.approx(4.9 + 20 * 0.1, rel=0.02)


def test_times_to_a_factor_are_those_of_the_law() -> None:
    found = forecast_rows(rows_of({"keep-0": made("linear", 3, 12, 0.001, rng_of(6)), "keep-90": [4.0, *[4.02] * 9]}))
    slow = rows_of({"keep-0": [4 + 0.02 * g + 1e-4 * (-1) ** g for g in range(12)]})
    linear, plateau = found["policies"]
    assert linear["times"][0] | {"chance": 1} == {"factor": 1.1, "measured": True, "generation": 1, "chance": 1}
    time = forecast_rows(slow)["policies"][0]["times"][1]  # ln 1.5 / 0.02 = 20.3 generations
    assert not time["measured"]
    assert 19 <= time["generation"] <= 23
    assert time["low90"] <= time["generation"] <= (time["high90"] or 1000)
    assert [time["generation"] for time in plateau["times"]] == [None, None, None]


def test_a_generation_that_was_measured_is_not_forecast() -> None:
    one = forecast_rows(rows_of({"keep-0": [4 + 0.1 * g for g in range(12)]}))["policies"][0]
    assert [entry["measured"] for entry in one["expected"]] == [True, False, False]
    assert one["expected"][0]["perplexity"] == pytest.approx(math.exp(5.0))


# --- where there is too little, or something is wrong -----------------------------------------------------------------


@pytest.mark.parametrize(("generations", "enough"), [(1, False), (2, False), (4, False), (5, False), (6, True)])
def test_one_seed_needs_six_generations(generations: int, enough: bool) -> None:
    found = forecast_rows(rows_of({"keep-0": [4 + 0.1 * g for g in range(generations)]}))
    one = found["policies"][0]
    assert one["status"] == ("ok" if enough else "not enough data")
    assert enough == (not any("not enough data" in line and "keep-0" in line for line in sentences(found)))
    assert bool(tables(found)) == enough


def test_two_seeds_need_five_generations() -> None:
    for generations, status in ((4, "not enough data"), (5, "ok")):
        found = forecast_rows(rows_of({"keep-0": made("linear", 2, generations, 0.01, rng_of(7))}))
        assert found["policies"][0]["status"] == status


def test_a_series_that_is_flat_to_the_digit() -> None:
    one = forecast_rows(rows_of({"keep-100": [4.0] * 10}))["policies"][0]
    assert one["best"] == "constant"
    assert one["expected"][2]["perplexity"] == pytest.approx(math.exp(4.0), rel=1e-6)
    assert [time["generation"] for time in one["times"]] == [None, None, None]
    assert any("never changed" in note for note in one["notes"])


def test_a_perplexity_that_overflowed_is_known_by_its_nll() -> None:
    rows = rows_of({"keep-0": [4.0, 5.0, 7.0, 11.0, 19.0, 35.0, 67.0]})
    rows += [row_of("keep-0", 0, 7, nll=1000.0, perplexity=sys.float_info.max)]
    found = forecast_rows(rows)
    assert found["policies"][0]["generations"][-1] == 7
    rows[-1] = changed(rows[-1], nll=None)  # without it there is no saying how large it was
    found = forecast_rows(rows)
    assert found["policies"][0]["generations"][-1] == 6
    assert any("generation 7" in note for note in found["notes"])
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("bad", [math.nan, math.inf, None, "much"])
def test_rows_without_a_number_are_left_out_and_named(bad: Any) -> None:
    rows = rows_of({"keep-0": [4 + 0.1 * g for g in range(9)]})
    rows[4] = changed(rows[4], nll=bad, perplexity=bad)
    found = forecast_rows(rows)
    one = found["policies"][0]
    assert one["generations"] == [0, 1, 2, 3, 5, 6, 7, 8]
    assert any("4 (seed 0)" in note for note in found["notes"])
    assert any("gaps" in note for note in one["notes"])
    assert one["best"] == "linear"
    json.dumps(found, allow_nan=False)


def test_a_seed_without_generation_0_is_left_out() -> None:
    rows = rows_of({"keep-0": made("linear", 2, 8, 0.01, rng_of(8))})
    rows = [row for row in rows if (row.where.seed, row.where.generation) != (1, 0)]
    series, notes = collect(rows)
    assert list(series[Arm("keep-0")].values) == [0]
    assert any("no generation 0 of seed 1" in note for note in notes)
    none = forecast_rows([row for row in rows if row.where.generation > 0])
    assert none["policies"][0]["status"] == "not enough data"


def test_seeds_that_stopped_early_help_the_fit_but_not_the_start() -> None:
    full = made("linear", 3, 10, 0.01, rng_of(9))
    cut = History({s: {g: v for g, v in by.items() if s == 0 or g < 6} for s, by in full.values.items()})
    one = forecast_rows(rows_of({"keep-0": cut}))["policies"][0]
    assert one["steps"] == 9 + 5 + 5
    assert one["farthest_seeds"] == [0]
    assert one["measured"][-1]["log_perplexity"] == full.values[0][9]
    assert any("1 of 3 seeds" in note for note in one["notes"])


def test_runaway_growth_stays_json() -> None:
    found = forecast_rows(rows_of({"keep-0": [4 * 1.9**g for g in range(10)]}))
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text) == found
    assert found["policies"][0]["expected"][2]["perplexity"] == sys.float_info.max


def test_the_same_folder_gives_the_same_numbers(tmp_path: Path) -> None:
    rows = rows_of(
        {"keep-0": made("exponential", 3, 8, 0.02, rng_of(10)), "keep-10": made("saturating", 3, 8, 0.02, rng_of(11))}
    )
    folder = folder_of(tmp_path, rows, status="interrupted")
    first, second = forecast(folder), forecast(folder)
    assert first == second
    assert first["run"] == "one"
    assert any("not finished" in note for note in first["notes"])
    vocabulary = vocabulary_of(folder.record()["config"])
    shuffled = forecast_rows([rows[i] for i in rng_of(0).permutation(len(rows))], vocabulary=vocabulary)
    assert {one["policy"]: one for one in shuffled["policies"]} == {one["policy"]: one for one in first["policies"]}
    assert len(tables(first)) == 4
    assert all(isinstance(line, str) for line in sentences(first))


def test_what_is_wrong_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run 'none'"):
        forecast(RunFolder(tmp_path, "none"))
    folder = folder_of(tmp_path, [])
    with pytest.raises(ConfigError, match="has no rows"):
        forecast(folder)
    rows = rows_of({"keep-0": [4.0] * 6})
    for factor in (1.0, 0.5, math.nan, math.inf):
        with pytest.raises(ConfigError, match="--factor"):
            forecast_rows(rows, factor=factor)
    for generation in (0, -1, 1001):
        with pytest.raises(ConfigError, match="--generation"):
            forecast_rows(rows, generation=generation)


def test_policies_of_any_name_are_shown_as_text() -> None:
    found = forecast_rows(rows_of({"accumulate": [4 + 0.1 * g for g in range(8)]}))
    assert found["share"]["status"] == "not enough data"
    assert "at least two keep-P" in sentences(found)[-1]


@pytest.mark.parametrize("generation", [1001, 2**52, -1])
def test_generations_that_cannot_be_are_left_out_and_said(generation: int) -> None:
    """A damaged row neither moves the forecast nor keeps it at work for ever."""
    whole = rows_of({name: made("linear", 1, 8, 0.02, rng_of(7)) for name in ("keep-0", "keep-20")})
    found = forecast_rows([*whole, row_of("keep-20", 0, generation, nll=4.0)])
    note = "keep-20: generations outside 0..1000 left out (1 row)"
    assert found == forecast_rows(whole) | {"notes": [note]}


# --- Nature's curves, and what no figure should say -------------------------------------------------------------------


@pytest.mark.parametrize("curve", [nature.NO_REAL, nature.TENTH_REAL], ids=["no real", "a tenth real"])
def test_nature_s_curves_are_a_jump_and_not_a_law_of_growth(curve: tuple[float, ...]) -> None:
    """They were "constant law, weight 0.95" and "power law, twice generation 0 about generation 183"."""
    early, late = (forecast_rows(nature.rows(curve, "keep-0", last)) for last in (5, 9))
    for found in (early, late):
        policy = found["policies"][0]
        assert policy["best"] == "jump"
        said = sentences(found)[0]
        assert said.startswith("keep-0: a jump at generation 1, then level") or "jump at generation 1 and then" in said
        assert "about generation" not in said
    ahead = early["policies"][0]["expected"][0]
    assert ahead["perplexity_low90"] < curve[9] < ahead["perplexity_high90"]
    assert ahead["perplexity_high90"] < 1.5 * curve[9]
    assert abs(late["policies"][0]["expected"][0]["perplexity"] / curve[9] - 1) < 0.03


def test_a_random_walk_is_level_within_noise_and_no_law() -> None:
    values = 4 + 0.1 * rng_of(7).standard_normal(12).cumsum()
    found = forecast_rows(rows_of({"keep-0": [4.0, *map(float, values)]}))
    assert found["policies"][0]["best"] == "constant"
    said = sentences(found)
    assert said[0].startswith("keep-0: level within noise: no law of growth fits better than a constant")
    assert "weight 0.9" not in said[0].split(";")[0]
    assert any(line.startswith("note: what the generations measured do not yet show") for line in said)


def test_no_perplexity_is_forecast_above_that_of_guessing_evenly() -> None:
    rows = rows_of({"keep-0": [3 + 0.1 * 1.6**g for g in range(8)]})
    free, capped = (forecast_rows(rows, vocabulary=size)["policies"][0]["expected"] for size in (None, 512))
    assert free[2]["perplexity"] > 1e6
    ends = [one[end] for one in capped for end in ("perplexity", "perplexity_high90", "perplexity_high50")]
    assert max(ends) <= 512 * (1 + 1e-9)


@pytest.mark.parametrize("last", [300.0, 1200.0])
def test_beyond_guessing_evenly_no_figure_is_printed(last: float) -> None:
    """Also where more was measured already: 1,414 (1,414 – 1,414) was said of a model of 512 tokens once."""
    rows = rows_of({"keep-0": [math.log(50 * (last / 50) ** ((g / 9) ** 2)) for g in range(10)]})
    record = forecast_rows(rows, vocabulary=512)
    one = record["policies"][0]
    said = [to_come(at, one["ceiling"], "{:,.0f}".format) for at in one["expected"] if not at["measured"]]
    assert said[-1] == ("above 512 (guessing evenly)", "")
    assert all(
        "above" in part or float(part) < 512
        for middle, _ in said
        for part in [middle.removesuffix(" (guessing evenly)")]
    )


def test_a_multiple_above_guessing_evenly_is_not_denied() -> None:
    """Paths end there, so that "not by generation 90 (chance below 5%)" was said of what they cannot show."""
    rows = rows_of({"keep-0": [math.log(300 + 10 * g) for g in range(8)]})
    said = when(forecast_rows(rows, vocabulary=512)["policies"][0]["times"][2], 7)
    assert said == "above guessing evenly: not forecast"
    assert "generation" in when(forecast_rows(rows)["policies"][0]["times"][2], 7)


def test_no_ratio_of_a_share_is_printed_above_guessing_evenly() -> None:
    course = [math.log(50 * (300 / 50) ** ((g / 9) ** 2)) for g in range(10)]
    rows = rows_of({"keep-0": course, "keep-20": [math.log(50 + g) for g in range(10)]})
    record = forecast_rows(rows, vocabulary=512, generation=20)
    cells = [list(column.cells) for column in tables(record)[-1].columns]
    assert cells[1][0] == "above ×10.2 [dim]expected[/]"
    assert cells[2][0] == "above ×10.2 (guessing evenly)"
    assert "above" not in cells[1][1] + cells[2][1]
    assert "above" not in "".join(list(tables(forecast_rows(rows, generation=20))[-1].columns[1].cells))


def test_a_perplexity_that_hangs_on_a_floor_says_so() -> None:
    rows = rows_of({"keep-0": [math.log(400 + 100 * g) for g in range(8)]})
    assert not any("floor" in note for note in forecast_rows(rows)["notes"])
    with_floor = [changed(row, protocol={"protocol": "block", "floor": 1e-9}) for row in rows]
    said = sentences(forecast_rows(with_floor))[0]
    assert said.startswith("note: a token that the model gives no probability counts as 1e-09 (ngram.floor)")
    assert said.endswith("(unseen_share) is not forecast")
    assert forecast_rows([changed(row, protocol={"floor": ["1"]}) for row in rows])["notes"] == []


def test_the_vocabulary_is_known_of_models_made_from_scratch_only() -> None:
    """Of a pretrained one `model.vocab_size` is a default without meaning: OPT would have been cut off at 512."""
    scratch = {"model": {"config": {"model_type": "opt"}, "vocab_size": 700}, "data": {"source": "wikitext2"}}
    assert vocabulary_of(scratch) == 700
    assert vocabulary_of(scratch | {"learner": "ngram"}) is None
    assert vocabulary_of(scratch | {"data": {"source": "zipf", "zipf": {"vocabulary": 256}}}) == 257
    pretrained = {"model": {"source": "facebook/opt-125m", "config": {}, "vocab_size": 512}, "data": {}}
    assert vocabulary_of(pretrained) is None
    assert vocabulary_of({"model": "damaged"}) is None


def test_a_time_is_a_figure_only_where_its_interval_is_finite_and_near() -> None:
    time = {"measured": False, "generation": 40, "low90": 12, "high90": 60}
    assert when(time, 9) == "about generation 40 (90% interval: 12 to 60)"
    assert when(time | {"high90": None}, 9) == "not known when (chance 5% from generation 12 on)"
    assert when(time | {"generation": 183, "high90": 700}, 9) == "not known when (chance 5% from generation 12 on)"
    never = time | {"generation": None, "high90": None}
    assert when(never, 9) == "not known whether (chance 5% from generation 12 on)"
    assert (
        when(never | {"low90": 91}, 9) == when(never | {"low90": None}, 9) == "not by generation 90 (chance below 5%)"
    )
    assert when(never | {"low90": None}, 400) == "not by generation 1,000 (chance below 5%)"


def test_of_a_slow_rise_nothing_is_denied_that_comes_true() -> None:
    """0.003 nats a generation double it about generation 231; "not within 1,000 generations" was said of 7 runs in 25."""
    rng, last = rng_of(3), 9
    for _ in range(10):
        values = 4 + 0.003 * np.arange(last + 1) + 0.02 * rng.standard_normal(last + 1)
        found = forecast_rows(rows_of({"keep-0": [float(value) for value in values]}))
        double = next(time for time in found["policies"][0]["times"] if time["factor"] == 2.0)
        said = when(double, last)
        assert "1,000" not in said
        if said.startswith("not by generation"):
            assert int(said.split()[3]) < math.log(2) / 0.003
        notes = [line for line in sentences(found) if "how far another seed would lie from it" in line]
        assert len(notes) == 1


def test_jumps_overshoots_and_walks_are_covered() -> None:
    """Of 90% intervals: 12 series of each, 48 points that hang together; what was covered 25% before is above 80% now."""
    g = np.arange(10.0)
    for name in ("rises, then falls", "jump, then relaxes", "random walk"):
        inside = []
        for seed in range(12):
            rng = rng_of(300 + seed)
            grown = {
                "rises, then falls": rng.uniform(0.3, 1.5) * g / 3 * np.exp(1 - g / 3),
                "jump, then relaxes": rng.uniform(0.3, 1) * (g > 0) * (1 + 0.3 * np.expm1(-(g - 1) / 2)),
                "random walk": np.append(0, 0.1 * rng.standard_normal(9).cumsum()),
            }[name]
            values = 4 + grown + 0.02 * rng.standard_normal(10)
            series = History({0: {i: float(value) for i, value in enumerate(values[:6])}})
            fits = fit_all(series)
            low, high = np.quantile(paths(series, fits, mixture(fits), 4, 1000, rng), [0.05, 0.95], axis=0)
            inside.append((low <= values[6:]) & (values[6:] <= high))
        assert np.mean(inside) > 0.8, name

"""Calls and verdicts: the rules at their boundaries, how often they are wrong and right, the sentences word for word."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import nature
from support.instrumented import write_run
from support.rows import changed, row_of

from collapse_cli.findings.diagnosis import Diagnosis, diagnose, rules, said_of
from collapse_cli.findings.diagnosis.rules import ENTROPY_SHARE, MARGIN, VARIANCE_SHARE, Call
from collapse_cli.findings.forecast import forecast_rows
from collapse_cli.metrics.intervals import Interval, t_quantile
from collapse_cli.metrics.numbers import factor, factors
from collapse_cli.records.fields import LARGEST
from collapse_cli.records.row import Row
from collapse_cli.records.rundir import RunFolder
from collapse_cli.where import Arm

QUICK = {  # log-perplexities in proportion to the table of the README's run
    "keep-0": {0: (46.5, 60.9, 739.2), 1: (51.4, 66.3, 1346.4), 2: (57.5, 73.0, 987.0)},
    "keep-20": {0: (46.5, 46.0, 50.0), 1: (51.4, 52.0, 55.0), 2: (57.5, 58.0, 62.0)},
}


def row(generation: int, *, seed: int = 0, policy: str = "keep-0", nll: float = 4.0, **fields: Any) -> Row:
    return row_of(policy, seed, generation, nll=nll, **fields)


def losses(tail: float, head: float, error: float | None = 0.001) -> dict[str, Any]:
    return {"tail_change": tail, "tail_change_se": error, "head_change": head, "head_change_se": error}


def calls(rows: list[Row]) -> dict[str, Call]:
    return dict(diagnose(rows).arms[0].calls)


def one_seed(*changes: tuple[float, float], error: float | None = 0.001) -> dict[str, Call]:
    """Calls of one seed whose tail and head changed so from generation 1 on."""
    return calls([row(0), *(row(step, **losses(*change, error)) for step, change in enumerate(changes, 1))])


# --- early collapse and general loss ----------------------------------------------------------------------------------


def test_early_collapse_is_called_at_the_first_of_two_generations_in_a_row() -> None:
    early = one_seed((0.0, 0.0), (0.3, 0.0), (0.6, 0.0), (0.9, 0.0))["early"]
    assert (early.called, early.generation) == (True, 2)
    assert early.text.startswith("early collapse from generation 2: tail deciles +0.300 nats/token (95% interval ")
    assert early.text.endswith(", over test rows and generations of one seed")
    assert not one_seed((0.0, 0.0), (0.3, 0.0), (0.0, 0.0), (0.3, 0.0))["early"].called


def test_at_the_last_generation_alone_it_is_suspected_and_not_called() -> None:
    found = one_seed((0.3, 0.0))
    assert (found["early"].generation, found["early"].suspected) == (None, 1)
    assert found["early"].text.startswith("early collapse is not called yet: its rule holds at generation 1, the last")
    assert found["general"].suspected is None


def test_when_the_head_loses_too_it_is_general_loss() -> None:
    found = one_seed((0.5, 0.4), (1.0, 0.8), (1.5, 1.2))
    assert not found["early"].called
    assert found["general"].generation == 1
    later = one_seed((0.5, 0.0), (1.0, 0.0), (1.5, 0.6), (2.0, 1.2))
    assert (later["early"].generation, later["general"].generation) == (1, 3)


@pytest.mark.parametrize(("above", "called"), [(1e-4, True), (-1e-4, False)])
def test_the_lower_end_of_the_tails_interval_decides(above: float, called: bool) -> None:
    """Seeds at mean ± 0.01 have the interval mean ± 4.30265 · 0.01 / √3."""
    low = MARGIN + above
    tails = [low + 4.302653 * 0.01 / math.sqrt(3) + step for step in (-0.01, 0.0, 0.01)]
    rows = [row(0, seed=seed) for seed in range(3)]
    rows += [row(step, seed=seed, **losses(tails[seed], -1.0)) for step in (1, 2) for seed in range(3)]
    early = calls(rows)["early"]
    assert early.called is called
    assert early.evidence[0].interval.low == pytest.approx(low, abs=1e-6)
    assert early.evidence[0].units == "3 seeds"


@pytest.mark.parametrize(("above", "kind"), [(1e-4, "general"), (-1e-4, "early")])
def test_the_lower_end_of_the_heads_interval_decides_between_early_and_general(above: float, kind: str) -> None:
    head = MARGIN + above + 4.302653 * 0.01 / math.sqrt(3)
    rows = [row(0, seed=seed) for seed in range(3)]
    for step in (1, 2):
        rows += [row(step, seed=seed, **losses(2.0, head + 0.01 * (seed - 1))) for seed in range(3)]
    found = calls(rows)
    assert {name for name, call in found.items() if call.called} == {kind}


def test_a_head_that_is_only_uncertain_is_no_early_collapse() -> None:
    """Tail +0.20 ± 0.01 is significant, head +0.20 ± 0.4 is not; that does not show that the tail lost more."""
    rows = [row(0, seed=seed) for seed in range(3)]
    for step in (1, 2):
        rows += [row(step, seed=seed, **losses(0.2 + 0.002 * seed, 0.2 + 0.2 * (seed - 1))) for seed in range(3)]
    found = calls(rows)
    assert not found["early"].called
    assert not found["general"].called


def test_one_seed_pays_for_the_scatter_between_its_generations() -> None:
    """A tail that jumps about by 0.2 nats between models of the same corpus has not collapsed, whatever its rows say."""
    rough = [(0.15, 0.0), (0.17, 0.0), (-0.1, 0.0), (0.2, 0.0), (0.16, 0.0), (-0.05, 0.0)]
    smooth = [(0.1 * step, 0.0) for step in range(1, 7)]
    assert not one_seed(*rough)["early"].called
    assert one_seed(*smooth)["early"].generation == 1


def test_without_standard_errors_one_seed_is_not_called() -> None:
    early = one_seed((0.5, 0.0), (0.9, 0.0), error=None)["early"]
    assert not early.called
    assert early.text == "early collapse cannot be called: its statistics have no interval"


def test_null_and_missing_fields_are_not_measured() -> None:
    nothing = {"head_change": None, "tail_change": 0.4, "unigram_entropy": None}
    found = calls([row(0), row(1, **nothing), row(2, **nothing)])
    assert found["early"].text == "early collapse was not measured: the rows hold no losses by decile"
    assert found["late"].text == "late collapse was not measured: the rows hold no measures of samples"
    assert calls([row(0)])["late"].text == "late collapse was not measured: generation 0 is all there is"


def made(random: np.random.Generator, *, seeds: int, training: float, shared: bool, tail: float) -> list[Row]:
    """Ten generations in which every model is off by the chance of its training, and nothing else changes but `tail`."""
    rows = []
    for seed in range(seeds):
        start, rows_error = random.normal(0, 1, (2, 2))
        for step in range(10):
            chance = (random.normal(0, 1, 2) + start) * training
            errors = (random.normal(0, 1, 2) + rows_error) / math.sqrt(2) * 0.01
            change = (chance[[0, 0]] if shared else chance) + errors + [tail * step, 0.0]
            rows.append(row(step, seed=seed, **(losses(*map(float, change), 0.01) if step else {})))
    return rows


def rates(trials: int, **how: Any) -> dict[str, float]:
    """Share of made-up runs with each call."""
    random = np.random.Generator(np.random.Philox(11))
    found = [calls(made(random, **how)) for _ in range(trials)]
    return {kind: sum(one[kind].called for one in found) / trials for kind in ("early", "general")}


@pytest.mark.parametrize("seeds", [1, 2, 3])
@pytest.mark.parametrize("training", [0.0, 0.02, 0.2])
@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_where_nothing_changes_a_run_of_ten_generations_is_rarely_called(
    seeds: int, training: float, shared: bool
) -> None:
    """At most 5% over all nine generations. Of 150 runs, a rate of 5% gives more than 8% in 3 of 100 cases."""
    assert max(rates(150, seeds=seeds, training=training, shared=shared, tail=0.0).values()) <= 0.08


@pytest.mark.parametrize(("seeds", "training"), [(1, 0.0), (1, 0.02), (3, 0.0), (3, 0.02)])
def test_a_tail_that_loses_a_tenth_of_a_nat_each_generation_is_found(seeds: int, training: float) -> None:
    assert rates(60, seeds=seeds, training=training, shared=False, tail=0.1)["early"] >= 0.95


def test_test_rows_alone_would_call_the_chance_of_training_a_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason for the scatter: without it most runs in which nothing changes would be called."""
    monkeypatch.setattr(rules, "_scatter", lambda values: (0.0, 0))
    assert rates(60, seeds=1, training=0.2, shared=True, tail=0.0)["general"] > 0.3


# --- late collapse ----------------------------------------------------------------------------------------------------


def samples(entropy: float, variance: float, error: float = 0.001) -> dict[str, Any]:
    return {
        "unigram_entropy": entropy,
        "unigram_entropy_se": error,
        "sample_log_perplexity_variance": variance,
        "sample_log_perplexity_variance_se": error,
    }


@pytest.mark.parametrize(("share", "called"), [(0.01, False), (-0.01, True)])
def test_entropy_below_its_share_of_generation_0_is_late_collapse(share: float, called: bool) -> None:
    now = samples(5.0 * (ENTROPY_SHARE + share), 1.0)
    late = calls(
        [row(0, **samples(5.0, 1.0)), *(row(step, **(now if step > 2 else samples(5, 1))) for step in range(1, 9))]
    )
    assert late["late"].called is called
    if called:
        assert late["late"].generation == 3
        assert late["late"].evidence[0].statistic == "unigram_entropy"
        assert late["late"].evidence[0].units == "samples and generations of one seed"


@pytest.mark.parametrize(("share", "called"), [(0.05, False), (-0.05, True)])
def test_variance_below_its_share_of_generation_0_is_late_collapse(share: float, called: bool) -> None:
    rows = [row(0, seed=seed, **samples(5.0, 1.0)) for seed in range(2)]
    rows += [row(step, seed=seed, **samples(5.0, VARIANCE_SHARE + share)) for step in (1, 2) for seed in range(2)]
    assert calls(rows)["late"].called is called


def test_the_upper_end_of_the_interval_decides() -> None:
    """Shares 0.60, 0.65, 0.70: mean 0.65 ± 4.30 · 0.05 / √3 = 0.124: 0.774 is above 0.75."""
    rows = [row(0, seed=seed, **samples(1.0, 1.0)) for seed in range(3)]
    wide = rows + [row(step, seed=seed, **samples(0.6 + 0.05 * seed, 1.0)) for step in (1, 2) for seed in range(3)]
    late = calls(wide)["late"]
    assert not late.called
    assert late.evidence[0].interval.high == pytest.approx(0.65 + 4.302653 * 0.05 / math.sqrt(3))
    narrow = rows + [row(step, seed=seed, **samples(0.64 + 0.01 * seed, 1.0)) for step in (1, 2) for seed in range(3)]
    assert calls(narrow)["late"].generation == 1


def test_the_same_statistic_must_hold_twice() -> None:
    rows = [row(0, **samples(5.0, 1.0)), row(1, **samples(1.0, 1.0)), row(2, **samples(5.0, 0.1))]
    assert not calls(rows)["late"].called


def test_samples_all_of_one_token_are_no_error() -> None:
    rows = [row(0, **samples(5.0, 1.0)), *(row(step, **samples(0.0, 0.0, 0.0)) for step in range(1, 6))]
    assert calls(rows)["late"].called
    assert calls([row(0, **samples(0.0, 0.0)), row(1, **samples(0.0, 0.0))])["late"].evidence == ()


# --- verdicts ---------------------------------------------------------------------------------------------------------


def quick() -> list[Row]:
    return [
        row(step, seed=seed, policy=policy, nll=math.log(values[step]))
        for policy, seeds in QUICK.items()
        for seed, values in seeds.items()
        for step in range(3)
    ]


def test_a_verdict_over_seeds() -> None:
    """keep-0: logs of 739.2/46.5, 1346.4/51.4, 987/57.5 have mean 2.9582 and s 0.2690; t(2) gives 0.6681 and the moderated
    t(4), of the deviation √((2 · 0.2690² + 2 · 0.3²)/4) = 0.2849, gives 0.4567, which is narrower.
    """
    found = diagnose(quick())
    assert found.verdict == (
        "By generation 2, over 3 seeds: keep-0 collapses (whether it still rises is not shown), perplexity ×19.3 (95% "
        "interval ×12.2 to ×30.4); keep-20 holds, perplexity +7% (95% interval +6% to +8%); early and late collapse were not measured."
    )
    assert found.notes == (  # keep-20's t interval assumes nothing
        "keep-0: the interval of the change is narrower than the seeds alone would make it: it takes for granted that noise "
        "between seeds is no larger than 0.3 nats (standard deviation)",
    )
    assert found.arms[0].ratio.mean == pytest.approx(math.exp(2.9582), rel=1e-3)
    assert found.arms[0].ratios[0].mean == 1.0


def test_a_verdict_on_one_seed_says_so() -> None:
    found = diagnose([entry for entry in quick() if entry.where.seed == 0])
    assert found.verdict == (
        "By generation 2, one seed and so without an interval: keep-0 collapses (whether it still rises is not "
        "shown), perplexity ×15.9; keep-20 cannot be judged from one seed, perplexity +8%; early and late collapse were not measured."
    )
    assert found.notes == (
        "keep-0, keep-20: one seed: no interval for perplexity, since one seed cannot tell noise from change; words allow "
        "for noise of 0.3 nats between seeds (a factor of 1.8 either way), calls are over rows and the scatter between "
        "generations, and take for granted that generation 0 is off by chance no more than the others",
    )


def test_a_verdict_of_a_run_with_instruments(tmp_path: Path) -> None:
    write_run(tmp_path, "made", seeds=(0, 1, 2), generations=9, policies=("keep-0", "keep-10", "keep-100"))
    folder = RunFolder(tmp_path, "made")
    loop = folder.config().loop
    found = diagnose(
        folder.rows(),
        generations=loop.generations,
        planned=[Arm(policy.name) for policy in loop.policies],
        seeds=loop.seeds,
    )
    assert found.verdict == (
        "By generation 9, over 3 seeds: keep-0 collapses and still rises, perplexity ×3.86 (95% interval ×3.81 to ×3.91), "
        "with early collapse from generation 1, general loss from generation 4 and late collapse from generation 8; "
        "keep-10 loses quality and still rises, perplexity +20% (95% interval +13% to +27%), with early collapse from generation 3; keep-100 "
        "holds, perplexity +0% (95% interval -5% to +4%)."
    )
    assert found.notes == ()
    assert not any(call.called for call in found.arms[2].calls.values()), "a control that stays flat"


def test_a_run_that_is_not_finished() -> None:
    """Seed 0 has come to generation 2, seed 1 to 0: what is compared is seed 0."""
    rows = [
        entry for entry in quick() if entry.where.seed == 0 or (entry.where.seed == 1 and entry.where.generation == 0)
    ]
    found = diagnose(rows, generations=9, planned=[Arm("keep-0"), Arm("keep-20"), Arm("keep-5")], seeds=(0, 1))
    assert found.verdict.startswith(
        "So far, by generation 2 of 9, one seed and so without an interval: keep-0 collapses (whether"
    )
    assert found.notes[:3] == (
        "keep-5: not measured yet",
        "keep-0, keep-20: generation 2 of 9 is the last looked at",
        "keep-0, keep-20: not counted, for not measured as far: seed 1",
    )


def test_seeds_that_are_one_generation_apart_are_looked_at_together() -> None:
    """Two seeds at generation 1 are more than one at generation 2 (and as many seed-generations: 2 and 2 would tie)."""
    rows = [
        entry
        for entry in quick()
        if entry.where.policy == "keep-0" and not (entry.where.seed and entry.where.generation > 1)
    ]
    found = diagnose(rows).arms[0]
    assert (found.last, found.seeds) == (1, (0, 1, 2))


def test_policies_that_have_come_to_different_generations() -> None:
    rows = [entry for entry in quick() if entry.where.policy == "keep-0" or entry.where.generation < 2]
    rows += [row(0, policy="keep-50", nll=4.0)]
    assert diagnose(rows).verdict == (
        "keep-0 collapses (whether it still rises is not shown) by generation 2, over 3 seeds, perplexity ×19.3 (95% "
        "interval ×12.2 to ×30.4); keep-20 holds by generation 1, over 3 seeds, perplexity +0% (95% interval -3% to +3%); keep-50 has "
        "generation 0 only; early and late collapse were not measured."
    )


def test_nothing_or_generation_0_only() -> None:
    assert diagnose([]) == Diagnosis((), "No generation is measured yet.", ())
    assert diagnose([row(0)]).verdict == "Only generation 0 is measured, so nothing can be said about collapse yet."
    assert diagnose([row(3)]).verdict == "No generation is measured yet.", "without generation 0 nothing is comparable"


@pytest.mark.parametrize(
    ("ends", "state"),
    [
        ((2.0, 9.0), "collapses"),
        ((1.9, 9.0), "loses quality"),
        ((1.01, 1.3), "loses quality"),
        ((1.01, 1.19), "holds"),
        ((0.5, 1.2), "holds"),
        ((0.9, 1.3), "is undecided"),
    ],
)
def test_the_word_for_a_policy_comes_from_the_ends_of_its_interval(ends: tuple[float, float], state: str) -> None:
    """Six seeds whose log-ratios have these ends: mean ± t(5) · s / √6, or the moderated half if that is narrower."""
    low, high = math.log(ends[0]), math.log(ends[1])
    half, middle = (high - low) / 2 * (1 - 1e-9), (low + high) / 2
    plain = half / t_quantile(5, 0.975) * math.sqrt(6)
    shrunken = 7 * (half / t_quantile(7, 0.975)) ** 2 * 6 - 2 * 0.3**2
    spread = max(plain, math.sqrt(max(0.0, shrunken) / 5))
    values = [middle + math.sqrt(5 / 6) * spread * sign for sign in (1, -1, 1, -1, 1, -1)]
    rows = [row(step, seed=seed, nll=4 + step * values[seed]) for seed in range(6) for step in range(2)]
    found = diagnose(rows).arms[0]
    assert (found.ratio.low, found.ratio.high) == pytest.approx(ends)
    assert found.state == state


def seeded(*values: float, generations: int = 9, **fields: Any) -> list[Row]:
    """Seeds whose log-perplexity grows by these in all, straight."""
    return [
        row(step, seed=seed, nll=4 + value * step / generations, **(fields if step else {}))
        for seed, value in enumerate(values)
        for step in range(generations + 1)
    ]


def test_a_second_seed_does_not_take_a_collapse_back() -> None:
    """×15 and ×25 had the t interval ×0.743 to ×503, and so "is undecided", where ×15 alone "collapses"."""
    one, two = diagnose(seeded(math.log(15))), diagnose(seeded(math.log(15), math.log(25)))
    assert one.arms[0].state == two.arms[0].state == "collapses"
    assert two.arms[0].ratio.low == pytest.approx(9.39, abs=0.01)
    assert two.verdict.startswith("By generation 9, over 2 seeds: keep-0 collapses and still rises, perplexity ×19.4 (")


@pytest.mark.parametrize(("ratio", "state"), [(1.0, "cannot be judged from one seed"), (2.0, "loses quality")])
def test_one_seed_s_word_does_not_flip_on_its_noise(ratio: float, state: str) -> None:
    """Around a true ratio of 2 "collapses" stood in half the cases, around 1 "holds" and "loses quality" in turn."""
    for noise in (-0.1, -0.01, 0.01, 0.1):
        assert diagnose(seeded(math.log(ratio) + noise)).arms[0].state == state


@pytest.mark.parametrize("seeds", [1, 4])
@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.1, 1.3, 3.0, 20.0])
@pytest.mark.parametrize("lost", [(0.0, 0.0), (0.3, 0.0), (0.3, 0.3)], ids=["none", "early", "general"])
def test_no_sentence_says_two_things_at_once(seeds: int, ratio: float, lost: tuple[float, float]) -> None:
    """Once "holds … with general loss" stood in one sentence."""
    rows = seeded(*(math.log(ratio) + 0.001 * seed for seed in range(seeds)), **losses(*lost))
    for at, entry in enumerate(rows):  # seeds that agree exactly have no interval wider than a point
        shift = 1e-4 * entry.where.seed
        changes = {name: entry.measure(name) for name in ("tail_change", "head_change")}
        rows[at] = changed(entry, **{name: value + shift for name, value in changes.items() if value is not None})
    found = diagnose(rows)
    called = any(call.called for call in found.arms[0].calls.values())
    assert called == any(change > 0 for change in lost)
    assert not (called and " holds" in found.verdict)
    assert not ("loses quality" in found.verdict and (found.arms[0].ratio.high or 1.0) < 1)


def test_a_collapse_says_whether_it_still_rises() -> None:
    """×20 by generation 4; from there straight on, level, falling, or too rough to say."""
    ends = {
        "and still rises": [0.8 * step for step in range(1, 6)],
        "and still rises but is forecast to level off": [0.3 * step for step in range(1, 6)],
        "and has levelled off (within ×1.1 since generation 4)": [0.005, -0.005, 0.0, 0.01, 0.005],
        "and falls again": [-0.1 * step for step in range(1, 6)],
        "and is forecast to level off": [0.4, -0.3, 0.4, -0.2, 0.3],
        "(whether it still rises is not shown)": [1.4, 0.9, 3.3, 1.9, 4.9],
    }
    for said, later in ends.items():
        course = [0.0, 0.8, 1.6, 2.4, 3.0, *(3.0 + change for change in later)]
        rows = [row(step, nll=4 + value) for step, value in enumerate(course)]
        assert f"keep-0 collapses {said}, perplexity" in diagnose(rows).verdict, said


def growing(by: Callable[[int], float], *, seeds: int = 3, noise: float = 0.01, policy: str = "keep-0") -> list[Row]:
    random = np.random.Generator(np.random.Philox(31))
    return [
        row(step, seed=seed, policy=policy, nll=4 + by(step) + noise * float(random.standard_normal()))
        for seed in range(seeds)
        for step in range(10)
    ]


def slowing(step: int) -> float:
    return 2.4 * (1 - math.exp(-step / 4))


def test_what_is_forecast_to_level_off_says_so_in_the_verdict() -> None:
    """Saturating, and not yet level; a line, one that speeds up, and too few generations are not forecast to be."""
    found = diagnose(growing(slowing))
    assert "keep-0 collapses and still rises but is forecast to level off, perplexity ×" in found.verdict
    assert found.record()["policies"][0]["forecast_levels_off"] is True
    assert said_of(found.arms[0]) == "collapses and still rises but is forecast to level off"
    for by in (lambda step: 0.25 * step, lambda step: 0.03 * step**2):
        assert "keep-0 collapses and still rises, perplexity ×" in diagnose(growing(by)).verdict
    early = diagnose([entry for entry in growing(slowing) if entry.where.generation < 4])
    assert "keep-0 collapses (whether it still rises is not shown), perplexity" in early.verdict
    assert early.record()["policies"][0]["forecast_levels_off"] is False


def test_what_is_forecast_is_said_where_the_curve_shows_nothing() -> None:
    course = [0.0, 1.6, 2.1, 1.75, 2.15, 1.7, 2.1, 1.8, 2.2, 1.75]
    found = diagnose(growing(lambda step: course[step]))
    assert found.arms[0].trend == ""
    assert "keep-0 collapses and is forecast to level off, perplexity ×" in found.verdict


def test_a_forecast_is_what_most_of_the_weight_says_whatever_the_word() -> None:
    """The weights are those of `collapse forecast`; of a policy that holds, or is level already, nothing is added."""
    for by in (slowing, lambda step: 0.25 * step, lambda step: 0.9 * (step > 0) + 0.1 * step):
        rows = growing(by)
        (policy,) = forecast_rows(rows)["policies"]
        halting = ("saturating", "overshoot", "jump")
        weight = sum(law["forecast_weight"] for law in policy["laws"] if law["law"] in halting)
        assert diagnose(rows).arms[0].forecast_levels_off == (weight > 0.5)
    assert not diagnose(growing(lambda step: 0.05 * (1 - math.exp(-step / 4)))).arms[0].forecast_levels_off
    assert not diagnose(growing(lambda step: 2.0 * (step > 0), noise=0.001)).arms[0].forecast_levels_off


@pytest.mark.filterwarnings("error")
def test_losses_of_any_size_have_a_word() -> None:
    for largest in (20.0, 2000.0, 0.9 * LARGEST):
        rows = [row(step, nll=4 + largest * (step > 3), seed=seed) for step in range(8) for seed in (0, 1)]
        assert "keep-0 collapses" in diagnose(rows).verdict


def test_what_is_said_of_nature_s_curves() -> None:
    """They jump at generation 1 and then fall a little: a loss that has levelled off, no collapse; a tenth of real data
    holds. Their mean as a single seed is within what seeds may differ by.
    """
    for last in (5, 9):
        none = diagnose(nature.five(nature.NO_REAL, nature.NO_REAL_RUNS, "keep-0", last))
        assert "keep-0 loses quality and has levelled off (within ×1.1 since generation " in none.verdict
        tenth = diagnose(nature.five(nature.TENTH_REAL, nature.TENTH_REAL_RUNS, "keep-10", last))
        assert "keep-10 holds, perplexity +9% (95% interval +6% to +1" in tenth.verdict
        for curve in (nature.NO_REAL, nature.TENTH_REAL):
            assert "cannot be judged from one seed" in diagnose(nature.rows(curve, "keep-0", last)).verdict


def test_late_collapse_is_collapse_whatever_the_perplexity() -> None:
    rows = [row(0, **samples(5.0, 1.0)), *(row(step, **samples(1.0, 1.0)) for step in range(1, 5))]
    assert diagnose(rows).arms[0].state == "collapses"


def test_perplexities_beyond_floats_are_said_and_are_json() -> None:
    found = diagnose([row(0), row(1, nll=2000.0)])
    assert "perplexity above ×1e300" in found.verdict, "no figure"
    json.dumps(found.record(), allow_nan=False)


def test_the_record_holds_statistics_intervals_units_and_text() -> None:
    rows = [row(0), *(row(step, **losses(0.1 * step, 0.0), **samples(5, 1)) for step in (1, 2, 3))]
    record = json.loads(json.dumps(diagnose(rows).record(), allow_nan=False))
    policy = record["policies"][0]
    assert (policy["policy"], policy["seeds"], policy["last"], policy["state"]) == ("keep-0", [0], 3, "loses quality")
    assert policy["perplexity_ratio"][3] == {"generation": 3, "mean": 1.0, "low": None, "high": None, "n": 1}
    early = policy["calls"]["early"]
    assert (early["called"], early["generation"], early["level"]) == (True, 1, 0.95)
    tail = early["evidence"][0]
    assert (tail["statistic"], tail["threshold"]) == ("tail_change", MARGIN)
    assert tail["low"] < tail["mean"] == 0.1 < tail["high"]


def test_multiples_in_words() -> None:
    assert [factor(ratio) for ratio in (1.154, 0.97, 0.9999, 2.0, 19.26, 821.4, 1234.6, 2e7)] == [
        "+15%", "-3%", "+0%", "×2.00", "×19.3", "×821", "×1,235", "×2.00e+07",
    ]  # fmt: skip
    assert factors(Interval(2.5, 0.9, 7.0, 3)) == ("×2.50", "×0.900 to ×7.00")
    assert factors(Interval(1.5, 0.9, 2.5, 3)) == ("+50%", "-10% to +150%")

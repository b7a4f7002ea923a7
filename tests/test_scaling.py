"""Scaling laws: known ones are found, plateaus are told from none, knees stand where the law says."""

import json
import math
from collections.abc import Callable

import numpy as np
import pytest

from collapse_cli import scaling
from collapse_cli.scaling import ScalingError, fit, laws

SIZES = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


def drawn(
    law: Callable[[float], float], noise: float = 0.0, seeds: int = 10, seed: int = 0, sizes: tuple[int, ...] = SIZES
) -> dict[float, dict[int, float]]:
    """Errors of a law, each with a log-normal factor of mean 1."""
    g = np.random.default_rng(seed)
    return {
        float(n): {s: law(n) * math.exp(noise * g.standard_normal() - noise**2 / 2) for s in range(seeds)}
        for n in sizes
    }


@pytest.mark.parametrize(("plateau", "amplitude", "b"), [(0.01, 5.0, 0.8), (0.3, 40.0, 1.0), (2e-3, 0.5, 0.5)])
def test_a_law_without_noise_is_found_exactly(plateau: float, amplitude: float, b: float) -> None:
    found = fit(drawn(lambda n: plateau + amplitude * n**-b))
    assert (found.plateau, found.amplitude, found.exponent) == pytest.approx((plateau, amplitude, b), rel=1e-4)
    assert (found.n_points, found.left_out, found.sizes) == (8, 0, (100, 20_000))
    assert found.at(777) == pytest.approx(plateau + amplitude * 777**-b, rel=1e-5)


def test_the_knee_is_where_doubling_wins_five_percent() -> None:
    found = fit(drawn(lambda n: 0.01 + 5 * n**-0.8))
    assert 1 - found.at(2 * found.knee) / found.at(found.knee) == pytest.approx(0.05)
    assert found.extrapolated == (found.knee > 20_000)
    early = fit(drawn(lambda n: 0.03 + 40 * n**-1.2))
    assert 1 - early.at(2 * early.knee) / early.at(early.knee) == pytest.approx(0.05)
    assert not early.extrapolated


def test_with_noise_the_truth_is_within_its_interval_most_of_the_time() -> None:
    truth = {"plateau": 0.01, "amplitude": 5.0, "exponent": 0.8}
    inside = dict.fromkeys(truth, 0)
    for seed in range(40):
        found = fit(drawn(lambda n: 0.01 + 5 * n**-0.8, noise=0.1, seed=seed))
        assert found.plateau == pytest.approx(0.01, rel=0.25)
        for name, value in truth.items():
            low, high = found.intervals[name]
            assert low <= getattr(found, name) <= high
            inside[name] += low <= value <= high
    assert min(inside.values()) >= 32, inside  # of 40; ten seeds resampled are a little too sure of themselves


def test_no_plateau_is_found_where_there_is_none() -> None:
    falls = 0
    for seed in range(30):
        found = fit(drawn(lambda n: 5 / n, noise=0.1, seed=seed))
        assert found.exponent == pytest.approx(1, abs=0.1)
        assert found.intervals["plateau"][0] < 1e-4
        falls += found.plateau == 0
        if found.plateau == 0:
            assert found.knee == math.inf
            assert found.record()["knee"] is None
    assert falls >= 28


def test_nothing_but_a_plateau() -> None:
    for noise in (0.0, 0.05):
        found = fit(drawn(lambda n: 0.3, noise=noise))
        assert found.plateau == pytest.approx(0.3, rel=0.05)
        assert found.amplitude == 0
        assert math.isnan(found.exponent)
        assert found.knee == 100, "no more than the smallest size is of use"
        assert found.at(5) == found.plateau
        assert found.record()["exponent"] is None


def test_least_squares_with_and_without_a_floor() -> None:
    """s² d/(n - d) is no power law near n = d: small sizes are left out, and its bend is not taken for a plateau."""
    d = 90
    clean = fit(drawn(lambda n: 0.25 * d / (n - d), noise=0.05))
    assert clean.left_out >= 1
    assert clean.plateau == 0
    assert clean.exponent == pytest.approx(1, abs=0.1)
    mixed = fit(drawn(lambda n: 0.25 * d / (n - d) + 0.0025, noise=0.05))
    assert mixed.plateau == pytest.approx(0.0025, rel=0.25)
    assert mixed.sizes[0] > 100


def test_a_peak_is_left_out() -> None:
    found = fit(drawn(lambda n: 0.25 * 150 / abs(n - 150.5) + 0.01, noise=0.02))
    assert found.left_out >= 2
    assert found.plateau == pytest.approx(0.01, rel=0.25)


def test_the_same_rows_give_the_same_law() -> None:
    sizes = drawn(lambda n: 0.01 + 5 / n, noise=0.2)
    assert fit(sizes) == fit(dict(reversed(sizes.items())))


def test_one_seed_has_no_intervals_and_seeds_that_differ_only_means() -> None:
    one = fit(drawn(lambda n: 0.01 + 5 / n, seeds=1))
    assert one.intervals == {}
    assert one.plateau == pytest.approx(0.01, rel=1e-3)
    whole = drawn(lambda n: 5 / n)
    apart = {n: {100 * i + seed: whole[n][seed] for seed in whole[n]} for i, n in enumerate(whole)}
    assert fit(apart).intervals == {}


def test_fewer_than_four_sizes_are_refused() -> None:
    with pytest.raises(ScalingError, match="wants 4 sizes, there are 3"):
        fit(drawn(lambda n: 1 / n, sizes=(10, 20, 30)))
    assert fit(drawn(lambda n: 1 / n, sizes=(10, 20, 30, 40))).n_points == 4


def test_rows_are_grouped_by_share_and_the_other_axes() -> None:
    rows = []
    for share in (0.0, 0.013):
        for c2 in (0.5, 1.0):
            for n in SIZES:
                synthetic = round(n * share)
                for seed in range(3):
                    value = share**2 * c2 * 1000 + 10 / n
                    place = {"rows": n, "share": synthetic / n, "quality": c2, "seed": seed}
                    rows.append({"policy": "p", "error": value, **place})
    rows += [
        {"rows": 5, "share": 0.7, "seed": 0, "error": 1.0},
        {"rows": 10, "share": 0.0, "quality": 1.0, "error": None},
    ]
    found = {(law.where["share"], law.where["quality"]): law for law in laws(rows, "error", (0.0, 0.013))}
    assert found.keys() == {(0.0, 0.5), (0.0, 1.0), (0.013, 0.5), (0.013, 1.0)}
    for (share, c2), law in found.items():
        assert law.plateau == pytest.approx(1000 * share**2 * c2, abs=1e-6)
        assert law.n_points == len(SIZES)
        record = json.loads(json.dumps(law.record(), allow_nan=False))
        assert (record["share"], record["quality"]) == (share, c2)
    assert laws([]) == []
    assert scaling.laws([row for row in rows if row["rows"] < 1000]) == [], "three sizes"

"""The formulas against seeded simulations: every row of the acceptance table of ../shared/theory.md that takes seconds.

Tolerance: 2%, or 4 standard errors where that is more, for the formulas are limits (a bias of some per mille is real).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.printed import FRESH, GENERATIONAL, PROJECTIONS, RIDGE, WEIGHTED
from threadpoolctl import threadpool_limits

from collapse_cli import simulate, theory
from collapse_cli.simulate import Estimate
from collapse_cli.theory import spectrum


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Matrices are small: threads of a BLAS that wait for each other on a busy machine cost minutes."""
    with threadpool_limits(1):
        yield


def close(predicted: float, found: Estimate) -> bool:
    return abs(found.relative(predicted)) < max(0.02, 4 * found.error / abs(found.mean))


def sharp(found: Estimate, most: float) -> bool:
    """Whether a simulation is sharp enough to contradict a formula."""
    return found.error <= most * abs(found.mean)


@pytest.mark.parametrize(("kind", "n", "lam", "p2", "noise", "noise_synthetic", "printed"), RIDGE)
def test_ridge(kind: str, n: int, lam: float, p2: float, noise: float, noise_synthetic: float, printed: str) -> None:
    arguments: dict[str, Any] = {"n": n, "p2": p2, "c2": 0.5, "lam": lam, "noise": noise}
    arguments |= {"noise_synthetic": noise_synthetic, "eigenvalues": spectrum(kind, 300)}
    found = simulate.ridge(theory.problem(**arguments), trials=12, seed=1)
    assert sharp(found, 0.006)
    assert close(theory.ridge(**arguments).risk, found)


@pytest.mark.parametrize(("kind", "d", "n", "m", "lam", "p2", "c2", "printed"), PROJECTIONS)
def test_projections(kind: str, d: int, n: int, m: int, lam: float, p2: float, c2: float, printed: str) -> None:
    arguments: dict[str, Any] = {"n": n, "p2": p2, "c2": c2, "lam": lam, "noise": 0.1}
    arguments |= {"eigenvalues": spectrum(kind, d)}
    found = simulate.projections(theory.problem(**arguments), m=m, trials=4 if d == 600 else 8, seed=2)
    assert sharp(found, 0.01)
    assert close(theory.projections(**arguments, m=m).risk, found)


@pytest.mark.parametrize("m", [180, 195, 200, 205, 220])
def test_projections_at_the_interpolation_threshold(m: int) -> None:
    """With lam = 1e-2: with next to none the risk has heavy tails there, and its mean lies well above the formula."""
    arguments: dict[str, Any] = {"eigenvalues": spectrum("iso", 300), "n": 200, "p2": 0.5, "c2": 0.5}
    arguments |= {"lam": 1e-2, "noise": 0.1}
    found = simulate.projections(theory.problem(**arguments), m=m, trials=12, seed=20)
    assert sharp(found, 0.01)
    assert close(theory.projections(**arguments, m=m).risk, found)


@pytest.mark.parametrize(("n", "m", "c2"), [(1000, None, 1.0), (20000, None, 1.0), (20000, 50, 6.0), (20000, 200, 6.0)])
def test_plateaus(n: int, m: int | None, c2: float) -> None:
    ev = spectrum("iso", 100)
    if m is None:
        arguments: dict[str, Any] = {"eigenvalues": ev, "n": n, "p2": 0.1, "c2": c2, "lam": 0, "noise": 0.5}
        found = simulate.ridge(theory.problem(**arguments), trials=4, seed=3)
        assert close(theory.ridge(**arguments).risk, found)
        return
    arguments = {"eigenvalues": ev, "n": n, "p2": 0.5, "c2": c2, "lam": 1e-4, "noise": 0.1}
    found = simulate.projections(theory.problem(**arguments), m=m, trials=4, seed=3)
    assert close(theory.projections(**arguments, m=m).risk, found)
    floor = theory.plateau_projections(eigenvalues=ev, m=m, p2=0.5, c2=c2, lam=1e-4).risk
    assert close(floor, found), "20000 rows are near the end"


@pytest.mark.parametrize(("kind", "n", "lam", "p2", "noise", "noise_synthetic", "weights", "printed"), WEIGHTED)
def test_weighted(
    kind: str,
    n: int,
    lam: float,
    p2: float,
    noise: float,
    noise_synthetic: float,
    weights: tuple[float, float],
    printed: str,
) -> None:
    arguments: dict[str, Any] = {"n": n, "p2": p2, "c2": 0.5, "lam": lam, "noise": noise}
    arguments |= {"noise_synthetic": noise_synthetic, "eigenvalues": spectrum(kind, 200)}
    found = simulate.weighted(theory.problem(**arguments), weights=weights, trials=12, seed=4)
    assert sharp(found, 0.005)
    assert close(theory.weighted(**arguments, weights=weights).risk, found)


@pytest.mark.parametrize("n", [300, 1000, 3000])
def test_the_best_weight_is_best_in_a_simulation(n: int) -> None:
    arguments: dict[str, Any] = {"n": n, "p2": 0.5, "c2": 0.5, "lam": 0, "noise": 0.5}
    arguments |= {"eigenvalues": spectrum("iso", 100)}
    best = theory.optimal_weight(**arguments)
    given = theory.problem(**arguments)
    grid = [best.alpha * by for by in (0.0, 0.25, 0.5, 1.0, 2.0, 3.0)]
    risks = [
        simulate.weighted(given, weights=((1 - alpha) / 0.5, alpha / 0.5), trials=4, seed=5).mean for alpha in grid
    ]
    assert int(np.argmin(risks)) == 3
    assert risks[3] == pytest.approx(best.best.risk, rel=0.02)


def covariances(d: int, seed: int, rotated: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sigma of spectrum 20 k^-1, and random Gamma and Delta of trace 1 and 0.05 that commute with nothing."""
    random = np.random.default_rng(seed)
    ev = 20 / np.arange(1, d + 1)
    turn = np.linalg.qr(random.standard_normal((d, d)))[0] if rotated else np.eye(d)
    drawn = [random.standard_normal((d, 2 * d)) for _ in range(2)]
    gamma, delta = (size * root @ root.T / np.sum(root**2) for size, root in zip((1.0, 0.5), drawn, strict=True))
    return (turn * ev) @ turn.T, gamma, delta


FIXED_S = [
    (300, 120, 1e-3, 0.4, 0.3, 0.5, False),
    (300, 350, 1e-2, 0.4, 0.3, 0.5, False),
    (150, 350, 1e-2, 0.7, 0.3, 0.5, True),
    (400, 100, 1e-6, 0.3, 0.3, 0.3, True),
]


@pytest.mark.parametrize(("n", "m", "lam", "p2", "noise", "noise_synthetic", "rotated"), FIXED_S)
def test_projections_fixed(
    n: int, m: int, lam: float, p2: float, noise: float, noise_synthetic: float, rotated: bool
) -> None:
    """The table's random Gamma, Delta and S are not given in it; its settings with draws of ours."""
    sigma, gamma, delta = covariances(200, 6, rotated)
    arguments: dict[str, Any] = {
        "projection": np.random.default_rng(7).standard_normal((m, 200)) / np.sqrt(200),
        "covariance": sigma,
        "gamma": gamma,
        "delta": delta,
        "n": n,
        "p2": p2,
        "lam": lam,
        "noise": noise,
        "noise_synthetic": noise_synthetic,
    }
    found = simulate.projections_fixed(**arguments, trials=60, seed=8)
    assert sharp(found, 0.015)
    assert close(theory.projections_fixed(**arguments).risk, found)


@pytest.mark.parametrize("m", [200, 600])
def test_projections_end_to_end(m: int) -> None:
    ev = 10 * spectrum("pow", 300, 1.2)
    arguments: dict[str, Any] = {"eigenvalues": ev, "n": 400, "p2": 0.3, "lam": 1e-2, "noise": 0.3}
    arguments |= {"noise_synthetic": 0.6, "gamma": np.full(300, 1 / 300), "delta": 0.5 / 300 / ev}
    found = simulate.projections_sampled(theory.problem(**arguments), m=m, trials=50, seed=9)
    assert sharp(found, 0.012)
    assert close(theory.projections(**arguments, m=m).risk, found)


@pytest.mark.parametrize(("kind", "n", "p2", "noise", "lam", "c2", "printed"), FRESH)
def test_iterative_fresh(
    kind: str, n: int, p2: float, noise: float, lam: float, c2: float, printed: dict[int, str]
) -> None:
    arguments: dict[str, Any] = {"n": n, "p2": p2, "c2": c2, "lam": lam, "noise": noise}
    arguments |= {"eigenvalues": spectrum(kind, 100)}
    predicted = theory.iterative_fresh(**arguments, iterations=8).risks
    found = simulate.iterative_fresh(theory.problem(**arguments), iterations=8, trials=60, seed=10)
    for t in (*printed, 2):
        assert sharp(found[t], 0.012), t
        assert close(predicted[t], found[t]), t


@pytest.mark.parametrize(("p2", "mixing", "trials"), [(0.5, 25, 12), pytest.param(0.8, 150, 8, marks=pytest.mark.slow)])
def test_iterative_fixed(p2: float, mixing: int, trials: int) -> None:
    """The formula for the draws that were simulated, and for their limiting law."""
    given = theory.problem(eigenvalues=spectrum("iso", 100), n=1000, p2=p2, c2=1, lam=0, noise=0.5)
    found, _, spectra = simulate.iterative_fixed(given, mixing=mixing, kept=2 * mixing, trials=trials, seed=11)
    of_draws = [theory.iterative_fixed(d=100, n=1000, p2=p2, noise=0.5, gram_eigenvalues=mj).excess for mj in spectra]
    law = theory.iterative_fixed(d=100, n=1000, p2=p2, noise=0.5).excess
    assert sharp(found, 0.03)
    assert close(float(np.mean(of_draws)), found)
    assert close(law, found)


def test_iterative_fixed_without_synthetic_noise_comes_to_the_real_rows_fit() -> None:
    given = theory.problem(eigenvalues=spectrum("iso", 20), n=200, p2=0.5, c2=1, lam=0, noise=0.5, noise_synthetic=0)
    found, risk, _ = simulate.iterative_fixed(given, mixing=60, kept=10, trials=5, seed=12)
    assert found.mean < 1e-12
    assert risk.mean > 0.01


@pytest.mark.parametrize(("kind", "beta", "t0", "noise", "lam", "generations", "printed"), GENERATIONAL)
def test_generational(
    kind: str, beta: float, t0: int, noise: float, lam: float, generations: int, printed: str
) -> None:
    ev = spectrum(kind, 100, beta)
    given = theory.problem(eigenvalues=ev, n=400, p2=0, c2=0, lam=lam, noise=noise, gamma=np.full(100, 0.01))
    found = simulate.generational(given, t0=t0, generations=generations, noise_generator=noise, trials=100, seed=13)
    predicted = theory.generational(
        eigenvalues=ev, n=400, t0=t0, generations=generations, lam=lam, noise=noise, gamma=np.full(100, 0.01)
    )
    assert sharp(found, 0.017)
    assert close(predicted.risk, found)


@pytest.mark.parametrize("same", [False, True])
@pytest.mark.parametrize("generations", [1, 3, 6])
def test_generational_with_few_rows(same: bool, generations: int) -> None:
    ev = spectrum("iso", 200)
    given = theory.problem(eigenvalues=ev, n=600, p2=0, c2=0, lam=0, noise=0.1)
    chain: dict[str, Any] = {"t0": 120, "generations": generations, "noise_generator": 0.3, "same_inputs": same}
    found = simulate.generational(given, **chain, trials=30, seed=14)
    assert sharp(found, 0.015)
    assert close(theory.generational(eigenvalues=ev, n=600, lam=0, noise=0.1, **chain).risk, found)


@pytest.mark.parametrize("same", [False, True])
def test_accumulate(same: bool) -> None:
    arguments: dict[str, Any] = {"d": 50, "n": 200, "noise": 0.5, "generations": 19, "same_inputs": same}
    found = simulate.accumulate_regression(**arguments, trials=300, seed=15)
    predicted = theory.accumulate_regression(**arguments).risks
    for fits in (1, 2, 5, 20):
        assert sharp(found[fits - 1], 0.016)
        assert close(predicted[fits - 1], found[fits - 1])


GAUSSIANS = [
    (10, 10, False, "replace", 1),
    (10, 10, True, "replace", 1),
    (100, 50, False, "replace", 1),
    (10, 100, False, "accumulate", 1),
    (5, 100, True, "accumulate", 1),
    (20, 10, True, "replace", 5),
    (20, 10, False, "replace", 5),
]


@pytest.mark.parametrize(("n", "refits", "unbiased", "policy", "d"), GAUSSIANS)
def test_gaussian(n: int, refits: int, unbiased: bool, policy: str, d: int) -> None:
    arguments: dict[str, Any] = {"n": n, "refits": refits, "unbiased": unbiased, "policy": policy, "d": d}
    predicted = theory.gaussian(**arguments)
    found = simulate.gaussian(**arguments, trials=6000 if d > 1 else 60_000, seed=16)
    for name, value in found.items():
        exact = getattr(predicted, name)
        if exact is not None:
            assert sharp(value, 0.03), name
            assert close(exact, value), name
    assert found["wasserstein"].mean > 0.98 * predicted.wasserstein_lower


def test_gaussian_the_mean_variance_stays_while_most_collapse() -> None:
    """M = 10, t = 50, unbiased: E v is 1, and its estimate has heavy tails; E sqrt v and E ln v are to be looked at."""
    arguments: dict[str, Any] = {"n": 10, "refits": 50, "unbiased": True}
    found, predicted = simulate.gaussian(**arguments, trials=60_000, seed=17), theory.gaussian(**arguments)
    for name in ("std", "log_variance"):
        assert close(getattr(predicted, name), found[name])
    assert predicted.variance == 1
    random = np.random.default_rng(18)
    variances = np.prod(random.chisquare(9, (50, 60_000)) / 9, axis=0)
    assert np.mean(variances < 0.01) == pytest.approx(0.625, abs=0.01)


def test_seeds_and_trials() -> None:
    given = theory.problem(eigenvalues=spectrum("iso", 20), n=50, p2=0.2, c2=1, lam=0, noise=1)
    first = simulate.ridge(given, trials=5, seed=0)
    assert simulate.ridge(given, trials=5, seed=0) == first
    assert simulate.ridge(given, trials=5, seed=1).mean != first.mean
    alone = simulate.ridge(given, trials=1, seed=0)
    assert np.isnan(alone.error)
    assert alone.trials == 1


@pytest.mark.parametrize(
    ("changes", "trials", "seed", "said"),
    [
        ({}, 0, 0, "trials is 0; a simulation has at least 1"),
        ({}, 1, -1, "seed is -1; it must be 0 or more"),
        ({"n": 50.5}, 1, 0, "n is 50.5; a simulation needs a whole number of them, 1 or more"),
        ({"p2": 0.013}, 1, 0, "p2 is 0.013: of 50 rows that is 0.65, no whole number; choose another n or p2"),
        ({"n": 1e8}, 1, 0, "a simulation of n = 100000000, d = 20 does not fit in memory; take a smaller n"),
    ],
)
def test_what_cannot_be_simulated(changes: dict[str, Any], trials: int, seed: int, said: str) -> None:
    arguments: dict[str, Any] = {"n": 50, "p2": 0.2, "c2": 1, "lam": 0, "noise": 1} | changes
    given = theory.problem(eigenvalues=spectrum("iso", 20), **arguments)
    with pytest.raises(theory.TheoryError) as raised:
        simulate.ridge(given, trials=trials, seed=seed)
    assert str(raised.value) == said


def test_what_cannot_be_simulated_of_other_models() -> None:
    given = theory.problem(eigenvalues=spectrum("iso", 20), n=30, p2=0.5, c2=1, lam=0, noise=1)
    for call, said in (
        (lambda: simulate.iterative_fixed(given, mixing=1, kept=1, trials=1, seed=0), "there are 15 real rows for 20"),
        (lambda: simulate.gaussian(n=5, refits=1, unbiased=True, policy="x", trials=1, seed=0), "policy 'x'"),
        (lambda: simulate.gaussian(n=5, refits=1, unbiased=True, trials=0, seed=0), "trials is 0"),
        (lambda: simulate.gaussian(n=5, refits=1, unbiased=True, trials=10**9, seed=0), "do not fit in memory"),
    ):
        with pytest.raises(theory.TheoryError, match=said):
            call()

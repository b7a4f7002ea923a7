"""Closed forms of several models against simulations that draw every row: within 2%, or 4 standard errors."""

from typing import Any

import numpy as np
import pytest

from collapse_cli import simulate, theory
from collapse_cli.simulate import Estimate
from collapse_cli.theory import Exchange, LineageRows

LOOPS = [
    ("own", LineageRows(5, 0, 6), "same", "unbiased", True),
    ("all", LineageRows(8, 4, 6, (0.3, 0.2, 0.5)), "drawn", "biased", True),
    ("all", LineageRows(5, 4, 6, (0.3, 0.2, 0.5)), "drawn", "unbiased", False),
    ("all", LineageRows(0, 0, 9), "drawn", "unbiased", True),
    ("others", LineageRows(6, 0, 6, (0.2, 0.0, 0.8)), "new", "known", True),
    ("others", LineageRows(0, 4, 6), "drawn", "biased", True),
    ("segments", LineageRows(5, 4, 6), "same", "biased", True),
    ("segments", LineageRows(0, 0, 5), "drawn", "unbiased", True),
    ("segments", LineageRows(5, 4, 6, (0.1, 0.1, 0.8)), "new", "known", True),
]


@pytest.mark.parametrize(("rule", "rows", "real_rows", "variance", "same_rows"), LOOPS)
def test_pooled_means(rule: Any, rows: LineageRows, real_rows: Any, variance: Any, same_rows: bool) -> None:
    loop: dict[str, Any] = {
        "n": 8,
        "rows": rows,
        "rule": rule,
        "truths": np.array([-1.0, 0.5, 1.2]),
        "public_truth": 0.3,
    }
    loop |= {"real_rows": real_rows, "variance": variance, "same_rows": same_rows, "generations": 4}
    found = simulate.pooled_means(**loop, trials=5000, seed=1)
    *_, exact = theory.pooled_means(**loop)
    for name, measured in found.items():
        assert close(getattr(exact, name), measured), (name, getattr(exact, name), measured)


@pytest.mark.parametrize(("real_rows", "private"), [("drawn", 5), ("same", 4), ("new", 6)])
def test_lineages_with_the_same_real_rows(real_rows: Any, private: int) -> None:
    """They are one model at generation 0, and what makes them differ later is their samples alone."""
    rows = LineageRows(private, 0, 6)
    loop: dict[str, Any] = {"n": 8, "rows": rows, "rule": "own", "truths": np.full(3, 0.7), "common": True}
    loop |= {"real_rows": real_rows, "variance": "biased"}
    assert next(theory.pooled_means(**loop, generations=0)).distance == 0
    found = simulate.pooled_means(**loop, generations=3, trials=5000, seed=4)
    *_, exact = theory.pooled_means(**loop, generations=3)
    for name, measured in found.items():
        assert close(getattr(exact, name), measured), (name, getattr(exact, name), measured)


def close(predicted: float, found: Estimate) -> bool:
    """Whether they agree, and the simulation is sharp enough to contradict."""
    if found.error < 1e-12:
        return predicted == pytest.approx(found.mean, abs=1e-12)
    return found.error <= 0.04 * abs(found.mean) and abs(found.mean - predicted) < 4 * found.error


@pytest.mark.parametrize(("lineages", "a", "b", "public"), [(2, 0.5, 0.5, 50), (4, 0.3, 1.0, 0), (4, 1.0, 0.5, 30)])
def test_isotropic_exchange(lineages: int, a: float, b: float, public: int) -> None:
    loop: dict[str, Any] = {"lineages": lineages, "d": 4, "n": 20, "public": public, "made": 10, "mix": Exchange(a, b)}
    loop |= {"apart": 1.5, "noise": 0.7, "noise_synthetic": 0.4, "generations": 3}
    found = simulate.isotropic_exchange(**loop, trials=400, seed=2)
    exact = theory.isotropic_exchange(**loop)
    for name, measured in found.items():
        assert close(getattr(exact, name), measured), (name, getattr(exact, name), measured)


def test_linear_form_given_its_inputs() -> None:
    """Inputs of unequal spread, fewer public rows than dimensions: labels drawn, weighted rows fitted by least squares."""
    random, k, d, s, mix = np.random.default_rng(3), 2, 3, 0.5, Exchange(0.6, 0.7)
    spread = np.array([1.0, 0.5, 2.0])
    private, public = random.standard_normal((k, 9, d)) * spread, random.standard_normal((2, d))
    made = random.standard_normal((2, k, 6, d)) * spread
    y, y_public = random.standard_normal((k, 9)), random.standard_normal(2)

    def grams(x: np.ndarray) -> np.ndarray:
        return np.asarray(np.swapaxes(x, -1, -2) @ x)

    *_, exact = theory.linear_form(
        private=grams(private),
        public=grams(public),
        moments=np.einsum("krd,kr->kd", private, y),
        moment_public=public.T @ y_public,
        made=[grams(step) for step in made],
        noise=s,
        mix=mix,
    )
    scales = [np.sqrt(w) for w in (0.4 * 0.7, 0.4 * 0.3, 0.3, 0.3)]
    first = [
        np.linalg.lstsq(
            np.concatenate([x * 0.7**0.5, public * 0.3**0.5]), np.concatenate([own * 0.7**0.5, y_public * 0.3**0.5])
        )[0]
        for x, own in zip(private, y, strict=True)
    ]
    ends = []
    for _ in range(3000):
        models = np.stack(first)
        for step in made:
            labels = [x @ w + s * random.standard_normal(6) for x, w in zip(step, models, strict=True)]
            models = np.stack(
                [
                    np.linalg.lstsq(
                        np.concatenate([x * c for x, c in zip([own, public, *step], scales, strict=True)]),
                        np.concatenate([t * c for t, c in zip([target, y_public, *labels], scales, strict=True)]),
                    )[0]
                    for own, target in zip(private, y, strict=True)
                ]
            )
        ends.append(models.ravel())
    drawn = np.array(ends)
    errors = drawn.std(axis=0) / len(drawn) ** 0.5
    assert (np.abs(drawn.mean(axis=0) - exact.mean.ravel()) < 4 * errors).all()
    scale = np.sqrt(np.outer(np.diag(exact.covariance), np.diag(exact.covariance)))
    assert np.abs((np.cov(drawn.T) - exact.covariance) / scale).max() < 0.1

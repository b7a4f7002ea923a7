"""Closed forms of what stops collapse against seeded simulations that draw every row: within 2%, or 4 standard errors."""

import math
from typing import Any

import pytest

from collapse_cli import simulate, theory
from collapse_cli.simulate import Estimate
from collapse_cli.theory import Variance


def close(predicted: float, found: Estimate, sharp: float) -> bool:
    """Whether they agree, and the simulation is sharp enough to contradict (a standard error of at most that share)."""
    return found.error <= sharp * abs(found.mean) and abs(found.mean - predicted) < max(
        0.02 * abs(predicted), 4 * found.error
    )


@pytest.mark.parametrize("variance", theory.VARIANCES)
@pytest.mark.parametrize(
    ("real", "synthetic", "weight", "kept"),
    [
        (20, 20, 0.618, False),
        (20, 80, None, False),
        (20, 80, 0.3904, False),
        (20, 20, None, True),
        (20, 10, None, True),
        (7, 13, None, True),
        (7, 13, 0.6, True),
    ],
)
def test_mixed_means(real: int, synthetic: int, weight: float | None, kept: bool, variance: Variance) -> None:
    loop: dict[str, Any] = {"n": 20, "real": real, "synthetic": synthetic, "weight": weight, "kept": kept}
    loop |= {"variance": variance, "generations": 6}
    found = simulate.mixed_mean(**loop, trials=6000, seed=1)
    exact = theory.mixed_mean(**loop)
    assert close(exact.relative, found["relative"], 0.025)
    assert close(exact.mean_error, found["mean_error"], 0.025)
    assert close(exact.variance, found["variance"], 0.01)


@pytest.mark.parametrize("variance", theory.VARIANCES)
@pytest.mark.parametrize("generations", [1, 9])
def test_subsampled_means(variance: Variance, generations: int) -> None:
    loop: dict[str, Any] = {"n": 10, "generations": generations, "variance": variance}
    found, exact = simulate.subsampled_mean(**loop, trials=8000, seed=2), theory.subsampled_mean(**loop)
    assert close(exact.relative, found["relative"], 0.025)
    assert close(exact.variance, found["variance"], 0.015)


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("unbiased", [False, True])
def test_subsampled_gaussians(unbiased: bool, d: int) -> None:
    loop: dict[str, Any] = {"n": 8, "refits": 7, "unbiased": unbiased, "policy": "accumulate-subsample", "d": d}
    found, exact = simulate.gaussian(**loop, trials=6000, seed=3), theory.gaussian(**loop)
    assert close(exact.variance, found["variance"], 0.02)
    assert close(exact.mean_error, found["mean_error"], 0.025)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.8, 1.0])
def test_contaminated_accumulation(share: float) -> None:
    found = simulate.contaminated(share_synthetic=share, n=20, generations=20, trials=6000, seed=4)
    assert close(theory.contaminated(share_synthetic=share, generations=20)[0].value, found, 0.025)


@pytest.mark.parametrize("generations", [1, 5, 10, 20])
def test_feedback(generations: int) -> None:
    loop = {"n0": 20_000, "real": 1000, "synthetic": 4000, "generations": generations}
    found = simulate.feedback(**loop, trials=400, seed=5)
    assert close(theory.feedback(**loop).value, found, 0.01)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 4.0])
def test_corrected_means(gamma: float) -> None:
    loop: dict[str, Any] = {"n": 20, "ratio": 1.5, "gamma": gamma, "generations": 8}
    found = simulate.corrected_mean(**loop, trials=6000, seed=6)
    assert close(theory.corrected_mean(**loop)[0], found, 0.025)


@pytest.mark.parametrize("generations", [0, 1, 9, 49])
def test_word_survival(generations: int) -> None:
    """Counts there are binomial; the formula takes them as Poisson."""
    loop: dict[str, Any] = {"n": 2000, "frequency": 0.002, "generations": generations}
    found = simulate.word_survival(**loop, trials=20_000, seed=7)
    assert close(theory.word_survival(**loop).value, found, 0.025)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("above", [0.2, 0.5, 0.9])
def test_refit_inequality(unbiased: bool, above: float) -> None:
    found = simulate.std_above(n=5, refits=40, unbiased=unbiased, above=above, trials=4000, seed=8)
    assert found.mean <= theory.std_bound(n=5, refits=40, above=above)


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("a", [0.1, 0.5, 1.0])
def test_truncated_loss(a: float, unbiased: bool) -> None:
    loop: dict[str, Any] = {"threshold": a, "n": 30, "generations": 4, "unbiased": unbiased}
    found = simulate.truncated_loss(**loop, trials=8000, seed=9)
    assert close(theory.truncated_loss(**loop).variance, found, 0.015)


@pytest.mark.parametrize(("candidates", "generations"), [(2, 1), (2, 3), (4, 1)])
def test_curation(candidates: int, generations: int) -> None:
    loop: dict[str, Any] = {"probabilities": (0.5, 0.3, 0.2), "rewards": (0, 1, 2), "candidates": candidates}
    found = simulate.curation(**loop, generations=generations, trials=12, seed=10)
    exact = theory.curation(**loop, generations=generations)[-1]
    assert all(close(p, each, 0.01) for p, each in zip(exact, found, strict=True))


@pytest.mark.parametrize("wrong", [0.55, 0.59, 0.61, 0.65])
def test_verifier(wrong: float) -> None:
    """A tenth of the rows of the table, in a tenth of its time."""
    case: dict[str, Any] = {"phi": 0.9, "psi": 0.6, "wrong": wrong, "d": 20, "n": 20_000, "separation": 1.0}
    found, exact = simulate.verifier(**case, trials=60, seed=11), theory.verifier(**case)
    assert close(exact.kept, found["kept"], 0.01)
    assert close(exact.wrong, found["wrong"], 0.01)
    assert close(exact.cosine, found["cosine"], 0.1)
    assert math.copysign(1, exact.cosine) == math.copysign(1, found["cosine"].mean)


@pytest.mark.parametrize("radius", [0.0, 0.3])
def test_biased_verifier(radius: float) -> None:
    loop: dict[str, Any] = {"offset": 1.0, "noise": 1.0, "slack": 1.0, "radius": radius, "d": 3}
    for generations in (1, 2):
        found = simulate.biased_verifier(**loop, generations=generations, n=5000, trials=30, seed=12)
        assert close(theory.biased_verifier(**loop, generations=generations)[-1], found, 0.03)

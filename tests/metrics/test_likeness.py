"""Distances between models and their mixture against closed forms and a slow way to the same numbers."""

import math

import numpy as np
import pytest

from collapse_cli.metrics import likeness


def dense(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon divergence of two distributions, by its definition, in bits."""
    middle = (p + q) / 2
    parts = [sum(a * math.log2(a / m) for a, m in zip(each, middle, strict=True) if a > 0) for each in (p, q)]
    return sum(parts) / 2


def divergence(p: list[float], q: list[float]) -> float:
    one, other = np.array(p, np.float64), np.array(q, np.float64)
    both = np.flatnonzero((one > 0) & (other > 0))
    return float(likeness.jensen_shannon(one[both], other[both], np.zeros(len(both), np.int64), 1)[0])


def test_equal_distributions_are_at_0_and_disjoint_ones_at_1_bit() -> None:
    assert divergence([0.25, 0.75], [0.25, 0.75]) == pytest.approx(0, abs=1e-15)
    assert divergence([1, 0], [0, 1]) == 1
    assert divergence([0.5, 0.5, 0, 0], [0, 0, 0.1, 0.9]) == 1


def test_a_known_pair_of_distributions() -> None:
    """(½, ½) and (1, 0): m = (¾, ¼); ½ (½ log2 ⅔ + ½ log2 2) + ½ log2 4/3 = ¾ log2 4/3."""
    assert divergence([0.5, 0.5], [1, 0]) == pytest.approx(0.75 * math.log2(4 / 3))


def test_what_both_hold_is_enough_for_the_definition() -> None:
    random = np.random.default_rng(0)
    p, q = random.dirichlet(np.full(9, 0.3), 20), random.dirichlet(np.full(9, 0.3), 20)
    p[random.random(p.shape) < 0.4] = 0
    q[random.random(q.shape) < 0.4] = 0
    p[:, 0], q[:, 1] = p[:, 0] + 0.01, q[:, 1] + 0.01  # none is empty
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    pair, value = np.nonzero((p > 0) & (q > 0))
    found = likeness.jensen_shannon(p[pair, value], q[pair, value], pair, 20)
    assert found == pytest.approx([dense(one, other) for one, other in zip(p, q, strict=True)], abs=1e-12)


def test_the_distance_is_the_root_of_the_mean_divergence_and_keeps_the_triangle() -> None:
    assert likeness.distance(np.array([0.25, 0.0, 0.02])) == pytest.approx(0.3)
    assert likeness.distance(np.zeros(0)) is None
    random = np.random.default_rng(1)
    for _ in range(200):
        a, b, c = random.dirichlet(np.full(5, 0.2), 3)
        ab, bc, ac = (math.sqrt(dense(*pair)) for pair in ((a, b), (b, c), (a, c)))
        assert ac <= ab + bc + 1e-12


def test_the_mixture_is_the_mean_of_probabilities() -> None:
    probabilities = np.random.default_rng(2).uniform(0.01, 1, (4, 50))
    found = likeness.mixture_measures(-np.log(probabilities))
    wanted = float(-np.log(probabilities.mean(axis=0)).mean())
    assert found["mixture_models"] == 4
    assert found["mixture_nll"] == pytest.approx(wanted)
    assert found["mixture_perplexity"] == pytest.approx(math.exp(wanted))
    assert found["mixture_gain"] == pytest.approx(float(-np.log(probabilities).mean()) - wanted)
    assert found["mixture_gain"] > 0


def test_a_mixture_of_equal_models_is_that_model_and_gains_nothing() -> None:
    nll = np.random.default_rng(3).uniform(0, 9, 30)
    found = likeness.mixture_measures(np.stack([nll] * 3))
    assert found["mixture_nll"] == pytest.approx(nll.mean())
    assert found["mixture_gain"] == pytest.approx(0, abs=1e-14)


def test_of_two_models_each_of_which_knows_half_the_mixture_loses_one_bit_where_they_lose_all() -> None:
    nll = np.array([[0.0, 2000.0], [2000.0, 0.0]])  # a probability of e**-2000 is no float
    assert likeness.mixture_nll(nll) == pytest.approx([math.log(2)] * 2)
    assert likeness.mixture_measures(nll)["mixture_gain"] == pytest.approx(1000 - math.log(2))


def test_bits_per_byte_and_geometric_means() -> None:
    assert likeness.bits_per_byte(math.log(2), 10, 40) == pytest.approx(0.25)
    assert likeness.geometric_mean([2.0, 8.0]) == pytest.approx(4)
    assert likeness.mean([1.0, 3.0]) == 2
    for mean in (likeness.mean, likeness.geometric_mean):
        assert mean([]) is None
        assert mean([1.0, None]) is None

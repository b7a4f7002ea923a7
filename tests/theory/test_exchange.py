"""Several models that learn from each other: closed forms against each other, their limits, and what they refuse."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest

from collapse_cli import theory
from collapse_cli.theory import Exchange, LineageRows, TheoryError

FIELDS = ("mean_error", "variance")


@pytest.mark.parametrize("variance", theory.VARIANCES)
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("rule", ["own", "all", "segments"])
def test_one_lineage_is_the_mean_of_mixed_rows(rule: Any, kept: bool, variance: theory.Variance) -> None:
    """Whatever the pool, one lineage takes its own rows: what `mixed_mean` has for it, at any truth."""
    rows = LineageRows(7, 0, 13, (0.4, 0.0, 0.6))
    known = theory.mixed_mean(n=20, real=7, synthetic=13, weight=0.4, kept=kept, generations=6, variance=variance)
    *_, found = theory.pooled_means(
        n=20,
        rows=rows,
        rule=rule,
        truths=np.array([3.0]),
        real_rows="drawn" if kept else "new",
        variance=variance,
        generations=6,
    )
    assert (found.mean_error, found.variance) == pytest.approx((known.mean_error, known.variance), rel=1e-9)
    assert (found.distance, found.mixture_variance) == (0, pytest.approx(found.variance))


@pytest.mark.parametrize("variance", ["biased", "unbiased"])
def test_own_rows_alone_are_refitted_gaussians_that_know_nothing_of_each_other(variance: theory.Variance) -> None:
    known = theory.gaussian(n=12, refits=7, unbiased=variance == "unbiased")
    *_, found = theory.pooled_means(
        n=12, rows=LineageRows(0, 0, 12), rule="own", truths=np.zeros(3), variance=variance, generations=6
    )
    assert found.variance == pytest.approx(known.variance)
    assert found.mean_error == pytest.approx(known.mean_error)
    assert found.distance == pytest.approx(2 * known.mean_error)
    assert found.mixture_error == pytest.approx(known.mean_error / 3)


def test_the_same_private_rows_are_those_of_scheduled_means() -> None:
    mixes = [theory.MixedRows(5, 15)] * 4
    known = list(theory.scheduled_means(n=20, mixes=mixes, real_rows="same", variance="biased"))
    found = theory.pooled_means(
        n=20,
        rows=LineageRows(5, 0, 15),
        rule="own",
        truths=np.zeros(2),
        real_rows="same",
        variance="biased",
        generations=4,
    )
    for one, (error, spread) in zip(found, known, strict=True):
        assert (one.mean_error, one.variance) == pytest.approx((error, spread))


@pytest.mark.parametrize("lineages", [1, 2, 4])
@pytest.mark.parametrize(("a", "b"), [(0.0, 0.5), (0.5, 0.5), (0.3, 1.0), (1.0, 0.5)])
def test_the_isotropic_form_is_that_of_gaussians_with_a_pool_of_all(lineages: int, a: float, b: float) -> None:
    """A mean is a linear model with x = 1: d such coordinates have an isotropic Gram matrix of full rank."""
    n, m, public, d = 30, 8, 20, 3
    mix = Exchange(a, b)
    for generations in (0, 1, 5):
        form = theory.isotropic_exchange(
            lineages=lineages,
            d=d,
            n=n,
            public=public,
            made=m,
            mix=mix,
            apart=0.0,
            noise=1.0,
            generations=generations,
        )
        rows = LineageRows(n, public, m * lineages, ((1 - a) * b, (1 - a) * (1 - b), a) if a < 1 else None)
        if a == 1:  # generation 0 is of the real rows all the same
            continue
        *_, means = theory.pooled_means(n=n, rows=rows, rule="all", truths=np.zeros(lineages), generations=generations)
        assert form.error == pytest.approx(d * means.mean_error)
        assert form.error_common == pytest.approx(form.error)
        assert form.distance == pytest.approx(d * means.distance)


def test_the_isotropic_form_is_the_linear_form_with_isotropic_grams() -> None:
    """Given the real rows: the general recursion with Gram matrices n I, three lineages."""
    random, k, d, n = np.random.default_rng(0), 3, 2, 25
    moments, common = n * random.standard_normal((k, d)), n * random.standard_normal(d)
    grams, mix, s = np.stack([n * np.eye(d)] * k), Exchange(0.4, 0.7), 0.3
    path = list(
        theory.linear_form(
            private=grams,
            public=n * np.eye(d),
            moments=moments,
            moment_public=common,
            made=[grams] * 5,
            noise=s,
            mix=mix,
        )
    )
    alone = path[0].mean
    assert np.allclose(alone, 0.7 * moments / n + 0.3 * common / n)
    form = theory.isotropic_exchange(lineages=k, d=d, n=n, public=n, mix=mix, apart=0.0, noise=s, generations=5)
    for found in path[1:]:
        assert np.allclose(found.mean, 0.6 * alone + 0.4 * alone.mean(axis=0))
        assert np.allclose(found.mean[0] - found.mean[1], (1 - 0.4) * (alone[0] - alone[1]))
    blocks = path[-1].covariance.reshape(k, d, k, d)
    for i, j in product(range(k), repeat=2):  # one and the same walk in all models
        assert np.allclose(blocks[i, :, j], form.walk / d * np.eye(d))


def test_what_a_says_of_the_distance() -> None:
    given: dict[str, Any] = {"lineages": 4, "d": 3, "n": 50, "public": 50, "apart": 2.0, "noise": 0.5}
    for a in (0.0, 0.25, 1.0):
        found = theory.isotropic_exchange(**given, mix=Exchange(a, 0.5), generations=3)
        assert found.ratio == 1 - a
        assert found.distance == pytest.approx((1 - a) ** 2 * found.distance_alone)
    assert found.walk_limit == math.inf
    without = theory.isotropic_exchange(**given, mix=Exchange(0.0, 0.5), generations=3)
    assert without.walk == 0
    assert without.error == pytest.approx(
        theory.isotropic_exchange(**given, mix=Exchange(0.9, 0.5), generations=0).error
    )
    later = theory.isotropic_exchange(**given, mix=Exchange(0.5, 0.5), generations=200)
    assert later.walk == pytest.approx(later.walk_limit)


def _mixture(rule: theory.PoolRule, generations: int, lineages: int = 4) -> theory.Lineages:
    rows = LineageRows(0, 0, 40)
    *_, last = theory.pooled_means(
        n=40, rows=rows, rule=rule, truths=np.zeros(lineages), variance="biased", generations=generations
    )
    return last


def test_what_pools_do_in_the_end() -> None:
    """From samples alone: a common pool makes all alike at once and loses variance as one model does; segments of K times as many
    rows lose it K times as slowly; own rows leave a mixture that keeps the most, of models that are far apart.
    """
    own, every, others, parts = (_mixture(rule, 80) for rule in theory.POOL_RULES)
    assert every.distance == 0 < parts.distance < others.distance * 10 < own.distance
    alone = _mixture("own", 80, 1)
    rates = {name: -math.log(found.variance) for name, found in (("all", every), ("segments", parts), ("alone", alone))}
    assert rates["segments"] == pytest.approx(rates["alone"] / 4, rel=0.15)
    assert rates["all"] == pytest.approx(rates["alone"], rel=0.15)
    assert own.mixture_variance > parts.mixture_variance > every.mixture_variance
    for found in (own, every, others, parts):  # what is lost is in the mean of all: biased, second moments stay
        assert found.mixture_variance + found.mixture_error == pytest.approx(1)


REFUSED = [
    ({"rule": "none"}, "rule 'none' is not known; there are own, all, others, segments"),
    ({"rule": "others", "truths": np.zeros(1)}, "rule others with one lineage has no rows to take"),
    ({"variance": "none"}, "variance 'none' is not known"),
    ({"rows": LineageRows(0, 0, 0)}, "a generation has no rows"),
    ({"rows": LineageRows(5, 0, 5, (1.0, 1.0, 1.0))}, "the weight of public rows is 1, but there are none"),
    ({"rows": LineageRows(50, 0, 5)}, "private is 50; the original corpus has 10 rows to keep"),
    ({"truths": np.array([])}, "truths must be one finite number for each lineage"),
    ({"truths": np.zeros(1001)}, "lineages is 1001; at most 1000 are gone through"),
    ({"common": True, "truths": np.arange(2)}, "common rows have one truth"),
    ({"generations": -1}, "generations is -1"),
    ({"rows": LineageRows(0, 0, 1), "variance": "unbiased"}, "one row alone has no unbiased variance"),
]


@pytest.mark.parametrize(("changed", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_refusals(changed: dict[str, Any], said: str) -> None:
    asked: dict[str, Any] = {
        "n": 10,
        "rows": LineageRows(5, 0, 5),
        "rule": "all",
        "truths": np.zeros(2),
        "generations": 2,
    }
    with pytest.raises(TheoryError, match=said) as found:
        list(theory.pooled_means(**asked | changed))
    assert "\n" not in str(found.value)


def test_refusals_of_the_linear_form() -> None:
    grams = np.stack([np.eye(2)] * 3)
    asked: dict[str, Any] = {
        "private": grams,
        "public": np.eye(2),
        "moments": np.zeros((3, 2)),
        "moment_public": np.zeros(2),
    }
    with pytest.raises(TheoryError, match=r"made\[1\] has shape \(2, 2, 2\)"):
        list(theory.linear_form(**asked, made=[grams, grams[:2]], noise=1.0, mix=Exchange(0.5)))
    with pytest.raises(TheoryError, match="pooled is 2; it is a share"):
        list(theory.linear_form(**asked, made=[grams], noise=1.0, mix=Exchange(2.0)))
    with pytest.raises(TheoryError, match=r"private is 0.5, which leaves 0.5 to public rows"):
        theory.isotropic_exchange(lineages=2, d=2, n=9, mix=Exchange(0.5, 0.5), apart=1, noise=1, generations=1)

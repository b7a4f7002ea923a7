"""A Gaussian fitted to samples of a Gaussian fitted to samples …: what is known exactly.

Shumailov et al., Nature 631 (2024), Theorem 3.1 (replace); accumulate: Kazdan et al. / Gerstgrasser et al.; the
closed forms here are derived in docs/theory.md: Refitted Gaussians, and exact at every finite n.
Unit: variances of generation 0 are 1, so multiply variances and squared distances by v0.
"""

import math
from dataclasses import dataclass

import numpy as np

from collapse_cli.theory.checks import TheoryError, positive, whole
from collapse_cli.theory.means import subsampled_mean

POLICIES = ("replace", "accumulate", "accumulate-subsample")
LARGEST = 10_000_000  # dimensions
MOST_REFITS = 10_000_000  # of a product that is multiplied out
ASYMPTOTIC = 20.0  # from here on eight terms of a series in 1/x are exact to a float


@dataclass(frozen=True)
class GaussianRefit:
    """Expectations after `refits` fits, v0 = 1; per coordinate unless it says otherwise. None: no closed form.

    Attributes:
        variance: E v_t.
        mean_error: E |mu_t - mu0|^2, over all d coordinates.
        std: E sqrt(v_t). None under accumulate and accumulate-subsample.
        log_variance: E ln v_t; math.-inf never, None under those two.
        wasserstein: E W2^2 to generation 0, exact, d = 1 and replace only; None otherwise.
        wasserstein_lower: a lower bound of E W2^2: the sum over coordinates of the one-dimensional distances (equal for
            d = 1, replace); under the other two E |mu_t - mu0|^2.
        log_determinant: E ln det C_t; None under the other two, and where n <= d (C_t is singular then).
        variance_limit: lim E v_t, t -> inf; math.inf where it grows without end.
        mean_error_limit: lim E |mu_t - mu0|^2; math.inf where it grows without end.
        mean_error_bound: pi^2 d/(6 n), which E |mu_t - mu0|^2 never passes under accumulate; None under the other two.
    """

    variance: float
    mean_error: float
    std: float | None
    log_variance: float | None
    wasserstein: float | None
    wasserstein_lower: float
    log_determinant: float | None
    variance_limit: float
    mean_error_limit: float
    mean_error_bound: float | None


def digamma_less_log(x: float) -> float:
    """digamma(x) - ln x for x > 0, to about 1e-15 of the larger term; exact also where the two nearly cancel."""
    if x < ASYMPTOTIC:
        return digamma_less_log(x + 1) + math.log1p(1 / x) - 1 / x
    y = 1 / (x * x)
    series = y * (1 / 12 - y * (1 / 120 - y * (1 / 252 - y * (1 / 240 - y * (1 / 132 - y * 691 / 32760)))))
    return -0.5 / x - series


def digamma(x: float) -> float:
    """The digamma function for x > 0."""
    return digamma_less_log(x) + math.log(x)


def log_c4(n: int) -> float:
    """The logarithm of c4(n) = sqrt(2/(n-1)) Gamma(n/2)/Gamma((n-1)/2): E of an unbiased sample's standard deviation; n >= 2.

    ln Gamma(x + 1/2) - ln Gamma(x) - (ln x)/2 as a series where the two are large, for they cancel.
    """
    x = (n - 1) / 2
    if x < ASYMPTOTIC:
        return math.lgamma(x + 0.5) - math.lgamma(x) - 0.5 * math.log(x)
    y = 1 / (x * x)
    return -(1 / 8 - y * (1 / 192 - y * (1 / 640 - y * (17 / 14336 - y * 31 / 18432)))) / x


def gaussian(*, n: int, refits: int, unbiased: bool, policy: str = "replace", d: int = 1) -> GaussianRefit:
    """Mean and covariance are fitted to n samples of the last fit, `refits` times, from the truth N(mu0, I) on.

    Generation g of a run has been fitted g + 1 times: its `refits` are g + 1.

    Args:
        n: samples of a generation, at least 2.
        refits: fits in all, at least 0; after none there is the truth.
        unbiased: divide squares by n - 1 (all but one of the samples fitted to) instead of n.
        policy: "replace" fits the last generation's n samples, "accumulate" those of all generations, t n of them,
            "accumulate-subsample" n of those, drawn without replacement.
        d: dimensions; the samples' covariance is isotropic at the start.

    Raises:
        TheoryError: for another policy or an impossible size.
    """
    size, steps, dims = whole("n", n, 2), whole("refits", refits, 0), whole("d", d, 1)
    if dims > LARGEST:
        raise TheoryError(f"d is {dims}; the determinant is summed over at most {LARGEST} dimensions")
    if policy == "replace":
        return _replaced(size, steps, unbiased, dims)
    if policy == "accumulate":
        return _accumulated(size, steps, unbiased, dims)
    if policy == "accumulate-subsample":
        return _subsampled(size, steps, unbiased, dims)
    raise unknown_policy(policy)


def unknown_policy(policy: str) -> TheoryError:
    return TheoryError(f"policy {policy!r} is not known; there are {', '.join(POLICIES[:-1])} and {POLICIES[-1]}")


def std_bound(*, n: int, refits: int, above: float) -> float:
    """At most the probability that the standard deviation is above a value after `refits` fits to n >= 3 samples, replaced.

    Pr(sd_k > eps) <= (sd_0/eps) exp(-k/(4n - 1)), sd_0 = 1, either divisor. Source: arXiv 2412.17646.
    """
    size, steps = whole("n", n, 3), whole("refits", refits, 0)
    return min(1.0, math.exp(-steps / (4 * size - 1)) / positive("above", above))


def _replaced(n: int, steps: int, unbiased: bool, d: int) -> GaussianRefit:
    shrink = 0.0 if unbiased else math.log1p(-1 / n)  # of ln E v, a generation
    variance = math.exp(steps * shrink)
    wander = steps / n if unbiased else -math.expm1(steps * shrink)
    narrower = steps * (log_c4(n) + shrink / 2)  # ln E sqrt v
    # E mu^2 + 1 + E v - 2 E sqrt v; biased, the first three are 2
    distance = (steps / n if unbiased else 0.0) - 2 * math.expm1(narrower)
    x = (n - 1) / 2
    determinant = None
    if n > d:
        falls = (digamma_less_log((n - i) / 2) + math.log((n - i) / (n - 1)) for i in range(1, d + 1))
        determinant = steps * (math.fsum(falls) + d * shrink)
    return GaussianRefit(
        variance=variance,
        mean_error=d * wander,
        std=math.exp(narrower),
        log_variance=steps * (digamma_less_log(x) + shrink),
        wasserstein=distance if d == 1 else None,
        wasserstein_lower=d * distance,
        log_determinant=determinant,
        variance_limit=1.0 if unbiased else 0.0,
        mean_error_limit=math.inf if unbiased else float(d),
        mean_error_bound=None,
    )


def _accumulated(n: int, steps: int, unbiased: bool, d: int) -> GaussianRefit:
    if steps > MOST_REFITS:
        raise TheoryError(f"refits is {steps}; under accumulate at most {MOST_REFITS} are multiplied out")
    variance, wander = _products(n, steps, unbiased)
    if unbiased:  # no closed form known: what is left beyond T is 1/(n T) of v, but for terms of 1/T^3
        far = max(steps, 20_000)
        limit, error_limit = _products(n, far, unbiased)
        rest = limit / (n * (far + 0.5))
        limit, error_limit = limit - rest, error_limit + rest
    else:
        angle = math.pi / math.sqrt(n)
        limit = math.sin(angle) / angle
        error_limit = 1 - limit
    return _means_alone(variance, wander, limit, error_limit, d, d * math.pi**2 / (6 * n))


def _means_alone(
    variance: float, wander: float, limit: float, error_limit: float, d: int, bound: float | None
) -> GaussianRefit:
    """Of a growing pool: mean variance and mean error are known, of one dimension (`wander`, `error_limit`), and nothing else."""
    return GaussianRefit(
        variance=variance,
        mean_error=d * wander,
        std=None,
        log_variance=None,
        wasserstein=None,
        wasserstein_lower=d * wander,
        log_determinant=None,
        variance_limit=limit,
        mean_error_limit=d * error_limit,
        mean_error_bound=bound,
    )


def _subsampled(n: int, steps: int, unbiased: bool, d: int) -> GaussianRefit:
    if steps == 0:
        variance, wander = 1.0, 0.0
    else:
        now = subsampled_mean(n=n, generations=steps - 1, variance="unbiased" if unbiased else "biased")
        variance, wander = now.variance, now.mean_error
    limit = error_limit = math.inf  # unbiased, mean squares grow like a small power of t
    if not unbiased:  # no closed form known: what is left beyond T falls like 1/T
        far, farther = (subsampled_mean(n=n, generations=t, variance="biased").mean_error for t in (20_000, 40_000))
        error_limit = 2 * farther - far
        limit = 1 - error_limit
    return _means_alone(variance, wander, limit, error_limit, d, None)


def _products(n: int, steps: int, unbiased: bool) -> tuple[float, float]:
    """E v_t and E (mu_t - mu0)^2 of accumulation: v is multiplied by 1 - 1/(n s^2), or 1 - 1/(s (s n - 1)) for s > 1."""
    s = np.arange(1, steps + 1, dtype=np.float64)
    shrinks = np.log1p(-1 / (s[1:] * (s[1:] * n - 1))) if unbiased else np.log1p(-1 / (n * s[1:] ** 2))
    first = 0.0 if unbiased else math.log1p(-1 / n)
    logs = np.concatenate(([0.0, first], first + np.cumsum(shrinks)))[: steps + 1]  # of E v_0 … E v_t
    return math.exp(logs[-1]), float((np.exp(logs[:-1]) / (n * s * s)).sum())

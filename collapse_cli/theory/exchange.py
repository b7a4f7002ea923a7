"""Several models that learn from each other's output: K lines of descent with private data, public data and a common pool.

Sources: the linear form and its recursion arXiv 2505.21677, Theorems 1 and 3; the isotropic closed form and the Gaussians are
derived in docs/theory.md: Several models. Unit of the Gaussians: real rows have variance 1.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from collapse_cli.theory.checks import Array, TheoryError, not_negative, positive, share, steps, whole
from collapse_cli.theory.means import VARIANCES, RealRows, Variance

PoolRule = Literal["own", "all", "others", "segments"]
POOL_RULES = ("own", "all", "others", "segments")
MOST_LINEAGES = 1000


# --- the linear form ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Exchange:
    """How much each kind of rows counts: (1 - a) b private, (1 - a)(1 - b) public, a/K the rows of each of the K models.

    Attributes:
        pooled: a, of all rows that models made.
        private: b, of private rows among the real ones.
    """

    pooled: float
    private: float = 1.0

    def check(self) -> None:
        """Raises TheoryError for what is no share."""
        share("pooled", self.pooled)
        share("private", self.private)


@dataclass(frozen=True)
class LinearForm:
    """Models of all lineages at a generation, given the real rows.

    Attributes:
        mean: (K, d) their expected weights.
        covariance: (K d, K d) of all of them together.
    """

    mean: Array
    covariance: Array


def linear_form(
    *,
    private: Array,
    public: Array,
    moments: Array,
    moment_public: Array,
    made: Sequence[Array],
    noise: float,
    mix: Exchange,
) -> Iterator[LinearForm]:
    """Least squares in K lineages, given the inputs: M_t = P_t + Q_t M_{t-1}, C_t = Q_t (s^2 S_t^+ + C_{t-1}) Q_t'.

    With H_k = (1 - a) b A_k + (1 - a)(1 - b) A + (a/K) sum_j S_j: (P_t)_k = H_k^+ [(1 - a) b m_k + (1 - a)(1 - b) m] and
    (Q_t)_kj = H_k^+ (a/K) S_j. Source: arXiv 2505.21677, Theorem 1. Generation 0 is fitted to the real rows alone (a = 0).

    Args:
        private, public: A_k = X_k'X_k, (K, d, d), and A = X'X, (d, d).
        moments, moment_public: m_k = X_k'y_k, (K, d), and m = X'y, (d,).
        made: of generations 1, 2, and so on: S_j = X_j'X_j of the inputs that model j of the generation before labelled, (K, d, d).
        noise: standard deviation s of those labels.

    Yields:
        Generation 0, and one more for each of `made`.

    Raises:
        TheoryError: for shapes that do not fit, or a share that is none.
    """
    mix.check()
    lineages, d = moments.shape
    shapes = {"private": private.shape, **{f"made[{i}]": grams.shape for i, grams in enumerate(made)}}
    for name, shape in shapes.items():
        if shape != (lineages, d, d):
            raise TheoryError(
                f"{name} has shape {shape}; of {lineages} lineages in {d} dimensions it must be {(lineages, d, d)}"
            )
    a, b, s = mix.pooled, mix.private, not_negative("noise", noise)
    real, real_moments = b * private + (1 - b) * public, b * moments + (1 - b) * moment_public
    mean = np.stack(
        [np.linalg.pinv(gram, hermitian=True) @ moment for gram, moment in zip(real, real_moments, strict=True)]
    )
    covariance = np.zeros((lineages * d, lineages * d))
    yield LinearForm(mean, covariance)
    for grams in made:
        inverse = np.linalg.pinv((1 - a) * real + a * grams.mean(axis=0), hermitian=True)
        passed = np.einsum("kij,njl->kinl", inverse, a / lineages * grams).reshape(lineages * d, lineages * d)
        added = np.zeros((lineages, d, lineages, d))
        for j, gram in enumerate(grams):
            added[j, :, j] = s**2 * np.linalg.pinv(gram, hermitian=True)
        kept = np.einsum("kij,kj->ki", inverse, (1 - a) * real_moments)
        mean = kept + (passed @ mean.ravel()).reshape(lineages, d)
        covariance = passed @ (added.reshape(covariance.shape) + covariance) @ passed.T
        yield LinearForm(mean, covariance)


@dataclass(frozen=True)
class Apart:
    """K lineages whose rows are all of one isotropic Gram matrix, at a generation. Expectations, sums over the d dimensions.

    Attributes:
        distance: E |w_k - w_l|^2 of two lineages; 0 where there is one alone.
        distance_alone: the same without exchange (a = 0).
        ratio: the root of their quotient: 1 - a, from generation 1 on.
        error: E |w_k - w_k*|^2, from the lineage's own truth.
        error_common: E |w_k - w*|^2, from the mean of all lineages' truths.
        walk: what the noise of synthetic labels has added to the variance of each model: the same in all of them.
        walk_limit: the same in the end; math.inf where it grows without end (a = 1).
    """

    distance: float
    distance_alone: float
    ratio: float
    error: float
    error_common: float
    walk: float
    walk_limit: float


def isotropic_exchange(
    *,
    lineages: int,
    d: int,
    n: int,
    public: int = 0,
    made: int | None = None,
    mix: Exchange,
    apart: float,
    noise: float,
    noise_synthetic: float | None = None,
    generations: int,
) -> Apart:
    """The closed form of `linear_form` where every Gram matrix is that of its number of rows times I, scaled to one length.

    Every two truths are `apart` from each other, and public rows have the mean of all of them for a truth. In each source the
    loss is a mean over its rows. From generation 1 on w_k = (1 - a) P_k + a mean(P) + walk with the same walk for all, so that the
    distance is (1 - a) times that without exchange: at once, and for ever.

    Args:
        n, public, made: private rows of each lineage, public rows, and rows that each model makes (None: n).
        apart: |w_k* - w_l*|.
        noise, noise_synthetic: standard deviations of the noise of real and of synthetic labels (None: the same).

    Raises:
        TheoryError: for what cannot be, a weight on public rows that there are not, fewer rows than dimensions, or more lineages
            equally far apart than d + 1.
    """
    mix.check()
    k, dims, rows = whole("lineages", lineages, 1), whole("d", d, 1), whole("n", n, 1)
    shared, each = whole("public", public, 0), rows if made is None else whole("made", made, 1)
    last, far = steps(generations), not_negative("apart", apart)
    full_rank(dims, n=rows, public=shared, made=each)
    equally_far(k, dims, far)
    s = not_negative("noise", noise)
    later = s if noise_synthetic is None else not_negative("noise_synthetic", noise_synthetic)
    a, b = mix.pooled, mix.private
    if shared == 0 and b < 1:
        raise TheoryError(
            f"private is {b:g}, which leaves {1 - b:g} to public rows, and there are none; give public rows, or private 1"
        )
    a_now = a if last > 0 else 0.0
    alone = b**2 * (far**2 + 2 * dims * s**2 / rows) if k > 1 else 0.0
    step = later**2 / (k * each)
    walk = dims * step * (math.fsum(a ** (2 * i) for i in range(1, last + 1)) if a < 1 else float(last))
    off = far**2 * (1 - 1 / k) / 2  # of each truth from the mean of all: the mean of |t_k - t|^2 over k
    # of the real rows' noise: the lineage's own part, of weight 1 - a + a/K, those of the others, a/K each, and the public one
    own = b**2 * s**2 / rows * ((1 - a_now + a_now / k) ** 2 + (k - 1) * (a_now / k) ** 2)
    public_noise = (1 - b) ** 2 * s**2 / shared if shared else 0.0
    variance = dims * (own + public_noise)
    return Apart(
        distance=(1 - a_now) ** 2 * alone,
        distance_alone=alone,
        ratio=1 - a_now,
        error=off * (1 - (1 - a_now) * b) ** 2 + variance + walk,
        error_common=off * ((1 - a_now) * b) ** 2 + variance + walk,
        walk=walk,
        walk_limit=dims * step * a**2 / (1 - a**2) if a < 1 else (math.inf if later > 0 else 0.0),
    )


def full_rank(d: int, **rows: int) -> None:
    """Raises TheoryError where a source has fewer rows than there are dimensions; none at all is no source."""
    for name, number in rows.items():
        if 0 < number < d:
            raise TheoryError(
                f"{name} is {number}, fewer rows than the {d} dimensions; their Gram matrix has no full rank"
            )


def equally_far(k: int, d: int, apart: float) -> None:
    """Raises TheoryError where no k points are all `apart` from each other: in d dimensions d + 1 are, at most."""
    if k > d + 1 and apart > 0:
        raise TheoryError(f"{k} points in {d} dimensions cannot all be equally far apart; take --d {k - 1} or more")


# --- Gaussians ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lineages:
    """K Gaussians of one coordinate at a generation. Expectations.

    Attributes:
        mean_error: of (mean - the lineage's true mean)^2, a mean over lineages.
        variance: of the fitted variance, a mean over lineages; 1 where it is known.
        distance: of (mean_k - mean_l)^2, a mean over pairs of lineages; 0 where there is one alone.
        mixture_error: of (mean over lineages - mean of the true means)^2.
        mixture_variance: of the variance of the mixture of all K Gaussians.
        by_lineage: (K,) mean errors, lineage by lineage.
        variances: (K,) variances.
        distances: (K, K) of (mean_k - mean_l)^2.
    """

    mean_error: float
    variance: float
    distance: float
    mixture_error: float
    mixture_variance: float
    by_lineage: Array
    variances: Array
    distances: Array


@dataclass(frozen=True)
class LineageRows:
    """The corpus of a lineage in each generation from 1 on.

    Attributes:
        private, public, synthetic: how many rows of each kind.
        masses: the weight of all rows of each kind together; None: all rows weigh alike.
    """

    private: int
    public: int
    synthetic: int
    masses: tuple[float, float, float] | None = None

    def shares(self) -> tuple[float, float, float]:
        """The weight of each kind, 1 together.

        Raises:
            TheoryError: for numbers or weights that cannot be.
        """
        counts = [whole(name, getattr(self, name), 0) for name in ("private", "public", "synthetic")]
        if sum(counts) == 0:
            raise TheoryError("a generation has no rows: private, public and synthetic are 0")
        masses = [float(number) for number in counts] if self.masses is None else list(self.masses)
        for name, number, mass in zip(("private", "public", "synthetic"), counts, masses, strict=True):
            if not_negative(f"the weight of {name} rows", mass) > 0 and number == 0:
                raise TheoryError(f"the weight of {name} rows is {mass:g}, but there are none")
        total = positive("the sum of all weights", math.fsum(masses))
        first, second, third = (mass / total for mass in masses)
        return first, second, third

    @property
    def spent(self) -> float:
        """The sum of squared weights of all rows."""
        counts = (self.private, self.public, self.synthetic)
        return math.fsum(mass**2 / number for mass, number in zip(self.shares(), counts, strict=True) if number)


def pooled_means(
    *,
    n: int,
    rows: LineageRows,
    rule: PoolRule,
    truths: Array,
    public_truth: float = 0.0,
    real_rows: RealRows = "drawn",
    variance: Variance = "known",
    same_rows: bool = True,
    common: bool = False,
    generations: int,
) -> Iterator[Lineages]:
    """K Gaussians, each fitted to private rows, public rows, and rows of the pool that all models of the generation before made.

    Generation 0 of a lineage is fitted to its n private rows and the public ones. `segments`: all rows of all models, K times
    `synthetic`, are shuffled and cut into K parts. Otherwise a corpus has equally many rows of each model of its pool.

    Args:
        n: private rows of a lineage's original corpus.
        rows: of each later generation.
        rule: whose rows a lineage takes: its `own`, `all`, the `others`', or a part of all (`segments`).
        truths: (K,) true means of the private rows.
        public_truth: of the public rows, which are the same in all generations.
        real_rows: private ones are new in each generation; "drawn" anew from the n original ones (all of them where as many are
            asked for); or the "same" of those each time.
        variance: as in `mixed_mean`.
        same_rows: two lineages that take rows of one model take the same ones (rules `all` and `others`).
        common: the private rows of all lineages are the same ones; their truths must be one.

    Raises:
        TheoryError: for what cannot be.
    """
    theta, k = _truths(truths)
    size, last = whole("n", n, 2 if variance != "known" else 1), steps(generations)
    if variance not in VARIANCES:
        raise TheoryError(f"variance {variance!r} is not known; there are {', '.join(VARIANCES)}")
    if rule not in POOL_RULES:
        raise TheoryError(f"rule {rule!r} is not known; there are {', '.join(POOL_RULES)}")
    if rule == "others" and k == 1 and rows.synthetic > 0:
        raise TheoryError("rule others with one lineage has no rows to take; give 2 lineages or more")
    first, second, third = rows.shares()
    if real_rows != "new" and rows.private > size:
        raise TheoryError(f"private is {rows.private}; the original corpus has {size} rows to keep")
    if common and np.ptp(theta) > 0:
        raise TheoryError("common rows have one truth, and the lineages' truths differ")
    if variance == "unbiased" and rows.spent >= 1:
        raise TheoryError("one row alone has no unbiased variance; take more rows")
    start = LineageRows(size, rows.public, 0, None if rows.masses is None else (rows.masses[0], rows.masses[1], 0.0))
    if rows.masses is not None and rows.masses[0] + rows.masses[1] == 0:
        start = LineageRows(size, 0, 0)
    # state: means of the private rows that come back, (K,), of the public rows, and of the models, (K,)
    about = {"new": 0, "drawn": size, "same": rows.private}[real_rows]
    alike = np.ones((k, k)) if common else np.eye(k)  # of the real rows of two lineages
    centre = np.concatenate([theta, [public_truth], theta])
    joint = np.zeros((2 * k + 1, 2 * k + 1))
    joint[:k, :k] = alike / about if about else 0.0
    joint[k, k] = 1 / rows.public if rows.public else 0.0
    back = np.hstack([np.eye(k) * (about > 0), np.ones((k, 1)), np.zeros((k, k))])
    own, public_share = start.shares()[:2]
    # generation 0 has all n rows: of their mean, about/n is that of the rows that come back
    left = np.hstack([own * about / size * np.eye(k), np.full((k, 1), public_share), np.zeros((k, k))])
    centre, joint = _next(
        centre, joint, left, own * (1 - about / size) * theta, own**2 * alike * (size - about) / size**2
    )
    spread = _spread(centre, joint, (own, public_share, 0.0), theta, public_truth, np.zeros(k), start, variance)
    yield _lines(centre, joint, spread, theta)
    drawn = {"new": 1.0, "drawn": 1 - rows.private / size, "same": 0.0}[real_rows] / max(rows.private, 1)
    taken = _taken(rule, k)
    step = np.hstack([first * back[:, :k], second * back[:, k : k + 1], third * taken])
    for _ in range(last):
        means, models = centre[k + 1 :], joint[k + 1 :, k + 1 :]
        squares = taken @ (means**2 + np.diag(models) + spread)  # of the rows that each lineage takes, mean square
        noise = first**2 * drawn * alike
        if rows.synthetic:
            made = (
                _segments(means, models, spread, rows.synthetic)
                if rule == "segments"
                else _noise(taken, spread, rows.synthetic, same_rows)
            )
            noise = noise + third**2 * made
        centre, joint = _next(centre, joint, step, first * (about == 0) * theta, noise)
        spread = _spread(centre, joint, (first, second, third), theta, public_truth, squares, rows, variance)
        yield _lines(centre, joint, spread, theta)


def _truths(truths: Array) -> tuple[Array, int]:
    theta = np.asarray(truths, dtype=np.float64)
    if theta.ndim != 1 or len(theta) == 0 or not np.isfinite(theta).all():
        raise TheoryError("truths must be one finite number for each lineage")
    if len(theta) > MOST_LINEAGES:
        raise TheoryError(f"lineages is {len(theta)}; at most {MOST_LINEAGES} are gone through")
    return theta, len(theta)


def _taken(rule: PoolRule, k: int) -> Array:
    """(K, K) the share of lineage j's rows among the synthetic ones of lineage i."""
    if rule == "own":
        return np.eye(k)
    if rule == "others":
        return (np.ones((k, k)) - np.eye(k)) / max(k - 1, 1)
    return np.full((k, k), 1 / k)


def _noise(taken: Array, spread: Array, rows: int, same_rows: bool) -> Array:
    """(K, K) covariance, given the models, of the means of the rows that lineages take."""
    if not same_rows:
        return np.diag(taken @ spread) / rows
    # of model j both take the same rows: share_ij share_lj v_j / (rows share), where both take of it
    most = taken.max()
    shared: Array = (taken * spread) @ taken.T / (most * rows)
    return shared


def _segments(means: Array, models: Array, spread: Array, rows: int) -> Array:
    """The same of parts of the shuffled rows of all models, beyond what the mean of all models says."""
    k = len(means)
    every = k * rows
    fresh = float(spread.mean()) / every  # of the mean of all rows, given the models
    squares = float((means**2 + np.diag(models) + spread).mean())
    within = (squares - float(means.mean() ** 2 + models.mean()) - fresh) * every / (every - 1) if every > 1 else 0.0
    part: Array = fresh - within / every + np.eye(k) * within / rows
    return part


def _next(centre: Array, joint: Array, step: Array, constant: Array, noise: Array) -> tuple[Array, Array]:
    """The state with models that are `step` times the state, a constant and independent noise."""
    kept = len(centre) - len(step)
    after, together = centre.copy(), joint.copy()
    after[kept:] = step @ centre + constant
    across = step @ joint
    together[kept:, :kept] = across[:, :kept]
    together[:kept, kept:] = across[:, :kept].T
    together[kept:, kept:] = across @ step.T + noise
    return after, together


def _spread(
    centre: Array,
    joint: Array,
    masses: tuple[float, float, float],
    theta: Array,
    public_truth: float,
    squares: Array,
    rows: LineageRows,
    variance: Variance,
) -> Array:
    """(K,) E of the variances: the mean square of the rows less that of the fitted mean."""
    k = len(theta)
    if variance == "known":
        return np.ones(k)
    second = masses[0] * (1 + theta**2) + masses[1] * (1 + public_truth**2) + masses[2] * squares
    left: Array = second - centre[k + 1 :] ** 2 - np.diag(joint)[k + 1 :]
    return left / (1 - rows.spent) if variance == "unbiased" else left


def _lines(centre: Array, joint: Array, spread: Array, theta: Array) -> Lineages:
    k = len(theta)
    means, models = centre[k + 1 :], joint[k + 1 :, k + 1 :]
    variances = np.diag(models)
    errors = (means - theta) ** 2 + variances
    distances = np.maximum((means[:, None] - means) ** 2 + variances[:, None] + variances - 2 * models, 0.0)
    np.fill_diagonal(distances, 0.0)
    between = float(distances.sum()) / (2 * k * k)  # E of the variance of the K means
    return Lineages(
        mean_error=float(errors.mean()),
        variance=float(spread.mean()),
        distance=float(distances.sum()) / (k * (k - 1)) if k > 1 else 0.0,
        mixture_error=float((means.mean() - theta.mean()) ** 2 + models.mean()),
        mixture_variance=float(spread.mean()) + between,
        by_lineage=errors,
        variances=spread,
        distances=distances,
    )

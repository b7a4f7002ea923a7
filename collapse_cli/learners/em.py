"""Maximum likelihood of a mixture of Gaussians with full covariances: the EM algorithm, fast.

Same algorithm as scikit-learn's `GaussianMixture`, step for step: k-means for a start, `ridge` on the diagonal, and the
end when the mean log-likelihood of a row rises by less than `tol`. What is faster: a Gaussian's log-density is linear in
the features T(x) = (1, x, products of x with x), so that both steps are products of one matrix that is made once,
densities are T·eta and sums of moments T'·r (natural parameters of an exponential family). Where that would lose digits
(components that are narrow beside the distance between them, or all but empty) a step is taken the plain way.
"""

import math
import warnings
from dataclasses import dataclass

import numpy as np

from collapse_cli.errors import InputError

SAFE = 1e-7  # least variance, relative to that of all rows, for which features keep 8 digits of a log-density
ROWS = 1.0  # rows that a component must have for its moments to be taken as a difference
EMPTY = 10 * float(np.finfo(np.float64).eps)  # added to what a component weighs, as scikit-learn does
PIECE = 512  # factors in 1..2 whose product is far from overflow


@dataclass(frozen=True)
class Mixture:
    """`weights` (K,), `means` (K, d), `covariances` (K, d, d)."""

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def log_densities(self, x: np.ndarray) -> np.ndarray:
        """(K, rows) logarithms of weight times density.

        Raises:
            np.linalg.LinAlgError: where a covariance is not positive definite.
        """
        roots = np.linalg.cholesky(self.covariances)
        off = (x - self.means[:, None, :]) @ np.linalg.inv(roots).transpose(0, 2, 1)
        logs = np.log(self.weights) - np.log(np.diagonal(roots, axis1=1, axis2=2)).sum(axis=1)
        densities: np.ndarray = (
            logs[:, None] - (np.einsum("krd,krd->kr", off, off) + x.shape[1] * math.log(2 * math.pi)) / 2
        )
        return densities

    def log_likelihoods(self, x: np.ndarray) -> np.ndarray:
        """(rows,) log-density of each row."""
        logs = self.log_densities(x)
        most = logs.max(axis=0)
        likelihoods: np.ndarray = most + np.log(np.exp(logs - most).sum(axis=0))
        return likelihoods

    def scaled(self, centre: np.ndarray, scale: float) -> "Mixture":
        """The mixture of (x - centre) / scale."""
        return Mixture(self.weights, (self.means - centre) / scale, self.covariances / scale**2)

    def unscaled(self, centre: np.ndarray, scale: float) -> "Mixture":
        """The mixture of x · scale + centre."""
        return Mixture(self.weights, self.means * scale + centre, self.covariances * scale**2)


@dataclass(frozen=True)
class FittedMixture:
    """What EM ended with: the mixture, its steps, whether it stopped by itself, and the mean log-likelihood of a row."""

    mixture: Mixture
    iterations: int
    converged: bool
    log_likelihood: float


def l2_squared(first: Mixture, second: Mixture) -> float:
    """The squared L2 distance of two densities, in closed form: the integral of two Gaussians' product is a Gaussian."""
    signed = np.concatenate([first.weights, -second.weights])
    means = np.concatenate([first.means, second.means])
    covariances = np.concatenate([first.covariances, second.covariances])
    off = means[:, None] - means
    both = covariances[:, None] + covariances
    squares = np.einsum("ijd,ijd->ij", off, np.linalg.solve(both, off[..., None])[..., 0])
    logs = np.linalg.slogdet(2 * math.pi * both)[1]
    return max(float(signed @ np.exp(-(squares + logs) / 2) @ signed), 0.0)


def kmeans_start(x: np.ndarray, components: int, ridge: float, seed: int, weights: np.ndarray | None = None) -> Mixture:
    """Where scikit-learn's `GaussianMixture` starts: moments of the clusters that k-means finds."""
    labels = kmeans_labels(x, components, random_state(seed), weights)
    shares = (labels == np.arange(components)[:, None]).astype(np.float64)
    return _moments(x, shares if weights is None else shares * weights, ridge)


def kmeans_labels(
    x: np.ndarray, clusters: int, state: np.random.RandomState, weights: np.ndarray | None = None
) -> np.ndarray:
    """(rows,) the cluster of each row: what scikit-learn's `KMeans(clusters, n_init=1)` finds from the same state.

    Its k-means++ for the centres, then Lloyd's algorithm until nothing changes, as there, but in two matrix products a
    round and one thread, so that sums are always of one order (where two choices are equally good, rounding may choose the other). Where a cluster loses all its rows: its own `KMeans`.
    With weights, what it finds where each row stands so many times.
    """
    from sklearn.cluster import KMeans

    off = x - np.average(x, axis=0, weights=weights)
    variance = x.var(axis=0) if weights is None else np.average(np.square(off), axis=0, weights=weights)
    still = float(variance.mean()) * 1e-4
    drawn = state.get_state()
    centres = _seeded(off, clusters, state, weights)
    labels: np.ndarray = np.full(len(x), -1)
    for _ in range(300):  # `KMeans`' max_iter
        before, labels = labels, _nearest(off, centres)
        if np.array_equal(before, labels):
            return labels
        shares = (labels == np.arange(clusters)[:, None]).astype(np.float64)
        if weights is not None:
            shares *= weights
        counts = shares.sum(axis=1)
        if counts.min() == 0:
            state.set_state(drawn)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # fewer distinct rows than clusters
                by_sklearn: np.ndarray = (
                    KMeans(clusters, n_init=1, random_state=state).fit(x, sample_weight=weights).labels_
                )
            return by_sklearn
        moved = shares @ off / counts[:, None]
        step, centres = float(np.square(moved - centres).sum()), moved
        if step <= still:
            break
    return _nearest(off, centres)


def _seeded(x: np.ndarray, clusters: int, state: np.random.RandomState, weights: np.ndarray | None) -> np.ndarray:
    """(clusters, d) rows to start k-means from: k-means++ with as many candidates as scikit-learn, from the same numbers.

    Each centre is drawn with probabilities that go with squared distances to those before it (Arthur and Vassilvitskii, 2007);
    of 2 + ln(clusters) draws the one that leaves the rows the nearest.
    """
    last = len(x) - 1
    first = state.random_sample()
    if weights is None:
        at = int(first * len(x))
    else:
        sums = np.cumsum(weights)
        at = int(np.searchsorted(sums, first * sums[-1], side="right"))
    centres = [x[min(at, last)]]
    squares = np.square(x - centres[0]).sum(axis=1)
    if weights is not None:
        squares *= weights
    for _ in range(clusters - 1):
        wanted = state.random_sample(2 + int(math.log(clusters))) * squares.sum()
        candidates = np.minimum(np.searchsorted(np.cumsum(squares), wanted), last)
        off = x - x[candidates][:, None]
        to_candidate = np.einsum("crd,crd->cr", off, off)
        left = np.minimum(squares, to_candidate if weights is None else to_candidate * weights)
        best = int(left.sum(axis=1).argmin())
        centres.append(x[candidates[best]])
        squares = left[best]
    return np.stack(centres)


def _nearest(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """(rows,) which centre is nearest; of equally near ones the first."""
    squares = np.square(centres).sum(axis=1)
    if len(centres) == 2:
        second: np.ndarray = x @ (2 * (centres[1] - centres[0])) > squares[1] - squares[0]
        return second.astype(np.int64)
    nearest: np.ndarray = (squares[:, None] - 2 * centres @ x.T).argmin(axis=0)
    return nearest


def fit(
    x: np.ndarray,
    *,
    components: int,
    tol: float,
    max_iter: int,
    ridge: float,
    seed: int,
    start: Mixture | None = None,
    weights: np.ndarray | None = None,
) -> FittedMixture:
    """EM on the rows of x (rows, d).

    Args:
        seed: of k-means.
        start: the parameters to start from. None: k-means.
        weights: (rows,) how much each row counts, 1 on average. None: all alike.

    Raises:
        InputError: for fewer rows than components, or a component whose covariance is no longer one.
    """
    _check(x, components)
    try:
        if start is None:
            start = kmeans_start(x, components, ridge, seed, weights)
        centre = x.mean(axis=0)
        scale = math.sqrt(float(x.var(axis=0).mean())) or 1.0
        steps = _Steps((x - centre) / scale, ridge / scale**2, weights)
        mixture, before, converged, done = start.scaled(centre, scale), -math.inf, False, 0
        while done < max_iter and not converged:
            now, mixture = steps.step(mixture)
            converged, before, done = abs(now - before) < tol, now, done + 1
        fitted = mixture.unscaled(centre, scale)
        return FittedMixture(fitted, done, converged, float(np.average(fitted.log_likelihoods(x), weights=weights)))
    except np.linalg.LinAlgError:
        raise _ill_defined() from None


def fit_sklearn(
    x: np.ndarray,
    *,
    components: int,
    tol: float,
    max_iter: int,
    ridge: float,
    seed: int,
    start: Mixture | None = None,
    weights: None = None,
) -> FittedMixture:
    """As `fit`, by scikit-learn itself, which takes no weights."""
    from sklearn.mixture import GaussianMixture

    _check(x, components)
    given = {}
    if start is not None:
        given = {
            "weights_init": start.weights / start.weights.sum(),
            "means_init": start.means,
            "precisions_init": np.linalg.inv(start.covariances),
        }
    model = GaussianMixture(
        components,
        covariance_type="full",
        tol=tol,
        max_iter=max_iter,
        reg_covar=ridge,
        random_state=random_state(seed),
        **given,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it did not converge is said in what is returned
        try:
            model.fit(x)
        except ValueError as error:
            if "ill-defined" not in str(error):
                raise
            raise _ill_defined() from None
    fitted = Mixture(model.weights_, model.means_, model.covariances_)
    return FittedMixture(fitted, model.n_iter_, model.converged_, float(fitted.log_likelihoods(x).mean()))


class _Steps:
    """EM steps on rows that are centred and scaled."""

    def __init__(self, x: np.ndarray, ridge: float, weights: np.ndarray | None) -> None:
        """`weights`: (rows,), 1 on average; None: all alike."""
        rows, d = x.shape
        self._x, self._ridge, self._weights = x, ridge, weights
        upper, right = np.triu_indices(d)
        self._features = np.empty((1 + d + len(upper), rows))  # T', a feature a line
        self._features[0] = 1
        self._features[1 : 1 + d] = x.T
        np.multiply(self._features[1 + upper], self._features[1 + right], out=self._features[1 + d :])
        self._total = self._features.sum(axis=1) if weights is None else self._features @ weights
        self._upper, self._right = upper, right
        self._twice = np.where(upper == right, -0.5, -1.0)  # of x' P x, what a product of two features is times
        self._square = np.empty((d, d), np.int64)  # which feature is the product of dimensions i and j
        self._square[upper, right] = self._square[right, upper] = np.arange(len(upper)) + 1 + d
        self._work = np.empty((2, rows))
        self._known: tuple[Mixture | None, np.ndarray | None] = None, None

    def step(self, mixture: Mixture) -> tuple[float, Mixture]:
        """The mean log-likelihood of a row, and the mixture after one step of EM.

        By features where both mixtures are such that these keep enough digits.
        """
        pivots = self._pivots(mixture)
        if pivots is None:
            return self._plain(mixture)
        eta = self._natural(mixture, pivots)
        total, sums = self._two(eta) if len(eta) == 2 else self._many(eta)
        after = self._maximum(sums)
        self._known = after, self._safe(after)
        return (total / len(self._x), after) if self._known[1] is not None else self._plain(mixture)

    def _pivots(self, mixture: Mixture) -> np.ndarray | None:
        """What `_safe` says, kept from the step before."""
        return self._known[1] if self._known[0] is mixture else self._safe(mixture)

    def _safe(self, mixture: Mixture) -> np.ndarray | None:
        """(K, d) diagonals of the roots of the covariances; None where features would lose digits."""
        if mixture.weights.min() * len(self._x) < ROWS:
            return None
        try:
            roots = np.linalg.cholesky(mixture.covariances)
        except np.linalg.LinAlgError:
            return None
        pivots: np.ndarray = np.diagonal(roots, axis1=1, axis2=2)
        return pivots if pivots.min() ** 2 >= SAFE else None

    def _natural(self, mixture: Mixture, pivots: np.ndarray) -> np.ndarray:
        """(K, features) natural parameters, weights included: eta · T(x) is the log of weight times density."""
        precisions = np.linalg.inv(mixture.covariances)
        slopes = (precisions @ mixture.means[:, :, None])[:, :, 0]
        d = slopes.shape[1]
        eta = np.empty((len(slopes), len(self._features)))
        eta[:, 0] = np.log(mixture.weights) - np.log(pivots).sum(axis=1)
        eta[:, 0] -= ((slopes * mixture.means).sum(axis=1) + d * math.log(2 * math.pi)) / 2
        eta[:, 1 : 1 + d] = slopes
        eta[:, 1 + d :] = precisions[:, self._upper, self._right] * self._twice
        return eta

    def _two(self, eta: np.ndarray) -> tuple[float, np.ndarray]:
        """Log-likelihood of all rows, and (2, features) sums over rows of responsibility times features.

        With h half the log-odds of the second component, t = tanh h, its responsibility is (1 + t) / 2, and the log of
        both densities together that of their geometric mean + |h| + log(1 + exp(-2|h|)), where the last is
        log 2 - log(1 + |t|).
        """
        half, turn = self._work
        np.matmul((eta[1] - eta[0]) / 2, self._features, out=half)
        np.tanh(half, out=turn)
        weights = self._weights
        difference = self._features @ (turn if weights is None else turn * weights)
        sums = np.stack([self._total - difference, self._total + difference]) / 2
        np.abs(half, out=half)
        np.add(np.abs(turn, out=turn), 1, out=turn)
        if weights is None:
            larger, logs = float(half.sum()), _sum_of_logs(turn)
        else:
            larger, logs = float(half @ weights), float(np.log(turn) @ weights)
        total = float((eta[0] + eta[1]) @ self._total) / 2 + larger + len(turn) * math.log(2) - logs
        return total, sums

    def _many(self, eta: np.ndarray) -> tuple[float, np.ndarray]:
        logs = eta @ self._features
        most = logs.max(axis=0)
        np.exp(np.subtract(logs, most, out=logs), out=logs)
        share = logs.sum(axis=0)
        logs /= share
        if (weights := self._weights) is None:
            return float(most.sum() + np.log(share).sum()), logs @ self._features.T
        return float((most + np.log(share)) @ weights), (logs * weights) @ self._features.T

    def _maximum(self, sums: np.ndarray) -> Mixture:
        """The mixture of the moments that features sum up to."""
        weights = sums[:, 0] + EMPTY
        averages = sums / weights[:, None]
        means = averages[:, 1 : 1 + len(self._square)]
        covariances = averages[:, self._square] - means[:, :, None] * means[:, None, :]
        covariances.reshape(len(sums), -1)[:, :: len(self._square) + 1] += self._ridge
        return Mixture(weights / weights.sum(), means, covariances)

    def _plain(self, mixture: Mixture) -> tuple[float, Mixture]:
        logs = mixture.log_densities(self._x)
        most = logs.max(axis=0)
        logs = np.exp(logs - most)
        share = logs.sum(axis=0)
        likelihood = float(np.average(most + np.log(share), weights=self._weights))
        shares = logs / share
        return likelihood, _moments(self._x, shares if self._weights is None else shares * self._weights, self._ridge)


def _sum_of_logs(factors: np.ndarray) -> float:
    """Sum of the logarithms of numbers in 1..2: a logarithm is dear, so it is taken of products."""
    whole = len(factors) - len(factors) % PIECE
    products = np.multiply.reduce(factors[:whole].reshape(PIECE, -1), axis=0)
    return float(np.log(products).sum() + np.log(factors[whole:]).sum())


def _moments(x: np.ndarray, shares: np.ndarray, ridge: float) -> Mixture:
    """The mixture of (K, rows) responsibilities, the plain way."""
    weights = shares.sum(axis=1) + EMPTY
    means = shares @ x / weights[:, None]
    covariances = np.empty((len(shares), x.shape[1], x.shape[1]))
    for k, share in enumerate(shares):
        off = x - means[k]
        covariances[k] = (share * off.T) @ off / weights[k]
        covariances[k].flat[:: x.shape[1] + 1] += ridge
    return Mixture(weights / weights.sum(), means, covariances)


def random_state(seed: int) -> np.random.RandomState:
    """What scikit-learn draws from; made of all bits of a seed."""
    return np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))


def _check(x: np.ndarray, components: int) -> None:
    if len(x) < max(components, 2):
        raise InputError(
            f"{len(x)} rows are too few for a mixture of {components} components; raise data.rows or lower gmm.components"
        )


def _ill_defined() -> InputError:
    return InputError("a component of the mixture has shrunk to a point, so it has no density; set gmm.ridge above 0")

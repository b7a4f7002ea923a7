"""Several models that learn from each other's output (docs/theory.md: Several models), drawn row by row."""

import numpy as np

from collapse_cli.simulate.estimates import LARGEST, Array, Estimate, estimate, streams, whole_rows
from collapse_cli.theory import TheoryError
from collapse_cli.theory.exchange import Exchange, LineageRows, PoolRule, equally_far, full_rank
from collapse_cli.theory.means import RealRows, Variance


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
    trials: int,
    seed: int,
) -> dict[str, Estimate]:
    """`distance`, `error`, `error_common` of `theory.isotropic_exchange`: rows are drawn, models fitted by least squares to them.

    Inputs are columns of random orthogonal matrices, so that each source's Gram matrix is its number of rows times I.
    """
    rows, dims, k = whole_rows("n", n), whole_rows("d", d), whole_rows("lineages", lineages)
    each = rows if made is None else whole_rows("made", made)
    full_rank(dims, n=rows, public=public, made=each)
    if (k * (rows + each) + public) * dims > LARGEST:
        raise TheoryError(f"{k} lineages of {rows} rows do not fit in memory; take fewer")
    later = noise if noise_synthetic is None else noise_synthetic
    truths = _simplex(k, dims, apart)
    a, b = mix.pooled, mix.private
    found = np.array(
        [
            _exchanged(random, truths, rows, public, each, (a, b), (noise, later), generations)
            for random in streams(trials, seed)
        ]
    )
    return {name: estimate(found[:, i]) for i, name in enumerate(("distance", "error", "error_common"))}


def _exchanged(
    random: np.random.Generator,
    truths: Array,
    rows: int,
    public: int,
    each: int,
    shares: tuple[float, float],
    noises: tuple[float, float],
    generations: int,
) -> tuple[float, float, float]:
    (a, b), (noise, later), k = shares, noises, len(truths)
    real = [_labelled(random, rows, truth, noise) for truth in truths]
    common = [_labelled(random, public, truths.mean(axis=0), noise)] if public and b < 1 else []
    models = np.stack([_fitted([own, *common], [b, 1 - b]) for own in real])
    for _ in range(generations):
        pool = [_labelled(random, each, model, later) for model in models] if a > 0 else []
        weights = [(1 - a) * b, *([(1 - a) * (1 - b)] if common else []), *[a / k] * len(pool)]
        models = np.stack([_fitted([own, *common, *pool], weights) for own in real])
    pairs = [np.sum((models[i] - models[j]) ** 2) for i in range(k) for j in range(i)]
    own_error, centre = np.sum((models - truths) ** 2, axis=1).mean(), truths.mean(axis=0)
    return (
        (float(np.mean(pairs)) if pairs else 0.0),
        float(own_error),
        float(np.sum((models - centre) ** 2, axis=1).mean()),
    )


def _labelled(random: np.random.Generator, rows: int, weights: Array, noise: float) -> tuple[Array, Array]:
    inputs = np.linalg.qr(random.standard_normal((rows, len(weights))))[0] * np.sqrt(rows)
    return inputs, inputs @ weights + noise * random.standard_normal(rows)


def _fitted(parts: list[tuple[Array, Array]], weights: list[float]) -> Array:
    """Least squares where the loss is the sum of each part's mean, times its weight."""
    scales = [np.sqrt(weight / len(y)) for (_, y), weight in zip(parts, weights, strict=False)]
    x = np.concatenate([x * scale for (x, _), scale in zip(parts, scales, strict=False)])
    y = np.concatenate([y * scale for (_, y), scale in zip(parts, scales, strict=False)])
    return np.asarray(np.linalg.lstsq(x, y, rcond=None)[0])


def _simplex(k: int, d: int, apart: float) -> Array:
    """(K, d) points of which every two are `apart`."""
    equally_far(k, d, apart)
    corners = np.eye(k) * apart / np.sqrt(2)
    centred = corners - corners.mean(axis=0)
    turned = centred @ np.linalg.svd(centred)[2].T  # the last coordinate is 0
    return np.pad(turned, ((0, 0), (0, max(0, d - k))))[:, :d]


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
    trials: int,
    seed: int,
) -> dict[str, Estimate]:
    """The fields of the same names of `theory.pooled_means` at the last generation, of the same arguments; every row is drawn."""
    size, k, random = whole_rows("n", n), len(truths), next(streams(1, seed))
    if trials < 1:
        raise TheoryError(f"trials is {trials}; a simulation has at least 1")
    if 3 * trials * k * (size + rows.private + rows.public + k * rows.synthetic) > LARGEST:
        raise TheoryError(f"{trials} trials do not fit in memory; take fewer")
    members = {"own": 1, "all": k, "others": k - 1, "segments": 1}[rule]
    if rows.synthetic % max(members, 1):
        raise TheoryError(f"synthetic is {rows.synthetic}; a simulation needs as many rows of each of {members} models")
    theta = np.asarray(truths, dtype=np.float64)[:, None]
    original = _of_each(theta, random.standard_normal((trials, 1 if common else k, size)))
    shared = np.broadcast_to(public_truth + random.standard_normal((trials, 1, rows.public)), (trials, k, rows.public))
    every = (rows.private, rows.public, rows.synthetic)
    masses = every if rows.masses is None else rows.masses
    alone = (float(size), float(rows.public)) if rows.masses is None else (masses[0], masses[1])
    if not any(alone):
        alone = (1.0, 0.0)
    mean, spread = _weighted([original, shared], list(alone), variance)
    for _ in range(generations):
        if real_rows == "new":
            private = _of_each(theta, random.standard_normal((trials, 1 if common else k, rows.private)))
        elif real_rows == "same":
            private = original[:, :, : rows.private]
        else:
            order = _order(random, (trials, 1, size) if common else original.shape)[:, :, : rows.private]
            private = np.take_along_axis(original, np.broadcast_to(order, (trials, k, rows.private)), axis=2)
        made = mean[:, :, None] + np.sqrt(spread)[:, :, None] * random.standard_normal((trials, k, rows.synthetic))
        mean, spread = _weighted(
            [private, shared, _taken(random, made, rule, same_rows, members)], list(masses), variance
        )
    errors, pairs = (mean - theta[:, 0]) ** 2, np.triu_indices(k, 1)
    apart = (mean[:, pairs[0]] - mean[:, pairs[1]]) ** 2
    return {
        "mean_error": estimate(errors.mean(axis=1)),
        "variance": estimate(spread.mean(axis=1)),
        "distance": estimate(apart.mean(axis=1) if k > 1 else np.zeros(trials)),
        "mixture_error": estimate((mean.mean(axis=1) - theta.mean()) ** 2),
        "mixture_variance": estimate(spread.mean(axis=1) + mean.var(axis=1)),
    }


def _of_each(theta: Array, noise: Array) -> Array:
    """(trials, K, rows) of noise (trials, K or 1, rows)."""
    return np.asarray(theta + noise)


def _order(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return np.argsort(random.random(shape), axis=-1)


def _taken(random: np.random.Generator, made: Array, rule: PoolRule, same_rows: bool, members: int) -> Array:
    """(trials, K, rows) of the rows that models made, (trials, K, rows), those that each lineage takes."""
    trials, k, rows = made.shape
    if rule == "own" or rows == 0:
        return made
    if rule == "segments":
        flat = made.reshape(trials, k * rows)
        return np.take_along_axis(flat, _order(random, flat.shape), axis=1).reshape(trials, k, rows)
    each, taken = rows // members, np.empty_like(made)
    for i in range(k):
        models = [j for j in range(k) if rule == "all" or j != i]
        parts = made[:, models]
        if not same_rows:  # other rows of the same models
            parts = np.roll(parts, -i * each, axis=2)
        taken[:, i] = parts[:, :, :each].reshape(trials, rows)
    return taken


def _weighted(parts: list[Array], masses: list[float], variance: Variance) -> tuple[Array, Array]:
    """Means and variances, (trials, K), of rows (trials, K, rows) of several kinds, each with its weight together."""
    used = [(part, mass) for part, mass in zip(parts, masses, strict=False) if part.shape[2] and mass > 0]
    total = sum(mass for _, mass in used)
    each = np.concatenate([np.full(part.shape[2], mass / total / part.shape[2]) for part, mass in used])
    rows = np.concatenate([part for part, _ in used], axis=2)
    mean = rows @ each
    if variance == "known":
        return mean, np.ones_like(mean)
    squares = np.square(rows - mean[:, :, None]) @ each
    return mean, squares / (1 - float(each @ each)) if variance == "unbiased" else squares

"""Growth laws fitted to series of generations: least squares, AICc, what may come next.

The noise is that of a chain. Generation g+1 learns from what generation g wrote, so a departure from the law stays in the
series: e(g+1) = m e(g) + noise, with m from `Law.memory` (1: a random walk). Fitting is then least squares on steps,
y(g+1) - m y(g), whose noise is independent; the seeds share the law's b and shape and have a generation 0 each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from collapse_cli.findings.forecast.history import History
from collapse_cli.findings.forecast.laws import JUMP_ALONE, LAWS, Array, Law

DISTRUST = 0.3  # of a typical step: how far any law is off in each generation to come; docs/forecast.md says why 0.3
PASSING = 3  # how soon laws without an end stop to hold: even chance after a quarter of the generations seen
HIGHEST = 1e6  # nats; where a forecast is cut off
TINY = 1e-9  # nats; noise is never taken to be less than the rounding of a log-perplexity


@dataclass(frozen=True)
class Steps:
    """The steps of all seeds: each from one measured generation to the next measured one. All arrays (steps,).

    Attributes:
        begin, end: generations.
        before, after: log-perplexity there, less that of generation 0 of the same seed.
        seed: which seed, 0, 1, … in the order of the series.
        error_before, error_after: (steps, 10) standard errors over test rows of `before` and `after`.
    """

    begin: Array
    end: Array
    before: Array
    after: Array
    seed: Array
    error_before: Array
    error_after: Array


def steps_of(series: History) -> Steps:
    """The steps of a series."""
    steps = []
    none = np.zeros(10)
    for index, (seed, by) in enumerate(series.values.items()):
        errors = series.errors.get(seed, {})
        order = sorted(by)
        for a, b in pairwise(order):
            steps.append((a, b, by[a] - by[0], by[b] - by[0], index, errors.get(a, none), errors.get(b, none)))
    columns = zip(*steps, strict=True)
    return Steps(*(np.array(column, dtype=float) for column in columns))


@dataclass(frozen=True)
class LawFit:
    """A law fitted to steps, at every shape that was tried.

    Attributes:
        slope: (shapes,) best b. loss: (shapes,) sum of squared step noise at it. weight: (shapes,) sum of squares of
            what b multiplies, so that the variance of b is that of the noise / weight.
        penalty: (shapes,) sum of the logarithms of the relative variances of steps; 0 without gaps.
        best: index of the best shape.
        counted: parameters fitted to the steps.
        steps: how many steps.
        last: the last generation.
        aic, aicc: up to a constant that all laws share; aicc is inf where it is not defined.
    """

    law: Law
    shape: Array
    slope: Array
    loss: Array
    weight: Array
    penalty: Array
    best: int
    counted: int
    steps: int
    last: float
    aic: float
    aicc: float

    @property
    def parameters(self) -> int:
        """Parameters counted by AICc: those of the law that the steps are fitted with, and the noise variance."""
        return self.counted + 1

    @property
    def noise(self) -> float:
        """Standard deviation of a step's noise in nats, with the degrees of freedom that are left."""
        return math.sqrt(float(self.loss[self.best]) / max(1, self.steps - self.counted))


def design(law: Law, steps: Steps, shapes: Array) -> tuple[Array, Array, Array]:
    """What b multiplies in each step, the memory over each step, and the relative standard deviation; (shapes, steps)."""
    gap, memory = steps.end - steps.begin, law.memory(shapes)[:, None]
    kept = memory**gap
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = np.where(memory < 1, (1 - kept**2) / (1 - memory**2), gap)
    x = law.grows(steps.end, shapes) - kept * law.grows(steps.begin, shapes)
    return x, kept, np.sqrt(variance)


def fit_law(law: Law, steps: Steps, last: float) -> LawFit:
    """Least squares over b and shape.

    For each shape of a grid b is the regression of the step noise on h; the best shape of the grid is refined within
    its neighbours (scipy, bounded).

    The constant law is taken with memory 1 or a fitted one, whichever has the lower AICc.

    AIC = N ln(loss / N) + 2k, AICc = AIC + 2k (k+1) / (N - k - 1) (Hurvich and Tsai 1989), for N steps and k parameters.
    """
    from scipy.optimize import minimize_scalar

    shapes = law.shapes(last)
    slope, loss, weight, penalty = _solve(law, steps, shapes)
    count = len(steps.end)
    objective = count * np.log(loss) + penalty
    best = int(objective.argmin())
    if law.shape:
        around = np.log(shapes[[max(best - 1, 0), min(best + 1, len(shapes) - 1)]])

        def at(log_shape: float) -> float:
            _, here, _, extra = _solve(law, steps, np.exp([log_shape]))
            return float(count * np.log(here[0]) + extra[0])

        best_fit = minimize_scalar(at, bounds=tuple(around), method="bounded", options={"xatol": 1e-9})
        if best_fit.fun < objective[best]:
            shapes = shapes.copy()
            shapes[best] = math.exp(best_fit.x)
            slope, loss, weight, penalty = _solve(law, steps, shapes)
    found_at = (shapes, slope, loss, weight, penalty)
    fit = _rated(law, found_at, best, law.counted, count, last)
    if not law.sloped:  # a plain random walk has no memory to fit
        walk = _rated(law, (np.ones(1), *_solve(law, steps, np.ones(1))), 0, 0, count, last)
        fit = min(walk, fit, key=lambda fit: fit.aicc)
    return fit


def _rated(law: Law, columns: tuple[Array, ...], best: int, counted: int, count: int, last: float) -> LawFit:
    shapes, slope, loss, weight, penalty = columns
    k = counted + 1
    aic = count * math.log(float(loss[best]) / count) + float(penalty[best]) + 2 * k
    aicc = aic + 2 * k * (k + 1) / (count - k - 1) if count > k + 1 else math.inf
    return LawFit(law, shapes, slope, loss, weight, penalty, best, counted, count, last, aic, aicc)


def _solve(law: Law, steps: Steps, shapes: Array) -> tuple[Array, Array, Array, Array]:
    x, kept, spread = design(law, steps, shapes)
    z = (steps.after - kept * steps.before) / spread
    x = x / spread
    floor = len(steps.end) * TINY**2
    penalty = 2 * np.log(spread).sum(1)
    if not law.sloped:
        return np.zeros(len(shapes)), np.maximum((z**2).sum(1), floor), np.ones(len(shapes)), penalty
    weight = (x**2).sum(1)
    slope = (x * z).sum(1) / weight
    if law.only_up:
        slope = np.maximum(slope, 0)
    loss = np.maximum(((z - slope[:, None] * x) ** 2).sum(1), floor)
    return slope, loss, weight, penalty


def fit_all(series: History) -> list[LawFit]:
    """Every law that can be asked of a series, fitted to it."""
    steps = steps_of(series)
    fits = [fit_law(law, steps, series.last) for law in LAWS if law.origin == 0]
    return fits + [fit for law in LAWS if law.origin and (fit := _after_jump(law, series, steps)) is not None]


def _after_jump(law: Law, series: History, steps: Steps) -> LawFit | None:
    """A law that holds from its origin on, or the jump alone, whichever has the lower AICc.

    The jump to there is a parameter of its own: it fits the mean jump of the seeds,
    and what the seeds' jumps differ by is noise as that of other steps.
    """
    later = series.since(law.origin)
    if later is None or later.last < 3:
        return None
    jumps = np.array([by[law.origin] - by[0] for by in series.values.values()])
    apart, candidates = float(((jumps - jumps.mean()) ** 2).sum()), []
    for law_tried in (law, JUMP_ALONE):
        fit = fit_law(law_tried, steps_of(later), later.last)
        parts = (fit.shape, fit.slope, fit.loss + apart, fit.weight, fit.penalty)
        candidates.append(_rated(law_tried, parts, fit.best, law_tried.counted, len(steps.end), later.last))
    return min(candidates, key=lambda fit: fit.aicc)


def weights(scores: Sequence[float]) -> Array:
    """Akaike weights: exp(-score/2), normalised (Burnham and Anderson 2002, section 2.9); inf weighs nothing."""
    values = np.array(scores)
    relative = np.exp(-(values - values.min()) / 2)
    return np.asarray(relative / relative.sum())


def mixture(fits: Sequence[LawFit]) -> Array:
    """The weights that a forecast gives the laws: by AIC among those whose AICc is defined.

    AICc's correction is made for choosing one law that is true enough. With the five steps of six generations it weighs
    a shape parameter as 18 units of AIC, so that a plateau in plain sight is forecast as a line; in back-tests the
    intervals of that missed (docs/forecast.md). What too many laws cost is paid in wider intervals instead.
    """
    return weights([fit.aic if math.isfinite(fit.aicc) else math.inf for fit in fits])


def levels_off(series: History) -> bool:
    """Whether laws of growth that come to a halt by themselves have most of a forecast's weight.

    A constant is no such law: where it leads, no growth is shown. Without enough generations nothing is forecast, nor from
    losses beyond `HIGHEST`.
    """
    if not series.enough or max(max(by.values()) for by in series.values.values()) > HIGHEST:
        return False
    fits = fit_all(series)
    return sum(float(share) for fit, share in zip(fits, mixture(fits), strict=True) if fit.law.halts) > 0.5


def typical_step(series: History) -> float:
    """Root mean square change of the mean log-perplexity from one generation to the next, in nats."""
    known = [(g, series.mean(g)) for g in series.generations() if not math.isnan(series.mean(g))]
    squares = [(b - a) ** 2 / (h - g) for (g, a), (h, b) in pairwise(known)]
    return math.sqrt(sum(squares) / len(squares)) if squares else 0.0


def paths(
    series: History,
    fits: Sequence[LawFit],
    share: Array,
    horizon: int,
    draws: int,
    rng: np.random.Generator,
    *,
    distrusted: float = DISTRUST,
    lasting: bool = True,
    highest: float = HIGHEST,
) -> Array:
    """How the mean of the farthest seeds may go on.

    Each path draws a law by its weight; a shape by its likelihood, with b integrated out; the noise from its scaled
    inverse chi-square; b from its normal distribution; then the noise of the steps to come, averaged over the seeds, and
    besides, the same for all seeds, a departure of the law itself, `distrusted` times a typical step in each generation.

    Args:
        share: (laws,) weights.
        horizon: how many generations after the last one.
        highest: log-perplexity at which paths are cut off.
        lasting: whether laws that never level off hold for a limited time only (`_breaking`).

    Returns:
        (draws, horizon) log-perplexity of generations last+1, …
    """
    counts = rng.multinomial(draws, share)
    ahead = series.last + 1 + np.arange(horizon)
    parts = []
    for fit, count in zip(fits, counts, strict=True):
        if count == 0:
            continue
        at, noise, slope = _parameters(fit, int(count), rng)
        origin = fit.law.origin
        start, change = series.mean(origin), series.mean(series.last) - series.mean(origin)
        used, place = np.unique(at, return_inverse=True)
        grown = fit.law.grows(np.append(series.last, ahead).astype(float) - origin, fit.shape[used])
        memory = fit.law.memory(fit.shape)[at]
        path = slope[:, None] * grown[place]
        if lasting and not fit.law.levels_off:
            path = _breaking(path, series.last - origin, rng)
        distrust = distrusted * typical_step(series.since(origin) or series)  # a jump that is past says nothing of it
        spread = np.sqrt(noise**2 / len(series.farthest) + distrust**2)
        departure = change - path[:, 0]
        made = np.empty((horizon, int(count)))  # by generation: a row each is several times as fast as a column each
        courses = np.ascontiguousarray(path.T)
        for i, luck in enumerate(rng.standard_normal((horizon, int(count)))):
            departure = memory * departure + spread * luck
            made[i] = courses[i + 1] + departure
        made = made.T
        parts.append(np.clip(start + made, 0, highest))
    return np.concatenate(parts)


def _breaking(path: Array, last: int, rng: np.random.Generator) -> Array:
    """Paths of a law, (draws, 1 + horizon), each of which follows it for a time and then becomes a line.

    A law that was seen for n generations holds for h more with the chance (n / (n + h))^`PASSING`; the line has the slope
    that the path then had, times a number drawn from 0 to 2. What lasts is the longer expected to last the longer it has
    (Gott 1993, Nature 363, has the power 1); growth that speeds up or slows down later than was seen is met in both cases.
    """
    draws, steps = len(path), np.diff(path, axis=1)
    with np.errstate(divide="ignore", over="ignore"):
        holds = np.minimum(last * (rng.random(draws) ** (-1 / PASSING) - 1), steps.shape[1] - 1).astype(int)
    after = 2 * rng.random(draws) * steps[np.arange(draws), holds]
    late = np.arange(steps.shape[1]) > holds[:, None]
    steps = np.where(late, after[:, None], steps)
    return np.concatenate([path[:, :1], path[:, :1] + steps.cumsum(axis=1)], axis=1)


def spread_at(fits: Sequence[LawFit], share: Array, generation: int, draws: int, rng: np.random.Generator) -> Array:
    """By how much one seed's log-perplexity at a generation may differ from the expected one, (draws,)."""
    departures = []
    for fit, count in zip(fits, rng.multinomial(draws, share), strict=True):
        at, noise, _ = _parameters(fit, int(count), rng)
        memory, departure = fit.law.memory(fit.shape)[at], np.zeros(int(count))
        for _ in range(generation):
            departure = memory * departure + noise * rng.standard_normal(int(count))
        departures.append(departure)
    return rng.permutation(np.concatenate(departures))


def _parameters(fit: LawFit, count: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """(count,) draws of the shape's index, the standard deviation of the noise, and b."""
    freedom = max(1, fit.steps - fit.law.sloped - fit.law.origin)
    total = np.ones(len(fit.shape))  # flat in the whole change, b h(last), whatever the shape
    if fit.law.sloped:
        total = fit.law.grows(np.array([fit.last]), fit.shape)[:, 0]
    log = -np.log(np.sqrt(fit.weight) / total) - freedom / 2 * np.log(fit.loss / fit.loss.min()) - fit.penalty / 2
    chance = np.exp(log - log.max())
    at = rng.choice(len(chance), count, p=chance / chance.sum())
    noise = np.sqrt(fit.loss[at] / rng.chisquare(freedom, count))
    slope: Array = np.zeros(count)
    if fit.law.sloped:
        slope = fit.slope[at] + noise / np.sqrt(fit.weight[at]) * rng.standard_normal(count)
    return at, noise, np.maximum(slope, 0) if fit.law.only_up else slope

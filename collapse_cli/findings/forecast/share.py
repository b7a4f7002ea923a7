"""The smallest share of real data that keeps a generation near generation 0, and what run would narrow it most.

Log-perplexity at generation N less that of generation 0, R, is known at the shares that were run. R is taken to fall with the
share and to do so ever more slowly (convex): each further tenth of real data helps less than the tenth before. Then between
two measured shares the curve lies below the chord and above the chords next to it, prolonged; how far between the two is
drawn, so what was not measured is not known either. Nothing is said beyond the shares that were measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from collapse_cli.config.policies import Policy, percent_kept
from collapse_cli.findings.forecast.laws import Array
from collapse_cli.metrics.intervals import NOISE, PRIOR

POINTS = 1001  # shares 0, 0.1 … 100 on which curves are looked at
TRUTHS, CURVES = 200, 1500  # when a run to come is weighed: curves taken for the truth in turn, and curves weighed
AT_ONCE = 25  # truths: as many as fit into a cache


@dataclass(frozen=True)
class Ratios:
    """What is known of R.

    Attributes:
        percents: (shares,) ascending.
        draws: (draws, shares) of the mean over seeds to come, in nats.
        middle: (shares,) what was measured or is expected.
        noise: standard deviation of one seed's R.
        seeds: seeds of each policy.
    """

    percents: Array
    draws: Array
    middle: Array
    noise: float
    seeds: int


def falling(values: Array) -> Array:
    """The nearest sequences that never rise, by rows: isotonic regression, the max-min formula (Barlow et al. 1972)."""
    n = values.shape[1]
    total = np.concatenate([np.zeros((len(values), 1)), values.cumsum(1)], axis=1)
    mean = np.empty((len(values), n, n))  # mean of values[i..j]
    for i in range(n):
        for j in range(n):
            a, b = min(i, j), max(i, j)
            mean[:, i, j] = (total[:, b + 1] - total[:, a]) / (b + 1 - a)
    fitted = np.empty_like(values)
    for k in range(n):
        fitted[:, k] = np.min(np.stack([mean[:, i, k:].max(1) for i in range(k + 1)]), axis=0)
    return fitted


def curves(percents: Array, values: Array, between: Array) -> Array:
    """R at the shares 0, 0.1 … 100, (draws, POINTS); NaN outside the measured ones.

    Args:
        values: (draws, shares) that never rise.
        between: (draws,) 0: the lowest convex curve, 1: the chords.
    """
    grid = np.linspace(0, 100, POINTS)
    ratios_at = np.full((len(values), POINTS), np.nan)
    n = len(percents)
    slopes = np.diff(values, axis=1) / np.diff(percents)
    for i in range(n - 1):
        at = np.flatnonzero((grid >= percents[i] - 1e-9) & (grid <= percents[i + 1] + 1e-9))
        x = grid[at]
        chord = values[:, i, None] + slopes[:, i, None] * (x - percents[i])
        low = np.broadcast_to(values[:, i + 1, None], chord.shape)
        if i > 0:
            low = np.maximum(low, values[:, i, None] + slopes[:, i - 1, None] * (x - percents[i]))
        if i + 2 < n:
            low = np.maximum(low, values[:, i + 1, None] + slopes[:, i + 1, None] * (x - percents[i + 1]))
        low = np.minimum(low, chord)
        low[:, np.isclose(x, percents[i])] = values[:, i, None]
        ratios_at[:, at] = between[:, None] * chord + (1 - between[:, None]) * low
    return ratios_at


def crossing(percents: Array, ratios_at: Array, threshold: float) -> Array:
    """The smallest share with R <= threshold, (draws,): -inf when the smallest measured one has it, inf when none has."""
    first, last = round(percents[0] * 10), round(percents[-1] * 10)
    under = ratios_at[:, first : last + 1] <= threshold + 1e-12
    at = np.where(under.any(1), (first + under.argmax(1)) / 10, math.inf)
    return np.where(under[:, 0], -math.inf, at)


def smallest_share(
    ratios: Ratios, factor: float, rng: np.random.Generator, *, candidates: bool = True
) -> dict[str, Any]:
    """Median and intervals of the smallest share, and candidates for the next run.

    Returns:
        `share`, `low50`, `high50`, `low90`, `high90`: {"value": percent or null, "bound": "" | "below" | "above"};
        `chance_below`, `chance_above`: how probable it is that the share lies outside the measured ones;
        `next`: candidates, the best first: of those whose expected width is within a tenth of the least, the one that
        needs the fewest `chains` (a seed under a policy), and of those a share in round numbers.
    """
    values = falling(ratios.draws)
    between = rng.random(len(values))
    ratios_at = curves(ratios.percents, values, between)
    shares = crossing(ratios.percents, ratios_at, math.log(factor))
    names = {"low90": 0.05, "low50": 0.25, "share": 0.5, "high50": 0.75, "high90": 0.95}
    record: dict[str, Any] = {name: _bounded(_quantile(shares, q), ratios) for name, q in names.items()}
    record["chance_below"] = float((shares == -math.inf).mean())
    record["chance_above"] = float((shares == math.inf).mean())
    if record["low90"]["bound"] == record["high90"]["bound"] != "":
        record["next"] = _farther(ratios, record["low90"]["bound"])
    else:
        record["next"] = _candidates(ratios, values, between, math.log(factor), rng) if candidates else []
    return record


def _farther(ratios: Ratios, bound: str) -> list[dict[str, Any]]:
    """The next share where the wanted one lies outside for sure: twice the largest, or half the smallest."""
    first, last = float(ratios.percents[0]), float(ratios.percents[-1])
    percent = first / 2 if bound == "below" else min(2 * last, (last + 100) / 2) or 10.0
    if (bound == "below" and first == 0) or (bound == "above" and last == 100):
        return []
    percent = round(percent) if 1 < round(percent) < 100 and round(percent) not in (first, last) else round(percent, 1)
    return [
        {"policy": str(Policy("keep", float(percent))), "chains": ratios.seeds, "width": None, "expected_width": None}
    ]


def _quantile(values: Array, q: float) -> float:
    """A quantile that is one of the values: infinite ones are not mixed with others."""
    return float(np.sort(values)[min(len(values) - 1, int(q * len(values)))])


def _bounded(value: float, ratios: Ratios) -> dict[str, Any]:
    if math.isinf(value):
        end = ratios.percents[0] if value < 0 else ratios.percents[-1]
        return {"value": float(end), "bound": "below" if value < 0 else "above"}
    return {"value": round(value, 1), "bound": ""}


def _candidates(
    ratios: Ratios, values: Array, between: Array, threshold: float, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """Runs to come, by the width that the 90% interval is expected to have after each.

    Each of some curves is taken for the truth in turn; what a run would measure is drawn from it; all curves are weighed by
    how well they agree with that; the width of their weighed interval is averaged. To have curves beyond the measured shares
    as well, here, and only here, R is taken to be 0 at 100% real data, and to rise on below the smallest share by as much
    as it may: to twice the slope of the first chord.
    """
    percents, all_values = _beyond(ratios.percents, values[:CURVES])
    ratios_at = curves(percents, all_values, between[:CURVES])
    shares = np.clip(crossing(percents, ratios_at, threshold), percents[0], percents[-1])
    ascending = np.argsort(shares, kind="stable")
    sorted_shares = shares[ascending]
    before = float(_widths(sorted_shares, np.ones((1, len(shares))))[0])
    noise = ratios.noise / math.sqrt(ratios.seeds)
    luck = rng.standard_normal((TRUTHS, len(ratios.percents)))  # the same for all candidates
    low, high = _quantile(shares, 0.02), _quantile(shares, 0.98)
    options: list[tuple[dict[str, Any], Sequence[int]]] = [
        ({"policy": str(Policy("keep", float(percent)))}, [round(percent * 10)])
        for percent in _nice(low, high, ratios.percents)
    ]
    measured = [round(percent * 10) for percent in ratios.percents]
    options.append(({"more_seeds": ratios.seeds}, measured))
    rated = []
    for what, at in options:
        weighed, widths = ratios_at[:, at][ascending], []
        for truth in range(0, min(TRUTHS, len(ratios_at)), AT_ONCE):
            truths = ratios_at[truth : min(truth + AT_ONCE, TRUTHS), at]
            seen = truths + noise * luck[truth : truth + len(truths), : len(at)]
            away = ((weighed - seen[:, None]) / max(noise, 1e-6)) ** 2
            log = -away.sum(2) / 2
            widths.append(_widths(sorted_shares, np.exp(log - log.max(1, keepdims=True))))
        chains = ratios.seeds * (1 if "policy" in what else len(measured))
        rated.append(
            what | {"chains": chains, "width": before, "expected_width": float(np.mean(np.concatenate(widths)))}
        )
    near = 1.1 * min(option_rated["expected_width"] for option_rated in rated)

    def order(option: dict[str, Any]) -> tuple[float, int, bool, float]:
        """Nearly as narrow counts as equal; then cheap, then a round number."""
        percent = percent_kept(option.get("policy"))
        return (
            max(near, option["expected_width"]),
            option["chains"],
            percent is None or percent % 5 != 0,
            option["expected_width"],
        )

    return sorted(rated, key=order)[:4]


def _beyond(percents: Array, values: Array) -> tuple[Array, Array]:
    columns, ends = [values], [percents]
    if percents[-1] < 100:
        ends.append(np.array([100.0]))
        columns.append(np.minimum(values[:, -1:], 0))
    if percents[0] > 0:
        rise = (values[:, :1] - values[:, 1:2]) / (percents[1] - percents[0]) * percents[0]
        ends.insert(0, np.array([0.0]))
        columns.insert(0, values[:, :1] + 2 * rise)
    return np.concatenate(ends), np.concatenate(columns, axis=1)


def _nice(low: float, high: float, measured: Array) -> list[float]:
    """Some shares from low to high in round numbers, without those that were measured."""
    step = next(step for step in (0.5, 1, 2.5, 5, 10) if (high - low) / step <= 10 or step == 10)
    inside = np.arange(math.floor(low / step), math.ceil(high / step) + 1) * step
    return [float(p) for p in inside if 0 <= p < 100 and not np.isclose(measured, p).any()]


def _widths(values: Array, weights: Array) -> Array:
    """The width of the weighed 90% interval of ascending values, (n,), under each of some weights, (k, n): (k,)."""
    total = np.cumsum(weights, axis=1)
    low, high = ((total < part * total[:, -1:]).sum(1) for part in (0.05, 0.95))
    return np.asarray(values[np.minimum(high, len(values) - 1)] - values[low])


def from_seeds(measured: Mapping[float, Mapping[int, float]], draws: int, rng: np.random.Generator) -> Ratios | None:
    """R from seeds that all the policies have in common, at least two: multivariate t with the seeds' own covariance.

    Args:
        measured: percent -> seed -> R.

    Returns:
        None when fewer than two seeds are common.
    """
    percents = np.array(sorted(measured))
    seeds = sorted(set.intersection(*(set(by) for by in measured.values())))
    if len(seeds) < 2:
        return None
    table = np.array([[measured[percent][seed] for percent in percents] for seed in seeds])
    middle = table.mean(0)
    freedom = len(seeds) - 1
    off = table - middle
    mixed = rng.standard_normal((draws, len(seeds))) @ off / math.sqrt(freedom * len(seeds))
    mixed = mixed * np.sqrt(freedom / rng.chisquare(freedom, draws))[:, None]
    noise = math.sqrt(float((off**2).sum(0).mean()) / freedom)
    return Ratios(percents, middle + mixed, middle, noise, len(seeds))


def between_seeds(values: Sequence[float], draws: int, rng: np.random.Generator) -> Array:
    """How far the mean of a few seeds may lie from that of all seeds, (draws,), in nats.

    Of one seed nothing shows that, so its draws have the standard deviation `NOISE`; of several the moderated t of
    `intervals.log_ratio`.
    """
    n = len(values)
    if n < 2:
        return np.asarray(NOISE * rng.standard_normal(draws))
    freedom = n - 1 + PRIOR
    squares = float(np.square(np.subtract(values, np.mean(values))).sum()) + PRIOR * NOISE**2
    return np.asarray(math.sqrt(squares / freedom / n) * rng.standard_t(freedom, draws))

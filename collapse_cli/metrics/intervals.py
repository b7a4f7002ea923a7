"""Intervals: Student's t over few seeds, paired differences over common seeds, and estimates that bring their standard error."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

LEVEL = 0.95
NOISE = 0.3  # nats: how far apart the log-ratios of seeds are taken to lie by chance, as a standard deviation, at most
# fields of `metrics.jsonl` that are never below 0; those of which no value lies outside of 0..1; all others have no bounds
NOT_NEGATIVE = {
    *("variance", "std", "mean_shift_squared", "w2_squared", "l2_squared", "component_std_min", "component_std_max"),
    *("latent_spread", "latent_std_all", "error", "kl", "kl_truth", "tail_mass_recall", "longest_repeat", "iterations"),
    *(
        "unigram_entropy",
        "next_token_entropy",
        "predictive_entropy",
        "sample_entropy",
        "corpus_entropy",
        "nll",
        "seen_nll",
    ),
    *(
        "nll_unseen",
        "bits_per_byte",
        "longest_repeat_max",
        "sample_log_perplexity_mean",
        "sample_log_perplexity_median",
    ),
    *("sample_log_perplexity_std", "sample_log_perplexity_variance"),
    *("breeds_left", "breeds_kl", "facts_left", "possible_nll"),
    *("mixture_nll", "mixture_gain", "mixture_variance", "distance_to_others"),
}
SHARES = {
    *("accuracy", "calibration_error", "vocabulary_coverage", "recall_by_decile", "type_token_ratio", "mauve"),
    *(
        "distinct_1",
        "distinct_2",
        "distinct_3",
        "distinct_4",
        "rep_2",
        "rep_3",
        "rep_4",
        "prompt_overlap_4",
        "missing_mass",
        "largest_weight",
    ),
    *(
        "breeds_tv",
        "facts_true",
        "facts_true_by_band",
        "facts_left_by_band",
        "sentences_accepted",
        "documents_possible",
    ),
    *("association", "breeds_unknown", "people_unknown", "places_unknown", "dates_unknown"),
    "js_distance",
}
PRIOR = 2  # degrees of freedom that this prior knowledge counts for
BEYOND_SQUARES = 1e150  # a number whose square is near the end of floats; losses of damaged rows alone are as large


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: of the values, in their unit.
        low, high: ends of the interval; None where there is none (one value, or values that are not finite).
        n: how many values the mean is of; for an estimate over test rows 1, the one seed.
    """

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def exact(self) -> bool:
        """Whether all of several values are one and the same, so that there is no width: chance had no part in them."""
        return self.n > 1 and self.low is not None and self.low == self.high

    @property
    def half(self) -> float | None:
        """Half the width of the interval; of a symmetric one, what stands after ±."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    def within(self, function: Callable[[float], float]) -> "Interval":
        """The interval of an increasing function of the mean: `math.exp` makes of a difference in nats a ratio."""
        low, high = (None if end is None else function(end) for end in (self.low, self.high))
        return Interval(function(self.mean), low, high, self.n)

    def record(self) -> dict[str, float | int | None]:
        """As JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


@lru_cache(maxsize=4096)
def t_quantile(freedom: float, probability: float) -> float:
    """Quantile of Student's t with `freedom` degrees of freedom, which need not be whole."""
    from scipy.special import stdtrit  # scipy.stats gives the same number and takes a second to import

    return float(stdtrit(freedom, probability))


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean of independent values, one per seed, with its t interval: mean ± t(n - 1) · s / √n (Student, Biometrika 1908).

    It assumes values that are roughly normal over seeds. Perplexities are not (they grow by factors): for ratios of
    them take the interval of log-perplexities, `interval(...).within(math.exp)`.

    Args:
        values: at least one; one alone has no interval.

    Raises:
        ValueError: for no values, or a level outside (0, 1).
    """
    if not values or not 0 < level < 1:
        raise ValueError(f"an interval at level {level} of {len(values)} values")
    n = len(values)
    mean = sum(value / n for value in values)  # divided first: perplexities may be as large as floats go
    if n == 1:
        return Interval(float(values[0]), None, None, 1)
    if min(values) == max(values):  # the mean of which rounding might move
        return _ends(float(values[0]), 0.0, n)
    scale = max(abs(value - mean) for value in values)
    if not math.isfinite(scale):
        return Interval(mean, None, None, n)
    spread = scale * math.sqrt(sum(((value - mean) / scale) ** 2 for value in values) / (n - 1)) if scale else 0.0
    half = t_quantile(n - 1, (1 + level) / 2) * spread / math.sqrt(n)
    return _ends(mean, half, n)


def log_ratio(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean of log-ratios, one per seed, with the narrower of two intervals; of one seed none.

    The t interval over seeds assumes nothing of their noise, and with two seeds is 12.7 standard errors wide. The other is
    that of the moderated t (Smyth 2004, Stat. Appl. Genet. Mol. Biol. 3:3): the variance over seeds is shrunk towards
    `NOISE` squared, which counts for `PRIOR` degrees of freedom. Where the noise of seeds is at most `NOISE`, the narrower
    of the two leaves out the truth in 5 to 6% of cases; docs/metrics.md, "How often the words are wrong".

    Args:
        values: at least one; differences of log-perplexity in nats.
    """
    plain = interval(values, level)
    if plain.half is None or plain.half > BEYOND_SQUARES:
        return plain
    n = plain.n
    squares = math.fsum((value - plain.mean) ** 2 for value in values)
    freedom = n - 1 + PRIOR
    spread = math.sqrt((squares + PRIOR * NOISE**2) / freedom)
    half = t_quantile(freedom, (1 + level) / 2) * spread / math.sqrt(n)
    return plain if plain.half <= half else _ends(plain.mean, half, n)


def takes_noise_for_granted(values: Sequence[float], level: float = LEVEL) -> bool:
    """Whether the interval of `log_ratio` is narrower than what the seeds alone show, and so has to say what it assumes."""
    plain, over = interval(values, level).half, log_ratio(values, level).half
    return plain is not None and over is not None and over < plain


def geometric(values: Sequence[float], level: float = LEVEL) -> Interval:
    """Geometric mean of positive values, one per seed, with the t interval of the mean logarithm.

    For what differs by factors: perplexities, ratios, variances. Neither end is below 0, and the interval is not symmetric.
    Of values of which one is 0 or less the mean and interval on the linear scale, cut at 0 where none is negative.
    """
    if min(values) > 0:
        return interval([math.log(value) for value in values], level).within(_exp)
    plain = interval(values, level)
    return plain.within(lambda end: max(0.0, end)) if min(values) == 0 else plain


def over_seeds(name: str, values: Sequence[float], level: float = LEVEL) -> Interval:
    """Mean over seeds and interval of a field of `metrics.jsonl`, on the scale that the field has.

    Perplexities differ by factors: geometric mean, interval of the mean logarithm. All else is on the linear scale. Ends are cut at
    what the field cannot be (`bounds`).
    """
    if logarithmic(name):
        return cut(name, geometric(values, level), values)
    return cut(name, interval(values, level), values)


def bounds(name: str) -> tuple[float, float]:
    """What values of a field cannot lie outside of."""
    if logarithmic(name):
        return 1.0, math.inf
    if name in SHARES or name.endswith(("_rate", "_share")):
        return 0.0, 1.0
    return (0.0, 100.0) if name == "self_bleu" else (0.0 if name in NOT_NEGATIVE else -math.inf, math.inf)


def cut(name: str, over: Interval, values: Sequence[float]) -> Interval:
    """The interval of a field's mean with its ends within the field's bounds."""
    least, most = bounds(name)
    if not least <= min(values) <= max(values) <= most:
        return over  # damaged, or of a newer version: shown as it is
    return over.within(lambda end: min(most, max(least, end)))


def logarithmic(name: str) -> bool:
    """Whether a field's means over seeds are on the log scale: perplexities, not their logarithms."""
    return name.endswith("perplexity") and "log_" not in name


def allowed(ratio: Interval) -> Interval:
    """A log-ratio of one seed with the interval that noise of standard deviation `NOISE` would give it; others as they are.

    For words, never to be shown: nothing in one seed's number says how far another's would lie from it.
    """
    if ratio.n > 1 or ratio.low is not None:
        return ratio
    return normal(ratio.mean, NOISE)


def _exp(value: float) -> float:
    return math.exp(min(value, 709.78))


def paired(first: Mapping[int, float], second: Mapping[int, float], level: float = LEVEL) -> Interval | None:
    """Mean of first[seed] - second[seed] over the seeds that both have, with its t interval; None when there are none.

    Policies share random numbers at the same seed, so what a seed does to both drops out of the difference.
    """
    common = sorted(first.keys() & second.keys())
    return interval([first[seed] - second[seed] for seed in common], level) if common else None


def normal(estimate: float, error: float | None, level: float = LEVEL) -> Interval:
    """Interval of one seed's estimate from its standard error over rows: estimate ± z · error.

    It says how well the test rows (or samples) pin down this one model's number, nothing about other seeds.

    Args:
        error: standard error over rows; None: no interval.
    """
    if error is None or not math.isfinite(error):
        return Interval(estimate, None, None, 1)
    from scipy.special import ndtri

    return _ends(estimate, float(ndtri((1 + level) / 2)) * error, 1)


def scattered(estimate: float, error: float | None, scatter: float, freedom: int, level: float = LEVEL) -> Interval:
    """Interval of one seed's estimate with two sources of error: over rows, and a scatter estimated from few values.

    The errors add in squares; the t quantile has the degrees of freedom of Welch and Satterthwaite (Biometrics 1946),
    where the error over rows counts as known.

    Args:
        error: standard error over rows; None: no interval.
        scatter: the other standard error.
        freedom: degrees of freedom of its estimate; 0: it is not known, and only `error` counts.
    """
    if error is None or freedom == 0 or not scatter > 0:
        return normal(estimate, error, level)
    total = math.hypot(error, scatter)
    quantile = t_quantile(min(freedom * (total / scatter) ** 4, 1e9), (1 + level) / 2)
    return _ends(estimate, quantile * total, 1)


def _ends(mean: float, half: float, n: int) -> Interval:
    low, high = mean - half, mean + half
    return Interval(mean, low, high, n) if math.isfinite(low) and math.isfinite(high) else Interval(mean, None, None, n)

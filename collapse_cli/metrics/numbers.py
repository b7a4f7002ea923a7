"""Numbers as people read them: as many digits as they carry, with intervals, units and changes. The one place."""

import math
from collections.abc import Sequence

from collapse_cli.metrics import NO_WORDS
from collapse_cli.metrics.intervals import Interval


def value(number: float | None, digits: int = 3) -> str:
    """A number for people: 46.9, 974, 1,204, 0.031, 3.02e+09."""
    if number is None or not math.isfinite(number):
        return "–"
    if number != 0 and (abs(number) >= 1e6 or abs(number) < 1e-4):
        return f"{number:.{digits - 1}e}"
    if abs(number) >= 10 ** (digits - 1):
        return f"{number:,.0f}"
    return f"{number:#.{digits}g}".rstrip(".") if number else "0"


AS_FACTOR = 2.0  # times; from which on a change is told as a factor, not in percent
MOST_DIGITS = 6  # of numbers whose intervals are narrow: 0.500 (0.500 to 0.500) would look as if there were none
LARGEST = 1e300  # ratios from here on are of perplexities beyond all floats: they are no figures
BEYOND = "above ×1e300"
SAME = "same for all seeds"  # of a number that chance has no part in, as generation 0 of a model by counting


def alike(over: Interval, *, seen: bool = False) -> str:
    """What stands behind a number that is one and the same for several seeds.

    A 0, and a share of 1, may be rare cases that no seed happened to have: of these it is said how many seeds had none.

    Args:
        seen: it is how many things were seen, or which share of them.
    """
    if over.mean == 0:
        return f"none seen in {over.n} seeds" if seen else f"in each of {over.n} seeds"
    return f"in each of {over.n} seeds" if seen and over.mean == 1 else SAME


def spread(interval: Interval | None, *, share: bool = False) -> str:
    """A mean with its interval: 46.9 (45.1 to 48.8); the mean alone where one seed gives none; 0.174 (same for all seeds).

    Args:
        share: a share, in percent; a t interval's ends that no share can have are cut at 0% and 100%.
    """
    if interval is None:
        return "–"
    written = percent if share else value
    if interval.low is None or interval.high is None:
        return written(interval.mean)
    if interval.exact:
        return f"{written(interval.mean)} ({alike(interval, seen=share)})"
    low, high = (max(0.0, interval.low), min(1.0, interval.high)) if share else (interval.low, interval.high)
    if share:
        return f"{percent(interval.mean)} ({percent(low)} to {percent(high)})"
    digits = next(
        (digits for digits in range(3, MOST_DIGITS) if value(low, digits) != value(high, digits)), MOST_DIGITS
    )
    return f"{value(interval.mean, digits)} ({value(low, digits)} to {value(high, digits)})"


def percent(share: float) -> str:
    """A share for people: 79%, 4.1%, 0.03%."""
    return f"{share:.0%}" if abs(share) >= 0.0995 else f"{share * 100:.2g}%"


def perplexity(value: float) -> str:
    """Three digits, or all before the point: 46.9, 974, 1,204, 3.02e+09. One at the largest float is only known to be beyond."""
    if 1e308 < value < math.inf:  # a mean of logarithms does not quite come back to the largest float
        return "above 1e308"
    if not math.isfinite(value) or value >= 1e6:
        return f"{value:.3g}"
    return _written(value, 3)


def change(value: float, first: float) -> str:
    """Relative to generation 0: +12%, or ×20.8 where percent grow unwieldy."""
    ratio = value / first
    if value >= LARGEST or ratio >= LARGEST:
        return BEYOND
    return f"×{_written(ratio, 3)}" if ratio >= 10 else f"{ratio - 1:+.0%}".replace("-0%", "+0%")


def factor(ratio: float) -> str:
    """A multiple of generation 0 in words: +15%, from 2 on ×2.44."""
    return factors(Interval(ratio, None, None, 1))[0]


def factors(ratio: Interval) -> tuple[str, str]:
    """A multiple of generation 0 and its interval in the same words: ("+15%", "+9% to +21%"); "" without one."""

    def in_words(number: float, digits: int = 0) -> str:
        if number >= LARGEST:
            return BEYOND
        if ratio.mean < AS_FACTOR:
            text = f"{number - 1:+.{digits}%}"
            return text if text.strip("-0.%") else text.replace("-", "+")
        return f"×{_written(number, 3 + digits)}"

    if ratio.low is None or ratio.high is None:
        return in_words(ratio.mean), ""
    if ratio.exact:
        return in_words(ratio.mean), SAME
    low, high = ratio.low, ratio.high  # narrow ones in as many digits as show a width
    digits = next((more for more in range(3) if in_words(low, more) != in_words(high, more)), 3)
    return in_words(ratio.mean, digits), f"{in_words(low, digits)} to {in_words(high, digits)}"


def with_interval(value: Interval) -> str:
    """A perplexity with its interval, where it has one: 871 (264–3,870); 413 (same for all seeds)."""
    if value.low is None or value.high is None:
        return perplexity(value.mean)
    if value.exact:
        return f"{perplexity(value.mean)} ({SAME})"
    return f"{perplexity(value.mean)} ({perplexity(value.low)}–{perplexity(value.high)})"


def with_factor(value: Interval) -> str:
    """The same in less room, of an interval on the log scale: 871 ×÷4.43 is from 871 / 4.43 to 871 × 4.43."""
    if value.low is None or value.high is None or value.low <= 0 or value.exact:
        return with_interval(value)
    factor = value.high / value.mean if value.high / value.mean < math.inf else math.inf  # the low end may be cut at 1
    if factor < 1.005:  # which three digits would make 1.00, as if there were no interval
        return f"{perplexity(value.mean)} ×÷{1 + float(f'{factor - 1:.2g}'):.9g}"
    return f"{perplexity(value.mean)} ×÷{perplexity(factor)}"


def word_perplexity(value: float | None) -> str:
    """A word perplexity, or why there is none."""
    return NO_WORDS if value is None else perplexity(value)


def duration(seconds: float, *, fine: bool = False) -> str:
    """Seconds as people say them: 0.4 s, 35 s, 12 min, 3.5 h; `fine`: two digits of few seconds, 0.035 s."""
    if seconds < 9.95:
        return f"{seconds:.2g} s" if fine else f"{seconds:.1f} s"
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * 3600 else f"{seconds / 3600:.1f} h"


def about(count: float) -> str:
    """An estimate of a count, to two digits: 4,100."""
    return f"{to_two_digits(count):,.0f}" if math.isfinite(count) else "∞"


def to_two_digits(count: float) -> float:
    """An estimate of a count, to two digits."""
    return float(f"{count:.2g}")


def size(count: float) -> str:
    """Bytes as people say them: 999 kB, 1.2 MB, 12,000 TB."""
    return _in_thousands(count, (" B", " kB", " MB", " GB", " TB"))


def prefixed(count: float) -> str:
    """A large number with a prefix: 1.2 M, 3.4 P."""
    return _in_thousands(count, ("", " k", " M", " G", " T", " P", " E"))


def _in_thousands(count: float, units: Sequence[str]) -> str:
    """In the first unit of which it is less than a thousand, as it is written; of the last one in all digits."""
    for unit in units[:-1]:
        if count < 999.5:
            return f"{count:.3g}{unit}"
        count /= 1000
    return f"{count:.3g}{units[-1]}" if count < 999.5 else f"{count:,.0f}{units[-1]}"


def _written(number: float, digits: int) -> str:
    """A number in so many digits, or all that stand before the point: 0.120, 99.9, 100, 1,234, 3.02e+09."""
    text = f"{number:#.{digits}g}".rstrip(".")
    return f"{number:,.0f}" if 1000 <= float(text) < 1e6 else text

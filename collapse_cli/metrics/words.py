"""Numbers for people: as many digits as they carry, and intervals in words."""

import math

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


MOST_DIGITS = 6  # of numbers whose intervals are narrow: 0.500 (0.500 to 0.500) would look as if there were none
SAME = "same for all seeds"  # of a number that chance has no part in, as generation 0 of a model by counting


def spread(one: Interval | None, *, share: bool = False) -> str:
    """A mean with its interval: 46.9 (45.1 to 48.8); the mean alone where one seed gives none; 0.174 (same for all seeds).

    Args:
        share: a share, in percent; a t interval's ends that no share can have are cut at 0% and 100%.
    """
    if one is None:
        return "–"
    said = percent if share else value
    if one.low is None or one.high is None:
        return said(one.mean)
    if one.exact:
        return f"{said(one.mean)} ({SAME})"
    low, high = (max(0.0, one.low), min(1.0, one.high)) if share else (one.low, one.high)
    if share:
        return f"{percent(one.mean)} ({percent(low)} to {percent(high)})"
    digits = next(
        (digits for digits in range(3, MOST_DIGITS) if value(low, digits) != value(high, digits)), MOST_DIGITS
    )
    return f"{value(one.mean, digits)} ({value(low, digits)} to {value(high, digits)})"


def percent(share: float) -> str:
    """A share for people: 79%, 4.1%, 0.03%."""
    return f"{share:.0%}" if abs(share) >= 0.0995 else f"{share * 100:.2g}%"

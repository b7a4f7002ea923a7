"""What is said of a scaling law, in words that tables of the terminal and of the report share."""

import math

from collapse_cli.findings.scaling import ScalingLaw
from collapse_cli.metrics.numbers import about, value

HEADS = ("plateau", "plateau in theory", "exponent b", "more data stops helping at")
ONE_SEED, NO_LAW, NOT_SEEN = "not told by one seed", "no law fits", "not seen"
RULE = (
    "error = plateau + A · (n - n0)^-b; 95% intervals over seeds. A plateau is named where it makes up half of the error at "
    "the largest n or more, beyond chance"
)


def cells_of(law: ScalingLaw) -> list[str]:
    """Cells of a law, in the order of `HEADS`."""
    theory = "–" if law.theory is None else "none" if law.theory == 0 else value(law.theory)
    return [_plateau(law), theory, _exponent(law), _knee(law)]


def _plateau(law: ScalingLaw) -> str:
    if law.seeds == 1:
        return ONE_SEED
    if not law.fits:
        return NO_LAW
    low, high = law.intervals["plateau"]
    if law.claimed:
        return f"{value(law.plateau)} ({value(low)} to {value(high)})"
    return f"{NOT_SEEN} (at most {value(high)})" if high > 0 else NOT_SEEN


def _exponent(law: ScalingLaw) -> str:
    if not math.isfinite(law.exponent) or not law.fits:
        return "–"
    ends = law.intervals.get("exponent")
    return value(law.exponent) if ends is None else f"{value(law.exponent)} ({value(ends[0])} to {value(ends[1])})"


def _knee(law: ScalingLaw) -> str:
    """Where more data stops helping; of a knee that may lie beyond the largest size, that it is extrapolated."""
    if not law.claimed:
        return ONE_SEED if law.seeds == 1 else NOT_SEEN
    if law.knee <= law.sizes[0] and not law.extrapolated:
        return "n = the smallest"
    low, high = law.intervals["knee"]
    beyond = "extrapolated: " if law.extrapolated else ""
    return f"{beyond}n = {about(law.knee)} ({about(low)} to {about(high)})"

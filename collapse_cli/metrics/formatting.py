"""How measures are written."""

import math


def perplexity(value: float) -> str:
    """Three digits, or all before the point: 46.9, 974, 1,204, 3.02e+09. One at the largest float is only known to be beyond."""
    if 1e308 < value < math.inf:  # a mean of logarithms does not quite come back to the largest float
        return "above 1e308"
    if not math.isfinite(value) or value >= 1e6:
        return f"{value:.3g}"
    return f"{value:,.0f}" if value >= 100 else f"{value:#.3g}"

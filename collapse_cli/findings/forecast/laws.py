"""The growth laws: how the log-perplexity of a chain of generations may grow, and how a chain forgets an error.

For log-perplexity y of generation g every law says  y(g) = a + b h(g; shape)  with h = 0 at its origin:

    constant     y = a,                      departures fade with a memory from 0 to 1
    linear       y = a + b g
    saturating   y = a + b (1 - exp(-g / tau))
    power        y = a + b g^p,              b >= 0
    exponential  y = a + b (exp(g / tau) - 1),  b >= 0
    overshoot    y = a + b (g / tau) exp(1 - g / tau),  b >= 0: up to a peak at generation tau, then back
    jump         y = a + j + b (1 - exp(-(g - 1) / tau)) from generation 1 on: a jump of its own size, then it relaxes

a is the log-perplexity of generation 0. For a fixed shape (tau or p) a law is linear in b, so a fit is a search over one
bounded number: no starting values, no local minima that a grid does not see.
"""

from dataclasses import dataclass

import numpy as np

Array = np.ndarray
LARGEST_EXPONENT = 500.0  # exp of it is still a float when multiplied


@dataclass(frozen=True)
class Law:
    """A growth law.

    Attributes:
        shape: the name of its shape parameter, "" where it has none.
        only_up: whether b < 0 is left out: falling without end is no law of a log-perplexity, which is at least 0.
        levels_off: whether it comes to a halt by itself.
        counted: parameters that are fitted to the steps between generations: b and shape, not a, not the noise.
        sloped: whether it has a b.
        origin: the generation at which h is 0 and from which the law holds; a jump before it is free.
    """

    name: str
    shape: str = ""
    only_up: bool = False
    counted: int = 2
    levels_off: bool = False
    sloped: bool = True
    origin: int = 0

    @property
    def halts(self) -> bool:
        """Whether it grows and then comes to a halt, by that or by a jump alone."""
        return self.levels_off and self.name != "constant"

    def shapes(self, last: float, points: int = 160) -> Array:
        """The shapes that are tried, (points,), for a series that ends at generation `last`; [1.0] where there is none.

        Memory of the constant law: 0.01 to 1. tau of the saturating law: 0.4 to 4 times `last`; beyond that it is a
        line. p: 0.15 to 4. tau of the exponential law: `last`/4 to 8 times `last`; a faster one would lie in the last
        step alone. tau of the overshoot, its peak: 0.7 to `last`. tau of the jump: 0.3 to 4 times `last`.
        """
        low, high = {
            "constant": (0.01, 1.0),
            "saturating": (0.4, 4 * last),
            "power": (0.15, 4.0),
            "exponential": (last / 4, 8 * last),
            "overshoot": (0.7, max(1.0, last)),
            "jump": (0.3, 4 * max(1.0, last)),
        }.get(self.name, (1.0, 1.0))
        return np.geomspace(low, high, points) if self.shape else np.ones(1)

    def grows(self, generation: Array, shape: Array) -> Array:
        """h: (shapes, generations) for (generations,) and (shapes,)."""
        g, s = np.asarray(generation, float)[None, :], np.asarray(shape, float)[:, None]
        growth: Array = (g if self.name == "linear" else 0 * g) + 0 * s
        if self.name in ("saturating", "jump") and self.shape:
            growth = -np.expm1(-g / s)
        elif self.name == "overshoot":
            growth = g / s * np.exp(1 - g / s)
        elif self.name == "power":
            growth = g**s
        elif self.name == "exponential":
            growth = np.expm1(np.minimum(g / s, LARGEST_EXPONENT))
        return growth

    def memory(self, shape: Array) -> Array:
        """Which part of a departure from the law the next generation inherits, (shapes,).

        A chain that is pulled towards a plateau at the rate exp(-1/tau) loses a departure at that rate too. Around a
        constant it may fade at any rate, which is fitted. Under all other laws nothing pulls it back.
        """
        s = np.asarray(shape, float)
        if self.name == "constant":
            return s
        pulled = self.name in ("saturating", "jump", "overshoot") and self.shape
        return np.exp(-1 / s) if pulled else np.ones_like(s)


LAWS = (
    Law("constant", "memory", counted=1, levels_off=True, sloped=False),
    Law("linear", counted=1),
    Law("saturating", "tau", levels_off=True),
    Law("power", "p", only_up=True),
    Law("exponential", "tau", only_up=True),
    Law("overshoot", "tau", only_up=True, levels_off=True),
    Law("jump", "tau", counted=3, levels_off=True, origin=1),
)
JUMP_ALONE = Law("jump", counted=1, levels_off=True, sloped=False, origin=1)  # and then the walk of its noise

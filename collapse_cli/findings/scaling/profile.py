"""Which laws fit means over seeds but for chance: the best of all, the simplest, and intervals of what they have.

A law is E_inf + A ((n - n0)/(n_1 - n0))^-b, n_1 the smallest size. Of each exponent b and shift n0 of a grid the best plateau
and amplitude are a linear problem; grids are narrowed about the laws that are looked for.
"""

import math

import numpy as np

Array = np.ndarray
RESOLUTION = 0.01  # relative error of a mean below which the law itself is not to be trusted
MISFIT = 0.01  # level of the test by which sizes are left out: a law beside which means lie farther is not theirs
GAIN = 0.05  # of its error, which doubling the data must win to count as help
FLATTEST = -math.log2(
    1 - GAIN
)  # least exponent: doubling the rows of a flatter law never wins `GAIN`, which is a plateau
STEEPEST = 4.0
NEAREST = 0.02  # of the smallest size, its least distance from the shift
PRIOR = 4  # degrees of freedom of what all sizes say together of the noise of each
CONFIDENCE = 0.95
COUNTS, FINE = (48, 20), (80, 40)  # exponents and shifts of a grid: of a search, and for intervals
ROUNDS, FEWEST = 14, 6  # of narrowing a grid; its best points that a narrower one always holds


class Noise:
    """What seeds say of the errors of means, relative to them.

    Attributes:
        apart: (sizes, seeds), what each value is off its mean.
        single: (sizes,), the variance of a size's mean; `own`, that part of it which sizes do not share.
        shared: the covariance of the means of two sizes, for cells of one seed are paired.
    """

    def __init__(self, values: Array) -> None:
        k, seeds = values.shape
        floor = RESOLUTION**2
        if seeds == 1:
            self.apart, self.shared = np.zeros((k, 1)), 0.0
            self.single = self.own = np.full(k, floor)
            return
        self.apart = values / values.mean(axis=1, keepdims=True) - 1
        covariance = self.apart @ self.apart.T / (seeds - 1)
        each = np.diagonal(covariance)
        shared = max(0.0, float(covariance.sum() - each.sum()) / (k * (k - 1)))
        rest = np.maximum(each - shared, 0)
        own = (PRIOR * max(0.0, float(each.mean()) - shared) + (seeds - 1) * rest) / (PRIOR + seeds - 1)
        self.shared = shared / seeds
        self.own = own / seeds + floor
        self.single = self.own + self.shared


class SearchGrid:
    """All laws with an exponent and a shift of a grid, and of each the best plateau and amplitude: a linear problem.

    Sums of squares are of relative errors, in units of `weight`; `cost` is the least of each law, plateau and amplitude at
    least 0, and `cost_at` that with a given plateau.
    """

    def __init__(self, n: Array, means: Array, weight: Array, exponents: Array, shifts: Array) -> None:
        self.b, self.shift = (grid.ravel() for grid in np.meshgrid(exponents, np.maximum(shifts, 0), indexing="ij"))
        self.x = ((n - self.shift[:, None]) / (n[0] - self.shift[:, None])) ** -self.b[:, None]  # (laws, sizes)
        inverse = weight**-2
        ww, wx, wxx = float(inverse.sum()), self.x @ inverse, self.x**2 @ inverse
        wy, wxy, wyy = float(inverse @ means), self.x @ (inverse * means), float(inverse @ means**2)
        self.curvature = np.maximum(ww - wx**2 / wxx, 1e-300)
        self.free = (wy - wxy * wx / wxx) / self.curvature  # the plateau, were it free to be below 0
        self.least = np.maximum(wyy - wxy**2 / wxx - self.curvature * self.free**2, 0)
        self.highest = wxy / wx  # of a plateau beside an amplitude: above it there is nothing but the plateau
        self.constant, self.weights, self.rest = wy / ww, ww, max(0.0, wyy - wy**2 / ww)
        self.plateau = np.where(self.free < self.highest, np.maximum(self.free, 0), self.constant)
        self.cost = self.cost_at(self.plateau)
        self._products = wxy, wx, wxx

    def amplitude_at(self, plateau: Array | float) -> Array:
        """Of the best laws, (laws,), with a given plateau."""
        wxy, wx, wxx = self._products
        return np.asarray(np.maximum(0, (wxy - plateau * wx) / wxx))

    def cost_at(self, plateau: Array | float) -> Array:
        """Sums of squares, (laws,), with a given plateau."""
        beside = self.least + self.curvature * (plateau - self.free) ** 2
        alone = self.rest + self.weights * (plateau - self.constant) ** 2
        return np.where(plateau < self.highest, beside, alone)

    def ends(self, limit: float) -> tuple[Array, Array]:
        """The least and the largest plateau, (laws,), whose sum of squares is at most `limit`, where the best one's is."""
        half = np.sqrt(np.maximum(limit - self.least, 0) / self.curvature)
        alone = math.sqrt(max(limit - self.rest, 0) / self.weights)
        low, high = self.free - half, self.free + half
        low = np.where(low < self.highest, np.maximum(low, 0), self.constant - alone)
        return low, np.where(high < self.highest, high, np.maximum(self.constant + alone, self.highest))


class ScalingFit:
    """The best law for means over seeds, and the set of laws that fit as well but for chance."""

    def __init__(self, n: Array, values: Array, threshold: float | None) -> None:
        from scipy import stats

        self.n, self.threshold, self.stats = n, threshold, stats
        self.means, self.seeds = values.mean(axis=1), values.shape[1]
        self.noise = Noise(values)
        fitted = self.means
        for _ in range(2):  # weights are of the law and not of what is measured, or low means would count for more
            self.weight = fitted * np.sqrt(self.noise.single)
            self.plateau, self.top, self.b, self.shift, self.x = self.best()
            fitted = self.plateau + self.top * self.x
        weight = self.weight
        self.cost = float(np.sum(((fitted - self.means) / weight) ** 2))
        self.last = float(fitted[-1])
        self.degrees = PRIOR + self.seeds - 1
        spare = max(1, len(n) - (4 if threshold is None else 3))
        self.fits = self.seeds == 1 or stats.f.sf(self.cost / spare, spare, self.degrees) >= MISFIT
        self.room = self._room() if self.seeds > 1 else 0.0

    def _narrowed(
        self, limit: float | None, counts: tuple[int, int], *, shifted: bool, level: float | None = None
    ) -> tuple[SearchGrid, Array]:
        """A grid about the laws whose sum of squares is at most `limit`, or about the best one alone; and the sums.

        Axes are the logarithms of the exponent and of the shift's distance to the smallest size.
        """
        first = float(self.n[0])
        least, most = [math.log(FLATTEST), math.log(NEAREST * first)], [math.log(STEEPEST), math.log(first)]
        sizes = [counts[0], counts[1] if shifted and self.threshold is None else 1]
        if sizes[1] == 1:
            least[1] = most[1] = math.log(first - (self.threshold or 0.0))
        box = [list(least), list(most)]
        for _ in range(ROUNDS):
            axes = [np.linspace(box[0][i], box[1][i], sizes[i]) for i in (0, 1)]
            grid = SearchGrid(self.n, self.means, self.weight, np.exp(axes[0]), first - np.exp(axes[1]))
            cost = grid.cost if level is None else grid.cost_at(level)
            cut = float(np.partition(cost, FEWEST)[FEWEST])
            inside = np.unravel_index(np.flatnonzero(cost <= (cut if limit is None else max(cut, limit))), sizes)
            before = [box[1][i] - box[0][i] for i in (0, 1)]
            for i in (0, 1):
                low, high = int(inside[i].min()), int(inside[i].max())
                box[0][i] = float(axes[i][max(low - 1, 0)])
                box[1][i] = float(axes[i][min(high + 1, sizes[i] - 1)])
            if all(box[1][i] - box[0][i] >= 0.9 * before[i] for i in (0, 1)):
                break
        return grid, cost

    def best(self, *, shifted: bool = True, level: float | None = None) -> tuple[float, float, float, float, Array]:
        """Plateau, amplitude at the smallest size, exponent, shift, and the law's shape (sizes,): the best of all."""
        grid, cost = self._narrowed(None, COUNTS, shifted=shifted, level=level)
        best = int(cost.argmin())
        plateau = float(grid.plateau[best]) if level is None else level
        return (
            plateau,
            float(grid.amplitude_at(plateau)[best]),
            float(grid.b[best]),
            float(grid.shift[best]),
            grid.x[best],
        )

    def _room(self) -> float:
        """By how much a law's sum of squares may be above the least, at 95%: F, times what seeds say of its scale.

        Squares are summed as if sizes were independent. What seeds share, and how much they differ in the very
        combination of sizes that tells the plateau, makes it more: of the plateau with exponent and shift free, and with
        both fixed, the larger.
        """
        noise, x, left = self.noise, self.x, self.n - self.shift
        columns = [np.ones_like(x), x, -self.top * x * np.log(left / left[0])]
        if self.threshold is None:
            columns.append(self.top * x * self.b * (1 / left - 1 / left[0]))
        slopes = np.stack(columns, axis=1) / self.weight[:, None]
        slopes /= np.maximum(np.abs(slopes).max(axis=0), 1e-300)
        apart = noise.apart * (self.means / self.weight)[:, None]
        rooms = []
        for part in (slopes, slopes[:, :2]):
            tells = np.linalg.pinv(part, rcond=1e-6)[0]  # what a mean off the law, in errors, adds to the plateau
            common = float(tells @ np.sqrt(noise.shared / noise.single)) ** 2
            expected = float(tells**2 @ (noise.own / noise.single)) + common
            seen = float((tells @ apart).var(ddof=1)) / self.seeds + RESOLUTION**2 * float(
                tells**2 @ (1 / noise.single)
            )
            scale = (PRIOR * expected + (self.seeds - 1) * seen) / self.degrees / float(tells @ tells)
            shared = common / expected  # of the variance, a part that only whole seeds tell
            degrees = 1 / (shared**2 / (self.seeds - 1) + (1 - shared) ** 2 / self.degrees)
            rooms.append(scale * float(self.stats.f.ppf(CONFIDENCE, 1, degrees)))
        return float(max(rooms))

    def simplest(self, claimed: bool) -> tuple[float, float, float, float]:
        """Plateau, amplitude, exponent and shift: of laws that fit but for chance one with fewest of them.

        A single seed says nothing of chance, so that it has neither plateau nor shift, but for a known one.
        """
        limit = self.cost + self.room if self.seeds > 1 else math.inf
        constant = float(np.average(self.means, weights=self.weight**-2))
        if claimed and float(np.sum(((self.means - constant) / self.weight) ** 2)) <= limit:
            return constant, 0.0, FLATTEST, 0.0
        for level, shifted in ((None, False), (None, True)) if claimed else ((0.0, False), (0.0, True), (None, False)):
            fitted = self.best(shifted=shifted, level=level)
            if float(np.sum(((fitted[0] + fitted[1] * fitted[4] - self.means) / self.weight) ** 2)) <= limit * (
                1 + 1e-9
            ):
                return fitted[:4]
        return self.plateau, self.top, self.b, self.shift

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Of plateau, exponent and knee: what laws have whose sum of squares is within reach of the least."""
        limit = self.cost + self.room
        grid, cost = self._narrowed(limit, FINE, shifted=True)
        chosen = cost <= max(limit, float(cost.min()))
        lows, highs = grid.ends(limit)
        knees_there = [
            knees(
                float(self.n[0]), *(values[chosen] for values in (level, grid.amplitude_at(level), grid.b, grid.shift))
            )
            for level in (lows, grid.plateau, highs)
        ]
        every = np.concatenate(knees_there)
        return {
            "plateau": (float(lows[chosen].min()), float(highs[chosen].max())),
            "exponent": (float(grid.b[chosen].min()), float(grid.b[chosen].max())),
            "knee": (float(every.min()), float(every.max())),
        }


def knees(first: float, level: Array, top: Array, b: Array, shift: Array) -> Array:
    """From which size on doubling wins less than `GAIN`, of many laws; math.inf where none does."""

    def wins(n: Array) -> Array:
        now, then = (((at - shift) / (first - shift)) ** -b for at in (n, 2 * n))
        return np.asarray(top * (now - then) > GAIN * (level + top * now))

    low, high = np.full(len(level), float(first)), np.full(len(level), float(first) * 1e12)
    never, early = wins(high), ~wins(low)
    for _ in range(60):
        middle = np.sqrt(low * high)
        more = wins(middle)
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.asarray(np.where(early, float(first), np.where(never, math.inf, high)))

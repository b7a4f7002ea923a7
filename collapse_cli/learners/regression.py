"""Linear regression with a known truth: what the learners `ridge` and `projections` have in common.

Real rows are x ~ N(0, Sigma), y = x·w1 + N(0, s1²); synthetic ones are labelled by a model, y = x·w + N(0, s2²). Sigma is
diagonal (its eigenbasis is the coordinates') and the error of a fit is |w_hat - w1|²_Sigma exactly: no test rows needed.

The true weights are random signs times the standard deviations of Gamma = I/tr Sigma. Their covariance is Gamma exactly,
as that of Gaussian ones would be, and the formulas (`collapse_cli.theory`) depend on nothing else; |w1|²_Sigma is 1 in
every draw, so that seeds do not differ in the size of the truth: Gaussian weights would add a relative noise of
sqrt(2 / d / seeds) to every mean.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from collapse_cli.config.cell import Cell, cells
from collapse_cli.config.experiment import Experiment
from collapse_cli.config.families import MixtureConfig, RegressionConfig
from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import seed_for
from collapse_cli.errors import InputError
from collapse_cli.families.section import Section, for_key
from collapse_cli.learners.family import Family, State, normals
from collapse_cli.learners.protocol import Facts, Hints, Outcome, Resolved, Tell, Verb
from collapse_cli.learners.settings import Part, Settings

Array = np.ndarray
TRUTH = "truth.safetensors"
LARGEST_SLOPE = 12.0  # of beta · log10(d): a Gram matrix in float64 cannot tell smaller eigenvalues from zero
TEST_ROWS = 1000


@dataclass(frozen=True)
class Setting:
    """The section `data.regression`.

    Attributes:
        d: dimensions.
        kind, beta: of the spectrum.
        noise, noise_synthetic: standard deviations s1, s2 of the noise on real and on synthetic labels.
        fresh: synthetic rows get inputs of their own.
        flipped: the share of synthetic labels that get the wrong sign.
        shift: how far the true weights are moved.
    """

    d: int
    kind: str
    beta: float
    noise: float
    noise_synthetic: float
    fresh: bool
    flipped: float = 0.0
    shift: float = 0.0

    @staticmethod
    def of(section: RegressionConfig) -> "Setting":
        return Setting(
            section.dimensions,
            section.spectrum,
            section.beta,
            section.noise,
            section.noise if section.noise_synthetic < 0 else section.noise_synthetic,
            section.inputs == "fresh",
            section.flipped,
            section.shift,
        )

    @cached_property
    def eigenvalues(self) -> Array:
        """Of Sigma, (d,)."""
        k = np.arange(1, self.d + 1, dtype=np.float64)
        powers: Array = k ** -(self.beta if self.kind == "pow" else 0.0)
        return powers

    def norm_squared(self, w: Array) -> float:
        """|w|²_Sigma."""
        return float(self.eigenvalues @ w**2)


def true_weights(setting: Setting, seed: int) -> Array:
    """w1, (d,): covariance I/tr Sigma, |w1|²_Sigma = 1; moved by `shift` along the direction that weighs alike in all eigenvalues."""
    w: Array = _signs(setting.d, seed) / np.sqrt(setting.eigenvalues.sum())
    return w + setting.shift / np.sqrt(setting.d * setting.eigenvalues) if setting.shift else w


def labeller(setting: Setting, quality: float, seed: int) -> Array:
    """w2 = w1 + delta, (d,): delta has the covariance (c²/d) Sigma^-1, and |delta|²_Sigma = c² in every draw.

    delta is random signs as well. Its sign relative to w1's differs between the two of each pair of coordinates, which
    takes most of the noise out of products of the two without touching their mean, which is 0.
    """
    signs = _signs(setting.d, seed)
    relative = _signs(setting.d, seed, 1)
    pairs = setting.d // 2
    relative[1 : 2 * pairs : 2] = -relative[0 : 2 * pairs : 2]
    delta = np.sqrt(quality / setting.d / setting.eigenvalues) * signs * relative
    w: Array = true_weights(setting, seed) + delta
    return w


def _signs(d: int, seed: int, which: int = 0) -> Array:
    signs: Array = generator(seed, 0, which).choice([-1.0, 1.0], d)
    return signs


def generator(seed: int, *stream: int) -> np.random.Generator:
    """Random numbers of one purpose: streams of a seed are independent."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=stream)))


@dataclass(frozen=True)
class Solver:
    """(M + lam)^-1 on the rows' own span, for all lam and labels: w = factor ((values + lam)^-1 factor' moment).

    Attributes:
        factor: (d, r) eigenvectors, of the features taken back to the inputs.
        values: (r,) eigenvalues above rounding; lam = 0 is therefore least squares, of least norm where n < d.
    """

    factor: Array
    values: Array

    def weights(self, moment: Array, lam: float) -> Array:
        """Argmin (1/n)|Xw - y|² + lam |w|², (d,), of moment = X'y/n."""
        w: Array = self.factor @ ((self.factor.T @ moment) / (self.values + lam))
        return w


def solver(gram: Array, rows: int, back: Array | None = None) -> Solver:
    """Of a Gram matrix M = X'X/n (d, d).

    Args:
        rows: the rank of M is at most that.
        back: (d, r), r <= d: the weights are back v, |v|² is penalised. None: the identity.

    Directions without data are left out, instead of being divided by a tiny lam: their share in X'y is 0 but for
    rounding. What counts as none is 16 r times the rounding of the largest eigenvalue.
    """
    values, vectors = np.linalg.eigh(gram if back is None else back.T @ gram @ back)
    floor = 16 * len(values) * np.finfo(np.float64).eps * max(values[-1], 0.0)
    kept = values > floor
    kept[: max(0, len(values) - rows)] = False
    vectors = vectors[:, kept]
    return Solver(vectors if back is None else back @ vectors, values[kept])


@dataclass(frozen=True)
class DrawnRows:
    """Which rows are drawn: what they depend on of the section `data`.

    Attributes:
        rows, eval_rows, reserve: of the original corpus, of the test rows (0: `TEST_ROWS`), and beyond the corpus.
        regression: from which distribution.
    """

    source: str
    rows: int
    eval_rows: int
    reserve: int
    regression: RegressionConfig


class RegressionSettings(Settings):
    """`data` of the stage of real data, and of cells in memory; `regression`, and the family's own section, of all others."""

    data = Part(DrawnRows)
    regression = Part(RegressionConfig)
    mixture = Part(MixtureConfig)


class Regression(Family):
    """A linear model of d weights; subclasses say how they are fitted."""

    block = 50

    settings: RegressionSettings

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        super().__init__(params, hints, tell)
        self._w: Array | None = None

    # --- what is looked up before anything runs -----------------------------------------------------------------------

    @classmethod
    def resolve(cls, config: Experiment) -> Resolved:
        """Raises:
        InputError: for another source, no rows, a spectrum that float64 cannot hold, or weights for rows that are not there.
        """
        cls.check_source(config.data.source)
        section, rows = config.data.regression, config.data.rows
        d = section.dimensions
        if section.spectrum == "pow" and section.beta * np.log10(d) > LARGEST_SLOPE:
            raise InputError(
                f"data.regression.beta = {section.beta:g} with {d} dimensions: the smallest eigenvalue, {d}^-beta, "
                f"is lost in the rounding of the largest; lower beta to {LARGEST_SLOPE / np.log10(d):.2g} or less"
            )
        if config.kind == "mixture":
            cls._check_grid(config.mixture)
        elif rows == 0:
            raise InputError(
                "data.source = regression is a distribution: say how many rows to draw, --set data.rows=500"
            )
        seconds = 2e-6 + 1e-8 * d + d * d / 1.5e10 + d**3 * 3e-10 / max(rows, 1)  # a row's share of drawing and fitting
        return Resolved(config, Hints(), cls._parameters(config), row_bytes=8 * (d + 1) + 4, row_flops=seconds * 3.5e10)

    @classmethod
    def _check_grid(cls, mixture: MixtureConfig) -> None:
        for cell in cells(mixture):
            if cell.weight is not None and (cell.real == 0 or (cell.synthetic == 0 and cell.weight > 0)):
                raise InputError(
                    f"mixture.weight = {cell.weight:g} needs real and synthetic rows in every cell, and {cell.label} has "
                    f"{cell.real} and {cell.synthetic}; leave out shares of 0 and 1"
                )

    @classmethod
    def _parameters(cls, config: Experiment) -> int:
        return config.data.regression.dimensions

    @classmethod
    def params(cls, config: Experiment, verb: Verb) -> dict[str, Any]:
        if verb == "data":
            return cls.real_params(config)
        return {"model": for_key(cls._own(config)), "regression": for_key(config.data.regression)}

    @classmethod
    def _own(cls, config: Experiment) -> Section:
        section: Section = getattr(config, cls.section)
        return section

    @classmethod
    def data_params(cls, config: Experiment) -> dict[str, Any]:
        data = for_key(config.data)
        return {"data": {name: data[name] for name in ("source", "rows", "eval_rows", "reserve", "regression")}}

    @cached_property
    def setting(self) -> Setting:
        if "regression" in self.settings:
            return Setting.of(self.settings.regression)
        return Setting.of(self.settings.data.regression)

    # --- verbs --------------------------------------------------------------------------------------------------------

    def encode(self, folder: Path, *, seed: int) -> Facts:
        """As families do, and the true weights, in a file of their own."""
        from safetensors.numpy import save_file

        facts = super().encode(folder, seed=seed)
        save_file({"w": true_weights(self.setting, seed), "eigenvalues": self.setting.eigenvalues}, folder / TRUTH)
        return facts

    def real(self, seed: int) -> tuple[dict[str, Dataset], list[str]]:
        data, w = self.settings.data, true_weights(self.setting, seed)
        counts = {"train": data.rows, "test": data.eval_rows or TEST_ROWS, "reserve": data.reserve}
        parts = {}
        for stream, (name, rows) in enumerate(counts.items(), 1):
            drawn = generator(seed, stream).standard_normal((rows, self.setting.d + 1))
            parts[name] = self._labelled(drawn, None, w, self.setting.noise, np.zeros(rows, np.int32))
        return parts, []

    def _labelled(self, drawn: Array, x: Array | None, w: Array, noise: float, origin: Array) -> Dataset:
        """Rows of normal numbers (rows, d + 1); the last is the label's noise, the others the inputs unless x is given."""
        if x is None:
            x = drawn[:, :-1] * np.sqrt(self.setting.eigenvalues)
        y = np.vecdot(x, w) + noise * drawn[:, -1]  # row by row: a product with x rounds as its number of rows has it
        return Dataset({"x": x, "y": y}, origin)

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Outcome:
        """Labels for the prompts' inputs, or for new ones (`data.regression.inputs`); some of them wrong (`flipped`)."""
        width = self.setting.d + 1 if self.setting.fresh else 1
        x = None if self.setting.fresh else prompts.arrays["x"]
        drawn = normals(prompts, (width,), seed)
        made = self._labelled(drawn, x, self.weights, self.setting.noise_synthetic, prompts.origin)
        if self.setting.flipped > 0:
            wrong = normals(prompts, (), seed_for(seed, "flipped", 0)) < NormalDist().inv_cdf(self.setting.flipped)
            y = made.arrays["y"]
            made = Dataset({**made.arrays, "y": np.where(wrong, -y, y)}, made.origin)
        return Outcome(made, {"sample_rows": int((~prompts.arrays["extra"]).sum())})

    def score(self, data: Dataset) -> Array:
        """Squared errors, (rows,)."""
        errors: Array = (data.arrays["y"] - data.arrays["x"] @ self.weights) ** 2
        return errors

    def own_measures(self, test: Dataset, first: Dataset | None) -> Facts:
        """`error` = |w_hat - w1|²_Sigma; noise on labels is no part of it. Where labels may have the wrong sign, also `cosine`."""
        w, eigenvalues = self._truth
        facts: Facts = {"error": float(eigenvalues @ (self.weights - w) ** 2)}
        if self.setting.flipped > 0:
            lengths = float(np.linalg.norm(self.weights) * np.linalg.norm(w))
            facts["cosine"] = float(self.weights @ w) / lengths if lengths > 0 else 0.0
        return facts

    def beside(self, others: Sequence[State]) -> Facts:
        """`distance_to_others`: |w - w'|²_Sigma, a mean over the models of other lineages."""
        distances = [self.setting.norm_squared(self.weights - other["w"]) for other in others]
        return {"distance_to_others": float(np.mean(distances))}

    @cached_property
    def _truth(self) -> tuple[Array, Array]:
        from safetensors.numpy import load_file

        arrays = load_file(self.hints.real(TRUTH))
        return arrays["w"], arrays["eigenvalues"]

    @property
    def width(self) -> tuple[int, ...]:
        return self.weights.shape

    # --- state --------------------------------------------------------------------------------------------------------

    @property
    def weights(self) -> Array:
        """w_hat, (d,)."""
        assert self._w is not None, "neither fitted nor loaded"
        return self._w

    def state(self) -> State:
        return {"w": self.weights}

    def restore(self, state: Mapping[str, Array]) -> None:
        self._w = state["w"]

    # --- sums over rows -----------------------------------------------------------------------------------------------

    def summarise(self, rows: Dataset) -> State:
        """X'X, X'y, y'y and the number of rows; of no more rows than dimensions the rows themselves, which are less."""
        return _condensed(rows.arrays["x"], rows.arrays["y"])

    def merge(self, before: State, more: State) -> State:
        if "x" in before and "x" in more:
            return _condensed(np.concatenate([before["x"], more["x"]]), np.concatenate([before["y"], more["y"]]))
        first, second = _sums(before), _sums(more)
        return {name: first[name] + second[name] for name in first}

    def scaled(self, summary: State, weight: float) -> State:
        """Sums times the weight, and rows times its root. Weights are 1 on average, so how many rows there are is as it was."""
        if "x" in summary:
            root = np.sqrt(weight)
            return {"x": summary["x"] * root, "y": summary["y"] * root}
        return {name: total if name == "rows" else total * weight for name, total in summary.items()}

    def _training_loss(self, summary: State) -> float:
        """Mean squared error on the rows of a summary; of sums it is a difference, so never below 0 by rounding."""
        if "x" in summary:
            return float(np.mean((summary["y"] - summary["x"] @ self.weights) ** 2))
        w = self.weights
        total = summary["square"] - 2 * (w @ summary["moment"]) + w @ summary["gram"] @ w
        return max(0.0, float(total[0] / summary["rows"][0]))

    # --- mixtures -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def cell(self, cell: Cell, *, seed: int, scratch: Path) -> dict[str, float]:
        """One cell of a mixture, from its rows to its error."""


def _condensed(x: Array, y: Array) -> State:
    return {"x": x, "y": y} if len(x) <= x.shape[1] else _sums({"x": x, "y": y})


def _sums(summary: State) -> State:
    if "x" not in summary:
        return summary
    x, y = summary["x"], summary["y"]
    return {"gram": x.T @ x, "moment": x.T @ y, "square": np.array([y @ y]), "rows": np.array([float(len(y))])}


def fit_sums(summary: State, lam: float, back: Array | None = None) -> Array:
    """w_hat (d,) of a summary, on its smaller side: rows by rows where it holds rows, else d by d.

    Args:
        back: (d, r), as `solver` has it.
    """
    if "x" not in summary:
        n = summary["rows"][0]
        return solver(summary["gram"] / n, int(n), back).weights(summary["moment"] / n, lam)
    x = summary["x"] if back is None else summary["x"] @ back
    n = len(x)
    dual = solver(x @ x.T / n, min(x.shape))
    v: Array = x.T @ dual.weights(summary["y"], lam) / n
    w: Array = v if back is None else back @ v
    return w

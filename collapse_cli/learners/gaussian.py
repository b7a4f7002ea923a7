"""A Gaussian, refitted: mean and covariance of rows that the last one made. Many trials at once."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli.config.experiment import Experiment
from collapse_cli.data import blobs
from collapse_cli.data.blobs import Blobs, Drawn
from collapse_cli.data.dataset import WEIGHTS, Dataset
from collapse_cli.errors import InputError
from collapse_cli.families.gaussian import GaussianConfig
from collapse_cli.families.section import for_key
from collapse_cli.learners.family import Family, State, normals
from collapse_cli.learners.protocol import Facts, Hints, Outcome, Resolved, Tell, Verb
from collapse_cli.learners.settings import Part, Settings

TINY = float(np.finfo(np.float64).tiny)  # what the logarithm of a variance that is gone is taken of
SCORED = 1e-300  # least variance in scoring: losses of a model that collapsed stay finite, and so does their mean
COLLAPSED = 0.01  # of the true variance
NAMES = ("variance", "std", "log_variance", "mean_shift_squared", "w2_squared")


class GaussianSettings(Settings):
    """`data` and `trials` of the stage of real data; of all others `model` and `blobs`."""

    model = Part(GaussianConfig)
    blobs = Part(Blobs)
    data = Part(Drawn)
    trials = Part(int)


class Gaussian(Family):
    """N(mean, covariance) by maximum likelihood, or with the unbiased covariance; or of the rows that count.

    With `gaussian.truncate` a row counts only where the model that a fit starts from found it unlikely: one step of the
    truncated loss of arXiv 2509.08972, from that model. Generation 0, which starts from none, is fitted to all rows.

    Rows are `x` (rows, trials, d) float64. Trials never mix: each is an experiment of its own, with real rows of its own.
    Around a mean m, float64 holds no spread below about 1e-16 |m|; a trial that gets there has variance 0 from then on.
    """

    section = "gaussian"
    block = 250
    summarises = True

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        super().__init__(params, hints, tell)
        self.settings = GaussianSettings(params)
        self._mean = np.empty((0, 0))
        self._covariance = np.empty((0, 0, 0))

    # --- what is looked up before anything runs -----------------------------------------------------------------------

    @classmethod
    def resolve(cls, config: Experiment) -> Resolved:
        """Raises InputError for a source that is not drawn, for fewer than 2 rows, and where no model says which rows count."""
        cls.check_source(config.data.source)
        blobs.check(config.data.rows, 2)
        own: GaussianConfig = config.gaussian
        if own.truncate > 0 and config.loop.init == "base":
            raise InputError(
                f"gaussian.truncate = {own.truncate:g} leaves out rows that the model a fit starts from finds likely, and "
                "loop.init = base starts from none; set loop.init = previous"
            )
        if own.truncate > 0 and any(policy.rule == "accumulate" for policy in config.loop.policies):
            raise InputError(
                f"gaussian.truncate = {own.truncate:g} judges rows anew in each generation, and accumulate keeps only sums "
                "over them; take keep-P, fresh-P or accumulate-subsample"
            )
        d, trials = config.data.blobs.dimensions, cls.trials(config)
        # measured: 20 ns a number to draw, to move and to square (d = 1); a product of d x d numbers a row beyond
        flops = trials * (700.0 * d + 4.0 * d * d)
        return Resolved(config, Hints(), d + d * (d + 1) // 2, row_bytes=8 * trials * d, row_flops=flops)

    @classmethod
    def params(cls, config: Experiment, verb: Verb) -> dict[str, Any]:
        """Beside the section, the source: measures are in units of its variance."""
        if verb == "data":
            return cls.real_params(config)
        return {"model": for_key(config.gaussian), "blobs": for_key(config.data.blobs)}

    @classmethod
    def trials(cls, config: Experiment) -> int:
        own: GaussianConfig = config.gaussian
        return own.trials

    @classmethod
    def data_params(cls, config: Experiment) -> dict[str, Any]:
        return {"data": blobs.params(for_key(config.data)), "trials": cls.trials(config)}

    # --- verbs --------------------------------------------------------------------------------------------------------

    def real(self, seed: int) -> tuple[dict[str, Dataset], list[str]]:
        return blobs.draw(self.settings.data, seed, (self.settings.trials,)), []

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts:
        if self.settings.model.truncate > 0 and len(self._mean):
            return self._fit_truncated(data.arrays["x"], data.arrays.get(WEIGHTS, np.ones(len(data))))
        return self.fit_summary(self.summary_of(data))

    def _fit_truncated(self, x: np.ndarray, weights: np.ndarray) -> Facts:
        """To the rows (rows, trials, d), of weights (rows,), that lie beyond `truncate` standard deviations of the model so far.

        `train_loss` is a mean over all rows, those that do not count at 0, as the truncated cross-entropy of tokens is.
        """
        counts = self._distances(x) >= self.settings.model.truncate**2
        numbers, least = counts.sum(axis=0), 2 if self.settings.model.unbiased else 1
        if numbers.min() < least:
            raise InputError(
                f"gaussian.truncate = {self.settings.model.truncate:g} leaves {numbers.min()} of {len(x)} rows that count, and "
                f"{least} are needed; lower it, or raise data.rows"
            )
        each = counts * weights[:, None]
        total = each.sum(axis=0)
        mean = np.einsum("rt,rti->ti", each, x) / total[:, None]
        off = x - mean
        free = total - np.square(each).sum(axis=0) / total if self.settings.model.unbiased else total
        self._mean, self._covariance = mean, np.einsum("rt,rti,rtj->tij", each, off, off) / free[:, None, None]
        losses = each * (self._distances(x) + self._log_volume()) / 2
        return {
            "train_loss": float(losses.mean(axis=1).sum() / weights.sum()),
            "counted_share": float(numbers.mean() / len(x)),
        }

    def _distances(self, x: np.ndarray) -> np.ndarray:
        """(rows, trials) squared distances from the mean, in standard deviations; where the variance is gone, those of `SCORED`."""
        off = x - self._mean
        values, vectors = np.linalg.eigh(self._covariance)
        turned = np.einsum("rti,tij->rtj", off, vectors) / np.sqrt(np.maximum(values, SCORED))
        squares: np.ndarray = np.square(turned).sum(axis=2)
        return squares

    def _log_volume(self) -> np.ndarray:
        """(trials,) ln det of 2 pi times the covariance."""
        values = np.maximum(np.linalg.eigvalsh(self._covariance), SCORED)
        logs: np.ndarray = np.log(2 * math.pi * values).sum(axis=1)
        return logs

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Outcome:
        trials, d = self._mean.shape
        x = normals(prompts, (trials, d), seed)
        if d == 1:
            x *= np.sqrt(self._covariance[:, :, 0])
        else:  # (trials, rows, d) products, then back
            x = np.ascontiguousarray(
                (x.transpose(1, 0, 2) @ _root(self._covariance).transpose(0, 2, 1)).transpose(1, 0, 2)
            )
        x += self._mean
        return Outcome(
            Dataset({"x": x}, prompts.origin),
            {"sample_rows": int(len(x) - np.count_nonzero(prompts.arrays["extra"]))},
        )

    def score(self, data: Dataset) -> np.ndarray:
        """(rows,) negative log-density in nats, a mean over trials."""
        off = data.arrays["x"] - self._mean
        d = off.shape[2]
        if d == 1:
            variance = np.maximum(self._covariance[:, 0, 0], SCORED)
            squares, logs = np.square(off[:, :, 0]) @ (1 / variance), np.log(variance)
        else:
            values, vectors = np.linalg.eigh(self._covariance)
            variance = np.maximum(values, SCORED)
            turned = (off.transpose(1, 0, 2) @ vectors) / np.sqrt(variance)[:, None, :]
            squares, logs = np.einsum("tri,tri->r", turned, turned), np.log(variance).sum(axis=1)
        losses: np.ndarray = squares / (2 * len(self._mean)) + (logs.mean() + d * math.log(2 * math.pi)) / 2
        return losses

    def remembered(self, test: Dataset, losses: np.ndarray) -> Dataset:
        """The mean and the covariance of each trial, in place of losses."""
        return Dataset({"mean": self._mean, "covariance": self._covariance}, np.zeros(len(self._mean), np.int32))

    def own_measures(self, test: Dataset, first: Dataset | None) -> Facts:
        """Means over trials, and their standard errors; in units of the true variances, dimension by dimension.

        `w2_squared` is the squared 2-Wasserstein distance to the truth (in those units N(0, I)).
        """
        mean, variance = blobs.truth(self.settings.blobs)
        scale = np.sqrt(variance)
        moved = np.square((self._mean - mean) / scale).sum(axis=1)
        trials, d = self._mean.shape
        if d == 1:
            values = self._covariance[:, :, 0] / variance
            spread = np.sqrt(values[:, 0])
            v, s, logs, distance = values[:, 0], spread, np.log(np.maximum(values[:, 0], TINY)), np.square(spread - 1)
        else:
            whitened = self._covariance / np.outer(scale, scale)
            diagonal = np.maximum(np.diagonal(whitened, axis1=1, axis2=2), 0)
            values = np.maximum(np.linalg.eigvalsh(whitened), 0)
            v, s = diagonal.mean(axis=1), np.sqrt(diagonal).mean(axis=1)
            logs = np.log(np.maximum(diagonal, TINY)).mean(axis=1)
            distance = np.square(np.sqrt(values) - 1).sum(axis=1)
        by_trial = np.stack([v, s, logs, moved, moved + distance])
        measures = dict(zip(NAMES, by_trial.mean(axis=1).tolist(), strict=True))
        if trials > 1:
            errors = by_trial.std(axis=1, ddof=1) / math.sqrt(trials)
            measures |= {f"{name}_se": error for name, error in zip(NAMES, errors.tolist(), strict=True)}
        if d > 1:
            measures["log_det"] = float(np.log(np.maximum(values, TINY)).sum(axis=1).mean())
        return {**measures, "collapsed_share": float(np.count_nonzero(v < COLLAPSED)) / trials}

    def beside(self, others: Sequence[State]) -> Facts:
        """`distance_to_others`: squared distance of the means, a mean over the models of other lineages; `mixture_variance` of the mixture
        of the models of all lineages, a mean over dimensions. In units of the true variances; means over trials, with standard errors.
        """
        _, variance = blobs.truth(self.settings.blobs)
        every = np.stack([self._mean, *(other["mean"] for other in others)])
        spreads = np.stack(
            [
                np.diagonal(one, axis1=1, axis2=2)
                for one in (self._covariance, *(other["covariance"] for other in others))
            ]
        )
        distance = (np.square(every[1:] - every[0]) / variance).sum(axis=2).mean(axis=0)
        whole = ((spreads.mean(axis=0) + every.var(axis=0)) / variance).mean(axis=1)
        facts: Facts = {}
        for name, values in (("distance_to_others", distance), ("mixture_variance", whole)):
            facts[name] = float(values.mean())
            if len(values) > 1:
                facts[f"{name}_se"] = float(values.std(ddof=1)) / math.sqrt(len(values))
        return facts

    @property
    def width(self) -> tuple[int, ...]:
        return self._mean.shape

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """`mean` (trials, d), `covariance` (trials, d, d)."""
        return {"mean": self._mean, "covariance": self._covariance}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._mean, self._covariance = state["mean"], state["covariance"]

    # --- sums over rows -----------------------------------------------------------------------------------------------

    def summarise(self, rows: Dataset) -> State:
        """`count` (1,), `mean` (trials, d), `moments` (trials, d, d): sums of products of what is off the mean."""
        x = rows.arrays["x"]
        mean = x.sum(axis=0) / len(x)
        off = x - mean
        if x.shape[2] == 1:
            moments = np.einsum("rti,rti->ti", off, off)[:, :, None]
        else:
            off = off.transpose(1, 0, 2)
            moments = off.transpose(0, 2, 1) @ off
        return {"count": np.array([float(len(x))]), "mean": mean, "moments": moments}

    def merge(self, before: State, more: State) -> State:
        """Chan, Golub and LeVeque (1983): moments of both about their common mean."""
        (a,), (b,) = before["count"], more["count"]
        step = more["mean"] - before["mean"]
        moments = before["moments"] + more["moments"] + step[:, :, None] * step[:, None, :] * (a * b / (a + b))
        merged = {
            "count": before["count"] + more["count"],
            "mean": before["mean"] + step * (b / (a + b)),
            "moments": moments,
        }
        return merged | ({"squares": before["squares"] + more["squares"]} if "squares" in before else {})

    def scaled(self, summary: State, weight: float) -> State:
        """Beside the sums, which are over weights now, `squares` (1,): the sum of the squared weights."""
        count, moments = summary["count"] * weight, summary["moments"] * weight
        return {"count": count, "mean": summary["mean"], "moments": moments, "squares": count * weight}

    def fit_summary(self, summary: State) -> Facts:
        """With weights w the unbiased covariance divides by sum(w) - sum(w²) / sum(w), which is n - 1 where all are 1."""
        count = float(summary["count"][0])
        weighted = "squares" in summary
        if count < 2 and not weighted:
            raise InputError("a Gaussian needs at least 2 rows to be fitted; raise data.rows")
        lost = float(summary["squares"][0]) / count if weighted else 1
        free = count - lost if self.settings.model.unbiased else count
        self._mean, self._covariance = summary["mean"], summary["moments"] / free
        return {"train_loss": self._loss(free / count)}

    def summary_of(self, data: Dataset) -> State:
        if (data.origin == data.origin[0]).all() and WEIGHTS not in data.arrays:
            return self.summarise(data)
        return super().summary_of(data)

    def _loss(self, ratio: float) -> float:
        """Mean loss on the rows just fitted to, whose covariance is `ratio` times that of the model."""
        d = self._mean.shape[1]
        values = self._covariance[:, :, 0] if d == 1 else np.linalg.eigvalsh(self._covariance)
        variance = np.maximum(values, SCORED)
        total = float((np.log(variance) + ratio * values / variance).sum()) / len(variance)
        return (total + d * math.log(2 * math.pi)) / 2


def _root(covariance: np.ndarray) -> np.ndarray:
    """(trials, d, d) A with A A' = covariance; where one is not positive definite any more, by its eigenvectors."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:
        if len(covariance) > 1:
            return np.concatenate([_root(single[None]) for single in covariance])
        values, vectors = np.linalg.eigh(covariance)
        roots: np.ndarray = vectors * np.sqrt(np.maximum(values, 0))[:, None, :]
        return roots

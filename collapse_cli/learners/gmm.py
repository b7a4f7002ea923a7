"""A mixture of Gaussians, refitted: EM on rows that the last mixture made."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collapse_cli.config.experiment import Experiment
from collapse_cli.data import blobs
from collapse_cli.data.blobs import Drawn
from collapse_cli.data.dataset import WEIGHTS, Dataset
from collapse_cli.errors import InputError
from collapse_cli.families.gmm import GmmConfig
from collapse_cli.families.section import for_key
from collapse_cli.learners import em
from collapse_cli.learners.family import Family, State, normals
from collapse_cli.learners.protocol import Facts, Hints, Outcome, Resolved, Tell
from collapse_cli.learners.settings import Part, Settings

NONE = 1e-16  # squared L2 distances below are rounding
ENGINES: dict[str, Callable[..., em.FittedMixture]] = {"fast": em.fit, "sklearn": em.fit_sklearn}


class GmmSettings(Settings):
    """`data` of the stage of real data; `model` of all others."""

    model = Part(GmmConfig)
    data = Part(Drawn)


class GaussianMixture(Family):
    """Weights, means and full covariances by EM. Rows are `x` (rows, d) float64."""

    section = "gmm"
    block = 250

    def __init__(self, params: Mapping[str, Any], hints: Hints, tell: Tell) -> None:
        super().__init__(params, hints, tell)
        self.settings = GmmSettings(params)
        self._mixture: em.Mixture | None = None
        self._fitted = np.zeros(3)  # EM steps, whether they converged, log-likelihood of a row fitted to

    # --- what is looked up before anything runs -----------------------------------------------------------------------

    @classmethod
    def resolve(cls, config: Experiment) -> Resolved:
        """Raises InputError for a source that is not drawn, too few rows, or a start from a parent that there is not."""
        cls.check_source(config.data.source)
        own: GmmConfig = config.gmm
        components, d = own.components, config.data.blobs.dimensions
        blobs.check(config.data.rows, max(2, components))
        if own.start == "parent" and config.loop.init != "previous":
            raise InputError(
                "gmm.start = parent starts EM from the model of the generation before: set loop.init = previous as well, "
                "or gmm.start = kmeans"
            )
        if own.engine == "sklearn" and not config.mix.weights.equal:
            raise InputError(
                "scikit-learn's mixture of Gaussians takes no weights of rows: set gmm.engine = fast, or mix.weights = equal"
            )
        features = 1 + d + d * (d + 1) // 2
        # measured at two components in 2-D: 12 ns a row and EM step, some 100 steps; scikit-learn's own takes 20 times as long
        flops = 100 * 400.0 * components * features / 12 * (20 if own.engine == "sklearn" else 1)
        return Resolved(config, Hints(), components * features - 1, row_bytes=8 * d, row_flops=flops)

    @classmethod
    def data_params(cls, config: Experiment) -> dict[str, Any]:
        return {"data": blobs.params(for_key(config.data))}

    # --- verbs --------------------------------------------------------------------------------------------------------

    def real(self, seed: int) -> tuple[dict[str, Dataset], list[str]]:
        return blobs.draw(self.settings.data, seed), []

    def fit(self, data: Dataset, *, seed: int, scratch: Path) -> Facts:
        model = self.settings.model
        fitted = ENGINES[model.engine](
            data.arrays["x"],
            components=model.components,
            tol=model.tol,
            max_iter=model.max_iter,
            ridge=model.ridge,
            seed=seed,
            start=self._mixture if model.start == "parent" else None,
            weights=data.arrays.get(WEIGHTS),
        )
        self._mixture = fitted.mixture
        self._fitted = np.array([fitted.iterations, fitted.converged, fitted.log_likelihood], np.float64)
        return {"train_loss": -fitted.log_likelihood}

    def sample(self, prompts: Dataset, *, seed: int, scratch: Path) -> Outcome:
        """A component and a point of it for each row: the last of its normal numbers, by its cumulative distribution, is
        the uniform one that chooses the component.
        """
        from scipy.special import ndtri

        mixture = self._known
        roots = np.linalg.cholesky(mixture.covariances)
        d = mixture.means.shape[1]
        drawn = normals(prompts, (d + 1,), seed)
        bounds = ndtri(np.minimum(np.cumsum(mixture.weights)[:-1], 1))
        chosen = np.searchsorted(bounds, drawn[:, d], side="right")
        x = np.empty((len(drawn), d))
        for k in range(len(mixture.weights)):
            rows = np.flatnonzero(chosen == k)
            x[rows] = drawn[rows, :d] @ roots[k].T + mixture.means[k]
        return Outcome(
            Dataset({"x": x}, prompts.origin),
            {"sample_rows": int(len(x) - np.count_nonzero(prompts.arrays["extra"]))},
        )

    def score(self, data: Dataset) -> np.ndarray:
        """(rows,) negative log-density in nats."""
        return -self._known.log_likelihoods(data.arrays["x"])

    def remembered(self, test: Dataset, losses: np.ndarray) -> Dataset:
        """The components' parameters, in place of losses."""
        mixture = self._known
        return Dataset(_arrays(mixture), np.zeros(len(mixture.weights), np.int32))

    def own_measures(self, test: Dataset, first: Dataset | None) -> Facts:
        """`l2_squared` to generation 0's density, and its `log10_l2_squared`, as runs differ by factors; `component_std`: the
        root of a component's mean variance over dimensions.
        """
        mixture = self._known
        spreads = np.sqrt(np.trace(mixture.covariances, axis1=1, axis2=2) / mixture.means.shape[1])
        iterations, converged, likelihood = self._fitted.tolist()
        distance = em.l2_squared(em.Mixture(**first.arrays), mixture) if first else 0.0
        return {
            "l2_squared": distance,
            "log10_l2_squared": math.log10(max(distance, NONE)),
            "component_std_min": float(spreads.min()),
            "component_std_max": float(spreads.max()),
            "largest_weight": float(mixture.weights.max()),
            "iterations": int(iterations),
            "converged": int(converged),
            "log_likelihood": likelihood,
        }

    def beside(self, others: Sequence[State]) -> Facts:
        """`distance_to_others`: squared L2 distance of the densities, a mean over the models of other lineages."""
        mixtures = (em.Mixture(*(other[name] for name in _arrays(self._known))) for other in others)
        return {"distance_to_others": float(np.mean([em.l2_squared(self._known, other) for other in mixtures]))}

    @property
    def width(self) -> tuple[int, ...]:
        return self._known.means.shape[1:]

    # --- state --------------------------------------------------------------------------------------------------------

    def state(self) -> State:
        """The parameters, and `fitted` (3,): EM steps, whether they converged, log-likelihood of a row fitted to."""
        return {**_arrays(self._known), "fitted": self._fitted}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self._mixture = em.Mixture(state["weights"], state["means"], state["covariances"])
        self._fitted = state["fitted"]

    @property
    def _known(self) -> em.Mixture:
        assert self._mixture is not None, "fitted or restored first"
        return self._mixture


def _arrays(mixture: em.Mixture) -> State:
    return {"weights": mixture.weights, "means": mixture.means, "covariances": mixture.covariances}

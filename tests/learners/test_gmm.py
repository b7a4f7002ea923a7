"""The learner `gmm`: our EM against scikit-learn's from the same start, and where mixtures degenerate."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture as Reference
from support.trees import put

from collapse_cli.config import Experiment, load, preset_path, read_toml, variant_experiments
from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.learners import Hints, em, learner_class, silent
from collapse_cli.learners.gmm import GaussianMixture

NOWHERE = Path("nowhere")
EM: dict[str, Any] = {"components": 2, "tol": 1e-5, "max_iter": 300, "ridge": 1e-6, "seed": 0}


def tree(n: int = 200, **more: Any) -> Experiment:
    """A resolved configuration; `more` are options of the sections by their dotted names."""
    return Experiment.model_validate(put({"learner": "gmm", "data": {"source": "blobs", "rows": n}}, more))


def made(plain: Experiment, kind: str = "train") -> GaussianMixture:
    return GaussianMixture(GaussianMixture.params(plain, kind), Hints(), silent)


def real(plain: Experiment, seed: int = 0) -> dict[str, Dataset]:
    return made(plain, "data").real(seed)[0]


def rows_of(x: np.ndarray) -> Dataset:
    return Dataset({"x": x}, np.zeros(len(x), np.int32))


def prompts(streams: np.ndarray) -> Dataset:
    return Dataset({"stream": streams, "extra": np.zeros(len(streams), bool)}, np.zeros(len(streams), np.int32))


def drawn(seed: int, rows: int, d: int, centers: int, apart: float) -> np.ndarray:
    """Rows of a random mixture, far from the origin and with other units in each dimension."""
    random = np.random.default_rng(seed)
    places = random.standard_normal((centers, d)) * apart
    x = places[random.integers(centers, size=rows)] + random.standard_normal((rows, d)) @ random.standard_normal((d, d))
    return x * random.uniform(0.1, 10) + random.uniform(-50, 50, d)


def same(one: em.FittedMixture, other: em.FittedMixture, tolerance: float = 1e-6) -> None:
    """Equal steps, likelihoods and parameters."""
    assert one.iterations == other.iterations
    assert one.converged == other.converged
    assert abs(one.log_likelihood - other.log_likelihood) < 1e-6
    spread = np.sqrt(max(float(np.trace(c)) for c in other.mixture.covariances))
    np.testing.assert_allclose(one.mixture.weights, other.mixture.weights, atol=tolerance)
    np.testing.assert_allclose(one.mixture.means, other.mixture.means, atol=tolerance * (spread + 1))
    np.testing.assert_allclose(one.mixture.covariances, other.mixture.covariances, atol=tolerance * spread**2)


# --- the same algorithm -----------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(30, 400),
    d=st.integers(1, 4),
    components=st.integers(1, 4),
    centers=st.integers(1, 4),
    apart=st.floats(0, 8),
)
def test_em_is_scikit_learns_from_the_same_start(
    seed: int, rows: int, d: int, components: int, centers: int, apart: float
) -> None:
    """From k-means of one seed, and from given parameters."""
    x = drawn(seed, rows, d, centers, apart)
    options = EM | {"components": components, "seed": seed, "max_iter": 60}
    slow = em.fit_sklearn(x, **options)
    same(em.fit(x, **options), slow)
    # EM doubles small differences where it has hardly anything to go by; 8 steps leave them small
    start = em.kmeans_start(x, components, 1e-3, seed)
    short = options | {"max_iter": 8}
    same(em.fit(x, **short, start=start), em.fit_sklearn(x, **short, start=start))


@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(20, 300),
    d=st.integers(1, 4),
    clusters=st.integers(1, 4),
)
def test_clusters_are_those_of_scikit_learns_k_means(seed: int, rows: int, d: int, clusters: int) -> None:
    """With hardly more rows than clusters two candidates of k-means++ may be equally good, and rounding decides."""
    x = drawn(seed, rows, d, 3, 2.0)
    state = np.random.RandomState
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = KMeans(clusters, n_init=1, random_state=state(seed)).fit(x).labels_
    assert (em.kmeans_labels(x, clusters, state(seed)) == found).all()


@pytest.mark.parametrize("components", [1, 2, 3])
def test_steps_by_features_are_the_plain_steps(monkeypatch: pytest.MonkeyPatch, components: int) -> None:
    x = drawn(3, 500, 3, 3, 3.0)
    by_features = em.fit(x, **EM | {"components": components, "max_iter": 20})
    monkeypatch.setattr(em, "SAFE", math.inf)
    same(by_features, em.fit(x, **EM | {"components": components, "max_iter": 20}), 1e-9)


def test_no_step_lowers_the_likelihood_and_it_is_that_of_the_rows() -> None:
    x = drawn(1, 400, 2, 2, 2.0)
    found = [em.fit(x, **EM | {"max_iter": steps, "ridge": 0.0}) for steps in range(1, 25)]
    likelihoods = np.array([one.log_likelihood for one in found])
    assert (np.diff(likelihoods) > -1e-12).all()
    assert likelihoods[-1] - likelihoods[0] > 1e-4, "nothing happened"
    last = found[-1].mixture
    reference = Reference(2).fit(x)
    reference.weights_, reference.means_ = last.weights, last.means
    reference.precisions_cholesky_ = np.stack(
        [np.linalg.inv(np.linalg.cholesky(covariance)).T for covariance in last.covariances]
    )
    np.testing.assert_allclose(last.log_likelihoods(x), reference.score_samples(x), rtol=1e-9)


def test_em_stops_by_itself_or_at_the_most_steps() -> None:
    x = drawn(1, 400, 2, 2, 2.0)
    assert not em.fit(x, **EM | {"max_iter": 3}).converged
    assert em.fit(x, **EM | {"max_iter": 3}).iterations == 3
    assert em.fit(x, **EM | {"max_iter": 5000}).converged


@given(size=st.integers(0, 3000), seed=st.integers(0, 100))
def test_logarithms_of_products_are_sums_of_logarithms(size: int, seed: int) -> None:
    factors = 1 + np.random.default_rng(seed).random(size)
    assert em._sum_of_logs(factors) == pytest.approx(np.log(factors).sum(), rel=1e-12, abs=1e-12)
    assert em._sum_of_logs(np.full(size, 2.0)) == pytest.approx(size * math.log(2))


# --- degenerate mixtures ----------------------------------------------------------------------------------------------


def test_a_component_that_shrinks_to_the_ridge() -> None:
    """Half of the rows are one point: its covariance is the ridge, a millionth of the other's or less."""
    random = np.random.default_rng(0)
    x = np.concatenate([np.full((100, 2), 7.0), 100 * random.standard_normal((100, 2))])
    fast, slow = em.fit(x, **EM), em.fit_sklearn(x, **EM)
    same(fast, slow)
    narrow = fast.mixture.covariances[fast.mixture.weights.argsort()]
    assert np.linalg.eigvalsh(narrow).min() == pytest.approx(1e-6, rel=1e-6)


def test_two_narrow_components_far_apart() -> None:
    """Spread 1e-4 of the distance: features alone would lose the digits."""
    random = np.random.default_rng(0)
    x = 1e-3 * random.standard_normal((300, 2)) + np.where(random.random((300, 1)) < 0.3, 0.0, 50.0)
    fast, slow = em.fit(x, **EM), em.fit_sklearn(x, **EM)
    same(fast, slow)
    np.testing.assert_allclose(fast.mixture.covariances, slow.mixture.covariances, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("components", [1, 2, 3])
def test_identical_rows(components: int) -> None:
    x = np.full((20, 2), 3.0)
    options = EM | {"components": components}
    fast = em.fit(x, **options)
    assert abs(fast.log_likelihood - em.fit_sklearn(x, **options).log_likelihood) < 1e-6
    assert fast.mixture.weights.sum() == pytest.approx(1)
    np.testing.assert_allclose((fast.mixture.weights[:, None] * fast.mixture.means).sum(axis=0), 3)


def test_a_component_that_holds_nothing() -> None:
    """Started a hundred standard deviations from all rows, it keeps no weight, and the other is the Gaussian of the rows."""
    x = drawn(2, 300, 2, 1, 0.0)
    there = em.kmeans_start(x, 1, 1e-6, 0)
    far = em.Mixture(
        np.array([0.5, 0.5]),
        np.concatenate([there.means, there.means + 1e4]),
        np.concatenate([there.covariances, there.covariances]),
    )
    fast, slow = em.fit(x, **EM, start=far), em.fit_sklearn(x, **EM, start=far)
    assert abs(fast.log_likelihood - slow.log_likelihood) < 1e-6
    assert fast.mixture.weights.min() < 1e-15
    np.testing.assert_allclose(fast.mixture.covariances[0], slow.mixture.covariances[0], rtol=1e-9)


@pytest.mark.parametrize("engine", [em.fit, em.fit_sklearn])
def test_too_few_rows_and_no_ridge_are_said(engine: Any) -> None:
    with pytest.raises(InputError, match=r"2 rows are too few for a mixture of 3 components; raise data\.rows"):
        engine(np.zeros((2, 2)), **EM | {"components": 3})
    with pytest.raises(InputError, match=r"shrunk to a point, .* set gmm\.ridge above 0"):
        engine(np.zeros((9, 2)), **EM | {"ridge": 0.0})


@given(seed=st.integers(0, 10**6), distinct=st.integers(1, 4), rows=st.integers(4, 40), d=st.integers(1, 3))
def test_few_distinct_rows_are_no_trouble(seed: int, distinct: int, rows: int, d: int) -> None:
    random = np.random.default_rng(seed)
    x = random.standard_normal((distinct, d))[random.integers(distinct, size=rows)]
    fast = em.fit(x, **EM)
    assert np.isfinite(fast.log_likelihood)
    assert abs(fast.log_likelihood - em.fit_sklearn(x, **EM).log_likelihood) < 1e-5


# --- distance, samples ------------------------------------------------------------------------------------------------


def test_l2_against_integration_and_against_itself() -> None:
    one = em.Mixture(np.array([0.3, 0.7]), np.array([[0.0], [2.0]]), np.array([[[1.0]], [[0.25]]]))
    other = em.Mixture(np.array([0.9, 0.1]), np.array([[1.0], [-2.0]]), np.array([[[2.0]], [[0.04]]]))
    grid = np.linspace(-20, 20, 400_001)[:, None]
    squares = (np.exp(one.log_likelihoods(grid)) - np.exp(other.log_likelihoods(grid))) ** 2
    assert em.l2_squared(one, other) == pytest.approx(squares.sum() * (grid[1, 0] - grid[0, 0]), rel=1e-8)
    assert em.l2_squared(one, other) == pytest.approx(em.l2_squared(other, one), rel=1e-12)
    assert em.l2_squared(one, one) < 1e-16


def test_samples_are_of_the_mixture_and_a_row_is_its_own() -> None:
    plain = tree()
    model = made(plain)
    covariances = np.array([[[1.0, 0.6], [0.6, 1.0]], [[0.01, 0], [0, 4.0]], [[1.0, 0], [0, 1.0]]])
    model.restore(
        {
            "weights": np.array([0.2, 0.5, 0.3]),
            "means": np.array([[0.0, 0], [10, 0], [0, 20]]),
            "covariances": covariances,
            "fitted": np.zeros(3),
        }
    )
    x = model.sample(prompts(np.arange(60_000)), seed=1, scratch=NOWHERE).rows.arrays["x"]
    which = np.where(x[:, 1] > 12, 2, np.where(x[:, 0] > 6, 1, 0))
    np.testing.assert_allclose(np.bincount(which) / len(x), [0.2, 0.5, 0.3], atol=0.01)
    for k, covariance in enumerate(covariances):
        np.testing.assert_allclose(np.cov(x[which == k].T), covariance, atol=0.08)
    outcome = model.sample(prompts(np.array([700, 3, 12])), seed=1, scratch=NOWHERE)
    few, facts = outcome.rows, outcome.facts
    np.testing.assert_allclose(few.arrays["x"], x[[700, 3, 12]], rtol=1e-12)
    assert facts == {"sample_rows": 3}
    assert (model.sample(prompts(np.arange(9)), seed=2, scratch=NOWHERE).rows.arrays["x"] != x[:9]).all()


# --- the learner ------------------------------------------------------------------------------------------------------


def chain(plain: Experiment, generations: int) -> list[dict[str, Any]]:
    """Measures of each generation under full replacement; a new learner for each verb, as stages have them."""
    parts = real(plain)
    corpus, state, first, found = parts["train"], None, None, []
    for generation in range(generations + 1):
        model = made(plain)
        if state is not None and plain.loop.init == "previous":
            model.restore(state)
        model.fit(corpus, seed=generation, scratch=NOWHERE)
        state = model.state()
        judge, sampler = made(plain, "eval"), made(plain, "sample")
        judge.restore(state)
        sampler.restore(state)
        outcome = judge.measure(parts["test"], first)
        kept = outcome.rows
        first = first or kept
        found.append(outcome.facts)
        corpus = sampler.sample(prompts(np.arange(len(corpus))), seed=generation, scratch=NOWHERE).rows
    return found


def test_generations_of_both_engines_are_the_same() -> None:
    fast, slow = (chain(tree(gmm__engine=engine), 12) for engine in ("fast", "sklearn"))
    assert [one["iterations"] for one in fast] == [one["iterations"] for one in slow]
    for one, other in zip(fast, slow, strict=True):
        for name in ("log_likelihood", "test_loss", "component_std_min", "component_std_max", "l2_squared"):
            assert one[name] == pytest.approx(other[name], rel=1e-6, abs=1e-9), name
    assert all(math.isfinite(value) for one in fast for value in one.values())
    assert fast == chain(tree(), 12), "same bits"


def test_the_distance_is_to_generation_0_and_grows() -> None:
    found = chain(tree(n=30), 60)
    assert found[0]["l2_squared"] == 0
    assert found[0]["log10_l2_squared"] == -16
    assert found[60]["l2_squared"] > found[1]["l2_squared"] > 0
    assert found[60]["log10_l2_squared"] == pytest.approx(math.log10(found[60]["l2_squared"]))
    assert found[60]["component_std_min"] < 0.5 * found[0]["component_std_min"]


def test_starting_from_the_parent_takes_fewer_steps_and_generation_0_is_the_same() -> None:
    fresh, warm = chain(tree(n=1000), 8), chain(tree(n=1000, gmm__start="parent", loop__init="previous"), 8)
    assert fresh[0] == warm[0]
    assert sum(one["iterations"] for one in warm[1:]) < sum(one["iterations"] for one in fresh[1:])
    assert warm[1]["log_likelihood"] == pytest.approx(fresh[1]["log_likelihood"], abs=0.01)


def test_a_start_from_k_means_ignores_what_was_loaded() -> None:
    plain = tree()
    parts, model, other = real(plain), made(plain), made(plain)
    model.fit(parts["test"], seed=0, scratch=NOWHERE)
    other.restore(model.state())
    model.fit(parts["train"], seed=1, scratch=NOWHERE)
    other.fit(parts["train"], seed=1, scratch=NOWHERE)
    assert all((model.state()[name] == other.state()[name]).all() for name in model.state())


def test_a_saved_model_is_the_same_model(tmp_path: Path) -> None:
    plain = tree()
    model, other = made(plain), made(plain, "eval")
    parts = real(plain)
    model_facts = model.fit(parts["train"], seed=0, scratch=NOWHERE)
    assert model_facts["train_loss"] == pytest.approx(model.score(parts["train"]).mean(), rel=1e-12)
    model.save(tmp_path)
    other.load(tmp_path)
    model_facts = model.measure(parts["test"]).facts
    other_facts = other.measure(parts["test"]).facts
    assert model_facts == other_facts
    assert other_facts["iterations"] > 1


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(InputError, match=r"say how many, as in data\.rows = 1000"):
        GaussianMixture.resolve(tree(n=0))
    with pytest.raises(InputError, match=r"data\.rows = 3 is too few to fit this model; it needs at least 5"):
        GaussianMixture.resolve(tree(n=3, gmm__components=5))
    with pytest.raises(InputError, match=r"set loop\.init = previous as well, or gmm\.start = kmeans"):
        GaussianMixture.resolve(tree(gmm__start="parent"))
    with pytest.raises(InputError, match=r"'pydoc' cannot be taken by the learner gmm; it takes blobs"):
        GaussianMixture.resolve(tree(data__source="pydoc"))
    GaussianMixture.resolve(tree(gmm__start="parent", loop__init="previous"))
    assert learner_class("gmm") is GaussianMixture


@pytest.mark.parametrize("name", ["nature-gmm", "nature-gmm-full"])
def test_the_presets_are_the_notebook(name: str) -> None:
    written = read_toml(preset_path(name))
    found = variant_experiments(written, name) or {"": load(written, name)}
    for one in found.values():
        GaussianMixture.resolve(one)
        assert (one.loop.generations, *map(str, one.loop.policies), one.data.blobs.dimensions) == (2050, "keep-0", 2)
        assert (one.gmm.components, one.gmm.tol, one.gmm.max_iter, one.gmm.start) == (2, 1e-5, 2000, "kmeans")
        (ridge,) = {one.gmm.ridge, Reference().reg_covar}
        assert ridge == 1e-6
        assert one.expect

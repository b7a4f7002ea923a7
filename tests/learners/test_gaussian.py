"""The learner `gaussian`: against NumPy trial by trial, against closed forms, and where variances are gone."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from support.trees import put

from collapse_cli.config import Experiment, preset_path, read_toml, variant_experiments
from collapse_cli.data import blobs
from collapse_cli.data.dataset import WEIGHTS, Dataset
from collapse_cli.errors import InputError
from collapse_cli.findings.predictions import predict_loop
from collapse_cli.learners import Hints, learner_class, silent
from collapse_cli.learners.gaussian import NAMES, TINY, Gaussian
from collapse_cli.theory.gaussian import gaussian as theory

NOWHERE = Path("nowhere")


def tree(n: int = 50, d: int = 1, trials: int = 3, **more: Any) -> Experiment:
    """A resolved configuration; `more` are options of the sections by their dotted names."""
    plain: dict[str, Any] = {
        "learner": "gaussian",
        "data": {"source": "blobs", "rows": n, "blobs": {"dimensions": d}},
        "gaussian": {"trials": trials},
    }
    return Experiment.model_validate(put(plain, more))


def made(plain: Experiment, kind: str = "train") -> Gaussian:
    return Gaussian(Gaussian.params(plain, kind), Hints(), silent)


def real(plain: Experiment, seed: int = 0) -> dict[str, Dataset]:
    return made(plain, "data").real(seed)[0]


def prompts(streams: np.ndarray) -> Dataset:
    rows = len(streams)
    return Dataset({"stream": streams, "extra": np.zeros(rows, bool)}, np.zeros(rows, np.int32))


def chain(plain: Experiment, generations: int, policy: str, seed: int = 0) -> Gaussian:
    """The model of the last generation: fitted once to real data and then `generations` times to what it made."""
    parts, model = real(plain, seed), made(plain)
    corpus = parts["train"]
    summary = model.summary_of(corpus)
    for generation in range(generations + 1):
        model.fit_summary(summary)
        if generation == generations:
            break
        new = model.sample(prompts(np.arange(len(corpus))), seed=1000 * seed + generation, scratch=NOWHERE).rows
        fresh = model.summarise(new)
        summary = model.merge(summary, fresh) if policy == "accumulate" else fresh
    return model


# --- fitting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("d", [1, 3])
def test_a_fit_is_the_mean_and_covariance_of_each_trial(d: int, unbiased: bool) -> None:
    plain = tree(d=d, gaussian__unbiased=unbiased, data__blobs__spread=3.0)
    data, model = real(plain)["train"], made(plain)
    facts = model.fit(data, seed=0, scratch=NOWHERE)
    state = model.state()
    for trial in range(3):
        x = data.arrays["x"][:, trial]
        np.testing.assert_allclose(state["mean"][trial], x.mean(axis=0), rtol=1e-12)
        covariance = np.cov(x.T, ddof=int(unbiased)).reshape(d, d)
        np.testing.assert_allclose(state["covariance"][trial], covariance, rtol=1e-11, atol=1e-13)
    assert facts["train_loss"] == pytest.approx(model.score(data).mean(), rel=1e-12)


@given(parts=st.lists(st.integers(1, 40), min_size=2, max_size=6), d=st.integers(1, 3), far=st.floats(0, 1e6))
def test_sums_merged_in_order_are_the_fit_of_all_rows(parts: list[int], d: int, far: float) -> None:
    plain = tree(d=d, trials=2)
    model, random = made(plain), np.random.default_rng(sum(parts))
    rows = [
        Dataset({"x": random.standard_normal((n, 2, d)) * (i + 1) + far * i}, np.full(n, i, np.int32))
        for i, n in enumerate(parts)
    ]
    corpus = Dataset.concat(rows)
    model.fit(corpus, seed=0, scratch=NOWHERE)
    at_once = model.state()
    running = model.summarise(rows[0])
    for more in rows[1:]:
        running = model.merge(running, model.summarise(more))
    model.fit_summary(running)
    for name, array in model.state().items():
        assert (array == at_once[name]).all(), "to the last bit"
    x = corpus.arrays["x"]
    off = x - x.mean(axis=0)
    whole = np.einsum("rti,rtj->tij", off, off) / len(x)
    np.testing.assert_allclose(at_once["covariance"], whole, rtol=1e-9, atol=1e-12 * (1 + far * len(parts)) ** 2)


def test_accumulated_sums_need_no_rows_and_digits_stay_when_the_mean_is_far_from_zero() -> None:
    """Sums of squares less the square of the sum would be off by 1e16 * 1e-16 here."""
    plain = tree(trials=1)
    model, random = made(plain), np.random.default_rng(0)
    x = 1e8 + random.standard_normal((1000, 1, 1))
    halves = [model.summarise(Dataset({"x": part}, np.zeros(500, np.int32))) for part in (x[:500], x[500:])]
    model.fit_summary(model.merge(*halves))
    assert model.state()["covariance"][0, 0, 0] == pytest.approx(x.var(), rel=1e-6)


def test_one_row_has_no_unbiased_covariance() -> None:
    plain = tree()
    rows = real(plain)["train"].take(np.arange(1))
    with pytest.raises(InputError, match=r"at least 2 rows .* data\.rows"):
        made(plain).fit(rows, seed=0, scratch=NOWHERE)


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 3])
def test_a_row_depends_on_its_stream_and_not_on_its_neighbours(d: int) -> None:
    plain = tree(d=d)
    model = made(plain)
    model.fit(real(plain)["train"], seed=0, scratch=NOWHERE)
    whole = model.sample(prompts(np.arange(40)), seed=5, scratch=NOWHERE).rows.arrays["x"]
    few = model.sample(prompts(np.array([30, 2])), seed=5, scratch=NOWHERE).rows.arrays["x"]
    if d == 1:
        assert (few == whole[[30, 2]]).all()
    np.testing.assert_allclose(few, whole[[30, 2]], rtol=1e-13)  # sums of a matrix product may be in another order
    again = model.sample(prompts(np.arange(40)), seed=5, scratch=NOWHERE).rows.arrays["x"]
    assert (again == whole).all()
    assert (model.sample(prompts(np.arange(40)), seed=6, scratch=NOWHERE).rows.arrays["x"] != whole).all()


def test_samples_have_the_models_mean_and_covariance() -> None:
    plain = tree(d=3, trials=2)
    model = made(plain)
    covariance = np.array([[[4, 1, 0], [1, 2, -0.5], [0, -0.5, 1.0]], np.diag([1.0, 0, 9])])
    model.restore({"mean": np.array([[5.0, 0, -5], [0, 1, 2]]), "covariance": covariance})
    x = model.sample(prompts(np.arange(100_000)), seed=0, scratch=NOWHERE).rows.arrays["x"]
    for trial in range(2):
        np.testing.assert_allclose(x[:, trial].mean(axis=0), model.state()["mean"][trial], atol=0.04)
        np.testing.assert_allclose(np.cov(x[:, trial].T), covariance[trial], atol=0.12)


def test_rows_that_are_only_shown_are_not_counted() -> None:
    plain = tree()
    model = made(plain)
    model.fit(real(plain)["train"], seed=0, scratch=NOWHERE)
    shown = Dataset({"stream": np.arange(5), "extra": np.arange(5) > 2}, np.zeros(5, np.int32))
    outcome = model.sample(shown, seed=0, scratch=NOWHERE)
    assert len(outcome.rows) == 5
    assert outcome.facts == {"sample_rows": 3}


# --- against theory ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("policy", ["keep-0", "accumulate"])
def test_generations_are_what_theory_says(policy: str, unbiased: bool) -> None:
    """Generation 9 has been fitted 10 times, from N(0, 4) on; units are those of the truth."""
    n, steps = 10, 10
    plain = tree(n=n, trials=20_000, gaussian__unbiased=unbiased, data__blobs__spread=2.0, data__eval_rows=5)
    model = chain(plain, steps - 1, policy)
    facts = model.measure(real(plain)["test"]).facts
    rule = "accumulate" if policy == "accumulate" else "replace"
    said = theory(n=n, refits=steps, unbiased=unbiased, policy=rule)
    expected = {
        "variance": said.variance,
        "mean_shift_squared": said.mean_error,
        "std": said.std,
        "log_variance": said.log_variance,
        "w2_squared": said.wasserstein,
    }
    for name, value in expected.items():
        if value is not None:
            assert abs(facts[name] - value) < 4.5 * facts[f"{name}_se"], name
            assert facts[f"{name}_se"] < 0.04 * max(abs(value), 0.5), "the test would pass for anything"


def test_generations_in_three_dimensions_are_what_theory_says() -> None:
    n, steps, d = 20, 8, 3
    plain = tree(n=n, d=d, trials=2_000, gaussian__unbiased=True, data__eval_rows=5)
    model = chain(plain, steps - 1, "keep-0")
    facts = model.measure(real(plain)["test"]).facts
    said = theory(n=n, refits=steps, unbiased=True, d=d)
    assert said.log_determinant is not None
    assert facts["log_det"] == pytest.approx(said.log_determinant, abs=0.15)
    assert abs(facts["mean_shift_squared"] - said.mean_error) < 4 * facts["mean_shift_squared_se"]
    assert abs(facts["variance"] - said.variance) < 4 * facts["variance_se"]
    assert facts["w2_squared"] > said.wasserstein_lower


# --- measures ---------------------------------------------------------------------------------------------------------


def test_measures_against_the_slow_way() -> None:
    """Two centers on a line: the truth has another variance in the first dimension than in the second."""
    plain = tree(n=500, d=2, trials=4, data__blobs__centers=2, data__blobs__separation=3.0)
    model = made(plain)
    parts = real(plain)
    model.fit(parts["train"].take(np.arange(30)), seed=0, scratch=NOWHERE)
    outcome = model.measure(parts["test"])
    kept, facts = outcome.rows, outcome.facts
    state = model.state()
    truth = np.array([10.0, 1.0])  # 1 + 3², 1
    values = state["covariance"] / np.sqrt(np.outer(truth, truth))
    shift = (state["mean"] ** 2 / truth).sum(axis=1)
    distance = [s + np.trace(v + np.eye(2) - 2 * np.real(sqrtm(v))) for s, v in zip(shift, values, strict=True)]
    diagonal = np.diagonal(values, axis1=1, axis2=2)
    slow = {
        "variance": diagonal.mean(axis=1),
        "std": np.sqrt(diagonal).mean(axis=1),
        "log_variance": np.log(diagonal).mean(axis=1),
        "mean_shift_squared": shift,
        "w2_squared": np.array(distance),
    }
    for name, found in slow.items():
        assert facts[name] == pytest.approx(found.mean(), rel=1e-9), name
        assert facts[f"{name}_se"] == pytest.approx(found.std(ddof=1) / 2, rel=1e-9), name
    assert facts["log_det"] == pytest.approx(np.mean([math.log(np.linalg.det(v)) for v in values]))
    x = parts["test"].arrays["x"]
    losses = np.zeros(len(x))
    for trial in range(4):
        off, covariance = x[:, trial] - state["mean"][trial], state["covariance"][trial]
        squares = np.einsum("ri,ij,rj->r", off, np.linalg.inv(covariance), off)
        losses += (squares + math.log(np.linalg.det(2 * math.pi * covariance))) / 8
    np.testing.assert_allclose(model.score(parts["test"]), losses, rtol=1e-9)
    assert facts["test_loss"] == pytest.approx(losses.mean())
    assert (kept.arrays["mean"] == state["mean"]).all()


def test_one_trial_has_no_standard_errors() -> None:
    plain = tree(trials=1)
    model = made(plain)
    model.fit(real(plain)["train"], seed=0, scratch=NOWHERE)
    facts = model.measure(real(plain)["test"]).facts
    assert not [name for name in facts if name.endswith("_se")]
    assert {*NAMES, "test_loss", "collapsed_share"} == facts.keys()


# --- where variances are gone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "d"), [(2, 1), (3, 1), (4, 3), (3, 3), (2, 3)])
def test_a_collapse_to_a_point_stays_finite(n: int, d: int) -> None:
    """With n <= d covariances are singular from the start; all variances are below any float in the end."""
    plain = tree(n=n, d=d, trials=5)
    test = real(plain)["test"]
    with np.errstate(all="raise", under="ignore"):
        for generations in (0, 20, 2500):
            model = chain(plain, generations, "keep-0")
            facts = model.measure(test).facts
            assert all(math.isfinite(value) for value in facts.values()), generations
            assert facts["log_variance"] > math.log(TINY) - 1e-9
    assert facts["collapsed_share"] == 1
    assert facts["variance"] < 1e-20


def test_of_trials_only_the_singular_ones_take_the_other_way() -> None:
    plain = tree(d=2, trials=2)
    healthy, model, other = np.array([[2.0, 0.5], [0.5, 1.0]]), made(plain), made(plain)
    model.restore({"mean": np.zeros((2, 2)), "covariance": np.stack([healthy, np.zeros((2, 2))])})
    other.restore({"mean": np.zeros((2, 2)), "covariance": np.stack([healthy, healthy])})
    x = model.sample(prompts(np.arange(9)), seed=1, scratch=NOWHERE).rows.arrays["x"]
    assert (x[:, 1] == 0).all()
    assert (x[:, 0] == other.sample(prompts(np.arange(9)), seed=1, scratch=NOWHERE).rows.arrays["x"][:, 0]).all()


# --- the source, the state, what is refused ---------------------------------------------------------------------------


def test_more_real_rows_begin_with_the_same_ones_and_parts_share_nothing() -> None:
    few, many = real(tree(n=10, data__reserve=10), 3), real(tree(n=99, data__reserve=20, data__eval_rows=7), 3)
    assert (few["train"].arrays["x"] == many["train"].arrays["x"][:10]).all()
    assert (few["reserve"].arrays["x"] == many["reserve"].arrays["x"][:10]).all()
    assert [len(few[name]) for name in ("train", "test", "reserve")] == [10, blobs.TEST_ROWS, 10]
    assert len(many["test"]) == 7
    assert not np.isin(many["train"].arrays["x"], many["reserve"].arrays["x"]).any()
    assert (real(tree(n=10), 4)["train"].arrays["x"] != few["train"].arrays["x"]).all()
    assert few["train"].arrays["x"].dtype == np.float64


@pytest.mark.parametrize(("count", "d"), [(1, 3), (2, 2), (3, 2), (5, 3), (4, 1)])
def test_the_truth_of_blobs_is_that_of_their_rows(count: int, d: int) -> None:
    plain = tree(n=60_000, d=d, trials=1, data__blobs__centers=count, data__blobs__spread=0.5)
    mean, variance = blobs.truth(made(plain).settings.blobs)
    x = real(plain)["train"].arrays["x"][:, 0]
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=0.06)
    np.testing.assert_allclose(np.cov(x.T).reshape(d, d), np.diag(variance), atol=0.1)


def test_a_saved_model_is_the_same_model(tmp_path: Path) -> None:
    plain = tree(d=2)
    model, other = made(plain), made(plain, "sample")
    model.fit(real(plain)["train"], seed=0, scratch=NOWHERE)
    model.save(tmp_path)
    other.load(tmp_path)
    one, two = (m.sample(prompts(np.arange(5)), seed=1, scratch=NOWHERE).rows.arrays["x"] for m in (model, other))
    assert (one == two).all()


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(InputError, match=r"say how many, as in data\.rows = 1000"):
        Gaussian.resolve(tree(n=0))
    with pytest.raises(InputError, match=r"data\.rows = 1 is too few"):
        Gaussian.resolve(tree(n=1))
    with pytest.raises(InputError, match=r"'digits' cannot be taken by the learner gaussian; it takes blobs"):
        Gaussian.resolve(tree(data__source="digits"))


def test_a_stage_depends_on_what_changes_it() -> None:
    plain = tree()
    assert learner_class("gaussian") is Gaussian
    assert Gaussian.resolve(plain).row_bytes == 24
    assert Gaussian.params(plain, "data") != Gaussian.params(tree(trials=4), "data")
    assert Gaussian.params(plain, "data") == Gaussian.params(tree(gaussian__unbiased=True), "data")
    assert Gaussian.params(plain, "eval") != Gaussian.params(tree(data__blobs__spread=2.0), "eval")
    assert Gaussian.drawn(plain)


# --- the preset -------------------------------------------------------------------------------------------------------


def test_the_preset_is_the_notebook_and_theory_knows_every_value_left_out() -> None:
    found = variant_experiments(read_toml(preset_path("nature-gaussian")), "nature-gaussian")
    assert [one.data.rows for one in found.values()] == [10, 100, 500, 1000, 10_000]
    for name, one in found.items():
        plain = one.model_dump(mode="json")
        Gaussian.resolve(one)
        assert one.loop.generations == (99 if name == "n10" else 999)
        assert (one.data.blobs.dimensions, one.gaussian.unbiased) == (1, False)
        assert set(map(str, one.loop.policies)) == {"keep-0", "accumulate"}
        assert one.expect
        for entry in one.expect:
            assert entry.generation <= one.loop.generations
            if entry.value is None:
                assert predict_loop(plain, entry.what, entry.policy, entry.generation) is not None, entry


# --- truncated loss ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("d", [1, 3])
def test_a_truncated_fit_is_that_of_the_rows_that_count(d: int, unbiased: bool) -> None:
    plain = tree(d=d, gaussian__unbiased=unbiased, gaussian__truncate=0.8, loop__init="previous")
    parts = real(plain)
    first, model = made(plain), made(plain)
    first.fit(parts["train"], seed=0, scratch=NOWHERE)
    np.testing.assert_array_equal(
        first.state()["mean"], parts["train"].arrays["x"].mean(axis=0), "generation 0: all rows"
    )
    model.restore(first.state())
    rows = real(plain, 5)["train"]
    facts = model.fit(rows, seed=0, scratch=NOWHERE)
    counted, losses = [], []
    for trial in range(3):
        x, mean = rows.arrays["x"][:, trial], first.state()["mean"][trial]
        inverse = np.linalg.inv(first.state()["covariance"][trial])
        far = np.sqrt(np.einsum("ri,ij,rj->r", x - mean, inverse, x - mean)) >= 0.8
        np.testing.assert_allclose(model.state()["mean"][trial], x[far].mean(axis=0), rtol=1e-12)
        covariance = np.cov(x[far].T, ddof=int(unbiased)).reshape(d, d)
        np.testing.assert_allclose(model.state()["covariance"][trial], covariance, rtol=1e-11, atol=1e-13)
        counted.append(far.mean())
        alone = made(tree(d=d, trials=1))
        alone.restore({name: array[trial : trial + 1] for name, array in model.state().items()})
        losses.append(
            np.where(far, alone.score(Dataset({"x": rows.arrays["x"][:, trial : trial + 1]}, rows.origin)), 0)
        )
    assert facts["counted_share"] == pytest.approx(np.mean(counted))
    assert facts["train_loss"] == pytest.approx(np.mean(losses), rel=1e-12)


def test_in_a_truncated_fit_a_row_of_weight_two_is_two_rows() -> None:
    plain = tree(gaussian__truncate=0.5, loop__init="previous")
    first, rows = made(plain), real(plain, 5)["train"]
    first.fit(real(plain)["train"], seed=0, scratch=NOWHERE)

    def fitted(data: Dataset, **weights: np.ndarray) -> tuple[Any, float]:
        model = made(plain)
        model.restore(first.state())
        facts = model.fit(Dataset({**data.arrays, **weights}, data.origin), seed=0, scratch=NOWHERE)
        return model.state(), facts["train_loss"]

    often = np.where(np.arange(len(rows)) % 3 == 0, 2, 1)
    state, loss = fitted(rows, **{WEIGHTS: often.astype(float)})
    again, other = fitted(rows.take(np.repeat(np.arange(len(rows)), often)))
    for name in state:
        np.testing.assert_allclose(state[name], again[name], rtol=1e-11)
    assert loss == pytest.approx(other, rel=1e-11)


def test_a_truncated_fit_of_too_few_rows_says_so() -> None:
    plain = tree(n=20, gaussian__truncate=9.0, loop__init="previous")
    model = made(plain)
    model.fit(real(plain)["train"], seed=0, scratch=NOWHERE)
    with pytest.raises(InputError, match="leaves 0 of 20 rows that count, and 1 are needed; lower it"):
        model.fit(real(plain, 1)["train"], seed=0, scratch=NOWHERE)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "loop.init = base starts from none; set loop.init = previous"),
        ({"loop__init": "previous", "loop__policies": ["keep-0", "accumulate"]}, "accumulate keeps only sums"),
    ],
)
def test_a_truncated_loss_that_nothing_could_judge_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Gaussian.resolve(tree(gaussian__truncate=0.5, **more))

"""Weighted fits: exactly those of a corpus in which each row stands as many times as it weighs, or of slow code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import imagery

from collapse_cli.config import load
from collapse_cli.config.weights import Weights
from collapse_cli.data.dataset import WEIGHTS, Dataset
from collapse_cli.errors import InputError
from collapse_cli.experiment.mixing import weighted
from collapse_cli.learners import Family, Hints, learner_class, nets, silent
from collapse_cli.learners.mlp import TwoLayers
from collapse_cli.learners.vae import Vae, loss_terms

SETTINGS: dict[str, dict[str, Any]] = {
    "gaussian": {"data": {"source": "blobs", "rows": 30, "blobs": {"dimensions": 2}}, "gaussian": {"trials": 3}},
    "gmm": {"data": {"source": "blobs", "rows": 40}, "gmm": {"components": 2}},
    "gmm-3": {"learner": "gmm", "data": {"source": "blobs", "rows": 40}, "gmm": {"components": 3}},
    "ridge": {"data": {"source": "regression", "rows": 30, "regression": {"dimensions": 5}}, "ridge": {"lam": 0.1}},
    "ridge-of-few-rows": {
        "learner": "ridge",
        "data": {"source": "regression", "rows": 20, "regression": {"dimensions": 60}},
        "ridge": {"lam": 0.1},
    },
    "projections": {
        "data": {"source": "regression", "rows": 30, "regression": {"dimensions": 8}},
        "projections": {"lam": 0.1, "width": 6},
    },
    "ngram": {"data": {"source": "zipf"}, "ngram": {"order": 3}},
    "ngram-of-many-words": {"learner": "ngram", "data": {"source": "zipf"}, "ngram": {"order": 2}},
}


def made(name: str, **more: Any) -> Family:
    settings = {"learner": name, **SETTINGS[name], **more}
    kind: Any = learner_class(settings["learner"])
    return kind(kind.params(load(settings, "a test"), "train"), Hints(), silent)


def corpus(name: str, rows: int = 24) -> Dataset:
    """Rows of a family, real, of model 1 and of model 2, in no order."""
    random = np.random.default_rng(3)
    learner, origin = name.partition("-")[0], random.integers(0, 3, rows).astype(np.int32)
    match learner:
        case "gaussian":
            arrays: Mapping[str, np.ndarray] = {"x": random.standard_normal((rows, 3, 2)) + origin[:, None, None]}
        case "gmm":
            arrays = {
                "x": random.standard_normal((rows, 2)) + 4 * random.integers(0, 2, rows)[:, None] + origin[:, None]
            }
        case "ridge" | "projections":
            d = load({"learner": learner, **SETTINGS[name]}, "a test").data.regression.dimensions
            x = random.standard_normal((rows, d))
            arrays = {"x": x, "y": x.sum(axis=1) + random.standard_normal(rows) + 3 * origin}
        case _:
            words = 7 if name == "ngram" else 100_000
            lengths = random.integers(0, 10, rows).astype(np.int32)
            arrays = {
                "tokens": random.integers(0, words, (rows, 9)).astype(np.int32),
                "lengths": np.minimum(lengths, 9),
            }
    return Dataset(arrays, origin)


def repeated(data: Dataset, real: int, synthetic: int) -> Dataset:
    """Each row as many times, one behind the other."""
    return data.take(np.repeat(np.arange(len(data)), np.where(data.origin == 0, real, synthetic)))


def equal(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        if name.startswith("counts_"):  # only their shares mean anything
            assert len(found[name]) == len(array)
            if len(array):
                np.testing.assert_allclose(found[name] / found[name].sum(), array / array.sum(), rtol=1e-12)
        else:
            np.testing.assert_allclose(found[name], array, rtol=1e-8, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(("real", "synthetic"), [(2, 1), (1, 3), (5, 2)])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_row_that_weighs_twice_as_much_is_one_that_stands_there_twice(
    name: str, real: int, synthetic: int, tmp_path: Path
) -> None:
    data, (first, second, plain) = corpus(name), (made(name) for _ in range(3))
    facts = first.fit(weighted(data, Weights(real / synthetic)), seed=5, scratch=tmp_path)
    slow = second.fit(repeated(data, real, synthetic), seed=5, scratch=tmp_path)
    plain.fit(data, seed=5, scratch=tmp_path)
    equal(first.state(), second.state())
    assert facts["train_loss"] == pytest.approx(slow["train_loss"], rel=1e-8)
    with pytest.raises(AssertionError):
        equal(first.state(), plain.state())


@pytest.mark.parametrize("name", SETTINGS)
def test_weights_that_are_all_1_give_what_none_give(name: str, tmp_path: Path) -> None:
    data, (first, second) = corpus(name), (made(name) for _ in range(2))
    ones = Dataset({**data.arrays, WEIGHTS: np.ones(len(data))}, data.origin)
    facts, slow = first.fit(ones, seed=5, scratch=tmp_path), second.fit(data, seed=5, scratch=tmp_path)
    equal(first.state(), second.state())
    assert facts["train_loss"] == pytest.approx(slow["train_loss"], rel=1e-8)


def test_equal_weights_are_none_at_all() -> None:
    data = corpus("gaussian")
    assert weighted(data, Weights()) is data
    for alone in (data.take(np.flatnonzero(data.origin == 0)), data.take(np.flatnonzero(data.origin > 0))):
        assert weighted(alone, Weights(None)) is alone


def test_the_unbiased_covariance_of_a_gaussian_is_that_of_numpy(tmp_path: Path) -> None:
    """`aweights`: weights that say how much a row counts, not how often it was seen."""
    data, model = corpus("gaussian"), made("gaussian", gaussian={"trials": 3, "unbiased": True})
    given = weighted(data, Weights(3.7))
    model.fit(given, seed=0, scratch=tmp_path)
    for trial in range(3):
        wanted = np.cov(data.arrays["x"][:, trial].T, aweights=given.arrays[WEIGHTS])
        np.testing.assert_allclose(model.state()["covariance"][trial], wanted, rtol=1e-12)


def test_the_unbiased_covariance_is_right_on_average(tmp_path: Path) -> None:
    random, trials = np.random.default_rng(0), 20_000
    model = made("gaussian", gaussian={"trials": trials, "unbiased": True}, data={"source": "blobs", "rows": 8})
    origin = np.array([0] * 3 + [1] * 5, np.int32)
    rows = Dataset({"x": random.standard_normal((8, trials, 1))}, origin)
    model.fit(weighted(rows, Weights(4.0)), seed=0, scratch=tmp_path)
    found = model.state()["covariance"][:, 0, 0]
    assert abs(found.mean() - 1) < 4 * found.std() / np.sqrt(trials)


def test_scikit_learns_mixture_is_refused_with_weights() -> None:
    kind = learner_class("gmm")
    tree = {"learner": "gmm", "mix": {"weights": "2:1"}, **SETTINGS["gmm"], "gmm": {"engine": "sklearn"}}
    with pytest.raises(InputError, match=r"takes no weights of rows: set gmm\.engine = fast"):
        kind.resolve(load(tree, "a test"))


# --- networks ---------------------------------------------------------------------------------------------------------


def images(rows: int, shape: tuple[int, ...]) -> Dataset:
    random = np.random.default_rng(1)
    x = random.random((rows, *shape), np.float32)
    y = np.eye(10, dtype=np.float32)[random.integers(0, 10, rows)]
    return Dataset({"x": x} | ({"y": y} if len(shape) == 1 else {}), (np.arange(rows) % 3).astype(np.int32))


def test_an_mlp_follows_the_gradient_of_the_weighted_mean(tmp_path: Path) -> None:
    """One step over all rows is that over each as many times, in plain torch; its length is the learning rate's."""
    data = images(30, (20,))
    given = weighted(data, Weights(3.0))
    one = {"width": 12, "epochs": 1, "batch_size": 30, "lr": 1e-2, "weight_decay": 0.0}
    mlp = imagery.made("mlp", imagery.experiment_of("mlp", **one))
    facts = mlp.fit(given, seed=4, scratch=tmp_path)
    net = nets.start(lambda: TwoLayers(20, 12), 4)
    slow = repeated(data, 3, 1)
    x, y = (torch.from_numpy(slow.arrays[name]) for name in ("x", "y"))
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=0.0)
    loss = (net(x) - y).square().mean()
    loss.backward()
    optimizer.step()
    for name, array in nets.weights(net).items():
        np.testing.assert_allclose(mlp.state()[name], array, atol=2e-5)
    assert facts["train_loss"] == pytest.approx(loss.item(), rel=1e-5)


def test_an_autoencoder_follows_the_gradient_of_the_weighted_sum(tmp_path: Path) -> None:
    data = images(12, (8, 8))
    given = weighted(data, Weights(3.0))
    one = {"channels": (4, 6), "latent": 3, "epochs": 1, "batch_size": 12, "lr": 1e-2}
    vae: Vae = imagery.made("vae", imagery.experiment_of("vae", **one))
    vae.fit(given, seed=4, scratch=tmp_path)
    other: Vae = imagery.made("vae", imagery.experiment_of("vae", **one))
    other._pixels = (8, 8)
    net = nets.start(other._make((4, 6), 3), 4)
    words = np.random.SeedSequence([4, 0]).generate_state(1, np.uint64)
    random = torch.Generator().manual_seed(int(words[0] >> 1))
    order = torch.randperm(12, generator=random)
    noise = torch.randn((12, 3), generator=random)
    x = torch.from_numpy(data.arrays["x"])[order].unsqueeze(1)
    mean, log_variance = net.encode(x)
    error, kl = loss_terms(net.decode(mean + noise * (0.5 * log_variance).exp()), x, mean, log_variance)
    weights = torch.from_numpy(given.arrays[WEIGHTS])[order]
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, weight_decay=vae.settings.model.weight_decay)
    sum(weight * (e + vae.settings.model.beta * k) for weight, e, k in zip(weights, error, kl, strict=True)).backward()
    optimizer.step()
    for name, array in nets.weights(net).items():
        np.testing.assert_allclose(vae.state()[name], array, atol=2e-4, err_msg=name)

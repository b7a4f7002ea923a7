"""Verifiers: their rates of error by simulation, and what is right by counting."""

import numpy as np
import pytest

from collapse_cli.data import blobs
from collapse_cli.data.world.things import Things
from collapse_cli.data.world.world import World
from collapse_cli.errors import ConfigError
from collapse_cli.selection.scores import verifier


@pytest.mark.parametrize(("phi", "psi"), [(0.9, 0.6), (1.0, 0.0), (0.3, 0.1)])
def test_rows_are_kept_at_the_stated_rates(phi: float, psi: float) -> None:
    right = np.arange(40_000) % 4 > 0
    kept = verifier.kept(right, phi, psi, 5)
    for rate, rows in ((phi, right), (psi, ~right)):
        error = np.sqrt(rate * (1 - rate) / rows.sum())
        assert abs(kept[rows].mean() - rate) <= 4 * error


def test_the_first_of_more_rows_are_judged_alike() -> None:
    right = np.arange(500) % 3 > 0
    assert (verifier.kept(right, 0.7, 0.2, 1)[:200] == verifier.kept(right[:200], 0.7, 0.2, 1)).all()
    assert (verifier.kept(right, 0.7, 0.2, 1) != verifier.kept(right, 0.7, 0.2, 2)).any()


@pytest.mark.parametrize(("phi", "psi"), [(0.5, 0.6), (0.5, 0.5), (1.2, 0.1), (0.5, -0.1)])
def test_a_verifier_that_prefers_what_is_wrong_is_refused(phi: float, psi: float) -> None:
    with pytest.raises(ConfigError, match="0 <= psi < phi <= 1"):
        verifier.kept(np.ones(3, bool), phi, psi, 0)
    with pytest.raises(ConfigError, match="0 <= psi < phi <= 1"):
        verifier.threshold(phi, psi)


def test_the_threshold_is_where_the_fitted_direction_turns() -> None:
    """shared/mitigation.md section 2: cosine .96 / .63 / -.65 / -.98 at p = .55 / .59 / .61 / .65, d = 20, n = 200,000."""
    assert verifier.threshold(0.9, 0.6) == pytest.approx(0.6)
    random, d, n = np.random.default_rng(0), 20, 200_000
    mean = np.zeros(d)
    mean[0] = 1.0
    found = []
    for p in (0.55, 0.59, 0.61, 0.65):
        true = random.choice([-1.0, 1.0], n)
        x = true[:, None] * mean + random.standard_normal((n, d))
        y = np.where(random.random(n) < p, -true, true)
        kept = verifier.kept(y == true, 0.9, 0.6, 3)
        w = np.linalg.lstsq(x[kept], y[kept], rcond=None)[0]
        found.append(w @ mean / np.linalg.norm(w))
    assert found[0] > 0.9
    assert found[1] > 0.4
    assert found[2] < -0.4
    assert found[3] < -0.9


def test_a_biased_verifier_keeps_what_is_near_its_own_line() -> None:
    random = np.random.default_rng(1)
    x, y, theta = random.standard_normal((300, 3)), random.standard_normal(300), np.array([1.0, -2.0, 0.5])
    kept = verifier.inside(x, y, theta, 0.4, 0.3)
    plain = [
        abs(b - sum(p * q for p, q in zip(a, theta, strict=True))) <= 0.4 * sum(p * p for p in a) ** 0.5 + 0.3
        for a, b in zip(x, y, strict=True)
    ]
    assert kept.tolist() == plain
    assert 0 < sum(plain) < 300


def test_a_loop_that_trusts_a_biased_verifier_ends_at_its_theta() -> None:
    """ArXiv 2510.16657, theorem 4.1: what is fitted, labels, is filtered, and fitted again."""
    random, truth, theta = np.random.default_rng(2), np.array([1.0, 0.0]), np.array([0.6, 0.3])
    w = truth
    for _ in range(30):
        x = random.standard_normal((20_000, 2))
        y = x @ w + 0.5 * random.standard_normal(len(x))
        kept = verifier.inside(x, y, theta, 0.1, 0.5)
        w = np.linalg.lstsq(x[kept], y[kept], rcond=None)[0]
    assert np.linalg.norm(w - theta) < 0.03 < np.linalg.norm(truth - theta)


def test_labels_are_right_within_a_distance_or_by_their_sign() -> None:
    x, w = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]), np.array([2.0, -1.0])
    y = np.array([2.4, -2.6, -0.2])
    assert verifier.right_numbers(x, y, w, 0.5).tolist() == [True, False, False]
    assert verifier.right_signs(x, y, w).tolist() == [True, True, False]


def test_a_class_is_right_where_the_largest_output_is() -> None:
    y = np.array([[0.4, 0.3, 0.3], [0.5, 0.4, 0.1], [0.0, 0.0, 0.1]])
    assert verifier.right_classes(y, np.array([0, 1, 2])).tolist() == [True, False, True]


@pytest.mark.parametrize("d", [1, 2, 5])
def test_ninety_nine_of_a_hundred_real_points_are_right(d: int) -> None:
    source = blobs.Blobs(d, 3, 50.0, 0.7)
    rows, seed = 20_000, 4
    x = blobs.draw(blobs.Drawn("blobs", rows, 1, 0, source), seed)["train"].arrays["x"]
    right = verifier.right_points(x, blobs.centers(source), source.spread)
    assert abs(right.mean() - 0.99) <= 4 * np.sqrt(0.99 * 0.01 / rows)
    assert not verifier.right_points(x + 5.0, blobs.centers(source), source.spread).any()
    trials = np.stack([x, x + 5.0], axis=1)
    assert (
        verifier.right_points(trials, blobs.centers(source), source.spread) == np.stack([right, ~right & False], axis=1)
    ).all()


def test_documents_are_right_if_what_they_say_is() -> None:
    known = World(Things())
    documents = known.grammar.documents(200, 0)
    assert (verifier.wrong_shares(known.parser, documents) == 0).all()
    facts = known.things.facts["birthplace"]
    person, town = next(iter(facts.items()))
    other = next(name for name in known.things.shares["town"] if name != town)
    swapped = [text.replace(f" {town}", f" {other}") for text in documents if town in text]
    shares = verifier.wrong_shares(known.parser, swapped)
    assert 0 < shares.mean() < 1
    plain = [
        np.mean([not (one.accepted and all(claim.true for claim in one.claims)) for one in known.parse(text)])
        for text in swapped
    ]
    assert shares.tolist() == plain
    odd = ["", "No such sentence.", documents[0] + " And then", person]
    assert verifier.wrong_shares(known.parser, odd).tolist() == [1, 1, 0, 1]

"""Distances between two models, tile by tile, against the plain logits of both; and losses of single tokens."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import losses, random_rows, tiny_model

from collapse_cli.data.dataset import Dataset
from collapse_cli.lm import divergence as apart
from collapse_cli.lm import loss, score
from collapse_cli.lm.score import score_blocks


def probabilities(model: Any, tokens: np.ndarray) -> np.ndarray:
    """(len - 1, vocabulary) of what follows each token, in float64."""
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0, :-1].double()
    return logits.softmax(1).numpy()


def flat(found: np.ndarray) -> np.ndarray:
    """Of all predicted tokens, row by row."""
    return found[~np.isnan(found)]


def slowly(one: Any, other: Any, data: Dataset) -> np.ndarray:
    """The divergence by its definition, a row at a time, from all logits; the smaller vocabulary filled up with zeros."""
    found = []
    for row, length in zip(data.arrays["tokens"], data.arrays["lengths"], strict=True):
        p, q = (probabilities(model, row[:length]) for model in (one, other))
        width = max(p.shape[1], q.shape[1])
        p, q = (np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in (p, q))
        middle = (p + q) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            parts = [np.nan_to_num(each * np.log2(each / middle)).sum(axis=1) for each in (p, q)]
        found.append((parts[0] + parts[1]) / 2)
    return np.concatenate(found)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("pair", ["opt-opt", "gpt2-llama"])
def test_divergences_are_those_of_all_logits(pair: str, ragged: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (tiny_model(kind, seed=number) for number, kind in enumerate(pair.split("-")))
    data = random_rows(7, 9, ragged=ragged)
    wanted = slowly(one, other, data)
    assert 0.05 < wanted.mean() < 0.95
    told: list[tuple[int, int]] = []
    found = apart.divergences(one, other, data, lambda done, total: told.append((done, total)))
    assert flat(found) == pytest.approx(wanted, abs=1e-6)
    assert np.isnan(found).sum(axis=1).tolist() == (9 - data.arrays["lengths"]).tolist()
    assert told[-1] == (7, 7)
    monkeypatch.setattr(score, "TOKENS_AT_ONCE", 18)  # other batches,
    monkeypatch.setitem(loss.TILE_BYTES, "cpu", 4 * 10)  # tiles of ten ids,
    monkeypatch.setitem(loss.HELD_BYTES, "cpu", 4 * 97 * 2 * 3)  # and three tokens at once
    assert flat(apart.divergences(other, one, data)) == pytest.approx(wanted, abs=1e-6)


def test_a_model_is_at_no_distance_from_itself_and_its_copy() -> None:
    data = random_rows(5, 8, ragged=True)
    assert flat(apart.divergences(tiny_model("opt"), tiny_model("opt"), data)).max() == 0


def test_ids_of_the_larger_vocabulary_alone_count_as_what_the_other_never_says() -> None:
    one, other = tiny_model("opt"), tiny_model("opt", seed=1, vocabulary=130)
    data = random_rows(4, 8)
    assert flat(apart.divergences(one, other, data)) == pytest.approx(slowly(one, other, data), abs=1e-6)
    assert flat(apart.divergences(other, one, data)) == pytest.approx(slowly(one, other, data), abs=1e-6)


def test_closed_forms_of_two_distributions() -> None:
    """Known probabilities through logits: equal ones, disjoint ones, (½, ½) beside (1, 0), and a probability of e**-200."""
    nothing = -torch.inf
    p = torch.tensor([[0.0, 0.0, nothing], [0.0, nothing, nothing], [0.0, 0.0, nothing], [0.0, -200.0, nothing]])
    q = torch.tensor([[5.0, 5.0, nothing], [nothing, 0.0, 0.0], [0.0, nothing, nothing], [-200.0, 0.0, nothing]])
    found = apart.jensen_shannon(apart.Predicted(p), apart.Predicted(q))
    assert found.tolist() == pytest.approx([0, 1, 0.75 * math.log2(4 / 3), 1], abs=1e-7)


def test_a_model_whose_head_is_not_plain_is_taken_by_its_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other, data = tiny_model("opt"), tiny_model("gpt2", seed=1), random_rows(5, 8)
    wanted = flat(apart.divergences(one, other, data))
    plain = score.has_plain_head
    monkeypatch.setattr(score, "has_plain_head", lambda model: model is not other and plain(model))
    assert flat(apart.divergences(one, other, data)) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", ["opt", "llama"])
def test_losses_of_tokens_stand_in_the_order_of_the_text(kind: str, ragged: bool) -> None:
    model, data = tiny_model(kind), random_rows(9, 8, ragged=ragged)
    each = np.full((9, 7), np.nan)
    nll, _ = score_blocks(model, data, each=each)
    rows = zip(data.arrays["tokens"], data.arrays["lengths"], strict=True)
    assert flat(each) == pytest.approx(np.concatenate([losses(model, row[:length]) for row, length in rows]), rel=1e-4)
    assert np.nansum(each, axis=1) == pytest.approx(nll, rel=1e-12)

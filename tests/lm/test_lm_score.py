"""Scoring equals a naive loop over rows or windows, token for token, whatever the batches."""

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import KINDS, losses, random_rows, tiny_model

from collapse_cli.data.dataset import Dataset
from collapse_cli.lm import score
from collapse_cli.lm.score import score_blocks, score_sliding
from collapse_cli.metrics import text_measures


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(request.param)


def naive_blocks(model: Any, data: Dataset) -> np.ndarray:
    rows = zip(data.arrays["tokens"], data.arrays["lengths"], strict=True)
    return np.array([losses(model, tokens[:length]).sum() for tokens, length in rows])


# --- blocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ragged", [False, True])
def test_blocks_are_scored_as_each_row_alone(model: Any, ragged: bool) -> None:
    data = random_rows(9, 8, ragged=ragged)
    nll, predicted = score_blocks(model, data)
    assert nll == pytest.approx(naive_blocks(model, data), rel=1e-5)
    assert predicted.tolist() == (data.arrays["lengths"] - 1).tolist()
    assert (nll.dtype, predicted.dtype) == (np.float64, np.int64)


@pytest.mark.parametrize("rows", [1, 4, 9])
def test_the_scores_do_not_depend_on_the_size_of_batches(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    data, told = random_rows(9, 8, ragged=True), []
    model = tiny_model("opt")
    wanted, _ = score_blocks(model, data)
    monkeypatch.setattr(score, "TOKENS_AT_ONCE", 8 * rows)
    monkeypatch.setattr(score, "CHUNK", 1)
    found, _ = score_blocks(model, data, lambda done, total: told.append((done, total)))
    assert found == pytest.approx(wanted, rel=1e-6)
    assert told[-1] == (9, 9)
    assert len(told) == math.ceil(9 / rows)


def test_rows_of_one_token_or_none_predict_nothing() -> None:
    data = random_rows(3, 5)
    data.arrays["lengths"][:] = [1, 0, 2]
    nll, predicted = score_blocks(tiny_model("opt"), data)
    assert predicted.tolist() == [0, 0, 1]
    assert nll[:2].tolist() == [0, 0]
    assert nll[2] > 0


def test_perplexity_is_weighted_by_tokens_and_no_mean_of_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_rows(9, 12, ragged=True)
    model = tiny_model("opt")
    monkeypatch.setattr(score, "TOKENS_AT_ONCE", 12 * 2)
    nll, predicted = score_blocks(model, data)
    every = np.concatenate(
        [losses(model, row[:length]) for row, length in zip(data.arrays["tokens"], data.arrays["lengths"], strict=True)]
    )
    measured = text_measures(nll, predicted, tokens=100, words=50, size=300)
    assert measured["nll"] == pytest.approx(every.mean(), rel=1e-5)
    assert measured["perplexity"] == pytest.approx(math.exp(every.mean()), rel=1e-4)
    assert abs((nll / predicted).mean() - every.mean()) > 1e-3, "a mean of rows is another number here"


def test_scoring_is_without_dropout() -> None:
    model, data = tiny_model("opt", dropout=0.5).train(), random_rows(4, 6)
    first, _ = score_blocks(model, data)
    again, _ = score_blocks(model.train(), data)
    assert first.tolist() == again.tolist()


# --- sliding windows --------------------------------------------------------------------------------------------------


def naive_sliding(model: Any, stream: np.ndarray, context: int, stride: int) -> np.ndarray:
    """(len - 1,) each token's loss in the first window that holds it: windows end at context, + stride, + stride …"""
    found = np.full(len(stream), np.nan)
    end, scored = min(context, len(stream)), 1
    while True:
        window = losses(model, stream[max(0, end - context) : end])
        found[scored:end] = window[len(window) - (end - scored) :]
        if end == len(stream):
            return found[1:]
        scored, end = end, min(end + stride, len(stream))


@pytest.mark.parametrize(
    ("length", "context", "stride"),
    [
        (40, 16, 8),
        (40, 16, 1),
        (40, 16, 15),
        (41, 16, 5),
        (17, 16, 8),
        (16, 16, 8),
        (10, 16, 8),
        (2, 16, 8),
        (30, 2, 1),
    ],
)
def test_every_token_but_the_first_is_scored_once_with_its_window(
    model: Any, length: int, context: int, stride: int
) -> None:
    stream = random_rows(1, length, seed=length).arrays["tokens"][0]
    told: list[tuple[int, int]] = []
    nll, predicted = score_sliding(model, stream, context, stride, lambda done, total: told.append((done, total)))
    wanted = naive_sliding(model, stream, context, stride)
    assert not np.isnan(wanted).any()
    assert predicted.sum() == length - 1
    assert len(nll) == len(predicted)
    bounds = [0, *np.cumsum(predicted)]
    assert nll == pytest.approx([wanted[a:b].sum() for a, b in pairwise(bounds)], rel=1e-5)
    assert told[-1] == (length, length)


def test_every_token_has_at_least_context_minus_stride_tokens_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream, windows = np.arange(50, dtype=np.int32), []

    def spy(model: Any, ids: torch.Tensor, labels: torch.Tensor, **_: Any) -> torch.Tensor:
        windows.extend(ids.tolist())
        return torch.zeros(labels.shape)

    monkeypatch.setattr(score, "token_losses", spy)
    _, predicted = score_sliding(tiny_model("opt"), stream, 12, 5)
    scored = 1
    for window, count in zip(windows, predicted, strict=True):
        new = range(scored, scored + int(count))
        assert window == list(range(window[0], window[0] + len(window)))
        assert window[-1] == new[-1]
        assert len(window) <= 12
        assert scored == 1 or new[0] - window[0] >= 12 - 5
        scored += int(count)
    assert scored == 50


def test_a_window_as_long_as_the_text_is_one_block() -> None:
    model, data = tiny_model("gpt2"), random_rows(1, 30)
    nll, predicted = score_sliding(model, data.arrays["tokens"][0], 64, 32)
    wanted, _ = score_blocks(model, data)
    assert nll == pytest.approx(wanted, rel=1e-6)
    assert predicted.tolist() == [29]


def test_more_context_is_what_a_sliding_window_gives() -> None:
    """Of a text that repeats itself, a model that can look back sees more in a window than in short blocks."""
    stream = random_rows(1, 40).arrays["tokens"][0]
    model = tiny_model("llama")
    full = losses(model, stream)
    nll, _ = score_sliding(model, stream, 40, 20)
    assert nll.sum() == pytest.approx(full.sum(), rel=1e-5)


@pytest.mark.timeout(10)
@pytest.mark.parametrize(("context", "stride"), [(16, 16), (16, 20), (1, 1)])
def test_windows_that_would_leave_tokens_out_are_refused(context: int, stride: int) -> None:
    """A window's first token has nothing before it: windows must overlap by one token at least."""
    with pytest.raises(ValueError, match="stride"):
        score_sliding(tiny_model("opt"), random_rows(1, 40).arrays["tokens"][0], context, stride)


# --- precision and memory ---------------------------------------------------------------------------------------------


def test_rows_of_unequal_lengths_share_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    data, shapes = random_rows(4, 8), []
    data.arrays["lengths"][:] = [8, 5, 3, 6]
    token_losses = score.token_losses

    def spy(model: Any, ids: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        shapes.append(tuple(ids.shape))
        return token_losses(model, ids, *rest, **named)

    monkeypatch.setattr(score, "token_losses", spy)
    model = tiny_model("gpt2")
    nll, _ = score_blocks(model, data)
    assert shapes == [(3, 8)]
    assert nll == pytest.approx(naive_blocks(model, data), rel=1e-5)


def test_bfloat16_comes_near_and_is_not_the_same() -> None:
    data, model = random_rows(9, 8, ragged=True), tiny_model("opt")
    full, _ = score_blocks(model, data)
    half, _ = score_blocks(model, data, dtype="bfloat16")
    assert half.sum() == pytest.approx(full.sum(), rel=0.01)
    assert half.tolist() != full.tolist()
    stream = random_rows(1, 40).arrays["tokens"][0]
    full, _ = score_sliding(model, stream, 16, 8)
    half, _ = score_sliding(model, stream, 16, 8, dtype="bfloat16")
    assert half.sum() == pytest.approx(full.sum(), rel=0.02)
    assert half.tolist() != full.tolist()
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("ragged", [True, False])
def test_when_memory_runs_out_fewer_rows_are_scored_at_once(monkeypatch: pytest.MonkeyPatch, ragged: bool) -> None:
    data, model = random_rows(9, 8, ragged=ragged), tiny_model("opt")
    stream = random_rows(1, 40).arrays["tokens"][0]
    token_losses = score.token_losses
    sizes: list[int] = []

    def scarce(model: Any, ids: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        sizes.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return token_losses(model, ids, *rest, **named)

    monkeypatch.setattr(score, "token_losses", scarce)
    nll, _ = score_blocks(model, data)
    assert nll == pytest.approx(naive_blocks(model, data), rel=1e-5)
    assert max(sizes) > 2
    assert 2 in sizes
    nll, _ = score_sliding(model, stream, 16, 8)
    assert nll.sum() == pytest.approx(naive_sliding(model, stream, 16, 8).sum(), rel=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
def test_windows_are_scored_several_at_once(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    stream, model = random_rows(1, 61).arrays["tokens"][0], tiny_model("llama")
    monkeypatch.setattr(score, "TOKENS_AT_ONCE", 16 * rows)
    nll, predicted = score_sliding(model, stream, 16, 6)
    assert predicted.tolist() == [15, *[6] * 7, 3]
    wanted = naive_sliding(model, stream, 16, 6)
    bounds = [0, *np.cumsum(predicted)]
    assert nll == pytest.approx([wanted[a:b].sum() for a, b in pairwise(bounds)], rel=1e-5)

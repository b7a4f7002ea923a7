"""Replayed rows: their share of every batch, their order, and what a training makes of them."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import random_rows, rows_of, tiny_model
from support.training import SETTINGS, altered, folder, identical, weights

from collapse_cli.config.tree import TrainConfig
from collapse_cli.lm import train
from collapse_cli.lm.replay import Replay
from collapse_cli.lm.train import TrainError, fit

REPLAYING = TrainConfig(**SETTINGS.model_dump() | {"batch_size": 8, "replay": 0.25})


def order(turn: int) -> np.ndarray:
    return np.random.default_rng(turn).permutation(11)


@pytest.mark.parametrize("corpus", [1, 2, 5, 6, 12, 29, 70])
@pytest.mark.parametrize("replayed", [1, 3, 7])
def test_all_batches_have_the_share_and_rows_come_as_often_as_each_other(replayed: int, corpus: int) -> None:
    """Those of an order follow each other without a gap, over batches, epochs and orders."""
    rows = random_rows(11, 5, ragged=True)
    replay, here, met, epochs = Replay(rows, replayed, 8, corpus, order), 8 - replayed, list[int](), 3
    for epoch in range(epochs):
        for within in range(-(-corpus // here)):
            own = min(here, corpus - within * here)
            numbers = replay.at(epoch, within, own)
            assert abs(len(numbers) - own * replayed / here) <= 0.5
            assert len(numbers) == replayed or own < here
            assert (np.diff(numbers) >= 0).all(), "sorted, as those of the corpus"
            met += numbers.tolist()
    turns, rest = divmod(len(met), 11)
    for turn in range(turns):  # within a batch they are sorted, so which are met is compared
        inside = met[turn * 11 : (turn + 1) * 11]
        assert sum((Counter(inside) - Counter(range(11))).values()) <= 2 * replayed
    assert Counter(met) == Counter(list(range(11)) * turns + order(turns)[:rest].tolist())
    lengths = rows.arrays["lengths"]
    assert replay.counted(epochs) == {"replay_rows": len(met), "replay_tokens": int(lengths[met].sum())}


def steps_of(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The rows of each step of the trainings to come, which make no step."""
    seen: list[Any] = []
    monkeypatch.setattr(train, "make_step", lambda *given, **_: (seen.append(given[2]), lambda: (1.0, 1.0, 1))[1])
    return seen


def test_a_step_has_rows_of_both_and_an_epoch_all_of_the_corpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """15 rows, six a batch with two of the originals, whose rows are wider; the last batch has three and one."""
    corpus, originals = random_rows(15, 6, seed=1), random_rows(20, 9, seed=2)
    seen = steps_of(monkeypatch)
    with pytest.raises(TrainError, match="left every weight as it was"):
        fit(tiny_model("opt"), corpus, REPLAYING, seed=1, scratch=tmp_path, replay=originals)
    assert [len(step) for step in seen] == [8, 8, 4, 8, 8, 4]
    assert [int((step.arrays["lengths"] == 9).sum()) for step in seen] == [2, 2, 1, 2, 2, 1]
    for epoch in (seen[:3], seen[3:]):
        own = [row for step in epoch for row in step.arrays["tokens"][step.arrays["lengths"] == 6][:, :6].tolist()]
        assert sorted(own) == sorted(corpus.arrays["tokens"].tolist())
    again = [tuple(row) for step in seen for row in step.arrays["tokens"][step.arrays["lengths"] == 9].tolist()]
    assert len(set(again)) == len(again) == 10, "no row a second time before each was met"
    assert set(again) <= {tuple(row) for row in originals.arrays["tokens"].tolist()}


def test_replay_equals_a_training_on_the_same_batches(tmp_path: Path) -> None:
    """One batch an epoch: that of the corpus with the replayed rows behind it is the batch of another training."""
    corpus, originals = random_rows(6, 6, seed=1), random_rows(2, 6, seed=2)
    mine, plain = tiny_model("gpt2"), tiny_model("gpt2")
    facts = fit(mine, corpus, REPLAYING, seed=1, scratch=folder(tmp_path / "a"), replay=originals)
    both = rows_of(np.concatenate([corpus.arrays["tokens"], originals.arrays["tokens"]]))
    wanted = fit(plain, both, altered(REPLAYING, replay=0.0), seed=1, scratch=folder(tmp_path / "b"))
    assert identical(weights(mine), weights(plain))
    assert facts == wanted | {"replay_rows": 4, "replay_tokens": 24}
    other = tiny_model("gpt2")
    fit(other, corpus, altered(REPLAYING, replay=0.0), seed=1, scratch=folder(tmp_path / "c"))
    assert not identical(weights(other), weights(mine))


def test_a_replayed_row_counts_as_the_mean_row_of_the_corpus(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    corpus = random_rows(6, 6, seed=1)
    corpus = rows_of(corpus.arrays["tokens"], weights=np.array([1.0, 1, 1, 3, 3, 3]))
    seen = steps_of(monkeypatch)
    with pytest.raises(TrainError, match="left every weight as it was"):
        fit(tiny_model("opt"), corpus, REPLAYING, seed=1, scratch=tmp_path, replay=random_rows(2, 6))
    assert seen[0].arrays["weights"].tolist() == pytest.approx([0.5] * 3 + [1.5] * 3 + [1.0] * 2)


def test_a_replayed_row_whose_loss_is_not_finite_is_named_as_such(tmp_path: Path) -> None:
    corpus, originals, model = random_rows(6, 6, seed=1), random_rows(2, 6, seed=2), tiny_model("llama", tied=False)
    for rows in (corpus, originals):
        rows.arrays["tokens"][rows.arrays["tokens"] == 50] = 51
    originals.arrays["tokens"][1, 0] = 50
    with torch.no_grad():
        model.get_input_embeddings().weight[50] = torch.nan
    with pytest.raises(TrainError, match=r"\(row 1 of the original rows, which are replayed, counted from 0, is the"):
        fit(model, corpus, REPLAYING, seed=1, scratch=tmp_path, replay=originals)


@pytest.mark.parametrize(
    ("replay", "batch", "said"),
    [
        (0.01, 8, "replay = 0.01 of a batch of 8 is no row of it: raise replay, or raise batch_size"),
        (
            0.9,
            4,
            "replay = 0.9 of a batch of 4 is all of it, and none of the corpus: lower replay, or raise batch_size",
        ),
    ],
)
def test_a_share_that_is_no_row_or_all_of_them_is_refused(replay: float, batch: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig(replay=replay, batch_size=batch)

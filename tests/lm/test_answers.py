"""Rows with a mask: only what the assistant says is predicted, in training, scoring and all that holds a model to another one.

The reference is transformers' own loss with labels of -100, row by row.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import KINDS, VOCABULARY, random_rows, tiny_model
from support.training import SETTINGS, altered, identical, weights
from torch.nn import functional

from collapse_cli.data.dataset import MASK, Dataset
from collapse_cli.lm import anchors, train
from collapse_cli.lm.anchors import PredictionAnchor
from collapse_cli.lm.edit import edited
from collapse_cli.lm.loss import IGNORED
from collapse_cli.lm.objective import Objective
from collapse_cli.lm.packing import WAYS
from collapse_cli.lm.replay import Replay
from collapse_cli.lm.score import Details, score_blocks

ROWS, WIDTH = 7, 20
each_way = pytest.mark.parametrize(
    "way", [WAYS[0], WAYS[1], WAYS[3], WAYS[5]], ids=["packed", "attends", "mixes", "alone"]
)


def masked(count: int = ROWS, *, seed: int = 3, full: bool = False) -> Dataset:
    """Rows of unequal lengths, of each of which one or two spans are predicted."""
    rows = random_rows(count, WIDTH, seed=seed, ragged=not full)
    random = np.random.default_rng(seed)
    mask = np.zeros(rows.arrays["tokens"].shape, bool)
    for row, length in enumerate(rows.arrays["lengths"]):
        first = int(random.integers(1, length))
        mask[row, first : int(random.integers(first + 1, length + 1))] = True
        if row % 3 == 0 and first > 3:
            mask[row, 1 : first - 2] = True
    return Dataset({**rows.arrays, MASK: mask}, rows.origin)


def labels_of(data: Dataset, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(1, length) the ids of a row, and its labels with -100 where nothing is predicted, as transformers has them."""
    length = int(data.arrays["lengths"][row])
    ids = torch.from_numpy(data.arrays["tokens"][row, :length].astype(np.int64))[None]
    there = torch.from_numpy(data.arrays[MASK][row, :length])[None]
    return ids, torch.where(there, ids, IGNORED)


def native(model: Any, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """(rows,) transformers' loss of each row alone, summed over its predicted tokens, and how many these are."""
    sums, counts = [], []
    for row in range(len(data)):
        ids, labels = labels_of(data, row)
        counts.append(int((labels[:, 1:] != IGNORED).sum()))
        with torch.no_grad():
            sums.append(float(model(input_ids=ids, labels=labels, use_cache=False).loss) * counts[-1])
    return np.array(sums), np.array(counts)


@each_way
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_transformers_own_loss(kind: str, way: Any) -> None:
    data, model = masked(), tiny_model(kind)
    total, count = 0.0, 0
    for row in range(len(data)):
        ids, labels = labels_of(data, row)
        here = int((labels[:, 1:] != IGNORED).sum())
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss * here
        total, count = total + loss, count + here
    wanted = torch.autograd.grad(total / count, list(model.parameters()))
    work = train.Work(model, SETTINGS, WIDTH)
    work.able = way
    with work.ready():
        losses, predicted = work.gradients(data, 0, 3)
    assert predicted == count == int(data.predicted.sum())
    assert float(sum(part[0] for part in losses)) == pytest.approx(float(total) / count, rel=1e-5)
    for weight, slope in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(weight.grad, slope, rtol=2e-3, atol=2e-5 * max(1e-2, float(slope.abs().max())))


@each_way
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("truncated", {"loss": "truncated", "truncate": 0.3}),
        ("focal", {"loss": "focal"}),
        ("smoothed", {"loss": "smoothed", "smoothing": 0.2}),
        ("kl", {"anchor": "kl", "anchor_weight": 0.7}),
        ("weighted", {}),
    ],
)
def test_every_loss_and_anchor_counts_the_mask_alone(name: str, changes: dict[str, Any], way: Any) -> None:
    """Against the same formulas on transformers' logits of each row."""
    data, model, other = masked(), tiny_model("llama"), tiny_model("llama", seed=5)
    factors = (
        np.linspace(0.5, 2, len(data)).astype(np.float32) if name == "weighted" else np.ones(len(data), np.float32)
    )
    settings = altered(SETTINGS, **changes)
    total, count = torch.zeros(()), 0
    for row in range(len(data)):
        ids, labels = labels_of(data, row)
        there = labels[0, 1:] != IGNORED
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1][there]
        nll = functional.cross_entropy(logits, labels[0, 1:][there], reduction="none")
        p = torch.exp(-nll)
        if name == "truncated":
            nll = torch.where(p.detach() <= 0.3, nll, 0.0)
        elif name == "focal":
            nll = (1 - p) ** settings.focusing * nll
        elif name == "smoothed":
            nll = functional.cross_entropy(logits, labels[0, 1:][there], reduction="none", label_smoothing=0.2)
        elif name == "kl":
            with torch.no_grad():
                theirs = other(input_ids=ids, use_cache=False).logits[0, :-1][there].softmax(1)
            own = logits.softmax(1)
            nll = nll + 0.7 * (own * (own / theirs).log()).sum(1)
        total, count = total + float(factors[row]) * nll.sum(), count + int(there.sum())
    wanted = torch.autograd.grad(total / count, list(model.parameters()))
    anchor = PredictionAnchor(other, way, 0.7) if name == "kl" else None
    work = train.Work(model, settings, WIDTH, Objective.of(settings, anchor))
    work.able = way
    chosen = Dataset({**data.arrays, "weights": factors}, data.origin) if name == "weighted" else data
    with work.ready():
        losses, _ = work.gradients(chosen, 0, 3)
    assert float(sum(part[0] for part in losses)) == pytest.approx(float(total) / count, rel=1e-5)
    for weight, slope in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(weight.grad, slope, rtol=2e-3, atol=3e-5 * max(1e-2, float(slope.abs().max())))


@each_way
def test_embeddings_are_perturbed_with_the_length_of_the_whole_row(way: Any) -> None:
    """Miyato, Dai and Goodfellow 2017, equations 4 and 5, on each row's embeddings; what is not predicted is perturbed, too."""
    data, model, size = masked(), tiny_model("llama"), 0.3
    table, count = model.get_input_embeddings(), int(data.predicted.sum())
    total = torch.zeros(())
    for row in range(len(data)):
        ids, labels = labels_of(data, row)

        def loss_on(embeddings: torch.Tensor, wanted: torch.Tensor = labels) -> torch.Tensor:
            logits = model(inputs_embeds=embeddings, use_cache=False).logits
            loss: torch.Tensor = functional.cross_entropy(
                logits[0, :-1], wanted[0, 1:], ignore_index=IGNORED, reduction="sum"
            )
            return loss

        plain = table(ids)
        (slope,) = torch.autograd.grad(loss_on(plain), plain, retain_graph=True)
        step = (size * plain.detach().norm() / slope.norm()) * slope
        total = total + loss_on(plain) + loss_on(table(ids) + step)
    wanted = torch.autograd.grad(total / count, list(model.parameters()))
    work = train.Work(model, SETTINGS, WIDTH, Objective(adversarial=size))
    work.able = way
    with work.ready():
        losses, _ = work.gradients(data, 0, 3)
    assert float(sum(part[0] for part in losses)) == pytest.approx(float(total) / count, rel=1e-4)
    for weight, slope in zip(model.parameters(), wanted, strict=True):
        torch.testing.assert_close(weight.grad, slope, rtol=5e-3, atol=1e-4 * max(1e-2, float(slope.abs().max())))


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_transformers_own_loss(kind: str) -> None:
    data, model = masked(), tiny_model(kind)
    sums, counts = native(model, data)
    nll, predicted = score_blocks(model, data)
    assert predicted.tolist() == counts.tolist()
    np.testing.assert_allclose(nll, sums, rtol=2e-5)
    details = Details()
    again, _ = score_blocks(model, data, details=details)
    np.testing.assert_allclose(again, sums, rtol=2e-5)
    columns = details.columns()
    assert np.bincount(columns["row"].astype(int), minlength=ROWS).tolist() == counts.tolist()
    assert sorted(columns["label"]) == sorted(data.arrays["tokens"][:, 1:][data.arrays[MASK][:, 1:]])


def test_a_mask_of_all_tokens_is_no_mask(tmp_path: Path) -> None:
    rows = random_rows(9, WIDTH, ragged=True)
    every = np.arange(WIDTH) < rows.arrays["lengths"][:, None]
    trained = []
    for number, data in enumerate((rows, Dataset({**rows.arrays, MASK: every}, rows.origin))):
        model = tiny_model("opt", dropout=0.1)
        (tmp_path / str(number)).mkdir()
        facts = train.fit(model, data, SETTINGS, seed=1, scratch=tmp_path / str(number))
        trained.append((weights(model), facts))
    assert trained[0][1] == trained[1][1]
    assert identical(trained[0][0], trained[1][0])


def test_training_learns_the_answers_and_says_their_loss(tmp_path: Path) -> None:
    data, model = masked(12), tiny_model("llama")
    (tmp_path / "a").mkdir()
    sums, counts = native(model, data)
    settings = altered(SETTINGS, epochs=30, batch_size=12, lr=1e-2, warmup=0.0)
    facts = train.fit(model, data, settings, seed=1, scratch=tmp_path / "a", replay=None)
    assert facts["epoch_losses"][0] == pytest.approx(sums.sum() / counts.sum(), rel=1e-4)
    assert facts["train_loss"] < facts["epoch_losses"][0] / 2


def test_replayed_rows_keep_their_masks() -> None:
    corpus, real = masked(4, seed=1), masked(5, seed=2)
    replay = Replay(real, 1, 3, 4, lambda turn: np.arange(5))
    both = replay.beside(corpus, np.array([2, 4]))
    width = both.arrays[MASK].shape[1]
    assert both.predicted.tolist() == [*corpus.predicted, *real.predicted[[2, 4]]]
    assert width == both.arrays["tokens"].shape[1]


def test_the_fisher_information_is_of_the_predicted_tokens(tmp_path: Path) -> None:
    data, model = masked(5), tiny_model("gpt2")
    found = anchors.fisher(model, data, 5, 7, tmp_path)
    model = tiny_model("gpt2")
    sums = [torch.zeros_like(weight) for weight in model.parameters()]
    for row in range(5):
        ids, labels = labels_of(data, row)
        logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
        drawn = anchors._drawn(logits.detach(), anchors._numbers(7, row, len(logits)))
        there = labels[0, 1:] != IGNORED
        slopes = torch.autograd.grad(
            functional.cross_entropy(logits[there], drawn[there], reduction="sum"), list(model.parameters())
        )
        for total, slope in zip(sums, slopes, strict=True):
            total += slope**2
    for one, other in zip(found, sums, strict=True):
        torch.testing.assert_close(one, other / int(data.predicted.sum()), rtol=1e-3, atol=1e-6)


def test_only_answers_are_edited() -> None:
    data, model = masked(), tiny_model("opt")
    made, again, changed = edited(model, data, above=1e-6, top=5, seed=1)
    other = made.arrays["tokens"] != data.arrays["tokens"]
    assert other.any()
    assert not (other & ~data.arrays[MASK]).any()
    assert other.sum(axis=1).tolist() == changed.tolist()
    assert again.sum() <= data.predicted.sum()
    assert made.arrays["tokens"].max() < VOCABULARY

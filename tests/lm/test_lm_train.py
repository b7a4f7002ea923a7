"""Training equals a plain loop: losses and weights, the order of rows, learning rates, accumulated gradients."""

import math
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import KINDS, VOCABULARY, random_rows, rows_of, tiny_model
from support.training import SETTINGS, altered, folder, identical, weights
from torch.nn import functional

from collapse_cli.config.tree import TrainConfig
from collapse_cli.data.dataset import Dataset
from collapse_cli.lm import objective, train
from collapse_cli.lm import step as one_step
from collapse_cli.lm.step import Read
from collapse_cli.lm.train import TrainError, fit, learning_rate


def reference(model: Any, data: Dataset, settings: TrainConfig, seed: int) -> list[float]:
    """A plain loop over the same order of rows: one row at a time, torch's loss, AdamW and clipping.

    Trains `model` in place; returns the loss of each step, in nats per predicted token.
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=False)
    size = settings.batch_size
    steps = math.ceil(len(data) / size)
    curve = []
    model.train()
    for epoch in range(settings.epochs):
        order = train.random_numbers(seed, "order", epoch).permutation(len(data))
        for within in range(steps):
            for group in optimizer.param_groups:
                step = epoch * steps + within
                group["lr"] = learning_rate(settings, step, settings.epochs * steps, steps)
            summed, predicted = torch.zeros(()), 0
            for row in order[within * size : (within + 1) * size]:
                length = int(data.arrays["lengths"][row])
                ids = torch.from_numpy(data.arrays["tokens"][row, :length].astype(np.int64))[None]
                logits = model(input_ids=ids).logits[0, :-1]
                summed = summed + functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
                predicted += length - 1
            if not predicted:  # rows of one token
                curve.append(0.0)
                continue
            optimizer.zero_grad()
            (summed / predicted).backward()
            if settings.clip:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
            optimizer.step()
            curve.append(summed.item() / predicted)
    return curve


def fit_curve(
    monkeypatch: pytest.MonkeyPatch, model: Any, data: Dataset, settings: TrainConfig, seed: int, scratch: Path
) -> tuple[list[float], dict[str, Any]]:
    """The loss of each step of `fit`, and what it returns."""
    curve, step = [], train.make_step

    def spy(*arguments: Any, **named: Any) -> Read:
        summed, loss, predicted = step(*arguments, **named)()
        curve.append(loss / max(1, predicted))
        return lambda: (summed, loss, predicted)

    with monkeypatch.context() as patch:
        patch.setattr(train, "make_step", spy)
        facts = fit(model, data, settings, seed=seed, scratch=scratch)
    return curve, facts


# --- against a plain loop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_training_equals_a_plain_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, clip: float) -> None:
    data, settings = random_rows(14, 9, ragged=True), altered(SETTINGS, clip=clip)
    mine, plain = tiny_model(kind, tied=kind != "llama"), tiny_model(kind, tied=kind != "llama")
    wanted = reference(plain, data, settings, seed=5)
    curve, facts = fit_curve(monkeypatch, mine, data, settings, 5, tmp_path)
    assert curve == pytest.approx(wanted, abs=1e-5)
    assert len(curve) == facts["steps"] == 2 * 4
    before, after = weights(tiny_model(kind, tied=kind != "llama")), weights(mine)
    moved = max((after[name] - before[name]).abs().max().item() for name in after)
    assert moved > 1e-3, "the comparison would hold for a training that does nothing"
    for name, weight in weights(plain).items():
        # the bias of the keys has no influence, so its gradient is rounding noise, which Adam makes large
        if not name.endswith(("k_proj.bias", "c_attn.bias")):
            torch.testing.assert_close(after[name], weight, rtol=0, atol=1e-5, msg=name)


@pytest.mark.parametrize("adversarial", [0.0, 0.1])
def test_a_batch_in_which_nothing_is_predicted_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, adversarial: float
) -> None:
    """As answers that end at once are rows of one token."""
    rows = random_rows(7, 9, ragged=True)
    lengths = rows.arrays["lengths"].copy()
    lengths[[0, 3, 4]] = 1
    data, settings = rows_of(rows.arrays["tokens"], lengths), altered(SETTINGS, batch_size=1, adversarial=adversarial)
    mine, plain = tiny_model("opt"), tiny_model("opt")
    curve, facts = fit_curve(monkeypatch, mine, data, settings, 5, tmp_path)
    assert sum(loss == 0 for loss in curve) == 2 * 3
    assert facts["steps"] == 2 * 7
    if not adversarial:
        assert curve == pytest.approx(reference(plain, data, settings, seed=5), abs=1e-5)


def test_where_the_last_epoch_meets_no_row_with_two_tokens_that_is_said(tmp_path: Path) -> None:
    rows = random_rows(4, 9)
    for row in range(4):
        lengths = np.full(4, 9)
        lengths[row] = 1
        data, settings = rows_of(rows.arrays["tokens"], lengths), altered(SETTINGS, batch_size=1, steps=5)
        if train.random_numbers(5, "order", 1).permutation(4)[0] == row:
            with pytest.raises(TrainError, match="met no row with two tokens"):
                fit(tiny_model("opt"), data, settings, seed=5, scratch=folder(tmp_path / str(row)))
            return
    raise AssertionError("no order begins with a row")


def test_the_losses_that_are_reported_are_token_weighted_means_of_epochs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = random_rows(10, 12, ragged=True)
    predicted: list[int] = []
    losses: list[float] = []
    step = train.make_step

    def spy(*arguments: Any, **named: Any) -> Read:
        summed, loss, count = step(*arguments, **named)()
        assert summed == loss, "nothing but the cross-entropy is made small"
        losses.append(loss)
        predicted.append(count)
        return lambda: (summed, loss, count)

    monkeypatch.setattr(train, "make_step", spy)
    facts = fit(tiny_model("opt"), data, SETTINGS, seed=1, scratch=tmp_path)
    tokens = int((data.arrays["lengths"] - 1).sum())
    assert sum(predicted[:3]) == sum(predicted[3:]) == tokens
    assert facts["epoch_losses"] == pytest.approx([sum(losses[:3]) / tokens, sum(losses[3:]) / tokens])
    assert facts["train_loss"] == facts["epoch_losses"][-1]
    assert facts["train_tokens"] == 2 * int(data.arrays["lengths"].sum())


def test_padding_is_ignored(tmp_path: Path) -> None:
    data = random_rows(6, 8, ragged=True)
    other = data.arrays["tokens"].copy()
    other[np.arange(8) >= data.arrays["lengths"][:, None]] = 3
    models = [tiny_model("gpt2"), tiny_model("gpt2")]
    for number, tokens in enumerate((data.arrays["tokens"], other)):
        rows = rows_of(tokens, data.arrays["lengths"])
        fit(models[number], rows, SETTINGS, seed=2, scratch=folder(tmp_path / str(number)))
    assert not np.array_equal(other, data.arrays["tokens"])
    assert identical(weights(models[0]), weights(models[1]))


@pytest.mark.parametrize("plain_head", [True, False])
def test_accumulated_gradients_equal_those_of_the_large_batch(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain_head: bool
) -> None:
    data, settings = random_rows(20, 8), altered(SETTINGS, batch_size=10, lr=1e-3)
    calls: list[int] = []
    summed_losses = objective.summed_losses
    monkeypatch.setattr(one_step, "has_plain_head", lambda _: plain_head)
    monkeypatch.setattr(
        objective,
        "summed_losses",
        lambda model, ids, *rest, **named: (calls.append(len(ids)), summed_losses(model, ids, *rest, **named))[1],
    )
    whole, parts = tiny_model("llama", tied=False), tiny_model("llama", tied=False)
    fit(whole, data, settings, seed=3, scratch=folder(tmp_path / "whole"))
    assert set(calls) == {10}
    calls.clear()
    if plain_head:
        monkeypatch.setattr(one_step, "TOKENS_AT_ONCE", 3 * 8)
    else:
        monkeypatch.setattr(one_step, "LOGITS_BYTES", 3 * 8 * 4 * VOCABULARY)
    fit(parts, data, settings, seed=3, scratch=folder(tmp_path / "parts"))
    assert set(calls) == {3, 1}
    for name, weight in weights(parts).items():
        torch.testing.assert_close(weight, weights(whole)[name], rtol=0, atol=1e-5, msg=name)


def test_the_order_of_rows_is_new_in_each_epoch_and_depends_on_the_seed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def orders(seed: int) -> list[list[int]]:
        seen: list[list[int]] = []
        monkeypatch.setattr(
            train,
            "make_step",
            lambda *given, **_: (seen.append(given[2].arrays["stream"].tolist()), lambda: (1.0, 1.0, 1))[1],
        )
        with pytest.raises(TrainError, match="left every weight as it was"):
            fit(
                tiny_model("opt"),
                random_rows(10, 4),
                SETTINGS,
                seed=seed,
                scratch=folder(tmp_path / str(len(list(tmp_path.iterdir())))),
            )
        return seen

    first, again, other = orders(1), orders(1), orders(2)
    assert first == again
    assert first != other
    assert [len(rows) for rows in first] == [4, 4, 2, 4, 4, 2]
    assert sorted(chain(*first[:3])) == sorted(chain(*first[3:])) == list(range(10))
    assert first[:3] != first[3:]


def test_training_leaves_the_global_random_numbers_alone(tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    fit(tiny_model("opt", dropout=0.3), random_rows(4, 6), SETTINGS, seed=1, scratch=tmp_path)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_training_is_the_same_for_the_same_seed_and_another_for_another(tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((1, 1, 2)):
        model = tiny_model("opt", dropout=0.2)
        torch.manual_seed(number)  # what ran before must not matter
        fit(model, random_rows(8, 6), SETTINGS, seed=seed, scratch=folder(tmp_path / str(number)))
        found.append(weights(model))
    assert identical(found[0], found[1])
    assert not identical(found[0], found[2])


def test_bfloat16_trains_float32_weights_and_comes_near(tmp_path: Path) -> None:
    data = random_rows(8, 8)
    half, full = tiny_model("opt"), tiny_model("opt")
    rough = fit(half, data, altered(SETTINGS, dtype="bfloat16"), seed=1, scratch=folder(tmp_path / "half"))
    exact = fit(full, data, SETTINGS, seed=1, scratch=folder(tmp_path / "full"))
    assert {weight.dtype for weight in half.parameters()} == {torch.float32}
    assert rough["train_loss"] == pytest.approx(exact["train_loss"], rel=0.02)
    assert not identical(weights(half), weights(full))


# --- long runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_fifty_steps_follow_a_plain_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    """In float32 to 1e-5, in bfloat16 to half a percent, with rows of unequal lengths, which are packed."""
    data = random_rows(20, 12, ragged=True)
    settings = altered(SETTINGS, epochs=10, lr=1e-3, clip=1.0)
    plain, mine, half = (tiny_model(kind) for _ in range(3))
    wanted = reference(plain, data, settings, seed=5)
    curve, _ = fit_curve(monkeypatch, mine, data, settings, 5, folder(tmp_path / "full"))
    assert len(curve) == 50
    assert curve == pytest.approx(wanted, rel=1e-5)
    rough, _ = fit_curve(monkeypatch, half, data, altered(settings, dtype="bfloat16"), 5, folder(tmp_path / "half"))
    assert np.mean(rough[-5:]) == pytest.approx(np.mean(wanted[-5:]), rel=0.005)
    assert np.mean(wanted[-5:]) < 0.9 * np.mean(wanted[:5])


def test_rows_of_unequal_lengths_share_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = []
    summed_losses = objective.summed_losses

    def spy(model: Any, ids: torch.Tensor, *rest: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        shapes.append((*ids.shape, named["positions"] is not None))
        return summed_losses(model, ids, *rest, **named)

    monkeypatch.setattr(objective, "summed_losses", spy)
    data = rows_of(random_rows(4, 8).arrays["tokens"], np.array([8, 5, 3, 6]))
    fit(tiny_model("opt"), data, altered(SETTINGS, epochs=1), seed=1, scratch=tmp_path)
    assert shapes == [(3, 8, True)]


# --- learning rates ---------------------------------------------------------------------------------------------------


def rates(total: int, steps_per_epoch: int, **settings: Any) -> list[float]:
    return [learning_rate(altered(SETTINGS, **settings), step, total, steps_per_epoch) for step in range(total)]


def of_torch(scheduler: Any, steps: int, lr: float = 0.1, **options: Any) -> list[float]:
    """The rates of a scheduler of torch."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    schedule, found = scheduler(optimizer, **options), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_cosine_epoch_is_torchs_cosine_stepped_once_an_epoch() -> None:
    """As in the Nature code: CosineAnnealingLR(T_max=epochs), stepped at the end of each epoch."""
    found = rates(15, 3, schedule="cosine-epoch", lr=0.1, min_lr=0.01, warmup=0)
    wanted = of_torch(torch.optim.lr_scheduler.CosineAnnealingLR, 5, T_max=5, eta_min=0.01)
    assert found == pytest.approx([rate for rate in wanted for _ in range(3)])


def test_cosine_is_torchs_cosine_over_all_steps() -> None:
    found = rates(12, 3, schedule="cosine", lr=0.1, min_lr=0.02, warmup=0)
    assert found == pytest.approx(of_torch(torch.optim.lr_scheduler.CosineAnnealingLR, 12, T_max=12, eta_min=0.02))


def test_linear_is_torchs_linear_over_all_steps() -> None:
    found = rates(10, 2, schedule="linear", lr=0.1, min_lr=0.02, warmup=0)
    options = {"start_factor": 1.0, "end_factor": 0.2, "total_iters": 10}
    assert found == pytest.approx(of_torch(torch.optim.lr_scheduler.LinearLR, 10, **options))


def test_constant_is_constant() -> None:
    assert set(rates(9, 3, schedule="constant", lr=0.1, warmup=0)) == {0.1}


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_warmup_rises_evenly_to_the_full_rate_and_never_is_zero(schedule: str) -> None:
    found = rates(20, 5, schedule=schedule, lr=0.1, min_lr=0.0, warmup=0.2)
    assert found[:5] == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    assert all(rate > 0 for rate in found)
    assert all(a >= b for a, b in pairwise(found[4:]))


def test_a_loss_that_is_not_finite_before_any_step_is_not_blamed_on_the_learning_rate(tmp_path: Path) -> None:
    model = tiny_model("opt")
    model.get_input_embeddings().weight.data[:] = float("nan")
    with pytest.raises(TrainError, match=r"at step 1 of .*no weight was changed before; give a model") as caught:
        fit(model, random_rows(4, 6), SETTINGS, seed=0, scratch=tmp_path)
    assert "train.lr" not in str(caught.value)


def test_steps_in_place_of_epochs_go_through_the_corpus_as_often_as_they_last(tmp_path: Path) -> None:
    data = random_rows(10, 9, ragged=True)
    by_epochs = SETTINGS.model_copy(update={"epochs": 2, "batch_size": 4})
    models = [tiny_model("opt") for _ in range(3)]
    facts = [
        fit(model, data, settings, seed=0, scratch=folder(tmp_path / str(at)))
        for at, (model, settings) in enumerate(
            zip(
                models,
                (by_epochs, by_epochs.model_copy(update={"steps": 6}), by_epochs.model_copy(update={"steps": 4})),
                strict=True,
            )
        )
    ]
    assert identical(weights(models[0]), weights(models[1]))
    assert facts[0] == facts[1]
    assert facts[2]["steps"] == 4
    order = train.random_numbers(0, "order", 1).permutation(10)[:4]
    lengths = data.arrays["lengths"]
    assert facts[2]["train_tokens"] == int(lengths.sum()) + int(lengths[order].sum())


@pytest.mark.parametrize("given", [{"select": "valid"}, {"schedule": "cosine-epoch"}, {"replay": 0.5}])
def test_steps_are_refused_beside_what_goes_by_whole_epochs(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="goes by whole epochs"):
        TrainConfig(steps=5, **given)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_torchs_adamw_divides_gradients_by_the_scale_it_is_given(device: str) -> None:
    """By which they are clipped on a GPU. With a large epsilon, since Adam else forgets how large gradients are."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device, or none asked for by -m gpu")
    gradients, scales = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), (1.0, 4.0, 2.5)
    ends = []
    for divided in (True, False):
        weight = torch.nn.Parameter(torch.ones(5, device=device))
        optimizer: Any = torch.optim.AdamW([weight], lr=0.1, eps=1.0, fused=True)
        optimizer.found_inf = torch.zeros((), device=device)
        for gradient, scale in zip(gradients.to(device), scales, strict=True):
            weight.grad = gradient.clone() if divided else gradient / scale
            if divided:
                optimizer.grad_scale = torch.tensor(scale, device=device)
            optimizer.step()
        ends.append(weight.detach())
    torch.testing.assert_close(ends[0], ends[1])
    assert (ends[0] - 1).abs().max() > 0.01

"""What holds a model to another one: values and gradients equal plain torch on full logits; the Fisher information equals its sum."""

import math
from contextlib import nullcontext
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
from collapse_cli.lm import adapter, anchors, train
from collapse_cli.lm import loss as losses
from collapse_cli.lm.anchors import PredictionAnchor, WeightAnchor, anchor_of, fisher
from collapse_cli.lm.objective import Objective
from collapse_cli.lm.packing import WAYS, Batch
from collapse_cli.lm.step import Read
from collapse_cli.lm.train import TrainError, fit

HELD = altered(SETTINGS, anchor_weight=0.7, anchor_rows=5, anchor_temperature=2.5)
each_anchor = pytest.mark.parametrize("anchor", ["kl", "distill", "ewc", "l2"])


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven tokens and ten entries of the vocabulary at once, so that every test has several groups, tiles and a rest."""
    monkeypatch.setitem(losses.HELD_BYTES, "cpu", 8 * VOCABULARY * 7)
    monkeypatch.setitem(losses.TILE_BYTES, "cpu", 40)


def plain(kind: str, own: torch.Tensor, theirs: torch.Tensor, temperature: float) -> torch.Tensor:
    """(tokens,) what a token adds, by the formulas as they are published."""
    if kind == "kl":
        p, q = own.softmax(1), theirs.softmax(1)
        return (p * (p / q).log()).sum(1)
    soft = (theirs / temperature).softmax(1)
    return temperature**2 * functional.cross_entropy(own / temperature, soft, reduction="none")


@pytest.mark.parametrize("kind", ["kl", "distill"])
@pytest.mark.parametrize("scale", [0.1, 3.0], ids=["open", "sharp"])
def test_the_tiles_value_and_gradients_are_those_of_full_logits(kind: str, scale: float) -> None:
    random = torch.Generator().manual_seed(1)
    hidden, theirs = (torch.randn(23, 8, generator=random, dtype=torch.float64) for _ in range(2))
    weight, their_weight = (torch.randn(37, 8, generator=random, dtype=torch.float64) * scale for _ in range(2))
    where = torch.tensor([0, 1, 2, 5, 6, 7, 8, 9, 10, 15, 17, 18, 22])
    temperature = 2.5 if kind == "distill" else None
    wanted_of = [each.clone().requires_grad_() for each in (hidden, weight)]
    logits = (wanted_of[0] @ wanted_of[1].T)[where]
    wanted = 0.3 * plain(kind, logits, (theirs @ their_weight.T)[where], 2.5).sum()
    wanted.backward()
    mine = [each.float().requires_grad_() for each in (hidden, weight)]
    made: Any = anchors._Divergence.apply(
        *mine, theirs.float(), their_weight.float(), where, torch.float32, 0.3, temperature
    )
    (2 * made).backward()
    assert made.item() == pytest.approx(wanted.item(), rel=1e-5)
    for given, asked in zip(mine, wanted_of, strict=True):
        torch.testing.assert_close(given.grad, 2 * asked.grad.float(), rtol=1e-3, atol=3e-6)


def test_a_model_is_at_no_distance_from_itself() -> None:
    states, head = torch.randn(9, 8), torch.randn(37, 8)
    mine = [states.clone().requires_grad_(), head.clone().requires_grad_()]
    made: Any = anchors._Divergence.apply(*mine, states, head, torch.arange(9), torch.float32, 1.0, None)
    made.backward()
    assert abs(made.item()) < 1e-5
    assert all(float(each.grad.abs().max()) < 1e-5 for each in mine)


def reference(model: Any, other: Any, data: Dataset, settings: TrainConfig, seed: int) -> list[float]:
    """A plain loop: one row at a time, full logits of both models, the formulas. Returns what each step made small."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    steps, curve = math.ceil(len(data) / settings.batch_size), []
    centers = [weight.detach().clone() for weight in other.parameters()]
    matter = plain_fisher(other, data, settings.anchor_rows, seed) if settings.anchor == "ewc" else [1.0] * len(centers)
    for step in range(settings.epochs * steps):
        epoch, within = divmod(step, steps)
        order = train.random_numbers(seed, "order", epoch).permutation(len(data))
        optimizer.param_groups[0]["lr"] = train.learning_rate(settings, step, settings.epochs * steps, steps)
        summed, predicted = torch.zeros(()), 0
        for row in order[within * settings.batch_size : (within + 1) * settings.batch_size]:
            length = int(data.arrays["lengths"][row])
            ids = torch.from_numpy(data.arrays["tokens"][row, :length].astype(np.int64))[None]
            own = model(input_ids=ids).logits[0, :-1]
            summed = summed + functional.cross_entropy(own, ids[0, 1:], reduction="sum")
            if settings.anchor in ("kl", "distill"):
                with torch.no_grad():
                    theirs = other(input_ids=ids).logits[0, :-1]
                each = plain(settings.anchor, own, theirs, settings.anchor_temperature)
                summed = summed + settings.anchor_weight * each.sum()
            predicted += length - 1
        total = summed / predicted
        if settings.anchor in ("ewc", "l2"):
            parts = zip(model.parameters(), centers, matter, strict=True)
            total = total + settings.anchor_weight / 2 * sum(((w - c) ** 2 * f).sum() for w, c, f in parts)
        optimizer.zero_grad()
        total.backward()
        if settings.clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        curve.append(total.item())
    return curve


def plain_fisher(model: Any, data: Dataset, most: int, seed: int) -> list[torch.Tensor]:
    """Row by row, with the labels that `fisher` draws: the squares of the gradients of each row's log-likelihood."""
    chosen = np.unique(np.linspace(0, len(data) - 1, min(most, len(data))).round().astype(int))
    sums, tokens = [torch.zeros_like(weight) for weight in model.parameters()], 0
    for number, row in enumerate(chosen):
        length = int(data.arrays["lengths"][row])
        ids = torch.from_numpy(data.arrays["tokens"][row, :length].astype(np.int64))[None]
        logits = model(input_ids=ids).logits[0, :-1]
        drawn = []
        for token, uniform in zip(
            logits.detach().double().softmax(1), anchors._numbers(seed, number, length - 1), strict=True
        ):
            drawn.append(int((token.cumsum(0) / token.sum() <= uniform).sum()))
        value = logits.log_softmax(1)[torch.arange(length - 1), drawn].sum()
        for total, slope in zip(sums, torch.autograd.grad(value, list(model.parameters())), strict=True):
            total += slope**2
        tokens += length - 1
    return [total / tokens for total in sums]


def held(settings: TrainConfig, model: Any, other: Any, data: Dataset, scratch: Path) -> Any:
    width = int(data.arrays["lengths"].max())
    return anchor_of(settings, model, other, width=width, rows=lambda: data, seed=5, scratch=scratch)


@each_anchor
@pytest.mark.parametrize("kind", KINDS)
def test_the_gradients_of_a_step_are_those_of_plain_torch(
    kind: str, anchor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all rows at once, of unequal lengths, some of them packed into one."""
    data, settings = random_rows(14, 9, ragged=True), altered(HELD, anchor=anchor, batch_size=14, epochs=1, clip=0.0)
    slopes: list[list[torch.Tensor]] = []

    def not_made(optimizer: Any, closure: Any = None) -> None:
        slopes.append([weight.grad.clone() for group in optimizer.param_groups for weight in group["params"]])

    monkeypatch.setattr(torch.optim.AdamW, "step", not_made)
    mine, plainly, other = (tiny_model(kind, seed=seed, tied=kind != "llama") for seed in (0, 0, 7))
    (wanted,) = reference(plainly, tiny_model(kind, seed=7, tied=kind != "llama"), data, settings, seed=5)
    with pytest.raises(TrainError, match="left every weight as it was"):
        fit(mine, data, settings, seed=5, scratch=tmp_path, anchor=held(settings, mine, other, data, tmp_path))
    plain_slopes, own = slopes
    for name, one, two in zip(weights(mine), own, plain_slopes, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=2e-5, msg=name)
    assert identical(weights(other), weights(tiny_model(kind, seed=7, tied=kind != "llama"))), (
        "the anchor stays as it is"
    )
    assert wanted > 0


@each_anchor
def test_training_with_an_anchor_equals_a_plain_loop(
    anchor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = random_rows(14, 9, ragged=True), altered(HELD, anchor=anchor)
    mine, plainly, other, curve, step = (
        *(tiny_model("opt", seed=seed) for seed in (0, 0, 7)),
        list[float](),
        train.make_step,
    )
    wanted = reference(plainly, tiny_model("opt", seed=7), data, settings, seed=5)

    def spy(*arguments: Any, **named: Any) -> Read:
        made = step(*arguments, **named)()
        curve.append(made[0] / made[2])
        return lambda: made

    monkeypatch.setattr(train, "make_step", spy)
    facts = fit(mine, data, settings, seed=5, scratch=tmp_path, anchor=held(settings, mine, other, data, tmp_path))
    assert curve == pytest.approx(wanted, rel=2e-4)
    assert facts["train_objective"] > facts["train_loss"] > 0
    assert wanted[-1] < wanted[0]


def test_a_head_that_is_not_plain_gives_the_same(tmp_path: Path) -> None:
    data = random_rows(6, 9)
    ids, labels = (
        torch.from_numpy(data.arrays["tokens"][:, part].astype(np.int64)) for part in (slice(None), slice(1, None))
    )
    for kind in ("kl", "distill"):
        slopes = []
        for plain_head in (True, False):
            model, other = tiny_model("opt"), tiny_model("opt", seed=7)
            anchor = PredictionAnchor(other, WAYS[-1], 0.7, 2.5 if kind == "distill" else None)
            objective, batch = Objective(anchor=anchor), Batch(ids, labels, np.zeros(ids.shape, np.int64))
            objective.backward(model, batch, nullcontext, plain_head=plain_head, scale=0.1)
            slopes.append([weight.grad for weight in model.parameters()])
        for one, two in zip(*slopes, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5)


def test_fisher_is_the_curvature_of_what_a_model_predicts(tmp_path: Path) -> None:
    """½ F d² is KL(anchor ‖ anchor + d) per token for a small step d, in the mean over the labels that are drawn."""
    other, data = tiny_model("llama"), random_rows(400, 7)
    estimate = fisher(other, data, 400, 5, tmp_path)
    named = dict(other.named_parameters())
    tokens = torch.from_numpy(data.arrays["tokens"].astype(np.int64))
    for name in ("model.norm.weight", "model.layers.0.input_layernorm.weight"):
        divergences = 0.0
        for index in range(16):
            with torch.no_grad():
                before = other(tokens).logits[:, :-1].double().log_softmax(2)
                named[name][index] += 0.02
                after = other(tokens).logits[:, :-1].double().log_softmax(2)
                named[name][index] -= 0.02
            divergences += float((before.exp() * (before - after)).sum(2).mean())
        assert float(estimate[list(named).index(name)].sum()) * 0.02**2 / 2 == pytest.approx(divergences, rel=0.15)


class Killed(BaseException):
    """The process was killed."""


@pytest.mark.usefixtures("every_step_checkpointed")
@each_anchor
def test_killed_and_begun_again_it_is_the_same_to_the_last_bit(
    anchor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of the training; and of the estimate, which goes on where it was."""
    data, settings = random_rows(18, 7, ragged=True), altered(HELD, anchor=anchor)

    def trained(scratch: Path, stop: int) -> dict[str, torch.Tensor]:
        model, other = tiny_model("opt", dropout=0.2), tiny_model("opt", seed=7)

        def tell(done: int, total: int) -> None:
            if done == stop:
                raise Killed

        made = held(settings, model, other, data, scratch)
        fit(model, data, settings, seed=5, scratch=scratch, anchor=made, tell=tell)
        return weights(model)

    whole, scratch, drawn, rows = trained(folder(tmp_path / "whole"), 0), folder(tmp_path / "cut"), anchors._drawn, []
    with monkeypatch.context() as patch:

        def drawn_twice(*given: Any) -> torch.Tensor:
            rows.append(1)
            if len(rows) == 3:
                raise Killed
            return drawn(*given)

        patch.setattr(anchors, "_drawn", drawn_twice)
        if anchor == "ewc":
            with pytest.raises(Killed):
                trained(scratch, 0)
            with pytest.raises(Killed):
                trained(scratch, 4)
            assert len(rows) == 3 + 3, "two rows were there already"
        else:
            with pytest.raises(Killed):
                trained(scratch, 4)
    assert identical(whole, trained(scratch, 0))
    assert len(rows) in (0, 6), "the estimate is not made again"


def test_more_weight_holds_a_model_closer(tmp_path: Path) -> None:
    data = random_rows(16, 9)
    for anchor, strong in (("kl", 100.0), ("distill", 100.0), ("ewc", 1e4), ("l2", 100.0)):
        away = []
        for weight in (1e-6, strong):
            model, other = tiny_model("opt"), tiny_model("opt")
            settings = altered(HELD, anchor=anchor, anchor_weight=weight)
            scratch = folder(tmp_path / f"{anchor}-{weight}")
            fit(model, data, settings, seed=5, scratch=scratch, anchor=held(settings, model, other, data, scratch))
            ids = torch.from_numpy(data.arrays["tokens"].astype(np.int64))
            with torch.no_grad():
                own, theirs = (each(ids).logits.log_softmax(2) for each in (model.eval(), tiny_model("opt")))
            away.append(float((theirs.exp() * (theirs - own)).sum(2).mean()))
        assert away[1] < 0.5 * away[0], anchor


def test_an_adapter_is_held_to_its_model_by_what_it_predicts(tmp_path: Path) -> None:
    data, settings = (
        rows_of(random_rows(16, 9).arrays["tokens"]),
        altered(HELD, anchor="kl", anchor_weight=50.0, adapter=2),
    )
    adapted, other = adapter.begun(tiny_model("opt"), settings, seed=3), tiny_model("opt")
    model = adapted.base_model.model
    facts = fit(model, data, settings, seed=5, scratch=tmp_path, anchor=held(settings, model, other, data, tmp_path))
    assert facts["train_objective"] >= facts["train_loss"]


@pytest.mark.parametrize("anchor", ["kl", "distill"])
def test_in_bfloat16_it_is_nearly_the_same(anchor: str, tmp_path: Path) -> None:
    data, found = random_rows(16, 9), []
    for dtype in ("float32", "bfloat16"):
        model, other, settings = tiny_model("opt"), tiny_model("opt", seed=7), altered(HELD, anchor=anchor, dtype=dtype)
        scratch = folder(tmp_path / dtype)
        anchor_made = held(settings, model, other, data, scratch)
        found.append(fit(model, data, settings, seed=5, scratch=scratch, anchor=anchor_made)["train_objective"])
    assert found[1] == pytest.approx(found[0], rel=0.02)
    assert found[1] != found[0]


def test_the_squared_way_needs_no_importance() -> None:
    weight = torch.nn.Parameter(torch.tensor([1.0, 3.0]))
    value = WeightAnchor([torch.tensor([0.0, 1.0])], None, 0.5).after([weight])
    assert value is not None
    assert float(value) == 0.5 / 2 * (1 + 4)
    assert weight.grad is not None
    assert weight.grad.tolist() == [0.5, 1.0]

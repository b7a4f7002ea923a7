"""What a training step makes small: its losses, weights and perturbed embeddings equal plain torch, gradients too."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import KINDS, random_rows, rows_of, tiny_model
from support.training import SETTINGS, altered, folder, identical, weights
from torch.nn import functional

from collapse_cli.errors import InputError
from collapse_cli.lm import loss as losses
from collapse_cli.lm import step as one_step
from collapse_cli.lm import train
from collapse_cli.lm.loss import CROSS_ENTROPY, IGNORED, TokenLoss, linear_losses, summed_losses
from collapse_cli.lm.objective import Objective
from collapse_cli.lm.packing import WAYS
from collapse_cli.lm.train import TrainError, fit

LOSSES = (
    CROSS_ENTROPY,
    TokenLoss("truncated", 0.9),
    TokenLoss("truncated", 0.3),
    TokenLoss("truncated", 1.0),
    TokenLoss("focal", 2.0),
    TokenLoss("focal", 0.5),
    TokenLoss("focal", 0.0),
    TokenLoss("smoothed", 0.1),
    TokenLoss("smoothed", 0.6),
)
each_loss = pytest.mark.parametrize("token", LOSSES, ids=lambda token: f"{token.kind} {token.number:g}")


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven tokens and ten entries of the vocabulary at once, so that every test has several groups, tiles and a rest."""
    monkeypatch.setitem(losses.HELD_BYTES, "cpu", 4 * 97 * 7)
    monkeypatch.setitem(losses.TILE_BYTES, "cpu", 40)


def plain(token: TokenLoss, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(tokens,) the loss of each, by the formulas as they are published; 0 where nothing is predicted."""
    if token.kind == "smoothed":
        return functional.cross_entropy(
            logits, labels, ignore_index=IGNORED, reduction="none", label_smoothing=token.number
        )
    nll = functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="none")
    p = torch.exp(-nll)
    if token.kind == "truncated":
        return torch.where(p.detach() <= token.number, nll, torch.zeros_like(nll))
    if token.kind == "focal":
        return torch.where(labels == IGNORED, 0.0, (1 - p).clamp_min(1e-300) ** token.number * nll)
    return nll


def drawn(scale: float, tokens: int = 23, vocabulary: int = 37, d: int = 8) -> tuple[torch.Tensor, ...]:
    """Hidden states, weights and labels, some of them ignored; half of the others are what the model finds most likely."""
    random = torch.Generator().manual_seed(1)
    hidden = torch.randn(tokens, d, generator=random)
    weight = torch.randn(vocabulary, d, generator=random) * scale
    labels = torch.randint(0, vocabulary, (tokens,), generator=random)
    labels[::2] = (hidden @ weight.T).argmax(dim=1)[::2]
    labels[3:6], labels[7] = IGNORED, vocabulary - 1
    return hidden.requires_grad_(), weight.requires_grad_(), labels


# --- the losses of tokens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True], ids=["even", "weighted"])
@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 100.0])
@each_loss
def test_losses_and_gradients_are_those_of_plain_torch(token: TokenLoss, scale: float, weighted: bool) -> None:
    """In float64, over all logits at once; 37 is no multiple of the ten of a tile, nor 20 of the seven of a group."""
    hidden, weight, labels = drawn(scale)
    factors = torch.rand(len(labels), generator=torch.Generator().manual_seed(2)) * 3 if weighted else None
    exact = [each.detach().double().requires_grad_() for each in (hidden, weight)]
    logits = exact[0] @ exact[1].T
    of_tokens = plain(token, logits, labels) * (1 if factors is None else factors)
    wanted = torch.autograd.grad(of_tokens.sum() / 8, exact)
    found, entropy = linear_losses(hidden, weight, labels, scale=0.125, token=token, weights=factors)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(of_tokens.sum().item() / 8, rel=1e-5, abs=1e-9)
    assert entropy.item() == pytest.approx(plain(CROSS_ENTROPY, logits, labels).sum().item() / 8, rel=1e-6)
    found.backward()
    for one, other in zip((hidden.grad, weight.grad), wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=2e-5 * max(1e-3, other.abs().max().item()))


@each_loss
def test_half_precision_comes_near(token: TokenLoss) -> None:
    hidden, weight, labels = drawn(0.5)
    rounded = [each.detach().bfloat16().double().requires_grad_() for each in (hidden, weight)]
    loss = plain(token, rounded[0] @ rounded[1].T, labels).sum()
    wanted = torch.autograd.grad(loss, rounded)
    found, _ = linear_losses(hidden, weight, labels, dtype=torch.bfloat16, token=token)
    found.backward()
    assert found.item() == pytest.approx(loss.item(), rel=0.02)
    for one, other in zip((hidden.grad, weight.grad), wanted, strict=True):
        assert ((one.double() - other).norm() / other.norm()).item() < 0.03


@pytest.mark.parametrize("number", [0.3, 0.5, 1.0, 2.0])
def test_the_focal_loss_of_a_token_that_is_certain_is_nothing_and_has_no_slope(number: float) -> None:
    """1 - p is 1e-20, or 0: far below what can be told from 1, and a power below 1 of it is divided by it."""
    missing = torch.tensor([1e-20, 0.0, 1e-6])
    value, rises = TokenLoss("focal", number).of(torch.tensor([3e-8, 0.0, 1e-6]), missing)
    assert value.isfinite().all()
    assert (value <= 1.01 * missing ** (1 + number)).all()
    torch.testing.assert_close(rises, (1 + number) * missing**number, rtol=1e-3, atol=1e-11)


def test_a_token_is_masked_by_its_probability_alone_and_counts_in_the_mean(tmp_path: Path) -> None:
    """One step over two tokens, of which the model is sure of one: half the loss of the other, not all of it."""
    hidden = torch.eye(2, requires_grad=True)
    weight = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 0.0]], requires_grad=True)
    loss, entropy = linear_losses(hidden, weight, torch.tensor([0, 1]), scale=0.5, token=TokenLoss("truncated", 0.9))
    nll = [functional.cross_entropy(weight[:, row], torch.tensor(row)).item() for row in (0, 1)]
    assert loss.item() == pytest.approx(nll[1] / 2, rel=1e-6)
    assert entropy.item() == pytest.approx(sum(nll) / 2, rel=1e-6)
    loss.backward()
    assert hidden.grad is not None
    assert (hidden.grad[0] == 0).all()
    assert (hidden.grad[1] != 0).any()


# --- through models ---------------------------------------------------------------------------------------------------


def some_rows(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, and what follows each; two rows are padded."""
    ids = torch.randint(4, 97, (5, 9), generator=torch.Generator().manual_seed(seed))
    labels = ids[:, 1:].clone()
    labels[1, 3:] = IGNORED
    labels[4, :] = IGNORED
    return ids, labels


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("plain_head", [True, False], ids=["tiled", "whole logits"])
@pytest.mark.parametrize("kind", KINDS)
@each_loss
def test_a_models_losses_and_gradients_are_plain_ones(token: TokenLoss, kind: str, plain_head: bool) -> None:
    model = tiny_model(kind, tied=kind != "llama")
    ids, labels = some_rows()
    factors = torch.rand(labels.shape, generator=torch.Generator().manual_seed(3)) + 0.5
    logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
    loss = (plain(token, logits, labels.flatten()) * factors.flatten()).sum()
    wanted = gradients(model, loss)
    found, entropy = summed_losses(model, ids, labels, plain_head=plain_head, token=token, weights=factors)
    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    assert entropy.item() == pytest.approx(plain(CROSS_ENTROPY, logits, labels.flatten()).sum().item(), rel=1e-5)
    assert not entropy.requires_grad
    for name, gradient in gradients(model, found).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=2e-5, msg=name)


@pytest.mark.parametrize("plain_head", [True, False], ids=["tiled", "whole logits"])
def test_what_is_beside_the_loss_is_added_to_it(plain_head: bool) -> None:
    model = tiny_model("llama", tied=False)
    ids, labels = some_rows()
    logits = model(input_ids=ids).logits[:, :-1][labels != IGNORED]
    (logits.square().mean() + losses.summed_loss(model, ids, labels, plain_head=False)).backward()
    wanted = {name: weight.grad.clone() for name, weight in model.named_parameters()}

    def beside(states: torch.Tensor, head: torch.Tensor | None, where: torch.Tensor) -> torch.Tensor:
        assert (head is None) != plain_head
        return (states[where] if head is None else states[where] @ head.T).square().mean()

    found, _ = summed_losses(model, ids, labels, plain_head=plain_head, beside=beside)
    for name, gradient in gradients(model, found).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=1e-5, msg=name)


# --- weights of rows --------------------------------------------------------------------------------------------------


def weighted(data: Any, each: Any) -> Any:
    return rows_of(data.arrays["tokens"], data.arrays["lengths"], weights=np.asarray(each, np.float64))


def test_weights_are_in_units_of_their_mean_over_predicted_tokens(tmp_path: Path) -> None:
    """Twice as large they do the same; all equal they do nothing."""
    data, found = random_rows(8, 9, ragged=True), []
    random = np.random.default_rng(3).uniform(0.5, 3, 8)
    for number, each in enumerate((random, 2 * random, np.full(8, 0.7), None)):
        model, rows = tiny_model("gpt2"), data if each is None else weighted(data, each)
        facts = fit(model, rows, SETTINGS, seed=2, scratch=folder(tmp_path / str(number)))
        found.append((weights(model), facts))
    assert identical(found[0][0], found[1][0])
    assert not identical(found[0][0], found[3][0])
    for name, weight in found[2][0].items():
        torch.testing.assert_close(weight, found[3][0][name], rtol=0, atol=1e-5, msg=name)
    assert found[2][1]["train_objective"] == pytest.approx(found[3][1]["train_loss"], rel=1e-5)
    assert "train_objective" not in found[3][1]


@pytest.mark.parametrize("able", WAYS, ids=str)
def test_a_step_is_that_of_rows_weighted_by_hand(monkeypatch: pytest.MonkeyPatch, able: Any) -> None:
    """Whatever rows share: rows in one batch, several texts in one row, or a row alone."""
    model, data = tiny_model("llama", tied=False), random_rows(6, 9, ragged=True)
    factors = np.array([0.2, 1.0, 3.0, 0.0, 0.5, 2.0])
    loss, predicted = torch.zeros((), dtype=torch.float64), int((data.arrays["lengths"] - 1).sum())
    for row, factor in enumerate(factors):
        ids = torch.from_numpy(data.arrays["tokens"][row, : data.arrays["lengths"][row]].astype(np.int64))[None]
        nll = functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="sum")
        loss = loss + factor * nll.double() / predicted
    wanted = gradients(model, loss)
    monkeypatch.setattr(one_step, "abilities", lambda *_, **__: able)
    work = train.Work(model, SETTINGS, 9)
    with work.ready():
        made, count = work.gradients(weighted(data, factors), 0, 3)
    assert count == predicted
    assert torch.stack(made).sum(dim=0)[0].item() == pytest.approx(loss.item(), rel=1e-5)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, wanted[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("each", [np.zeros(4), np.array([1, 1, -1, 1]), np.array([1, np.nan, 1, 1])])
def test_weights_that_are_no_weights_are_refused(tmp_path: Path, each: np.ndarray) -> None:
    with pytest.raises(TrainError, match="weights of the rows must be numbers from 0 on"):
        fit(tiny_model("opt"), weighted(random_rows(4, 6), each), SETTINGS, seed=1, scratch=tmp_path)


# --- perturbed embeddings ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("able", WAYS, ids=str)
@pytest.mark.parametrize("plain_head", [True, False], ids=["tiled", "whole logits"])
def test_an_adversarial_step_is_one_up_the_loss_of_each_text_alone(
    monkeypatch: pytest.MonkeyPatch, able: Any, plain_head: bool
) -> None:
    """By hand: a text's embeddings, their gradient, a step of a tenth of their length, and both losses added."""
    model, data = tiny_model("llama", tied=False), random_rows(6, 9, ragged=True)
    predicted = int((data.arrays["lengths"] - 1).sum())
    loss = torch.zeros((), dtype=torch.float64)
    for row in range(6):
        ids = torch.from_numpy(data.arrays["tokens"][row, : data.arrays["lengths"][row]].astype(np.int64))[None]

        def nll(embeddings: torch.Tensor, ids: torch.Tensor = ids) -> torch.Tensor:
            logits = model(inputs_embeds=embeddings).logits[0, :-1]
            return functional.cross_entropy(logits, ids[0, 1:], reduction="sum").double()

        embeddings = model.get_input_embeddings()(ids)
        clean = nll(embeddings)
        (slope,) = torch.autograd.grad(clean, embeddings, retain_graph=True)
        step = 0.1 * embeddings.detach().norm() * slope / slope.norm()
        loss = loss + (clean + nll(embeddings + step)) / predicted
    wanted = gradients(model, loss)
    monkeypatch.setattr(one_step, "abilities", lambda *_, **__: able)
    monkeypatch.setattr(one_step, "has_plain_head", lambda _: plain_head)
    work = train.Work(model, SETTINGS, 9, Objective(adversarial=0.1))
    with work.ready():
        made, _ = work.gradients(data, 0, 3)
    assert torch.stack(made).sum(dim=0)[0].item() == pytest.approx(loss.item(), rel=1e-5)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, wanted[name], rtol=1e-3, atol=1e-5, msg=name)
    assert not model.get_input_embeddings()._forward_hooks, "the model is left as it was"


def test_embeddings_that_are_frozen_are_perturbed_too() -> None:
    model, data = tiny_model("llama", tied=False), random_rows(3, 9)
    model.get_input_embeddings().weight.requires_grad_(False)
    found = []
    for size in (0.0, 0.1):
        work = train.Work(model, SETTINGS, 9, Objective(adversarial=size))
        with work.ready():
            made, _ = work.gradients(data, 0, 3)
        found.append(made[0])
    assert found[1][0] > 2 * found[0][0], "the loss is larger up its slope"
    assert found[1][1] == found[0][1], "beside it stands the cross-entropy of the embeddings as they are"
    assert model.get_input_embeddings().weight.grad is None


def test_a_model_that_embeds_its_tokens_twice_cannot_have_them_perturbed(tmp_path: Path) -> None:
    model = tiny_model("opt")

    def once_more(*_: Any) -> None:
        model.get_input_embeddings()(torch.zeros(1, 1, dtype=torch.int64))

    model.model.decoder.register_forward_pre_hook(once_more)
    with pytest.raises(
        InputError, match=r"train\.adversarial needs a model that reads its tokens .*; opt models do not"
    ):
        fit(model, random_rows(4, 6), altered(SETTINGS, adversarial=0.1), seed=1, scratch=tmp_path)


# --- whole trainings --------------------------------------------------------------------------------------------------

CHANGES = (
    {"loss": "truncated", "truncate": 0.03},
    {"loss": "focal"},
    {"loss": "smoothed", "smoothing": 0.2},
    {"adversarial": 0.05},
)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_a_training_learns_whatever_it_makes_small(tmp_path: Path, changes: dict[str, Any]) -> None:
    """`train_loss` is the cross-entropy of the rows in any case, `train_objective` what was made small."""
    data, base = random_rows(12, 10, ragged=True), altered(SETTINGS, epochs=6, schedule="constant", warmup=0.0)
    plain_model, model = tiny_model("opt"), tiny_model("opt")
    wanted = fit(plain_model, data, base, seed=1, scratch=folder(tmp_path / "plain"))
    facts = fit(model, data, altered(base, **changes), seed=1, scratch=folder(tmp_path / "other"))
    assert facts["train_loss"] < 0.8 * facts["epoch_losses"][0]
    assert facts["train_loss"] == pytest.approx(wanted["train_loss"], rel=0.5)
    assert facts["train_objective"] != pytest.approx(facts["train_loss"], rel=1e-3)
    assert not identical(weights(model), weights(plain_model))


@pytest.mark.parametrize(
    "changes", [{"loss": "truncated", "truncate": 1.0}, {"loss": "focal", "focusing": 0.0}], ids=str
)
def test_a_loss_that_changes_nothing_trains_as_cross_entropy(tmp_path: Path, changes: dict[str, Any]) -> None:
    data = random_rows(12, 10, ragged=True)
    one, other = tiny_model("opt"), tiny_model("opt")
    wanted = fit(one, data, SETTINGS, seed=1, scratch=folder(tmp_path / "plain"))
    facts = fit(other, data, altered(SETTINGS, **changes), seed=1, scratch=folder(tmp_path / "other"))
    assert facts["epoch_losses"] == pytest.approx(wanted["epoch_losses"], rel=1e-6)
    assert facts["train_objective"] == pytest.approx(facts["train_loss"], rel=1e-6)

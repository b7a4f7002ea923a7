"""The chunked loss equals torch's plain cross-entropy, and models whose logits are more than a product are told apart."""

from typing import Any

import pytest
import torch
from support.tiny import KINDS, tiny_model
from torch.nn import functional

from collapse_cli.lm import loss as losses
from collapse_cli.lm import trial
from collapse_cli.lm.loss import IGNORED, has_plain_head, linear_losses, summed_loss, token_losses


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven tokens and ten entries of the vocabulary at once, so that every test has several groups, tiles and a rest."""
    monkeypatch.setitem(losses.HELD_BYTES, "cpu", 4 * 97 * 7)
    monkeypatch.setitem(losses.TILE_BYTES, "cpu", 40)


def some_rows(rows: int = 5, width: int = 9, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens, and what follows each; some of it not to be predicted."""
    ids = torch.randint(4, 97, (rows, width), generator=torch.Generator().manual_seed(seed))
    labels = ids[:, 1:].clone()
    labels[1, 3:] = IGNORED
    labels[4, :] = IGNORED
    return ids, labels


def plain_loss(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    logits = model(input_ids=ids).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    (loss / 3).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_chunked_loss_and_its_gradients_equal_the_plain_ones(kind: str, tied: bool) -> None:
    model = tiny_model(kind, tied=tied)
    ids, labels = some_rows()
    assert has_plain_head(model)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    wanted = plain_loss(model, ids, labels)
    wanted_gradients = gradients(model, wanted)
    found = summed_loss(model, ids, labels, plain_head=True)
    found_gradients = gradients(model, found)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert found_gradients.keys() == wanted_gradients.keys()
    for name, gradient in found_gradients.items():
        torch.testing.assert_close(gradient, wanted_gradients[name], rtol=1e-5, atol=1e-5, msg=name)
    other = summed_loss(model, ids, labels, plain_head=False)
    assert other.item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.parametrize("tile", [1, 96, 97, 1000])
@pytest.mark.parametrize("held", [1, 4 * 97, 1 << 30], ids=["token by token", "exact", "all at once"])
def test_the_size_of_groups_and_tiles_does_not_matter(monkeypatch: pytest.MonkeyPatch, held: int, tile: int) -> None:
    model = tiny_model("opt")
    ids, labels = some_rows()
    wanted = gradients(model, plain_loss(model, ids, labels))
    monkeypatch.setitem(losses.HELD_BYTES, "cpu", held)
    monkeypatch.setitem(losses.TILE_BYTES, "cpu", 4 * tile)
    for name, gradient in gradients(model, summed_loss(model, ids, labels, plain_head=True)).items():
        torch.testing.assert_close(gradient, wanted[name], rtol=1e-5, atol=1e-5, msg=name)


# --- the function itself ----------------------------------------------------------------------------------------------


def reference(
    hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss and both gradients, by torch in float64."""
    hidden, weight = (each.detach().double().requires_grad_() for each in (hidden, weight))
    loss = functional.cross_entropy(hidden @ weight.T, labels, ignore_index=IGNORED, reduction="sum")
    return loss.detach(), *torch.autograd.grad(loss, (hidden, weight))


def drawn(scale: float, tokens: int = 23, vocabulary: int = 37, d: int = 8) -> tuple[torch.Tensor, ...]:
    """Hidden states, weights and labels; some labels to be ignored, one the last of the vocabulary."""
    random = torch.Generator().manual_seed(1)
    hidden = torch.randn(tokens, d, generator=random)
    weight = torch.randn(vocabulary, d, generator=random) * scale
    labels = torch.randint(0, vocabulary, (tokens,), generator=random)
    labels[3:6], labels[7] = IGNORED, vocabulary - 1
    return hidden.requires_grad_(), weight.requires_grad_(), labels


@pytest.mark.parametrize("scale", [0.0, 0.1, 3.0, 4.0, 100.0])
def test_loss_and_gradients_are_those_of_torch(scale: float) -> None:
    """All alike, nearly alike, apart, and far apart; 37 is no multiple of the ten of a tile."""
    hidden, weight, labels = drawn(scale)
    loss, *wanted = reference(hidden, weight, labels)
    found = linear_losses(hidden, weight, labels)[0]
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(loss.item(), rel=1e-6)
    found.backward()
    for one, other in zip((hidden.grad, weight.grad), wanted, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5 * other.abs().max().item())


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0])
def test_small_logits_give_the_same_with_and_without_care_for_large_ones(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for largest in (0.0, losses.LARGEST):
        monkeypatch.setattr(losses, "LARGEST", largest)
        hidden, weight, labels = drawn(scale)
        bound = hidden.norm(dim=1).max() * weight.norm(dim=1).max()
        assert bound < 60, "or nothing is compared"
        loss = linear_losses(hidden, weight, labels)[0]
        loss.backward()
        found.append((loss.detach().float(), hidden.grad, weight.grad))
    for careful, quick in zip(*found, strict=True):
        torch.testing.assert_close(quick, careful, rtol=1e-5, atol=1e-5)


def test_a_scale_is_one_of_loss_and_gradients() -> None:
    hidden, weight, labels = drawn(0.3)
    loss, *wanted = reference(hidden, weight, labels)
    found = linear_losses(hidden, weight, labels, scale=0.125)[0]
    assert found.item() == pytest.approx(loss.item() / 8, rel=1e-6)
    (found * 4).backward()
    for one, other in zip((hidden.grad, weight.grad), wanted, strict=True):
        torch.testing.assert_close(one.double(), other / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_labels_that_are_nearly_certain_have_gradients_as_exact_as_others(dtype: torch.dtype) -> None:
    """1 - p is 0.005, less than what bfloat16 can tell from 1: a gradient of p - 1 would be noise."""
    hidden, weight, labels = drawn(1.0, vocabulary=21, d=24)
    labels = torch.arange(len(labels)) % 21
    with torch.no_grad():
        weight.copy_(torch.eye(21, 24))
        hidden.copy_(8.25 * weight[labels])
        hidden[:, 21:] = 1  # what no weight looks at: only the label's own row is to get it back
    loss, *wanted = reference(hidden, weight, labels)
    assert 0.001 < loss.item() / len(labels) < 0.01
    found = linear_losses(hidden, weight, labels, dtype=dtype)[0]
    assert found.item() == pytest.approx(loss.item(), rel=0.01)
    found.backward()
    for one, other in zip((hidden.grad, weight.grad), wanted, strict=True):
        assert ((one.double() - other).norm() / other.norm()).item() < 0.01


def test_near_ties_share_the_probability() -> None:
    """Two entries in different tiles that differ by a hair, far above all others."""
    hidden, weight, labels = torch.full((2, 4), 2.0), torch.zeros(37, 4), torch.tensor([0, 36])
    weight[0], weight[36] = 5.0, 5.00001
    hidden.requires_grad_(), weight.requires_grad_()
    loss, *wanted = reference(hidden, weight, labels)
    found = linear_losses(hidden, weight, labels)[0]
    assert found.item() == pytest.approx(loss.item(), rel=1e-5)
    found.backward()
    torch.testing.assert_close(weight.grad.double(), wanted[1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_is_frozen_gets_no_gradient_and_costs_none(frozen: str) -> None:
    hidden, weight, labels = drawn(0.3)
    _, *wanted = reference(hidden, weight, labels)
    named = {"hidden": hidden, "weight": weight}
    named[frozen].requires_grad_(False)
    linear_losses(hidden, weight, labels)[0].backward()
    assert named[frozen].grad is None
    other = "weight" if frozen == "hidden" else "hidden"
    gradient = dict(zip(named, wanted, strict=True))[other]
    torch.testing.assert_close(named[other].grad.double(), gradient, rtol=1e-5, atol=1e-5)


def test_the_full_logits_are_never_made(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    product = losses.product

    def spy(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        made.append((result := product(left, right)).numel())
        return result

    monkeypatch.setattr(losses, "product", spy)
    hidden, weight, labels = drawn(0.3, tokens=200, vocabulary=97)
    linear_losses(hidden, weight, labels)[0].backward()
    assert (
        max(made) <= 16 * 10
    )  # logits of a tile, for the tokens of a group filled up to 16 rows, or a tile's gradient


# --- through models ---------------------------------------------------------------------------------------------------


def test_large_logits_do_not_overflow() -> None:
    model = tiny_model("llama", tied=False)
    model.lm_head.weight.data *= 1e4
    ids, labels = some_rows()
    found = summed_loss(model, ids, labels, plain_head=True)
    assert torch.isfinite(found)
    assert found.item() == pytest.approx(plain_loss(model, ids, labels).item(), rel=1e-5)


def test_nothing_to_predict_is_a_loss_of_zero() -> None:
    model = tiny_model("opt")
    ids, labels = some_rows()
    loss = summed_loss(model, ids, torch.full_like(labels, IGNORED), plain_head=True)
    assert loss.item() == 0
    assert all((gradient == 0).all() for gradient in gradients(model, loss).values())


def test_in_bfloat16_the_loss_is_near_and_the_gradients_of_the_weights_are_float32() -> None:
    model = tiny_model("opt")
    ids, labels = some_rows()
    wanted = plain_loss(model, ids, labels)
    wanted_gradients = gradients(model, wanted)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = summed_loss(model, ids, labels, plain_head=True)
    assert found.item() == pytest.approx(wanted.item(), rel=0.03)
    name = "model.decoder.embed_tokens.weight"
    gradient = gradients(model, found)[name]
    assert gradient.dtype == torch.float32
    assert functional.cosine_similarity(gradient.ravel(), wanted_gradients[name].ravel(), dim=0) > 0.99


@pytest.mark.parametrize("plain_head", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_token_losses_are_the_negative_log_softmax(kind: str, plain_head: bool) -> None:
    model = tiny_model(kind, tied=kind != "llama")
    ids, _ = some_rows()
    wanted = -model(input_ids=ids).logits[:, :-1].double().log_softmax(-1).gather(2, ids[:, 1:, None]).squeeze(2)
    labels = ids[:, 1:].clone()
    labels[2, ::2] = IGNORED
    found = token_losses(model, ids, labels, plain_head=plain_head)
    assert found.shape == (5, 8)
    assert found.dtype == torch.float32
    assert (found[2, ::2] == 0).all()
    torch.testing.assert_close(found.double(), wanted.detach() * (labels != IGNORED), rtol=1e-5, atol=1e-5)


# --- heads that are not plain -----------------------------------------------------------------------------------------

SMALL = {
    "vocab_size": 97,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 1,
    "bos_token_id": 2,
    "eos_token_id": 2,
}


def capped(**fields: Any) -> Any:
    """Gemma 2: logits are capped by a tanh. With weights as they are drawn, far below the cap."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    return Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, sliding_window=32, **fields)).eval()


def scaled() -> Any:
    """Cohere: logits are scaled."""
    from transformers import CohereConfig, CohereForCausalLM

    torch.manual_seed(0)
    return CohereForCausalLM(CohereConfig(**SMALL)).eval()


def biased() -> Any:
    """Phi: the head has a bias."""
    from transformers import PhiConfig, PhiForCausalLM

    torch.manual_seed(0)
    model = PhiForCausalLM(PhiConfig(**SMALL)).eval()
    model.lm_head.bias.data.normal_()
    return model


HEADS = {
    "scaled": scaled,
    "biased": biased,
    "capped low": lambda: capped(final_logit_softcapping=0.05),
    "capped as Gemma 2 is, weights new": capped,
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_does_more_than_multiply_is_found_out(name: str) -> None:
    model = HEADS[name]()
    ids, labels = some_rows()
    plain = has_plain_head(model)
    model.get_input_embeddings().weight.data *= 300  # training will make logits grow: what was said must stay true
    wanted = plain_loss(model, ids, labels).item()
    assert summed_loss(model, ids, labels, plain_head=plain).item() == pytest.approx(wanted, rel=1e-5)
    assert token_losses(model, ids[:4], ids[:4, 1:], plain_head=plain).sum().item() == pytest.approx(
        plain_loss(model, ids[:4], ids[:4, 1:]).item(), rel=1e-5
    )
    assert not plain


def test_a_gemma_without_the_cap_has_a_plain_head() -> None:
    assert has_plain_head(capped(final_logit_softcapping=None))


@pytest.mark.parametrize("training", [True, False])
def test_looking_at_the_head_leaves_the_model_as_it_was(training: bool) -> None:
    model = tiny_model("opt", dropout=0.5).train(training)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    state = torch.get_rng_state()
    assert has_plain_head(model), "dropout must not disturb the comparison"
    assert model.training == training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


def test_a_model_of_few_tokens_and_positions_has_a_plain_head_too() -> None:
    assert has_plain_head(tiny_model("opt", vocabulary=5))


def test_what_is_said_of_a_head_is_remembered_but_not_of_a_broken_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_verdicts", {})
    model = tiny_model("opt")
    whole = model.model.decoder.final_layer_norm.weight.clone()
    model.model.decoder.final_layer_norm.weight.data.fill_(torch.nan)
    assert not has_plain_head(model)
    model.model.decoder.final_layer_norm.weight.data.copy_(whole)
    assert has_plain_head(model)
    monkeypatch.setattr(type(model), "forward", None)
    assert has_plain_head(model), "without another look"

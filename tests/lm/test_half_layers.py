"""Layers in bfloat16 that are cast and multiplied together: the gradients of autocast, and which layers go together."""

import copy
from typing import Any

import pytest
import torch
from support.tiny import random_rows, tiny_model
from torch.nn import functional
from torch.nn.functional import linear as torchs_linear

from collapse_cli.lm import half_layers
from collapse_cli.lm.half_layers import HalfLayers
from collapse_cli.lm.loss import summed_loss

KINDS = ("opt", "llama", "gpt2")


def gradients(model: Any, ids: torch.Tensor, layers: HalfLayers | None) -> dict[str, torch.Tensor]:
    """Of the cross-entropy of all rows, under autocast."""
    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if layers is None:
            summed_loss(model, ids, ids[:, 1:].contiguous(), plain_head=True).backward()
        else:
            with layers.used():
                summed_loss(model, ids, ids[:, 1:].contiguous(), plain_head=True).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_autocast(kind: str) -> None:
    """And as near to those of float32; weights that change between passes are cast anew."""
    model, layers = tiny_model(kind), HalfLayers()
    ids = torch.from_numpy(random_rows(6, 12).arrays["tokens"]).long()
    for turn in range(3):
        wanted, found = gradients(model, ids, None), gradients(model, ids, layers)
        exact = copy.deepcopy(model)
        summed_loss(exact, ids, ids[:, 1:].contiguous(), plain_head=True).backward()
        assert wanted.keys() == found.keys()
        for name, weight in exact.named_parameters():
            if name in wanted and not name.endswith("k_proj.bias"):
                size = weight.grad.norm()
                assert (found[name] - wanted[name]).norm() < 0.02 * size, (turn, name)
                assert (found[name] - weight.grad).norm() < 1.2 * (wanted[name] - weight.grad).norm() + 1e-3 * size
        with torch.no_grad():
            for weight in model.parameters():
                weight += 0.05 * torch.randn_like(weight)
    assert functional.linear is torchs_linear


@pytest.mark.parametrize(("kind", "sizes"), [("opt", [3, 1, 1, 1]), ("llama", [3, 1, 2, 1])])
def test_layers_that_read_the_same_rows_are_one_product(
    kind: str, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, layers = tiny_model(kind), HalfLayers()
    ids = torch.from_numpy(random_rows(2, 5).arrays["tokens"]).long()
    gradients(model, ids, layers)
    depth = model.config.num_hidden_layers
    assert layers._groups is not None
    assert [len(group.sizes) for group in layers._groups] == sizes * depth
    made = []
    monkeypatch.setattr(half_layers, "torchs_linear", lambda *given: (made.append(1), torchs_linear(*given))[1])
    gradients(model, ids, layers)
    assert len(made) == len(sizes) * depth


def test_what_is_called_twice_or_not_trained_or_no_float32_is_left_to_autocast() -> None:
    rows = torch.randn(4, 8, requires_grad=True)
    twice, frozen, half, good = (torch.nn.Linear(8, 8) for _ in range(4))
    frozen.requires_grad_(False)
    half.to(torch.bfloat16)
    layers = HalfLayers()
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16), layers.used():
            made = good(twice(frozen(half(twice(rows)))))
        made.sum().backward()
    assert layers._groups is not None
    assert [group.weights for group in layers._groups] == [[good.weight]]
    assert good.weight.grad is not None
    assert twice.weight.grad is not None
    assert frozen.weight.grad is None


def test_the_same_layer_gets_other_rows() -> None:
    """Rows of the group are those of the call, not those of the pass before."""
    layer, layers = torch.nn.Linear(8, 8), HalfLayers()
    for _ in range(3):
        rows = torch.randn(4, 8)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            with layers.used():
                found = layer(rows)
            assert torch.equal(found, layer(rows))


def test_a_layer_that_is_called_by_other_names_is_left_to_autocast() -> None:
    weight, layers = torch.nn.Parameter(torch.randn(4, 8)), HalfLayers()
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16), layers.used():
            made = functional.linear(input=torch.ones(2, 8), weight=weight)
    made.sum().backward()
    assert layers._groups == []
    assert weight.grad is not None

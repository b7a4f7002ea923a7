"""Fast products and dropout do what torch's do."""

from typing import Any

import pytest
import torch
from support.tiny import KINDS, tiny_model
from torch.nn import functional

from collapse_cli.lm import arithmetic
from collapse_cli.lm.arithmetic import fast_products, linear, product, transposed_product

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "LEAST_WEIGHT", 1)
    monkeypatch.setattr(arithmetic, "LEAST_WORK", 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(5, 7, 3), (64, 8, 40), (0, 4, 4), (1, 1, 1)], ids=str)
def test_products_are_products(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    rows, inner, columns = shape
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    torch.testing.assert_close(product(left, right), left @ right)
    torch.testing.assert_close(product(left.T.contiguous().T, right.T.contiguous().T), left @ right)
    torch.testing.assert_close(transposed_product(left.T.contiguous(), right), left @ right)


@pytest.mark.parametrize("bias", [True, False])
def test_linear_has_the_gradients_of_torchs(bias: bool) -> None:
    torch.manual_seed(0)
    given = [torch.randn(2, 9, 8), torch.randn(12, 8), *([torch.randn(12)] if bias else [])]
    slope = torch.randn(2, 9, 12)
    found = []
    for function in (linear, functional.linear):
        leaves = [each.clone().requires_grad_() for each in given]
        result = function(*leaves)
        result.backward(slope)
        found.append([result.detach(), *(leaf.grad for leaf in leaves)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_models_give_the_same_inside(kind: str) -> None:
    model = tiny_model(kind)
    ids = torch.arange(4, 40).view(3, 12)
    found: list[Any] = []
    for fast in (False, True):
        model.zero_grad()
        if fast:
            with fast_products(CPU):
                model(input_ids=ids, labels=ids).loss.backward()
        else:
            model(input_ids=ids, labels=ids).loss.backward()
        found.append({name: weight.grad.clone() for name, weight in model.named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)


# --- dropout ----------------------------------------------------------------------------------------------------------


def dropped(share: float, rows: torch.Tensor, seed: int = 0, training: bool = True) -> torch.Tensor:
    torch.manual_seed(seed)
    with fast_products(CPU):
        return functional.dropout(rows, p=share, training=training)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.93])
def test_dropout_drops_its_share_and_keeps_the_mean(share: float) -> None:
    count = 1_000_003  # no multiple of the four that are drawn at once
    found = dropped(share, torch.full((count,), 3.0))
    zero = (found == 0).double().mean().item()
    assert zero == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5 + 2**-17)
    kept = found[found != 0]
    assert (kept == kept[0]).all()
    assert kept[0].item() == pytest.approx(3 / (1 - round(share * 2**16) / 2**16), rel=1e-6)


def test_dropout_is_even_over_places_and_not_the_same_for_neighbours() -> None:
    zero = (dropped(0.25, torch.ones(4096, 64)) == 0).double()
    assert zero.mean(dim=0).sub(0.25).abs().max() < 0.04
    assert torch.corrcoef(zero.T[:8]).fill_diagonal_(0).abs().max() < 0.08


def test_dropout_is_decided_by_the_seed_of_torch() -> None:
    rows = torch.ones(100, 7)
    assert torch.equal(dropped(0.3, rows, 1), dropped(0.3, rows, 1))
    assert not torch.equal(dropped(0.3, rows, 1), dropped(0.3, rows, 2))
    torch.manual_seed(1)
    with fast_products(CPU):
        assert not torch.equal(functional.dropout(rows, 0.3), functional.dropout(rows, 0.3))


def test_the_gradient_is_dropped_where_the_value_was() -> None:
    rows = torch.ones(50, 9, requires_grad=True)
    found = dropped(0.4, rows)
    found.sum().backward()
    assert rows.grad is not None
    assert torch.equal(rows.grad, found.detach())


def test_in_bfloat16_the_mean_is_kept_too() -> None:
    """Also when a scale of 1 / 0.9, rounded to bfloat16, would be 0.2% too small."""
    rows = torch.rand(1 << 20).add_(1).to(torch.bfloat16)
    found = dropped(0.1, rows)
    assert found.dtype == torch.bfloat16
    assert (found.double().sum() / rows.double().sum()).item() == pytest.approx(1, abs=0.0012)


@pytest.mark.parametrize("share", [0.0, 1e-9, 1.0])
def test_dropout_of_nothing_and_of_everything(share: float) -> None:
    assert torch.equal(dropped(share, torch.ones(9)), torch.full((9,), 0.0 if share == 1 else 1.0))


def test_there_is_no_dropout_outside_training() -> None:
    assert torch.equal(dropped(0.5, torch.ones(9), training=False), torch.ones(9))

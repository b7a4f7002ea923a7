"""Fast products and dropout do what torch's do."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import KINDS, tiny_model
from torch.nn import functional

from collapse_cli.lm import arithmetic
from collapse_cli.lm.arithmetic import PackedWeights, fast_products, filled, linear, product, transposed_product
from collapse_cli.lm.model import has_fast_bf16

CPU = torch.device("cpu")
AVX_512 = torch.backends.cpu.get_cpu_capability().startswith("AVX512")


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


@pytest.fixture(params=["oneDNN", "torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both ways that products can go; the one that this processor does not prefer is tested on it all the same."""
    if request.param == "oneDNN" and not arithmetic.has_onednn():
        pytest.skip("there is no oneDNN here")
    monkeypatch.setattr(arithmetic, "prefers_onednn", lambda: request.param == "oneDNN")
    return request.param


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shape", [(64, 192), (37, 100), (192, 768)], ids=str)
@torch.no_grad()
def test_a_row_is_the_same_among_any_number_of_rows(way: str, shape: tuple[int, int], threads: int) -> None:
    """MKL alone gives other bits for 1 to 3 rows, with two threads for up to 11; with oneDNN the callers see to 16 rows."""
    inner, columns = shape
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(160, inner), torch.randn(columns, inner), torch.randn(columns)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    packed = PackedWeights(64)
    try:
        for function in (linear, packed.linear, lambda given, *_: product(filled(given), weight.T)[: len(given)]):
            wanted = function(rows, weight, bias)
            for count in range(16 if way == "oneDNN" else 1, 40):
                found = function(rows[7 : 7 + count].clone(), weight, bias)
                assert torch.equal(found, wanted[7 : 7 + count]), count
            three = rows[:35].view(5, 7, inner)
            if function is linear:
                assert torch.equal(function(three, weight, bias), wanted[:35].view(5, 7, columns))
    finally:
        torch.set_num_threads(before)


def test_the_processor_decides_how_to_multiply() -> None:
    """One that has AVX-512 takes oneDNN; one that has none takes torch's own way, and no bfloat16 on its own account."""
    assert arithmetic.prefers_onednn() == (AVX_512 and arithmetic.has_onednn())
    if not AVX_512 and not torch.cuda.is_available():
        assert not has_fast_bf16()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="imitates a processor of this kind")
@pytest.mark.skipif(not AVX_512, reason="this processor has no AVX-512, so all tests are of what is imitated here")
def test_what_the_engine_promises_holds_without_avx_512() -> None:
    """The core of these tests in a process that is held to AVX2: same rows in every batch, the reference's numbers."""
    here = Path(__file__).parent
    files = [str(here / f"test_lm_{name}.py") for name in ("arithmetic", "slots", "score", "train")]
    names = "decides or products_are or True-5-5 or (scored_as and opt) or (equals_a_plain_loop and opt)"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files, "-k", names]
    held = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}
    done = subprocess.run(
        command, env=os.environ | held, capture_output=True, text=True, check=False, cwd=here.parents[1]
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= 15  # type: ignore[union-attr]


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


def test_names_are_as_they_were_afterwards_also_when_something_went_wrong() -> None:
    def names() -> tuple[Any, ...]:
        return functional.linear, functional.dropout, torch.addmm

    before = names()
    with torch.no_grad(), fast_products(CPU):
        outside = names()
        with pytest.raises(RuntimeError), fast_products(CPU, PackedWeights(64)):
            functional.linear(torch.ones(2, 3), torch.ones(4, 5))
        with fast_products(CPU, PackedWeights(64)):
            assert all(inner is not outer for inner, outer in zip(names(), outside, strict=True))
        assert names() == outside
        assert all(inner is not outer for inner, outer in zip(outside, before, strict=True))
    assert names() == before


@pytest.mark.parametrize("grown", [False, True], ids=["without gradients", "with gradients"])
def test_calls_by_any_names_of_their_arguments_are_answered(way: str, grown: bool) -> None:
    torch.manual_seed(0)
    rows, weight, bias = torch.randn(5, 8), torch.randn(12, 8), torch.randn(12)
    wanted = rows @ weight.T + bias
    with torch.set_grad_enabled(grown), fast_products(CPU):
        found = [
            functional.linear(rows, weight, bias),
            functional.linear(rows, weight, bias=bias),
            functional.linear(input=rows, weight=weight, bias=bias),
            torch.addmm(bias, rows, weight.T),
            torch.addmm(bias, rows, weight.T, beta=1),
            torch.addmm(bias.expand(5, -1), rows, weight.T),
            torch.nn.functional.dropout(wanted, training=False),
            torch.nn.functional.dropout(input=wanted, p=0.5, training=False),
        ]
    for each in found:
        torch.testing.assert_close(each, wanted)


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

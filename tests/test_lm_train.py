"""Training equals a plain loop, goes on after an interruption as if nothing had been, and says when it went wrong."""

import math
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import KINDS, VOCABULARY, random_rows, rows_of, tiny_model
from torch.nn import functional

from collapse_cli.data import Dataset, InputError
from collapse_cli.lm import memory, train
from collapse_cli.lm.score import score_blocks
from collapse_cli.lm.train import TrainError, fit, learning_rate

SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "lr": 3e-3,
    "batch_size": 4,
    "weight_decay": 0.1,
    "schedule": "cosine",
    "min_lr": 1e-4,
    "warmup": 0.2,
    "clip": 1.0,
    "dtype": "float32",
    "select": "last",
}


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}


def identical(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()


def folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def reference(model: Any, data: Dataset, settings: dict[str, Any], seed: int) -> list[float]:
    """A plain loop over the same order of rows: one row at a time, torch's loss, AdamW and clipping.

    Trains `model` in place; returns the loss of each step, in nats per predicted token.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"], fused=False
    )
    size = settings["batch_size"]
    steps = math.ceil(len(data) / size)
    curve = []
    model.train()
    for epoch in range(settings["epochs"]):
        order = train._generator(seed, "order", epoch).permutation(len(data))
        for within in range(steps):
            for group in optimizer.param_groups:
                step = epoch * steps + within
                group["lr"] = learning_rate(settings, step, settings["epochs"] * steps, steps)
            summed, predicted = torch.zeros(()), 0
            for row in order[within * size : (within + 1) * size]:
                length = int(data.arrays["lengths"][row])
                ids = torch.from_numpy(data.arrays["tokens"][row, :length].astype(np.int64))[None]
                logits = model(input_ids=ids).logits[0, :-1]
                summed = summed + functional.cross_entropy(logits, ids[0, 1:], reduction="sum")
                predicted += length - 1
            optimizer.zero_grad()
            (summed / predicted).backward()
            if settings["clip"]:
                torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip"])
            optimizer.step()
            curve.append(summed.item() / predicted)
    return curve


def fit_curve(
    monkeypatch: pytest.MonkeyPatch, model: Any, data: Dataset, settings: dict[str, Any], seed: int, scratch: Path
) -> tuple[list[float], dict[str, Any]]:
    """The loss of each step of `fit`, and what it returns."""
    curve, step = [], train._step

    def spy(*arguments: Any, **named: Any) -> tuple[float, int]:
        loss, predicted = step(*arguments, **named)
        curve.append(loss / predicted)
        return loss, predicted

    with monkeypatch.context() as patch:
        patch.setattr(train, "_step", spy)
        facts = fit(model, data, settings, seed=seed, scratch=scratch)
    return curve, facts


# --- against a plain loop ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("kind", KINDS)
def test_training_equals_a_plain_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, clip: float) -> None:
    data, settings = random_rows(14, 9, ragged=True), SETTINGS | {"clip": clip}
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


def test_the_losses_that_are_reported_are_token_weighted_means_of_epochs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data = random_rows(10, 12, ragged=True)
    predicted: list[int] = []
    losses: list[float] = []
    step = train._step

    def spy(*arguments: Any, **named: Any) -> tuple[float, int]:
        loss, count = step(*arguments, **named)
        losses.append(loss)
        predicted.append(count)
        return loss, count

    monkeypatch.setattr(train, "_step", spy)
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
    data, settings = random_rows(20, 8), SETTINGS | {"batch_size": 10, "lr": 1e-3}
    calls: list[int] = []
    summed_loss = train.summed_loss
    monkeypatch.setattr(train, "has_plain_head", lambda _: plain_head)
    monkeypatch.setattr(
        train,
        "summed_loss",
        lambda model, ids, *rest, **named: (calls.append(len(ids)), summed_loss(model, ids, *rest, **named))[1],
    )
    whole, parts = tiny_model("llama", tied=False), tiny_model("llama", tied=False)
    fit(whole, data, settings, seed=3, scratch=folder(tmp_path / "whole"))
    assert set(calls) == {10}
    calls.clear()
    if plain_head:
        monkeypatch.setattr(train, "TOKENS_AT_ONCE", 3 * 8)
    else:
        monkeypatch.setattr(train, "LOGITS_BYTES", 3 * 8 * 4 * VOCABULARY)
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
            train, "_step", lambda *given, **_: (seen.append(given[2].arrays["stream"].tolist()), (1.0, 1))[1]
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
    rough = fit(half, data, SETTINGS | {"dtype": "bfloat16"}, seed=1, scratch=folder(tmp_path / "half"))
    exact = fit(full, data, SETTINGS, seed=1, scratch=folder(tmp_path / "full"))
    assert {weight.dtype for weight in half.parameters()} == {torch.float32}
    assert rough["train_loss"] == pytest.approx(exact["train_loss"], rel=0.02)
    assert not identical(weights(half), weights(full))


# --- interruptions ----------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process was killed."""


def interrupted_at(step: int) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        if done == step:
            raise Killed

    return tell


def trained(
    scratch: Path, stops: tuple[int, ...] = (), **changes: Any
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights and facts of a training with dropout that is killed after these steps and begun again each time."""
    data, valid = random_rows(18, 7, ragged=True), random_rows(6, 7, seed=9)
    settings = SETTINGS | changes
    for number, stop in enumerate((*stops, 0)):
        torch.manual_seed(number)  # the global random numbers are others in each process
        model = tiny_model("opt", dropout=0.2)
        try:
            facts = fit(model, data, settings, seed=4, scratch=scratch, valid=valid, tell=interrupted_at(stop))
        except Killed:
            continue
        assert stop == 0, "it was to be killed"
    return weights(model), facts


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Weights and facts by what `select` says."""
    return {select: trained(tmp_path_factory.mktemp(select), select=select) for select in ("last", "valid")}


@pytest.mark.usefixtures("every_step_checkpointed")
@pytest.mark.parametrize(
    ("select", "stops"),
    [("last", stops) for stops in ((1,), (4,), (5,), (9,), (10,), (2, 3, 7))]
    + [("valid", stops) for stops in ((4,), (5,), (6, 10))],
    ids=str,
)
def test_an_interrupted_training_ends_bit_for_bit_as_an_uninterrupted_one(
    tmp_path: Path, uninterrupted: dict[str, Any], select: str, stops: tuple[int, ...]
) -> None:
    """Two epochs of five steps; killed in the middle, at the end of an epoch, after the last step, and repeatedly."""
    whole, facts = uninterrupted[select]
    again, facts_again = trained(tmp_path, stops, select=select)
    assert identical(whole, again)
    assert facts == facts_again


def test_steps_after_the_last_checkpoint_are_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after step 3, none later, killed after step 7."""
    data, told = random_rows(18, 7), []
    whole, part, last = (tiny_model("opt", dropout=0.2) for _ in range(3))
    fit(whole, data, SETTINGS, seed=4, scratch=folder(tmp_path / "whole"))
    scratch = folder(tmp_path / "scratch")

    def tell(done: int, total: int) -> None:
        monkeypatch.setenv("COLLAPSE_CHECKPOINT_SECONDS", "1000")
        if done == 7:
            raise Killed

    monkeypatch.setattr(train.Checkpoint, "save_sometimes", only_at_step_3(train.Checkpoint.save_sometimes))
    with pytest.raises(Killed):
        fit(part, data, SETTINGS, seed=4, scratch=scratch, tell=tell)
    (scratch / "checkpoint.tmp").write_bytes(b"half a checkpoint")
    fit(last, data, SETTINGS, seed=4, scratch=scratch, tell=lambda done, total: told.append(done))
    assert told == [4, 5, 6, 7, 8, 9, 10]
    assert identical(weights(whole), weights(last))


def only_at_step_3(save: Any) -> Any:
    def save_sometimes(self: Any, state: Any) -> None:
        if state["step"] == 3:
            self.due = 0
            save(self, state)

    return save_sometimes


def test_checkpoints_are_written_once_a_minute_at_most(tmp_path: Path) -> None:
    fit(tiny_model("opt"), random_rows(8, 6), SETTINGS, seed=1, scratch=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("every_step_checkpointed")
def test_a_checkpoint_holds_a_weight_once_and_is_no_pickle(tmp_path: Path) -> None:
    from safetensors import safe_open

    model = tiny_model("gpt2")
    with pytest.raises(Killed):
        fit(model, random_rows(8, 6), SETTINGS, seed=1, scratch=tmp_path, tell=interrupted_at(3))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as file:
        names = set(file.keys())
    assert names == {
        f"{part}.{name}" for name, _ in model.named_parameters() for part in ("weight", "exp_avg", "exp_avg_sq", "step")
    }


# --- learning rates ---------------------------------------------------------------------------------------------------


def rates(total: int, steps_per_epoch: int, **settings: Any) -> list[float]:
    return [learning_rate(SETTINGS | settings, step, total, steps_per_epoch) for step in range(total)]


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


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    settings = SETTINGS | {"lr": 1e38, "clip": 0.0, "warmup": 0.0, "epochs": 5}
    with pytest.raises(TrainError, match=r"the loss is (nan|inf) at step \d+ of 10; lower train\.lr"):
        fit(tiny_model("opt"), random_rows(8, 6), settings, seed=1, scratch=tmp_path)


def test_weights_that_are_not_finite_after_the_last_step_are_an_error(tmp_path: Path) -> None:
    """One step only: its loss is finite, the weights after it are not."""
    settings = SETTINGS | {"lr": 1e39, "epochs": 1, "batch_size": 8, "warmup": 0.0, "schedule": "constant"}
    with pytest.raises(TrainError, match=r"train\.lr"):
        fit(tiny_model("opt"), random_rows(8, 6), settings, seed=1, scratch=tmp_path)


def test_weights_that_did_not_change_are_an_error(tmp_path: Path) -> None:
    settings = SETTINGS | {"lr": 1e-45, "min_lr": 0.0}
    with pytest.raises(TrainError, match="training left every weight as it was"):
        fit(tiny_model("opt"), random_rows(8, 6), settings, seed=1, scratch=tmp_path)


@pytest.mark.usefixtures("every_step_checkpointed")
def test_weights_that_did_change_before_an_interruption_count_as_changed(tmp_path: Path) -> None:
    """Killed after the last step: taken up again there is nothing left to do, and yet it was trained."""
    with pytest.raises(Killed):
        fit(tiny_model("opt"), random_rows(8, 6), SETTINGS, seed=1, scratch=tmp_path, tell=interrupted_at(4))
    fit(tiny_model("opt"), random_rows(8, 6), SETTINGS, seed=1, scratch=tmp_path)


def test_no_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows to train on"):
        fit(tiny_model("opt"), random_rows(0, 6), SETTINGS, seed=1, scratch=tmp_path)


def test_rows_of_one_token_each_are_an_error(tmp_path: Path) -> None:
    """A collapsed model may end every text at once; then there is nothing to predict."""
    data = rows_of(np.full((8, 6), 2), np.ones(8))
    with pytest.raises(InputError):
        fit(tiny_model("opt"), data, SETTINGS, seed=1, scratch=tmp_path)


@pytest.mark.parametrize("plain_head", [True, False])
def test_the_rows_whose_loss_is_not_finite_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plain_head: bool
) -> None:
    """A token whose embedding is broken, in row 5 only, which the first step of this seed holds or the second does."""
    monkeypatch.setattr(train, "has_plain_head", lambda _: plain_head)
    data, model = random_rows(8, 6), tiny_model("llama", tied=False)
    data.arrays["tokens"][data.arrays["tokens"] == 50] = 51
    data.arrays["tokens"][5, 0] = 50
    model.get_input_embeddings().weight.data[50] = math.nan
    order = train._generator(1, "order", 0).permutation(8)
    step = 1 if 5 in order[:4] else 2
    message = rf"loss is nan at step {step} of 4; .*\(row 5 of the training rows, counted from 0, is the first of 1 "
    with pytest.raises(TrainError, match=message):
        fit(model, data, SETTINGS, seed=1, scratch=tmp_path)
    finite = [weight.isfinite().all() for name, weight in model.named_parameters() if "embed" not in name]
    assert all(finite), "the step must not be made"


def test_when_every_row_is_bad_the_first_of_the_step_is_named(tmp_path: Path) -> None:
    """By its number in the corpus, not in the step."""
    model, first = tiny_model("llama"), int(min(train._generator(0, "order", 0).permutation(8)[:4]))
    assert first > 0
    for weight in model.parameters():
        weight.data.fill_(math.nan)
    message = rf"each of its 4 rows is like that, of which row {first} of the training rows, counted from 0, is the"
    with pytest.raises(TrainError, match=message):
        fit(model, random_rows(8, 6), SETTINGS, seed=0, scratch=tmp_path)


def test_when_no_row_alone_is_bad_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gradients = train._Work.gradients
    monkeypatch.setattr(train._Work, "gradients", lambda *given: (math.inf, gradients(*given)[1]))
    with pytest.raises(TrainError, match=r"the loss is inf at step 1 of 4; .*the loss of no row alone"):
        fit(tiny_model("opt"), random_rows(8, 6), SETTINGS, seed=1, scratch=tmp_path)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_step_checkpointed")
def test_when_memory_runs_out_the_step_is_made_again_in_smaller_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs out in the second of two parts, when there are gradients already, and wherever more than two rows are."""
    memory.warn_once.cache_clear()
    data, settings = random_rows(12, 8), SETTINGS | {"batch_size": 12}
    whole, parts, again = tiny_model("opt"), tiny_model("opt"), tiny_model("opt")
    wanted = fit(whole, data, settings, seed=3, scratch=folder(tmp_path / "whole"))
    calls: list[int] = []
    summed_loss = train.summed_loss

    def scarce(model: Any, ids: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        calls.append(len(ids))
        if len(ids) > 2 and len(calls) != 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return summed_loss(model, ids, *rest, **named)

    monkeypatch.setattr(train, "summed_loss", scarce)
    monkeypatch.setattr(train, "TOKENS_AT_ONCE", 8 * 8)
    found = fit(parts, data, settings, seed=3, scratch=folder(tmp_path / "parts"))
    assert calls == [8, 4, 4, *[2] * 12]
    assert found["epoch_losses"] == pytest.approx(wanted["epoch_losses"], rel=1e-6)
    for name, weight in weights(parts).items():
        if not name.endswith("k_proj.bias"):  # rounding noise that Adam makes large, as above
            torch.testing.assert_close(weight, weights(whole)[name], rtol=0, atol=1e-5, msg=name)
    assert len(caplog.messages) == 2
    assert "memory ran out while training" in caplog.messages[0]
    with pytest.raises(Killed):
        fit(again, data, settings, seed=3, scratch=folder(tmp_path / "again"), tell=interrupted_at(1))
    calls[:] = [0]
    fit(again, data, settings, seed=3, scratch=tmp_path / "again")
    assert calls[1:] == [2] * 6, "the parts stay as small after an interruption, for the same sums"
    assert identical(weights(again), weights(parts))


def test_a_row_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def scarce(*_: Any, **__: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(train, "summed_loss", scarce)
    with pytest.raises(torch.OutOfMemoryError):
        fit(tiny_model("opt"), random_rows(8, 6), SETTINGS, seed=1, scratch=tmp_path)


# --- long runs --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_fifty_steps_follow_a_plain_loop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    """In float32 to 1e-5, in bfloat16 to half a percent, with rows of unequal lengths, which are packed."""
    data = random_rows(20, 12, ragged=True)
    settings = SETTINGS | {"epochs": 10, "lr": 1e-3, "clip": 1.0}
    plain, mine, half = (tiny_model(kind) for _ in range(3))
    wanted = reference(plain, data, settings, seed=5)
    curve, _ = fit_curve(monkeypatch, mine, data, settings, 5, folder(tmp_path / "full"))
    assert len(curve) == 50
    assert curve == pytest.approx(wanted, rel=1e-5)
    rough, _ = fit_curve(monkeypatch, half, data, settings | {"dtype": "bfloat16"}, 5, folder(tmp_path / "half"))
    assert np.mean(rough[-5:]) == pytest.approx(np.mean(wanted[-5:]), rel=0.005)
    assert np.mean(wanted[-5:]) < 0.9 * np.mean(wanted[:5])


def test_rows_of_unequal_lengths_share_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shapes: list[tuple[int, ...]] = []
    summed_loss = train.summed_loss

    def spy(model: Any, ids: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        shapes.append((*ids.shape, named["positions"] is not None))
        return summed_loss(model, ids, *rest, **named)

    monkeypatch.setattr(train, "summed_loss", spy)
    data = rows_of(random_rows(4, 8).arrays["tokens"], np.array([8, 5, 3, 6]))
    fit(tiny_model("opt"), data, SETTINGS | {"epochs": 1}, seed=1, scratch=tmp_path)
    assert shapes == [(3, 8, True)]


# --- the best epoch ---------------------------------------------------------------------------------------------------


def test_select_valid_keeps_the_weights_of_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the epochs 3.0, 2.0, 2.0 and 2.5 nats the second is the best, and the first that is as good as any."""
    settings = SETTINGS | {"schedule": "constant", "warmup": 0.0}
    data, valid, losses = random_rows(8, 8), random_rows(3, 8, seed=1), [3.0, 2.0, 2.0, 2.5]

    def score(model: Any, scored: Dataset) -> tuple[np.ndarray, np.ndarray]:
        assert scored is valid
        model.eval()
        loss = losses.pop(0)
        return np.array([loss * 2, loss * 5, loss * 7]), np.array([2, 5, 7])

    two, four = tiny_model("opt", dropout=0.1), tiny_model("opt", dropout=0.1)
    fit(two, data, settings | {"epochs": 2}, seed=2, scratch=folder(tmp_path / "two"))
    monkeypatch.setattr(train, "score_blocks", score)
    chosen = settings | {"epochs": 4, "select": "valid"}
    facts = fit(four, data, chosen, seed=2, scratch=folder(tmp_path / "four"), valid=valid)
    assert losses == []
    assert identical(weights(four), weights(two))
    assert len(facts["epoch_losses"]) == 4


@pytest.mark.usefixtures("every_step_checkpointed")
@pytest.mark.parametrize("stop", [2, 3, 4], ids=lambda step: f"killed after step {step}")
def test_the_best_epoch_is_remembered_over_an_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Two epochs of two steps, of which the first is the better."""
    settings = SETTINGS | {"schedule": "constant", "warmup": 0.0}
    data, losses = random_rows(8, 8), {2: 2.0, 4: 3.0}
    one, two = tiny_model("opt"), tiny_model("opt")
    fit(one, data, settings | {"epochs": 1}, seed=2, scratch=folder(tmp_path / "one"))
    step = [0]

    def tell(done: int, total: int) -> None:
        step[0] = done
        interrupted_at(stop)(done, total)

    def score(model: Any, scored: Dataset) -> tuple[np.ndarray, np.ndarray]:
        return np.array([losses[step[0] + 1]]), np.array([1])

    monkeypatch.setattr(train, "score_blocks", score)
    scratch, chosen = folder(tmp_path / "two"), settings | {"select": "valid"}
    with pytest.raises(Killed):
        fit(tiny_model("opt"), data, chosen, seed=2, scratch=scratch, valid=data, tell=tell)
    stop = 0
    fit(two, data, chosen, seed=2, scratch=scratch, valid=data, tell=tell)
    assert identical(weights(one), weights(two))


def test_select_valid_scores_the_validation_rows_with_the_weights_of_each_epoch(tmp_path: Path) -> None:
    data, valid = random_rows(8, 8), random_rows(6, 8, seed=1, ragged=True)
    settings = SETTINGS | {"schedule": "constant", "warmup": 0.0, "lr": 0.1}
    found = []
    for changes in ({"epochs": 1}, {"epochs": 2}, {"epochs": 3}, {"epochs": 3, "select": "valid"}):
        model = tiny_model("opt")
        fit(model, data, settings | changes, seed=2, scratch=folder(tmp_path / str(len(found))), valid=valid)
        nll, predicted = score_blocks(model, valid)
        found.append(nll.sum() / predicted.sum())
    assert len(set(found[:3])) == 3
    assert found[3] == min(found[:3])


def test_select_valid_needs_validation_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the data have no validation text"):
        fit(tiny_model("opt"), random_rows(8, 6), SETTINGS | {"select": "valid"}, seed=1, scratch=tmp_path)

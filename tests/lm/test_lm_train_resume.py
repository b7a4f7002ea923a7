"""Training goes on after an interruption as if nothing had been, keeps the best epoch, and says when it went wrong."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import random_rows, rows_of, tiny_model
from support.training import SETTINGS, altered, folder, identical, weights

from collapse_cli.data.dataset import Dataset
from collapse_cli.errors import InputError
from collapse_cli.lm import memory, objective, train, training_state
from collapse_cli.lm import step as one_step
from collapse_cli.lm.score import score_blocks
from collapse_cli.lm.train import TrainError, fit

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
    settings = altered(SETTINGS, **changes)
    for number, stop in enumerate((*stops, 0)):
        torch.manual_seed(number)  # the global random numbers are others in each process
        model = tiny_model("opt", dropout=0.2)
        try:
            facts = fit(
                model, data, settings, seed=4, scratch=scratch, valid=valid, replay=valid, tell=interrupted_at(stop)
            )
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


@pytest.mark.usefixtures("every_step_checkpointed")
@pytest.mark.parametrize(
    "changes",
    [{"loss": "truncated", "truncate": 0.03}, {"loss": "smoothed"}, {"adversarial": 0.1}, {"replay": 0.25}],
    ids=str,
)
def test_whatever_it_makes_small_an_interrupted_training_ends_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The two losses of an epoch, and which rows are replayed, go on where they were."""
    whole, facts = trained(folder(tmp_path / "whole"), **changes)
    again, facts_again = trained(folder(tmp_path / "again"), (3, 7), **changes)
    assert identical(whole, again)
    assert facts == facts_again
    assert facts.keys() & {"train_objective", "replay_tokens"}


@pytest.mark.usefixtures("every_step_checkpointed")
def test_a_checkpoint_from_before_there_were_objectives_is_taken_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: dict[str, Any]
) -> None:
    save = train.Checkpoint.save

    def as_before(self: Any, state: dict[str, Any]) -> None:
        save(self, {name: value for name, value in state.items() if name != "objectives"})

    monkeypatch.setattr(train.Checkpoint, "save", as_before)
    again, facts = trained(tmp_path, (4,))
    assert identical(again, uninterrupted["last"][0])
    assert facts == uninterrupted["last"][1]


def test_steps_after_the_last_checkpoint_are_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after step 3, none later, killed after step 7."""
    data, told = random_rows(18, 7), []
    whole, part, last = (tiny_model("opt", dropout=0.2) for _ in range(3))
    fit(whole, data, SETTINGS, seed=4, scratch=folder(tmp_path / "whole"))
    scratch = folder(tmp_path / "scratch")

    def tell(done: int, total: int) -> None:
        if done == 7:
            raise Killed

    monkeypatch.setattr(train.Checkpoint, "is_due", lambda self: True)
    monkeypatch.setattr(train.Checkpoint, "save", only_at_step_3(train.Checkpoint.save))
    with pytest.raises(Killed):
        fit(part, data, SETTINGS, seed=4, scratch=scratch, tell=tell)
    (scratch / "checkpoint.tmp").write_bytes(b"half a checkpoint")
    fit(last, data, SETTINGS, seed=4, scratch=scratch, tell=lambda done, total: told.append(done))
    assert told == [4, 5, 6, 7, 8, 9, 10]
    assert identical(weights(whole), weights(last))


def only_at_step_3(save: Any) -> Any:
    def sometimes(self: Any, state: Any) -> None:
        if state["step"] == 3:
            save(self, state)

    return sometimes


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


# --- the best epoch ---------------------------------------------------------------------------------------------------


def test_select_valid_keeps_the_weights_of_the_best_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the epochs 3.0, 2.0, 2.0 and 2.5 nats the second is the best, and the first that is as good as any."""
    settings = altered(SETTINGS, schedule="constant", warmup=0.0)
    data, valid, losses = random_rows(8, 8), random_rows(3, 8, seed=1), [3.0, 2.0, 2.0, 2.5]

    def score(model: Any, scored: Dataset) -> tuple[np.ndarray, np.ndarray]:
        assert scored is valid
        model.eval()
        loss = losses.pop(0)
        return np.array([loss * 2, loss * 5, loss * 7]), np.array([2, 5, 7])

    two, four = tiny_model("opt", dropout=0.1), tiny_model("opt", dropout=0.1)
    fit(two, data, altered(settings, epochs=2), seed=2, scratch=folder(tmp_path / "two"))
    monkeypatch.setattr(training_state, "score_blocks", score)
    chosen = altered(settings, epochs=4, select="valid")
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
    settings = altered(SETTINGS, schedule="constant", warmup=0.0)
    data, losses = random_rows(8, 8), {2: 2.0, 4: 3.0}
    one, two = tiny_model("opt"), tiny_model("opt")
    fit(one, data, altered(settings, epochs=1), seed=2, scratch=folder(tmp_path / "one"))
    step = [0]

    def tell(done: int, total: int) -> None:
        step[0] = done
        interrupted_at(stop)(done, total)

    def score(model: Any, scored: Dataset) -> tuple[np.ndarray, np.ndarray]:
        return np.array([losses[step[0] + 1]]), np.array([1])

    monkeypatch.setattr(training_state, "score_blocks", score)
    scratch, chosen = folder(tmp_path / "two"), altered(settings, select="valid")
    with pytest.raises(Killed):
        fit(tiny_model("opt"), data, chosen, seed=2, scratch=scratch, valid=data, tell=tell)
    stop = 0
    fit(two, data, chosen, seed=2, scratch=scratch, valid=data, tell=tell)
    assert identical(weights(one), weights(two))


def test_select_valid_scores_the_validation_rows_with_the_weights_of_each_epoch(tmp_path: Path) -> None:
    data, valid = random_rows(8, 8), random_rows(6, 8, seed=1, ragged=True)
    settings = altered(SETTINGS, schedule="constant", warmup=0.0, lr=0.1)
    found = []
    for changes in ({"epochs": 1}, {"epochs": 2}, {"epochs": 3}, {"epochs": 3, "select": "valid"}):
        model = tiny_model("opt")
        fit(model, data, altered(settings, **changes), seed=2, scratch=folder(tmp_path / str(len(found))), valid=valid)
        nll, predicted = score_blocks(model, valid)
        found.append(nll.sum() / predicted.sum())
    assert len(set(found[:3])) == 3
    assert found[3] == min(found[:3])


def test_select_valid_needs_validation_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the data have no validation text"):
        fit(tiny_model("opt"), random_rows(8, 6), altered(SETTINGS, select="valid"), seed=1, scratch=tmp_path)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    settings = altered(SETTINGS, lr=1e38, clip=0.0, warmup=0.0, epochs=5)
    with pytest.raises(TrainError, match=r"the loss is (nan|inf) at step \d+ of 10; lower train\.lr"):
        fit(tiny_model("opt"), random_rows(8, 6), settings, seed=1, scratch=tmp_path)


def test_weights_that_are_not_finite_after_the_last_step_are_an_error(tmp_path: Path) -> None:
    """One step only: its loss is finite, the weights after it are not."""
    settings = altered(SETTINGS, lr=1e39, epochs=1, batch_size=8, warmup=0.0, schedule="constant")
    with pytest.raises(TrainError, match=r"train\.lr"):
        fit(tiny_model("opt"), random_rows(8, 6), settings, seed=1, scratch=tmp_path)


def test_weights_that_did_not_change_are_an_error(tmp_path: Path) -> None:
    settings = altered(SETTINGS, lr=1e-45, min_lr=0.0)
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
    monkeypatch.setattr(one_step, "has_plain_head", lambda _: plain_head)
    data, model = random_rows(8, 6), tiny_model("llama", tied=False)
    data.arrays["tokens"][data.arrays["tokens"] == 50] = 51
    data.arrays["tokens"][5, 0] = 50
    model.get_input_embeddings().weight.data[50] = math.nan
    order = train.random_numbers(1, "order", 0).permutation(8)
    step = 1 if 5 in order[:4] else 2
    message = rf"loss is nan at step {step} of 4; .*\(row 5 of the training rows, counted from 0, is the first of 1 "
    with pytest.raises(TrainError, match=message):
        fit(model, data, SETTINGS, seed=1, scratch=tmp_path)
    finite = [weight.isfinite().all() for name, weight in model.named_parameters() if "embed" not in name]
    assert all(finite), "the step must not be made"


def test_when_every_row_is_bad_the_first_of_the_step_is_named(tmp_path: Path) -> None:
    """By its number in the corpus, not in the step."""
    model, first = tiny_model("llama"), int(min(train.random_numbers(0, "order", 0).permutation(8)[:4]))
    assert first > 0
    for weight in model.parameters():
        weight.data.fill_(math.nan)
    message = rf"each of its 4 rows is not finite; row {first} of the training rows, counted from 0, is the"
    with pytest.raises(TrainError, match=message):
        fit(model, random_rows(8, 6), SETTINGS, seed=0, scratch=tmp_path)


def test_when_no_row_alone_is_bad_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gradients = train.Work.gradients
    monkeypatch.setattr(train.Work, "gradients", lambda *given: ([torch.full((2,), math.inf)], gradients(*given)[1]))
    with pytest.raises(TrainError, match=r"the loss is inf at step 1 of 4; .*no single row has such a loss"):
        fit(tiny_model("opt"), random_rows(8, 6), SETTINGS, seed=1, scratch=tmp_path)


# --- memory -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("every_step_checkpointed")
def test_when_memory_runs_out_the_step_is_made_again_in_smaller_parts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It runs out in the second of two parts, when there are gradients already, and wherever more than two rows are."""
    memory.warn_once.cache_clear()
    data, settings = random_rows(12, 8), altered(SETTINGS, batch_size=12)
    whole, parts, again = tiny_model("opt"), tiny_model("opt"), tiny_model("opt")
    wanted = fit(whole, data, settings, seed=3, scratch=folder(tmp_path / "whole"))
    calls: list[int] = []
    summed_losses = objective.summed_losses

    def scarce(model: Any, ids: torch.Tensor, *rest: Any, **named: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(len(ids))
        if len(ids) > 2 and len(calls) != 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return summed_losses(model, ids, *rest, **named)

    monkeypatch.setattr(objective, "summed_losses", scarce)
    monkeypatch.setattr(one_step, "TOKENS_AT_ONCE", 8 * 8)
    found = fit(parts, data, settings, seed=3, scratch=folder(tmp_path / "parts"))
    assert calls == [8, 4, 4, *[2] * 12]
    assert found["epoch_losses"] == pytest.approx(wanted["epoch_losses"], rel=1e-6)
    for name, weight in weights(parts).items():
        if not name.endswith("k_proj.bias"):  # no influence: its gradient is rounding noise, which Adam makes large
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

    monkeypatch.setattr(objective, "summed_losses", scarce)
    with pytest.raises(torch.OutOfMemoryError):
        fit(tiny_model("opt"), random_rows(8, 6), SETTINGS, seed=1, scratch=tmp_path)


@pytest.mark.usefixtures("every_step_checkpointed")
@pytest.mark.parametrize("name", ["checkpoint.safetensors", "best.safetensors"])
@pytest.mark.parametrize("how", ["flipped", "gone"])
def test_a_damaged_checkpoint_is_not_taken_up(
    tmp_path: Path, uninterrupted: dict[str, Any], name: str, how: str
) -> None:
    """Killed in the second epoch; then a file of its scratch is damaged. It ends as if it had not been killed."""
    whole, facts = uninterrupted["valid"]
    data, valid = random_rows(18, 7, ragged=True), random_rows(6, 7, seed=9)
    with pytest.raises(Killed):
        fit(
            tiny_model("opt", dropout=0.2),
            data,
            altered(SETTINGS, select="valid"),
            seed=4,
            scratch=tmp_path,
            valid=valid,
            tell=interrupted_at(7),
        )
    file = next(tmp_path.rglob(name))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.unlink()
    if how == "flipped":
        file.write_bytes(content)
    again, facts_again = trained(tmp_path, select="valid")
    assert identical(whole, again)
    assert facts == facts_again

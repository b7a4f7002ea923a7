"""Recorded steps without a GPU: which steps are recorded, what is done with them, and what a recording finds again."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import random_rows, tiny_model
from support.training import SETTINGS, altered, folder, identical, weights

from collapse_cli.lm import recorded, train
from collapse_cli.lm import step as one_step
from collapse_cli.lm.memory import warn_once
from collapse_cli.lm.recorded import can_record, record
from collapse_cli.lm.sample import evenly
from collapse_cli.lm.slots import Slots
from collapse_cli.lm.train import fit


class Played:
    """What stands for a recording: it does the work anew."""

    def __init__(self, work: Any) -> None:
        self.work, self.rows = work, list[int]()

    def play(self, batch: Any) -> torch.Tensor:
        self.rows.append(len(batch.ids))
        width = batch.ids.shape[1]
        where = torch.arange(batch.ids.numel()).view(-1, width)[:, :-1].flatten()
        return self.work(batch, where)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_full_steps_are_played_and_the_others_made_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str
) -> None:
    """Two epochs of four steps of 16 rows and one of 5. In bfloat16 those that are played round less often (lm/half_layers.py)."""
    data, settings = random_rows(4 * 16 + 5, 12), altered(SETTINGS, batch_size=16, dtype=dtype)
    wanted, found, played = tiny_model("opt", dropout=0.2), tiny_model("opt", dropout=0.2), []
    facts = fit(wanted, data, settings, seed=1, scratch=folder(tmp_path / "wanted"))
    plain = tiny_model("opt", dropout=0.2)
    fit(plain, data, altered(settings, dtype="float32"), seed=1, scratch=folder(tmp_path / "plain"))
    monkeypatch.setattr(train, "can_record", lambda model: True)
    monkeypatch.setattr(recorded, "WORTH", 8)
    monkeypatch.setattr(one_step, "record", lambda weights, work, *_: played.append(Played(work)) or played[-1])
    again = fit(found, data, settings, seed=1, scratch=folder(tmp_path / "found"))
    assert [one.rows for one in played] == [[16] * 8]
    exact = dtype == "float32"
    assert again["epoch_losses"] == pytest.approx(facts["epoch_losses"], rel=1e-6 if exact else 1e-4)
    assert identical(weights(wanted), weights(found)) == exact

    def far(model: Any) -> torch.Tensor:
        return sum((weights(wanted)[name] - weight).abs().sum() for name, weight in weights(model).items())

    assert far(found) <= far(plain), "no further from it than that is from float32"
    monkeypatch.setattr(recorded, "WORTH", 9)
    fit(tiny_model("opt"), data, settings, seed=1, scratch=folder(tmp_path / "few"))
    assert len(played) == 1, "too few steps for a recording to pay"


def test_rows_of_unequal_lengths_are_not_played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "can_record", lambda model: True)
    monkeypatch.setattr(recorded, "WORTH", 1)
    monkeypatch.setattr(one_step, "record", lambda *_: pytest.fail("was to be recorded"))
    fit(tiny_model("opt"), random_rows(8, 12, ragged=True), SETTINGS, seed=1, scratch=tmp_path)


def test_only_work_that_is_the_same_each_time_is_recorded() -> None:
    model = tiny_model("opt")
    assert not can_record(model), "it is on a CPU"

    class OnGpu:
        device, config = torch.device("cuda"), model.config

    gpu: Any = OnGpu
    assert can_record(gpu)
    model.config.layerdrop = 0.1
    assert not can_record(gpu)


def test_what_cannot_be_recorded_is_said_once_and_memory_is_left_to_the_caller(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warn_once.cache_clear()
    given: Any = None

    def raising(error: RuntimeError) -> Any:
        def made(*_: Any) -> Any:
            raise error

        return made

    monkeypatch.setattr(recorded, "Recorded", raising(RuntimeError("called a synchronizing CUDA operation\nat")))
    with caplog.at_level(logging.WARNING):
        assert [record(given, given, given, "odd") for _ in range(2)] == [None, None]
    said = [each.message for each in caplog.records]
    assert len(said) == 1
    assert said[0].startswith("odd models are trained kernel by kernel")
    assert said[0].endswith("cannot be recorded (called a synchronizing CUDA operation)")
    monkeypatch.setattr(recorded, "Recorded", raising(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        record(given, given, given, "odd")


def test_a_second_batch_has_its_tensors_where_the_recorded_steps_of_the_first_read_them() -> None:
    slots = Slots(3, 2, 5, 4, torch.device("cpu"))
    places = []
    for _ in range(2):
        slots.begin(torch.tensor([5, 4, 2]), 5)
        places.append([slots.each_row.data_ptr(), slots.each_beam.data_ptr()])
        held = [torch.zeros(64) for _ in range(8)]  # takes the place of what was let go
    assert len(held) == 8
    assert places[0] == places[1]


@pytest.mark.parametrize(
    ("step", "rows", "wanted"),
    [(1638, 37354, 1625), (1638, 100, 100), (1638, 3, 16), (40, 100, 34), (8, 20, 8), (1, 5, 1), (8, 0, 8)],
)
def test_batches_on_a_gpu_are_of_one_size_and_nearly_full(step: int, rows: int, wanted: int) -> None:
    size = evenly(step, rows)
    assert size == wanted
    assert size <= step
    assert -(-rows // size) == -(-rows // step)

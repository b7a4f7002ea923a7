"""When memory runs out: how much is free, and batches that are halved until they fit."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from support.sampling import continued, family
from support.tiny import END, random_rows, tiny_model

from collapse_cli.lm import fallback, sample
from collapse_cli.lm.decode import Decoder
from collapse_cli.lm.memory import free_bytes, halving, is_out_of_memory, warn_once
from collapse_cli.lm.slots import most_slots

CPU = torch.device("cpu")
ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: you tried to"),
    MemoryError(),
]


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    warn_once.cache_clear()


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.name.startswith("collapse_cli")]


# --- how much is free -------------------------------------------------------------------------------------------------


def test_free_memory_of_this_machine_is_a_plausible_number() -> None:
    assert 0 < free_bytes(CPU) <= psutil.virtual_memory().total


def test_the_errors_that_say_that_memory_ran_out() -> None:
    assert all(map(is_out_of_memory, ERRORS))
    assert not any(map(is_out_of_memory, [RuntimeError("shapes differ"), ValueError("can't allocate memory")]))


# --- halving ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_work_is_halved_until_it_fits(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    tried: list[int] = []

    def work(rows: int) -> str:
        tried.append(rows)
        if rows > 3:
            raise error
        return "done"

    assert halving(work, 25, "testing") == ("done", 3)
    assert tried == [25, 12, 6, 3]
    assert said(caplog)[-1] == "memory ran out while testing; going on with 3 rows at once"


def test_a_single_row_that_does_not_fit_and_other_errors_are_raised() -> None:
    for error in [*ERRORS, RuntimeError("shapes differ"), KeyError("x")]:
        tried: list[int] = []

        def work(rows: int, error: BaseException = error, tried: list[int] = tried) -> None:
            tried.append(rows)
            raise error

        with pytest.raises(type(error)):
            halving(work, 4, "testing")
        assert tried == ([4, 2, 1] if is_out_of_memory(error) else [4])


def test_a_warning_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    for message in ("one", "two", "one", "one"):
        warn_once(message)
    assert said(caplog) == ["one", "two"]


# --- sampling ---------------------------------------------------------------------------------------------------------


def fails_above(monkeypatch: pytest.MonkeyPatch, rows: int, error: BaseException) -> list[int]:
    """Reading prompts and `generate` run out of memory for more than `rows`; how many were tried."""
    tried: list[int] = []
    read, generate = Decoder.read, fallback.generate

    def small_read(self: Decoder, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        if ids.shape[1] != 5 or len(ids) != 2:  # not the trial's
            tried.append(len(ids))
        if len(ids) > rows:
            raise error
        return read(self, ids, lengths)

    def small_generate(model: Any, ids: torch.Tensor, *rest: Any) -> Any:
        tried.append(len(ids))
        if len(ids) > rows:
            raise error
        return generate(model, ids, *rest)

    monkeypatch.setattr(Decoder, "read", small_read)
    monkeypatch.setattr(fallback, "generate", small_generate)
    return tried


def with_head_bias() -> Any:
    model = tiny_model("opt", tied=False)
    model.get_output_embeddings().bias = torch.nn.Parameter(torch.linspace(-1, 1, 97))
    return model


@pytest.mark.parametrize("error", ERRORS[:2], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("engine", [True, False])
@pytest.mark.parametrize("how", [{"beams": 4}, {"beams": 1, "temperature": 1.0}], ids=str)
def test_batches_that_do_not_fit_are_halved_once_and_give_the_same_rows(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    how: dict[str, Any],
    engine: bool,
    error: BaseException,
) -> None:
    model, prompts = family("opt") if engine else with_head_bias(), random_rows(150, 7, ragged=True)
    wanted = continued(model, prompts, **how)
    caplog.clear()
    monkeypatch.setitem(sample.MOST_SEQUENCES, "cpu", 100 * how["beams"])
    tried = fails_above(monkeypatch, 30, error)
    steps: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        found = continued(model, prompts, tell=lambda done, total: steps.append((done, total)), **how)
    assert np.array_equal(found.arrays["tokens"], wanted.arrays["tokens"])
    assert tried == [100, 50, 25, 25, 25, 25, 25, 25], "what did not fit once is not tried again"
    assert [line for line in said(caplog) if "with 25 rows at once" in line] == [
        "memory ran out while sampling; going on with 25 rows at once"
    ]
    assert steps[-1] == (150 * 6, 150 * 6)


@pytest.mark.parametrize("engine", [True, False])
def test_a_single_row_that_does_not_fit_is_an_error(
    monkeypatch: pytest.MonkeyPatch, engine: bool, tmp_path: Path
) -> None:
    model = family("opt") if engine else with_head_bias()
    fails_above(monkeypatch, 2, torch.OutOfMemoryError("out of memory"))  # the trial reads two
    with pytest.raises(torch.OutOfMemoryError):
        continued(model, random_rows(40, 7), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_little_free_memory_makes_small_batches_and_the_same_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts, sizes = family("grouped"), random_rows(60, 7, ragged=True), list[int]()
    wanted = continued(model, prompts)
    run = sample.Batches.run

    def spy(self: sample.Batches, some: Any, *rest: Any) -> Any:
        sizes.append(len(some))
        return run(self, some, *rest)

    monkeypatch.setattr(sample.Batches, "run", spy)
    a_slot = 2 * 2 * 8 * 4  # bytes: layers, keys and values, two heads of four, float32
    monkeypatch.setattr(sample, "free_bytes", lambda device: 2 * 17 * most_slots(7, 6, 5) * a_slot)
    found = continued(model, prompts, end=END)
    assert sizes == [17, 17, 17, 9]
    assert np.array_equal(found.arrays["tokens"], wanted.arrays["tokens"])
    monkeypatch.setattr(sample, "free_bytes", lambda device: 0)
    sizes.clear()
    continued(model, prompts.take(np.arange(3)))
    assert sizes == [1, 1, 1], "a row at least is tried"

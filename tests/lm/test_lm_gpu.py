"""The engine on a GPU: the numbers of a CPU but for rounding, the same bits each time, memory that runs out."""

import copy
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.sampling import FAMILIES, continued, family, wide_model
from support.tiny import KINDS, random_rows, rows_of, tiny_model
from support.training import SETTINGS, altered, folder, identical, weights

from collapse_cli.lm import recorded, sample, score, train
from collapse_cli.lm import step as one_step
from collapse_cli.lm.memory import free_bytes, total_bytes, warn_once
from collapse_cli.lm.score import Details, score_blocks, score_continuations, score_sliding
from collapse_cli.lm.train import fit

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device, or none asked for by -m gpu"),
]
GPU = torch.device("cuda")


@pytest.fixture
def little_memory() -> Iterator[Any]:
    """A function that lets torch take so many bytes more than it holds, until the test ends."""

    def leave(count: int) -> None:
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + count) / total_bytes(GPU))

    warn_once.cache_clear()
    yield leave
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def without_dropout(model: Any) -> Any:
    """The same model, whose results then do not depend on which rows are in a batch."""
    for module in model.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    return model


# --- training ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_training_gives_the_weights_of_a_cpu(tmp_path: Path, kind: str, ragged: bool) -> None:
    data = random_rows(14, 9, ragged=ragged)
    cpu, gpu = tiny_model(kind), tiny_model(kind).to(GPU)
    before = weights(cpu)
    wanted = fit(cpu, data, SETTINGS, seed=5, scratch=folder(tmp_path / "cpu"))
    found = fit(gpu, data, SETTINGS, seed=5, scratch=folder(tmp_path / "gpu"))
    assert found["epoch_losses"] == pytest.approx(wanted["epoch_losses"], rel=1e-5)
    assert (found["steps"], found["train_tokens"]) == (wanted["steps"], wanted["train_tokens"])
    moved = weights(cpu)
    assert max((moved[name] - before[name]).abs().max().item() for name in moved) > 1e-3
    for name, weight in weights(gpu).items():
        # the bias of the keys has no influence, so its gradient is rounding noise, which Adam makes large
        if not name.endswith(("k_proj.bias", "c_attn.bias")):
            torch.testing.assert_close(weight.cpu(), moved[name], rtol=0, atol=3e-5, msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_trains_float32_weights_and_comes_near(tmp_path: Path, kind: str) -> None:
    data = random_rows(20, 12, ragged=True)
    settings = altered(SETTINGS, epochs=10, lr=1e-3)
    full, half = tiny_model(kind), tiny_model(kind).to(GPU)
    wanted = fit(full, data, settings, seed=5, scratch=folder(tmp_path / "full"))
    found = fit(half, data, altered(settings, dtype="bfloat16"), seed=5, scratch=folder(tmp_path / "half"))
    assert {weight.dtype for weight in half.parameters()} == {torch.float32}
    assert found["epoch_losses"] == pytest.approx(wanted["epoch_losses"], rel=0.01)
    assert found["train_loss"] < 0.9 * found["epoch_losses"][0]


@pytest.mark.usefixtures("every_step_checkpointed")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_interrupted_training_ends_bit_for_bit_as_an_uninterrupted_one(tmp_path: Path, dtype: str) -> None:
    """With dropout, and with labels that come several times in a step."""

    class KilledError(Exception):
        pass

    def killed(done: int, total: int) -> None:
        if done == 7:
            raise KilledError

    data, settings = random_rows(64, 16, ragged=True), altered(SETTINGS, batch_size=16, dtype=dtype)
    whole, again, part, rest = (tiny_model("opt", dropout=0.2).to(GPU) for _ in range(4))
    facts = fit(whole, data, settings, seed=4, scratch=folder(tmp_path / "whole"))
    fit(again, data, settings, seed=4, scratch=folder(tmp_path / "again"))
    assert identical(weights(whole), weights(again))
    with pytest.raises(KilledError):
        fit(part, data, settings, seed=4, scratch=folder(tmp_path / "part"), tell=killed)
    assert fit(rest, data, settings, seed=4, scratch=tmp_path / "part") == facts
    assert identical(weights(whole), weights(rest))


def test_large_steps_come_out_alike_each_time(tmp_path: Path) -> None:
    """Thousands of tokens, few labels. Not in the same bits: on an H200 they were not."""
    data = random_rows(256, 64, vocabulary=40)
    settings = altered(SETTINGS, batch_size=128, epochs=1, dtype="bfloat16")
    facts = [fit(wide_model().to(GPU), data, settings, seed=1, scratch=folder(tmp_path / name)) for name in ("a", "b")]
    assert facts[1]["epoch_losses"] == pytest.approx(facts[0]["epoch_losses"], rel=1e-3)


@pytest.mark.usefixtures("every_step_checkpointed")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_recorded_steps_are_those_that_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, dtype: str
) -> None:
    """With dropout, which is other in each step; an epoch ends with a step of fewer rows; interrupted, the same bits."""

    class KilledError(Exception):
        pass

    def killed(done: int, total: int) -> None:
        if done == 6:
            raise KilledError

    warn_once.cache_clear()
    data, settings = random_rows(4 * 16 + 5, 12), altered(SETTINGS, batch_size=16, epochs=3, dtype=dtype)
    made = []
    for worth in (10**9, 1, 1):
        monkeypatch.setattr(recorded, "WORTH", worth)
        made.append(tiny_model(kind, dropout=0.2).to(GPU))
        fit(made[-1], data, settings, seed=4, scratch=folder(tmp_path / str(len(made))))
    plain, first, second = map(weights, made)
    if dtype == "float32":
        moved = max(
            (plain[name] - weight.to(GPU)).abs().max().item() for name, weight in weights(tiny_model(kind)).items()
        )
        for name, weight in plain.items():
            if not name.endswith(("k_proj.bias", "c_attn.bias")):
                torch.testing.assert_close(first[name], weight, rtol=0, atol=0.02 * moved, msg=name)
    else:  # sums of gradients are rounded less often (lm/half_layers.py)
        exact = tiny_model(kind, dropout=0.2).to(GPU)
        monkeypatch.setattr(recorded, "WORTH", 10**9)
        fit(exact, data, altered(settings, dtype="float32"), seed=4, scratch=folder(tmp_path / "exact"))
        monkeypatch.setattr(recorded, "WORTH", 1)

        def far(other: dict[str, torch.Tensor]) -> float:
            return sum((plain[name] - weight).abs().sum().item() for name, weight in other.items())

        assert far(first) <= far(weights(exact))
    assert identical(first, second)
    part, rest, scratch = tiny_model(kind, dropout=0.2).to(GPU), tiny_model(kind, dropout=0.2).to(GPU), tmp_path / "4"
    with pytest.raises(KilledError):
        fit(part, data, settings, seed=4, scratch=folder(scratch), tell=killed)
    fit(rest, data, settings, seed=4, scratch=scratch)
    assert identical(first, weights(rest))
    assert "cannot be recorded" not in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "truncated", "truncate": 0.03},
        {"loss": "focal"},
        {"loss": "smoothed"},
        {"adversarial": 0.05},
        {"replay": 0.25},
    ],
    ids=str,
)
def test_any_objective_is_recorded_and_is_that_of_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    """With weights of rows, which a recording reads where they were."""
    warn_once.cache_clear()
    monkeypatch.setattr(recorded, "WORTH", 1)
    tokens, originals = random_rows(18, 9).arrays["tokens"], random_rows(5, 9, seed=7)
    data = rows_of(tokens, weights=np.linspace(0.5, 2, 18))
    cpu, gpu = tiny_model("opt"), tiny_model("opt").to(GPU)
    settings = altered(SETTINGS, **changes)
    wanted = fit(cpu, data, settings, seed=5, scratch=folder(tmp_path / "cpu"), replay=originals)
    found = fit(gpu, data, settings, seed=5, scratch=folder(tmp_path / "gpu"), replay=originals)
    assert "cannot be recorded" not in caplog.text
    assert found["epoch_losses"] == pytest.approx(wanted["epoch_losses"], rel=1e-3)
    assert found["train_objective"] == pytest.approx(wanted["train_objective"], rel=1e-3)


def test_a_recorded_loss_that_is_not_finite_leaves_the_weights_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "WORTH", 1)
    model = tiny_model("opt").to(GPU)
    bad = "model.decoder.final_layer_norm.bias"
    model.get_parameter(bad).data.fill_(torch.nan)
    before = weights(model)
    with pytest.raises(train.TrainError, match="no weight was changed before"):
        fit(model, random_rows(16, 8), SETTINGS, seed=1, scratch=tmp_path)
    assert all(torch.equal(before[name], weight) for name, weight in weights(model).items() if name != bad)


def test_a_step_for_which_memory_runs_out_is_made_in_smaller_parts(
    tmp_path: Path, little_memory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = random_rows(512, 64, vocabulary=1000)
    settings = altered(SETTINGS, batch_size=512, epochs=1)
    wanted, found = (without_dropout(wide_model()).to(GPU) for _ in range(2))
    facts = fit(wanted, data, settings, seed=1, scratch=folder(tmp_path / "whole"))
    little_memory(256 << 20)
    again = fit(found, data, settings, seed=1, scratch=folder(tmp_path / "part"))
    assert "memory ran out while training" in caplog.text
    assert again["epoch_losses"] == pytest.approx(facts["epoch_losses"], rel=1e-5)


# --- scoring ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_a_cpu(kind: str) -> None:
    cpu, gpu = tiny_model(kind), tiny_model(kind).to(GPU)
    stream = random_rows(1, 300, seed=3).arrays["tokens"].reshape(-1)
    for ragged in (False, True):
        data = random_rows(40, 24, ragged=ragged)
        wanted, found = score_blocks(cpu, data), score_blocks(gpu, data)
        assert found[0] == pytest.approx(wanted[0], rel=1e-5)
        assert found[1].tolist() == wanted[1].tolist()
    wanted, found = (score_sliding(model, stream, 48, 16) for model in (cpu, gpu))
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    prompts, new = random_rows(20, 9, seed=1, ragged=True), random_rows(20, 12, seed=2, ragged=True)
    wanted, found = (score_continuations(model, prompts, new, new.arrays["lengths"]) for model in (cpu, gpu))
    assert found[0] == pytest.approx(wanted[0], rel=1e-5)
    assert found[1] == pytest.approx(wanted[1], abs=1e-4)
    rough, _ = score_blocks(gpu, data, dtype="bfloat16")
    assert rough.sum() == pytest.approx(score_blocks(cpu, data)[0].sum(), rel=0.01)


def test_what_is_found_at_every_token_is_what_a_cpu_finds() -> None:
    details = [Details(), Details()]
    for model, each in zip((tiny_model("opt"), tiny_model("opt").to(GPU)), details, strict=True):
        score_blocks(model, random_rows(40, 24, ragged=True), details=each)
    wanted, found = (each.columns() for each in details)
    assert wanted.keys() == found.keys()
    for name in wanted:
        assert found[name] == pytest.approx(wanted[name], rel=1e-4, abs=1e-5), name


def test_when_memory_runs_out_fewer_rows_are_scored_at_once(
    little_memory: Any, caplog: pytest.LogCaptureFixture
) -> None:
    model, data = wide_model().to(GPU), random_rows(1024, 64, vocabulary=1000)
    wanted, _ = score_blocks(model, data)
    little_memory(192 << 20)
    found, _ = score_blocks(model, data)
    assert "memory ran out while scoring" in caplog.text
    assert found == pytest.approx(wanted, rel=1e-5)


# --- sampling ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("name", FAMILIES)
def test_samples_in_bfloat16_are_as_likely_as_those_of_a_cpu(name: str, beams: int) -> None:
    """Slots that no beam descends from are dropped several times on the way."""
    model, prompts = copy.deepcopy(family(name)), random_rows(64, 7, seed=4)
    wanted = continued(model, prompts, new=40, beams=beams)
    found = continued(copy.deepcopy(model).to(GPU), prompts, new=40, beams=beams, dtype="bfloat16")
    none = np.zeros(len(prompts), np.int64)
    nll = [score_continuations(model, prompts, new, none)[0].mean() for new in (wanted, found)]
    assert nll[1] == pytest.approx(nll[0], rel=0.05)
    assert (found.arrays["tokens"][:, 0] == wanted.arrays["tokens"][:, 0]).mean() > 0.7


@pytest.mark.parametrize("how", [{"beams": 5, "repetition_penalty": 3.0}, {"beams": 1, "temperature": 1.0}], ids=str)
def test_the_tokens_of_a_row_do_not_depend_on_its_batch(how: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, prompts = family("opt").to(GPU), random_rows(50, 7, ragged=True)
    try:
        wanted = continued(model, prompts, new=20, **how)
        monkeypatch.setattr(sample, "MOST_SEQUENCES", {"cuda": 20 * how["beams"]})
        found = continued(model, prompts, new=20, **how)
        same = (found.arrays["tokens"] == wanted.arrays["tokens"]).all(axis=1)
        assert same.mean() > 0.9, "but for rounding"
    finally:
        model.to("cpu")


def test_batches_for_which_memory_does_not_suffice_are_halved(
    little_memory: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, prompts = wide_model().to(GPU), random_rows(1024, 16, vocabulary=1000)
    wanted = continued(model, prompts, new=12, beams=4)
    little_memory(128 << 20)
    monkeypatch.setattr(sample, "MEMORY_SHARE", 100.0)
    found = continued(model, prompts, new=12, beams=4)
    assert "memory ran out while sampling" in caplog.text
    assert (found.arrays["tokens"] == wanted.arrays["tokens"]).all(axis=1).mean() > 0.9, "but for rounding"


# --- memory -----------------------------------------------------------------------------------------------------------


def test_free_memory_is_what_can_still_be_taken() -> None:
    torch.cuda.empty_cache()
    before, size = free_bytes(GPU), 256 << 20
    held = torch.empty(size, dtype=torch.uint8, device=GPU)
    assert before - free_bytes(GPU) == pytest.approx(size, abs=64 << 20)
    del held  # torch keeps it for what comes next
    assert free_bytes(GPU) == pytest.approx(before, abs=64 << 20)
    assert 0 < before <= total_bytes(GPU)


def test_what_is_planned_fits(caplog: pytest.LogCaptureFixture) -> None:
    """The plans for a step of training and a batch of beams leave room for what they do not count."""
    logging.getLogger("collapse_cli").setLevel(logging.WARNING)
    warn_once.cache_clear()
    model = wide_model().to(GPU)
    assert 1 <= one_step.tokens_that_fit(model) <= one_step.MOST_AT_ONCE
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    continued(model, random_rows(4000, 16, vocabulary=1000), new=16, beams=5, dtype="bfloat16")
    assert torch.cuda.max_memory_allocated() - before < sample.MEMORY_SHARE * total_bytes(GPU)
    score_blocks(wide_model().to(GPU), random_rows(score.TOKENS_AT_ONCE, 64, vocabulary=1000))
    assert "memory ran out" not in caplog.text


# --- last, since a recording that fails may leave the device in a bad state -----------------------------------------------


def test_a_model_that_waits_for_the_gpu_is_trained_without_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    warn_once.cache_clear()
    data, found = random_rows(16, 8), []
    for waits in (False, True):
        model = tiny_model("opt", dropout=0.2).to(GPU)
        if waits:
            monkeypatch.setattr(recorded, "WORTH", 1)
            model.model.decoder.register_forward_hook(lambda *made: made[2].last_hidden_state.sum().item() and None)
        found.append(fit(model, data, SETTINGS, seed=1, scratch=folder(tmp_path / str(waits))))
    assert "cannot be recorded" in caplog.text
    assert found[1]["epoch_losses"] == pytest.approx(found[0]["epoch_losses"], rel=1e-4)

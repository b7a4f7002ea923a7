"""What is read off a model at each token, and at the end of a continuation, beside the plain way to it."""

from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import KINDS, losses, random_rows, rows_of, tiny_model
from torch.nn import functional

from collapse_cli.data.dataset import Dataset
from collapse_cli.engine.stage import Shard
from collapse_cli.lm import loss, score
from collapse_cli.lm.memory import warn_once
from collapse_cli.lm.score import Details, score_blocks, score_continuations, score_sliding


@pytest.fixture(scope="module", params=KINDS)
def model(request: pytest.FixtureRequest) -> Any:
    return tiny_model(request.param)


def odds(model: Any, tokens: np.ndarray) -> torch.Tensor:
    """(len - 1, vocabulary) log-probabilities of what follows each token, in float64."""
    with torch.no_grad():
        logits = model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0, :-1].double()
    return functional.log_softmax(logits, dim=1)


@pytest.mark.parametrize("ragged", [False, True])
def test_blocks_with_details_give_the_same_losses_and_the_truth_about_each_token(model: Any, ragged: bool) -> None:
    data, details = random_rows(9, 8, ragged=ragged), Details()
    wanted, _ = score_blocks(model, data)
    nll, predicted = score_blocks(model, data, details=details)
    assert nll == pytest.approx(wanted, rel=1e-5)
    found = details.columns()
    assert len(found["row"]) == predicted.sum()
    order = np.argsort(found["row"], kind="stable")
    each = [
        odds(model, row[:length]) for row, length in zip(data.arrays["tokens"], data.arrays["lengths"], strict=True)
    ]
    table = torch.cat(each)
    labels = np.concatenate(
        [row[1:length] for row, length in zip(data.arrays["tokens"], data.arrays["lengths"], strict=True)]
    )
    assert found["label"][order].tolist() == labels.tolist()
    assert found["row"][order].tolist() == np.repeat(np.arange(9), predicted).tolist()
    top, best = table.max(dim=1)
    assert found["nll"][order] == pytest.approx(-table[torch.arange(len(labels)), labels.astype(int)].numpy(), rel=1e-4)
    assert found["confidence"][order] == pytest.approx(top.exp().numpy(), rel=1e-4)
    assert found["hit"][order].astype(bool).tolist() == (best.numpy() == labels).tolist()
    entropy = torch.distributions.Categorical(logits=table).entropy()
    assert found["entropy"][order] == pytest.approx(entropy.numpy(), rel=1e-4, abs=1e-6)


def test_windows_with_details_score_every_token_once(model: Any) -> None:
    stream, details = random_rows(1, 40).arrays["tokens"][0], Details()
    wanted, predicted = score_sliding(model, stream, 12, 5)
    nll, _ = score_sliding(model, stream, 12, 5, details=details)
    found = details.columns()
    assert nll == pytest.approx(wanted, rel=1e-5)
    assert found["label"].tolist() == stream[1:].tolist()
    assert np.bincount(found["row"]).tolist() == predicted.tolist()
    assert np.bincount(found["row"], found["nll"]) == pytest.approx(nll)


def test_more_is_asked_with_the_odds_and_the_token_before(model: Any) -> None:
    data = random_rows(5, 8)

    def more(log_odds: torch.Tensor, before: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"mass": log_odds.exp().sum(dim=1), "before": before.float()}

    details = Details(more)
    score_blocks(model, data, details=details)
    found = details.columns()
    assert found["mass"] == pytest.approx(1, rel=1e-4)
    assert found["before"].reshape(5, 7).tolist() == data.arrays["tokens"][:, :-1].tolist()


def test_few_tokens_of_a_large_vocabulary_are_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of 50,272 words took 3.6 GB; what is found does not depend on how many they are."""
    sizes: list[int] = []

    def more(log_odds: torch.Tensor, before: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(log_odds.numel())
        return {"mass": log_odds.exp().sum(dim=1)}

    large = tiny_model("opt", vocabulary=50_272)
    data, found = random_rows(20, 60), []
    for held in (1, loss.DETAILED_BYTES["cpu"], 1 << 30):
        monkeypatch.setitem(loss.DETAILED_BYTES, "cpu", held)
        details = Details(more)
        score_blocks(large, data, details=details)
        found.append(details.columns())
    least, usual = 256 * 50_272, (64 << 20) // 4
    assert max(sizes[:5]) <= least
    assert least < max(sizes[5:9]) <= usual
    assert [*map(len, (sizes[:5], sizes[5:9], sizes[9:]))] == [5, 4, 1]
    for other in found[1:]:
        for name, values in found[0].items():
            assert other[name] == pytest.approx(values, rel=1e-5), name


def test_memory_that_runs_out_counts_no_token_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    data, details, model = random_rows(9, 8), Details(), tiny_model("opt")
    plain, tried = score.token_details, []

    def tight(model: Any, ids: torch.Tensor, *rest: Any, **named: Any) -> Any:
        tried.append(len(ids))
        if len(tried) > 1 and len(ids) > 2:
            raise torch.OutOfMemoryError
        return plain(model, ids, *rest, **named)

    monkeypatch.setattr(score, "TOKENS_AT_ONCE", 32)
    monkeypatch.setattr(score, "token_details", tight)
    warn_once.cache_clear()
    nll, _ = score_blocks(model, data, details=details)
    assert nll == pytest.approx(score_blocks(model, data)[0], rel=1e-5)
    assert np.bincount(details.columns()["row"]).tolist() == [7] * 9


# --- continuations ----------------------------------------------------------------------------------------------------


def pairs(count: int, *, ragged: bool) -> tuple[Dataset, Dataset]:
    """Prompts of 3 to 6 tokens, continuations of 1 to 7."""
    random = np.random.default_rng(3)
    prompts, new = random_rows(count, 6, seed=1), random_rows(count, 7, seed=2)
    if not ragged:
        return prompts, new
    first, second = random.integers(3, 7, count), random.integers(1, 8, count)
    return rows_of(prompts.arrays["tokens"], first), rows_of(new.arrays["tokens"], second)


def naive(model: Any, prompts: Dataset, new: Dataset, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    nll, states = [], []
    for row in range(len(new)):
        first = prompts.arrays["tokens"][row, : prompts.arrays["lengths"][row]]
        tokens = np.concatenate([first, new.arrays["tokens"][row, : new.arrays["lengths"][row]]])
        nll.append(losses(model, tokens)[len(first) - 1 :].sum())
        if ends[row]:
            with torch.no_grad():
                hidden = model.base_model(torch.from_numpy(tokens.astype(np.int64))[None]).last_hidden_state[0]
            states.append(hidden[len(first) + ends[row] - 1].numpy())
    return np.array(nll), np.array(states)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("at_once", [4096, 40])
def test_continuations_are_scored_given_their_prompts_and_nothing_else_is(
    model: Any, monkeypatch: pytest.MonkeyPatch, ragged: bool, at_once: int
) -> None:
    prompts, new = pairs(11, ragged=ragged)
    ends = new.arrays["lengths"].astype(np.int64) * (np.arange(11) % 3 > 0)
    monkeypatch.setattr(score, "TOKENS_AT_ONCE", at_once)
    monkeypatch.setattr(score, "CHUNK", 2)
    told: list[tuple[int, int]] = []
    nll, states = score_continuations(model, prompts, new, ends, lambda done, total: told.append((done, total)))
    wanted, hidden = naive(model, prompts, new, ends)
    assert nll == pytest.approx(wanted, rel=1e-5)
    assert states == pytest.approx(hidden, rel=1e-3, abs=1e-4)
    assert told[-1] == (11, 11)


def test_a_model_without_a_plain_head_is_scored_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (prompts, new) = tiny_model("gpt2"), pairs(6, ragged=True)
    ends = new.arrays["lengths"].astype(np.int64)
    wanted = score_continuations(model, prompts, new, ends)
    details, plain = Details(), Details()
    score_blocks(model, prompts, details=details)
    monkeypatch.setattr(score, "has_plain_head", lambda model: False)
    nll, states = score_continuations(model, prompts, new, ends)
    assert nll == pytest.approx(wanted[0], rel=1e-5)
    assert states == pytest.approx(wanted[1], rel=1e-3, abs=1e-5)
    score_blocks(model, prompts, details=plain)
    for name, values in details.columns().items():
        assert plain.columns()[name] == pytest.approx(values, rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("number", [2, 3, 7, 20])
@pytest.mark.parametrize("ragged", [False, True])
def test_parts_of_the_rows_are_scored_as_all_of_them_are(
    model: Any, monkeypatch: pytest.MonkeyPatch, ragged: bool, number: int
) -> None:
    """To the last bit, for what is laid out together is the same: blocks, windows and continuations, and what is known of their tokens."""
    monkeypatch.setattr(score, "TOKENS_AT_ONCE", 40)
    monkeypatch.setattr(score, "CHUNK", 2)
    shards = [Shard(one, number) for one in range(1, number + 1)]
    rows, (prompts, new) = random_rows(33, 8, ragged=ragged), pairs(33, ragged=ragged)
    ends = new.arrays["lengths"].astype(np.int64) * (np.arange(33) % 3 > 0)
    stream = random_rows(1, 95).arrays["tokens"][0]

    def found(part: score.Part = score.everything) -> list[np.ndarray]:
        blocks, windows = Details(), Details()
        sums = [
            *score_blocks(model, rows, details=blocks, part=part),
            *score_sliding(model, stream, 12, 5, details=windows, part=part),
            *score_continuations(model, prompts, new, ends, part=part),
        ]
        return [*sums, *blocks.columns().values(), *windows.columns().values()]

    parts = [found(shard.rows) for shard in shards]
    for at, wanted in enumerate(found()):
        joined = np.concatenate([part[at] for part in parts if len(part[at])])
        assert np.array_equal(joined, wanted), at


def test_a_part_tells_how_far_it_is_of_its_own_rows(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "TOKENS_AT_ONCE", 40)
    told: list[tuple[int, int]] = []
    nll, _ = score_blocks(model, random_rows(33, 8), lambda *done: told.append(done), part=Shard(2, 3).rows)
    assert told[-1] == (len(nll), len(nll))
    assert 0 < len(nll) < 33
    score_sliding(
        model, random_rows(1, 95).arrays["tokens"][0], 12, 5, lambda *done: told.append(done), part=Shard(2, 3).rows
    )
    assert told[-1][0] == told[-1][1] < 95
